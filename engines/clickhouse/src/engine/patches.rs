//! Patch parts: what lightweight updates (`UPDATE … SET`, from 25.7 on) changed and no merge has applied yet.
//!
//! Neither `FREEZE` nor the server's own `BACKUP` takes them: what was updated comes back as it was before (seen on 26.9). They are
//! linked into the snapshot beside the parts, before and after those are frozen, so that none is missed; one that is applied already does nothing.

use std::collections::BTreeSet;

use backup_core::{Finding, Result, Severity};
use serde::Deserialize;

use super::shadow::Shadow;
use crate::client::Client;
use crate::server::{Server, TableKey};

#[derive(Debug, Deserialize)]
struct Row {
    database: String,
    table: String,
    path: String,
}

/// The patch parts that a server has at a moment.
#[derive(Debug, Default)]
pub(super) struct Patches(Vec<Row>);

impl Patches {
    /// Asks for them.
    pub(super) async fn ask(client: &Client, server: &Server) -> Result<Self> {
        if !server.version.since(25, 7) {
            return Ok(Self::default());
        }
        let sql = "SELECT database, table, path FROM system.parts WHERE active AND startsWith(name, 'patch-')";
        Ok(Self(client.listing("its patch parts", sql).await?))
    }

    /// The tables that have some.
    pub(super) fn tables(&self) -> BTreeSet<TableKey> {
        self.0.iter().map(|row| TableKey::new(row.database.clone(), row.table.clone())).collect()
    }

    /// Links them into the snapshot of their tables. `round` says which snapshot a table is in, if it is in one.
    pub(super) async fn link(&self, shadow: &Shadow, round: impl Fn(&TableKey) -> Option<u32>) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for row in &self.0 {
            let table = TableKey::new(row.database.clone(), row.table.clone());
            let Some(round) = round(&table) else { continue };
            if let Err(error) = shadow.add(&row.path, round).await {
                let text = format!("what lightweight updates changed and was not applied yet is missing: {error}");
                findings.push(Finding::new(Severity::Warning, "patch-part", text).about(table.to_string()));
            }
        }
        Ok(findings)
    }
}
