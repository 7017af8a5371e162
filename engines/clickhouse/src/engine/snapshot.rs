//! One snapshot of all tables: each is whole, and it is measured how far they are apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backup_core::engine::Work;
use backup_core::{Finding, LossyItem, Result, Severity};
use futures::{StreamExt, stream};
use jiff::Timestamp;

use super::frozen::FrozenPart;
use super::merged::Earlier;
use super::mutations::{self, Pending};
use super::patches::Patches;
use super::quiet;
use super::shadow::Shadow;
use super::share::Share;
use crate::client::Client;
use crate::export;
use crate::files::blocking;
use crate::objects::Objects;
use crate::part::PartName;
use crate::server::{ObjectKind, Place, Server, TableDef, TableKey};

/// So many times it is tried to catch a table between two changes of its definition.
const ROUNDS: u32 = 3;
/// Folders of parts begin their names with these while the server works on them.
pub(super) const PASSING: [&str; 4] = ["tmp", "delete_", "covered-by-broken", "detached"];

/// Tables, and where their parts are.
#[derive(Debug)]
pub(super) struct Frozen {
    /// Everything that was there, with the definitions under which it was frozen.
    pub(super) tables: BTreeMap<TableKey, TableDef>,
    pub(super) parts: Vec<FrozenPart>,
    /// Mutations that had not come to their end: the files in which the server keeps them.
    pub(super) mutations: Vec<Pending>,
    /// Tables that have what the parent has of them.
    pub(super) kept: BTreeSet<TableKey>,
    /// Tables with mutations or updates that are not in all of their rows.
    pub(super) unsettled: BTreeSet<TableKey>,
    /// What is missing on purpose.
    pub(super) lossy: Vec<LossyItem>,
    /// From the first table's snapshot to the last one's.
    pub(super) skew: Duration,
    /// When the first round of snapshots was over, by our clock.
    pub(super) at: Timestamp,
    pub(super) findings: Vec<Finding>,
}

/// What is frozen, and with whom together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Freezing<'a> {
    pub(super) work: &'a Work,
    pub(super) client: &'a Client,
    pub(super) server: &'a Server,
    pub(super) objects: &'a Objects,
    pub(super) share: &'a Share,
}

/// How a table was caught, and when, on the monotonic clock: before and after.
#[derive(Debug, Clone, Copy)]
struct Caught {
    /// In which round it was frozen; none where it has what the parent has of it.
    round: Option<u32>,
    begun: Duration,
    ended: Duration,
}

