//! Whether two databases hold the same rows.
//!
//! The digest of a table is the number of its rows and the sum of a 64-bit hash of each row's text, so neither the
//! order of rows nor their place in the file matters, and two rows that changed don't cancel out as they would by XOR.
//! Everything is computed by the server itself, with functions that 13 to 18 have.
//!
//! Covered: ordinary and partitioned tables, materialised views, large objects. Left out: unlogged and temporary tables
//! (a restore empties them by design) and sequences (WAL logs them 32 numbers ahead, so after recovery they may have
//! moved on).

use std::collections::BTreeMap;
use std::fmt;

use tokio_postgres::{Client, Config};

use crate::error::Result;

/// Digest of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Number of rows.
    pub rows: i64,
    /// Sum of the rows' hashes, a decimal number.
    pub sum: String,
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, sum {}", self.rows, self.sum)
    }
}

/// Digests by `schema.table`, quoted as SQL needs it.
pub type DatabaseDigest = BTreeMap<String, Digest>;

/// Digests by database name.
pub type ClusterDigest = BTreeMap<String, DatabaseDigest>;

/// Values must read the same whatever the server's configuration says.
const FIXED_SETTINGS: &str = "set local timezone = 'UTC'; set local datestyle = 'ISO, YMD'; set local intervalstyle = 'postgres';
    set local extra_float_digits = 1; set local bytea_output = 'hex'; set local xmloption = 'content'; set local lc_monetary = 'C'";

const TABLES: &str =
    "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'm') and c.relpersistence = 'p' and n.nspname <> 'information_schema'
      and (n.nspname !~ '^pg_' or (n.nspname = 'pg_catalog' and c.relname = 'pg_largeobject'))
      and (c.relkind = 'r' or c.relispopulated) order by 1";

/// Digests every table of the database that `client` is connected to, in one snapshot.
///
/// # Errors
/// [`Error::Sql`](crate::Error::Sql), for example on a page that the server refuses to read.
///
/// # Cancel safety
/// Dropping the future may leave the connection inside a read-only transaction: don't use the client any more.
pub async fn digest(client: &Client) -> Result<DatabaseDigest> {
    client.batch_execute("begin isolation level repeatable read read only").await?;
    let result = digest_in_snapshot(client).await;
    // Also after an error, so that the connection stays of use.
    client.batch_execute("rollback").await?;
    result
}

async fn digest_in_snapshot(client: &Client) -> Result<DatabaseDigest> {
    client.batch_execute(FIXED_SETTINGS).await?;
    let mut digests = BTreeMap::new();
    for row in client.query(TABLES, &[]).await? {
        let table: String = row.try_get(0)?;
        let sql = format!(
            "select count(*), coalesce(sum(hashtextextended(t::text collate \"C\", 0)), 0)::text from only {table} as t"
        );
        let row = client.query_one(&sql, &[]).await?;
        digests.insert(table, Digest { rows: row.try_get(0)?, sum: row.try_get(1)? });
    }
    Ok(digests)
}

/// Digests every database that takes connections. `config` is of a superuser; its database name does not matter.
///
/// Each database is one snapshot; the cluster as a whole is one only while nobody writes.
///
/// # Errors
/// [`Error::Sql`](crate::Error::Sql).
pub async fn digest_cluster(config: &Config) -> Result<ClusterDigest> {
    let mut config = config.clone();
    let client = crate::postgres::connect(config.dbname("template1")).await?;
    let databases = client.query("select datname::text from pg_database where datallowconn order by 1", &[]).await?;
    // Connections to template1 would keep others from creating databases.
    drop(client);
    let mut digests = BTreeMap::new();
    for row in databases {
        let database: String = row.try_get(0)?;
        let client = crate::postgres::connect(config.dbname(&database)).await?;
        digests.insert(database, digest(&client).await?);
    }
    Ok(digests)
}
