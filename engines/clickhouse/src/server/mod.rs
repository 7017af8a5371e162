//! What a server says of itself: its version, its disks, its databases and tables.

mod access;
mod disks;
mod schema;
mod version;

pub(crate) use access::AccessPlace;
pub use disks::{Disk, Place};
pub(crate) use disks::{find, homes};
pub use schema::{DatabaseDef, ObjectKind, TableDef, TableKey};
pub use version::ServerVersion;

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::client::Client;
use crate::error::Result;
use crate::settings::ClickHouseSettings;

/// What is asked once.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its version.
    pub version: ServerVersion,
    /// Identity that two deployments never share.
    pub source: String,
    /// Its disks, the default one first. Empty when they cannot be told (before 19.15, where the first table tells).
    pub disks: Vec<Disk>,
    columns: BTreeSet<(String, String)>,
}

impl Server {
    /// Asks `client`.
    ///
    /// # Errors
    /// Those of the server and of the connection.
    pub async fn ask(client: &Client, settings: &ClickHouseSettings) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            version: String,
        }
        #[derive(Deserialize)]
        struct Column {
            table: String,
            name: String,
        }
        let version: Version = client.row("its version", "SELECT version() AS version").await?;
        let version: ServerVersion = version.version.parse()?;
        let sql = "SELECT table, name FROM system.columns WHERE database = 'system'";
        let columns: Vec<Column> = client.rows("the columns of its system tables", sql).await?;
        let columns = columns.into_iter().map(|column| (column.table, column.name)).collect();
        let mut server = Self { version, source: String::new(), disks: Vec::new(), columns };
        server.source = match &settings.identity {
            Some(identity) => identity.clone(),
            None => server.identity(client).await?,
        };
        server.disks = disks::ask(client, &server, settings).await?;
        Ok(server)
    }

    /// Whether a system table has a column.
    #[must_use]
    pub(crate) fn has(&self, table: &str, column: &str) -> bool {
        self.columns.contains(&(table.to_owned(), column.to_owned()))
    }

    /// Whether there is a system table.
    #[must_use]
    pub(crate) fn has_table(&self, table: &str) -> bool {
        self.columns.range((table.to_owned(), String::new())..).next().is_some_and(|(name, _)| name == table)
    }

    /// The server's own, which it keeps in the file `uuid` of its data directory; its address where it has none.
    async fn identity(&self, client: &Client) -> Result<String> {
        #[derive(Deserialize)]
        struct Uuid {
            uuid: String,
        }
        let answer = client.row::<Uuid>("its identity", "SELECT toString(serverUUID()) AS uuid").await;
        Ok(match answer {
            Ok(Uuid { uuid }) if uuid.chars().any(|c| !matches!(c, '0' | '-')) => uuid,
            Ok(_) | Err(crate::Error::Server { .. }) => client.address(),
            Err(error) => return Err(error),
        })
    }
}
