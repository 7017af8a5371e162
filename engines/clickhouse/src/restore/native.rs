//! Brings staged parts into tables by the server's own `RESTORE`.
//!
//! Source: `RESTORE` in the manual; `MergeTreeData::restorePartsFromBackup`: parts are attached in the order of their blocks. Each table is restored alone,
//! from a folder that is laid out as the server's own backup of it.

use std::collections::BTreeMap;
use std::path::Path;

use backup_core::engine::Work;
use backup_core::{Error, Result};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::plan::Plan;
use super::receiver;
use super::settings::RestoreSettings;
use super::stage::Staged;
use crate::client::Client;
use crate::ddl::escape_for_file_name;
use crate::files::{Owner, blocking, remove};
use crate::server::{Server, TableDef, TableKey};
use crate::staging::{Area, Manifest, Operation, spoken_of};

/// Bringing parts in, and what is needed for it.
pub(super) struct Bring<'a> {
    pub(super) client: &'a Client,
    pub(super) server: &'a Server,
    pub(super) settings: &'a RestoreSettings,
    pub(super) area: &'a Area,
    /// The tables of the target, as they are now.
    pub(super) now: &'a BTreeMap<TableKey, TableDef>,
}

impl Bring<'_> {
    /// Brings in what is staged, `parallel` tables at a time.
    pub(super) async fn all(&self, plan: &Plan, staged: Vec<Staged>, parallel: usize, work: &Work) -> Result<()> {
        // Futures that nobody polls cost nothing.
        let mut tables = Vec::new();
        for (number, staged) in staged.into_iter().enumerate().filter(|(_, staged)| !staged.parts.is_empty()) {
            tables.push(self.table(plan, number, staged, work));
        }
        stream::iter(tables).buffer_unordered(parallel.max(1)).try_collect::<Vec<()>>().await.map(drop)
    }

    async fn table(&self, plan: &Plan, number: usize, staged: Staged, work: &Work) -> Result<()> {
        work.checkpoint()?;
        let Some(target) = receiver(plan, &staged.table, self.settings, self.now) else {
            return Err(Error::conflict(format!("the table for the parts of {} is gone", staged.table)));
        };
        let name = self.area.name(number);
        let (dir, target, env) = (self.area.dir(&name), spoken_of(self.now, target).clone(), work.env());
        let (at, uuid) = (env.now(), uuid(env.random()));
        let (own, table) = (dir.clone(), target.clone());
        blocking(move || lay_out(&own, &table, &staged, &uuid, at)).await?;
        let key = target.key.quoted();
        let statement = format!("RESTORE TABLE {key} FROM {}", self.area.destination(&name));
        let operation = Operation { client: self.client, server: self.server, work, id: &name };
        let settings = "allow_non_empty_tables = 1, allow_different_table_def = 1";
        operation.run(&format!("a restore of {} by the server", target.key), &statement, settings).await?;
        blocking(move || remove(&dir)).await
    }
}

/// Makes of staged parts what the server would have written as a backup of `table`. Blocking.
fn lay_out(dir: &Path, table: &TableDef, staged: &Staged, uuid: &str, at: Timestamp) -> Result<()> {
    let failed = |error| Error::io(dir.display(), error);
    let database = escape_for_file_name(&table.key.database);
    let name = escape_for_file_name(&table.key.name);
    let (definitions, parts) = (dir.join("metadata").join(&database), dir.join("data").join(database).join(&name));
    std::fs::create_dir_all(&definitions).map_err(failed)?;
    std::fs::create_dir_all(&parts).map_err(failed)?;
    std::fs::write(definitions.join(format!("{name}.sql")), &table.create).map_err(failed)?;
    for part in &staged.parts {
        std::fs::rename(&part.path, parts.join(&part.name)).map_err(failed)?;
    }
    Manifest::write(dir, uuid, at)?;
    let above = dir.parent().ok_or_else(|| Error::internal("a folder of the staging folder has none above it"))?;
    Owner::of(above)?.own(dir)
}

/// A random UUID as text (RFC 9562, version 4).
fn uuid(random: [u8; 16]) -> String {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0x3 << 62;
    let number = u128::from_be_bytes(random) & !(VERSION | VARIANT) | (0x4 << 76) | (0x2 << 62);
    let digits = format!("{number:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| digits.get(range).unwrap_or_default());
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_says_that_it_is_random() {
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
