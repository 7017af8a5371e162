//! The parts of all tables, as the server's own `BACKUP` writes them where its files cannot be reached.
//!
//! Source: `BACKUP` in the manual; `MergeTreeData::backupParts`, `backupMutations`. The parts are those that a snapshot would have, under
//! `data/<database>/<table>`. Patch parts are not among them, and mutations only by their text (seen on 26.9): both are told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use backup_core::{Error, Finding, LossyItem, Result, Severity};

use super::mutations;
use super::patches::Patches;
use super::snapshot::{self, Freezing, Frozen};
use crate::ddl::escape_for_file_name;
use crate::export;
use crate::files::{blocking, remove};
use crate::server::{Disk, ObjectKind, TableDef, TableKey};
use crate::staging::{Area, Manifest, Operation, spoken_of};

/// So many times it is tried anew because a table was dropped meanwhile.
const ROUNDS: usize = 3;
/// The folder of a table in which the server notes mutations.
const MUTATIONS: &str = "mutations";

/// Has the server write every table that has parts.
pub(super) async fn take(cx: Freezing<'_>, area: &Area) -> Result<Frozen> {
    let Freezing { work, client, server, share, .. } = cx;
    let clock = work.env().clock();
    let mut round = 0;
    let (tables, mut findings, name, skew, mut unsettled, mut patched) = loop {
        let mut tables = server.tables(client).await?;
        tables.retain(|table, _| !table.database.starts_with(export::PREFIX));
        let wanted: Vec<_> = tables.values().filter(|table| is_wanted(table, &cx)).collect();
        let findings = snapshot::flush(client, &tables).await?;
        let running = mutations::ask(client, server).await?;
        let mut unsettled = Patches::ask(client, server).await?.tables();
        let patched = unsettled.clone();
        let busy = running.iter().filter(|(_, mutations)| mutations.values().any(|done| !done));
        unsettled.extend(busy.map(|(table, _)| table.clone()));
        share.ready().await;
        let (name, begun) = (area.name(round), clock.monotonic());
        if wanted.is_empty() {
            break (tables, findings, name, clock.monotonic().saturating_sub(begun), unsettled, patched);
        }
        let names: Vec<_> =
            wanted.iter().map(|table| format!("TABLE {}", spoken_of(&tables, table).key.quoted())).collect();
        let statement = format!("BACKUP {} TO {}", names.join(", "), area.destination(&name));
        let operation = Operation { client, server, work, id: &name };
        match operation.run("a backup by the server", &statement, "deduplicate_files = 0").await {
            Ok(()) => break (tables, findings, name, clock.monotonic().saturating_sub(begun), unsettled, patched),
            // A table was dropped between the question and the statement.
            Err(error) if is_gone(&error) && round + 1 < ROUNDS => {
                let dir = area.dir(&name);
                blocking(move || remove(&dir)).await?;
                round += 1;
            }
            Err(error) => return Err(error),
        }
    };
    let at = work.env().now();
    let dir = area.dir(&name);
    let (mut parts, mut lossy) = (Vec::new(), Vec::new());
    patched.extend(Patches::ask(client, server).await?.tables());
    if tables.values().any(|table| is_wanted(table, &cx)) {
        let own = dir.clone();
        let files = blocking(move || Manifest::prove(&own)).await?;
        tracing::debug!(files, "the server has written its backup");
    }
    for table in tables.values().filter(|table| is_wanted(table, &cx)) {
        let (key, home) = (table.key.clone(), home(&dir, &spoken_of(&tables, table).key));
        let (found, strange, mutations) = blocking(move || {
            let mutations = take_out_mutations(&home)?;
            let (found, strange) = snapshot::list(&key, Disk::DEFAULT, &home)?;
            Ok((found, strange, mutations))
        })
        .await?;
        parts.extend(found);
        findings.extend(strange);
        for mutation in mutations {
            let item = format!("mutation {mutation} of {}", table.key);
            let why = "it had not reached all parts, and is only noted in the server's data directory";
            lossy.push(LossyItem::new(item, why));
            unsettled.insert(table.key.clone());
        }
        if patched.contains(&table.key) {
            let item = format!("lightweight updates of {} that were not merged", table.key);
            lossy.push(LossyItem::new(item, "the server's own backup leaves out patch parts"));
        }
    }
    findings.extend(changed(&tables, &server.tables(client).await?));
    Ok(Frozen { tables, parts, mutations: Vec::new(), kept: BTreeSet::new(), unsettled, lossy, skew, at, findings })
}

fn is_wanted(table: &TableDef, cx: &Freezing<'_>) -> bool {
    table.kind() == ObjectKind::Parts && cx.share.holder(&table.key).is_none()
}

/// Whether the server has not found a table.
fn is_gone(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<crate::Error>());
    cause.is_some_and(crate::Error::is_gone)
}

/// Where the server writes the parts of a table.
fn home(dir: &Path, table: &TableKey) -> std::path::PathBuf {
    dir.join("data").join(escape_for_file_name(&table.database)).join(escape_for_file_name(&table.name))
}

/// Removes the notes about mutations, which are no part; the numbers of the mutations. Blocking.
fn take_out_mutations(home: &Path) -> Result<Vec<String>> {
    let dir = home.join(MUTATIONS);
    let failed = |error| Error::io(dir.display(), error);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        let number = name.trim_end_matches(".txt").trim_start_matches('0');
        numbers.push(number.to_owned());
    }
    remove(&dir)?;
    Ok(numbers)
}

/// Tables whose definition was changed while the server wrote.
fn changed(before: &BTreeMap<TableKey, TableDef>, after: &BTreeMap<TableKey, TableDef>) -> Vec<Finding> {
    let other = before.values().filter(|table| after.get(&table.key).is_some_and(|later| !table.is_same(later)));
    let text = "its definition was changed during the backup: parts may not fit it";
    other.map(|table| Finding::new(Severity::Warning, "table-changing", text).about(table.key.to_string())).collect()
}