/// Freezes every table that has parts.
///
/// Definitions are asked for before and afterwards: what has changed in between is frozen again, so that parts and definition fit. Tables
/// of `earlier` in which nothing has changed are not frozen, and not those whose parts are taken from another member.
pub(super) async fn take(
    cx: Freezing<'_>,
    shadow: &Shadow,
    parallel: usize,
    earlier: &BTreeMap<TableKey, Earlier>,
) -> Result<Frozen> {
    let Freezing { work, client, server, objects, share } = cx;
    let clock = work.env().clock();
    let mut tables = server.tables(client).await?;
    tables.retain(|table, _| !table.database.starts_with(export::PREFIX));
    let here = |table: &&TableDef| table.kind() == ObjectKind::Parts && share.holder(&table.key).is_none();
    let parts: Vec<_> = tables.values().filter(here).collect();
    shadow.look(&parts).await?;
    let mut findings = flush(client, &tables).await?;
    let running = mutations::ask(client, server).await?;
    let patches = Patches::ask(client, server).await?;
    let mut unsettled = patches.tables();
    let busy = running.iter().filter(|(_, mutations)| mutations.values().any(|done| !done));
    unsettled.extend(busy.map(|(table, _)| table.clone()));
    share.ready().await;
    let begun = clock.monotonic();
    let kept = quiet::tables(client, server, &tables, earlier, &unsettled).await?;
    let caught = Caught { round: None, begun, ended: clock.monotonic() };
    let mut done: BTreeMap<TableKey, Caught> = kept.into_iter().map(|table| (table, caught)).collect();
    let (mut early, mut at) = (true, work.env().now());
    for round in 0..ROUNDS {
        let waiting: Vec<_> =
            tables.values().filter(|table| here(table) && !done.contains_key(&table.key)).cloned().collect();
        if waiting.is_empty() && round > 0 {
            break;
        }
        let failed = AtomicBool::new(false);
        let mut freezing = stream::iter(waiting)
            .take_while(|_| std::future::ready(!failed.load(Ordering::Relaxed)))
            .map(|table| async move {
                work.checkpoint()?;
                let begun = clock.monotonic();
                let there = shadow.freeze(client, &table, round).await?;
                Ok::<_, backup_core::Error>((table.key, there.then(|| (begun, clock.monotonic()))))
            })
            .buffer_unordered(parallel.max(1));
        let mut first = None;
        while let Some(outcome) = freezing.next().await {
            match outcome {
                Ok((key, Some(at))) => {
                    done.insert(key, Caught { round: Some(round), begun: at.0, ended: at.1 });
                }
                Ok((key, None)) => {
                    findings.push(dropped(&key));
                    tables.remove(&key);
                }
                // The others that the server is at are waited for: what it makes behind the removal of the snapshot would stay.
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    first.get_or_insert(error);
                }
            }
        }
        drop(freezing);
        if let Some(error) = first {
            return Err(error);
        }
        if round == 0 {
            at = work.env().now();
        }
        let frozen = done.iter().filter(|(_, caught)| caught.round == Some(0)).filter_map(|(key, _)| tables.get(key));
        let frozen: Vec<_> = frozen.collect();
        if round == 0 && !frozen.is_empty() {
            shadow.prove(client, &frozen).await?;
        }
        if std::mem::take(&mut early) {
            // At once: those of before may soon be gone.
            findings.extend(patches.link(shadow, |table| done.get(table)?.round).await?);
        }
        let now = server.tables(client).await?;
        for (key, caught) in done.clone() {
            let Some(later) = now.get(&key) else { continue };
            let changed = tables.get(&key).is_some_and(|table| !table.is_same(later));
            let fresh = caught.round.unwrap_or(0) == round;
            if changed && round + 1 < ROUNDS && fresh {
                tables.insert(key.clone(), later.clone());
                done.remove(&key);
            } else if changed && fresh {
                let text = "its definition changes all the time: parts may not fit it";
                findings.push(Finding::new(Severity::Warning, "table-changing", text).about(key.to_string()));
            }
        }
    }
    let first = done.values().map(|caught| caught.begun).min().unwrap_or_default();
    let last = done.values().map(|caught| caught.ended).max().unwrap_or_default();
    let patches = Patches::ask(client, server).await?;
    unsettled.extend(patches.tables());
    findings.extend(patches.link(shadow, |table| done.get(table)?.round).await?);
    let (mut parts, mut lossy) = (Vec::new(), Vec::new());
    for (key, caught) in &done {
        let (Some(table), Some(round)) = (tables.get(key), caught.round) else { continue };
        for (disk, dir) in shadow.folders(table, round) {
            if disk.place == Place::Objects && objects.of(&server.disks, disk).is_none() {
                let there = dir.clone();
                if blocking(move || Ok(there.is_dir())).await? {
                    let why =
                        format!("they are objects of the disk {}, and nothing says how these are reached", disk.name);
                    lossy.push(LossyItem::new(format!("parts of {key}"), why));
                }
                continue;
            }
            let (key, disk) = (key.clone(), disk.name.clone());
            let (found, strange) = blocking(move || list(&key, &disk, &dir)).await?;
            parts.extend(found);
            findings.extend(strange);
        }
    }
    let mutations = mutations::pending(cx, &tables, &parts, &running).await?;
    unsettled.extend(mutations.iter().map(|pending| pending.table.clone()));
    let kept = done.into_iter().filter(|(_, caught)| caught.round.is_none()).map(|(key, _)| key);
    let kept = kept.filter(|key| tables.contains_key(key)).collect();
    let skew = last.saturating_sub(first);
    Ok(Frozen { tables, parts, mutations, kept, unsettled, lossy, skew, at, findings })
}

/// Has buffers written into their tables: rows in memory are in no snapshot.
pub(super) async fn flush(client: &Client, tables: &BTreeMap<TableKey, TableDef>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for table in tables.values().filter(|table| table.engine == "Buffer") {
        let sql = format!("OPTIMIZE TABLE {}", table.key.quoted());
        match client.execute(&format!("writing out {}", table.key), &sql).await {
            Ok(()) => {}
            Err(error @ crate::Error::Server { .. }) => {
                let text = format!("rows that it still has in memory are missing: {error}");
                findings.push(Finding::new(Severity::Warning, "buffer-kept", text).about(table.key.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(findings)
}

fn dropped(key: &TableKey) -> Finding {
    let text = "was dropped while the backup began: it is not part of it";
    Finding::new(Severity::Note, "table-dropped", text).about(key.to_string())
}

/// The parts in a folder. None when the table has nothing on that disk.
pub(super) fn list(table: &TableKey, disk: &str, dir: &std::path::Path) -> Result<(Vec<FrozenPart>, Vec<Finding>)> {
    let failed = |error| backup_core::Error::io(dir.display(), error);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Default::default()),
        Err(error) => return Err(failed(error)),
    };
    let (mut parts, mut findings) = (Vec::new(), Vec::new());
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.file_type().map_err(failed)?.is_dir() || PASSING.iter().any(|word| name.starts_with(word)) {
            continue;
        }
        match PartName::guess(&name) {
            Ok(name) => parts.push(FrozenPart { table: table.clone(), disk: disk.to_owned(), name, dir: entry.path() }),
            Err(error) => {
                let text = format!("is no part and is left out: {error}");
                findings.push(Finding::new(Severity::Warning, "unknown-part", text).about(format!("{table} {name:?}")));
            }
        }
    }
    // As they have to be attached.
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((parts, findings))
}
