//! The way back: into a running server.
//!
//! ```text
//! parts: extract beside the data ─▶ verify ─▶ databases, functions, tables ─▶ parts: move to `detached` ─▶ ATTACH ─▶ rows, users
//! ```
//! Nothing is made, dropped or attached before every part is here and is what its own list says. Parts are attached in the order of their blocks, because a server numbers them anew in the
//! order of attaching, and engines that replace or collapse rows go by these numbers.

mod access;
mod attach;
mod create;
mod fetch;
mod native;
mod plan;
mod rows;
mod settings;
mod stage;
mod upload;

pub use settings::{OnExisting, RestoreSettings};

use std::collections::{BTreeMap, BTreeSet};

use backup_core::engine::{Extracted, RestoreContext, Restored};
use backup_core::observe::{Phase, Unit};
use backup_core::{Finding, Result, Severity};

use crate::client::Client;
use crate::ddl::Statement;
use crate::objects::Objects;
use crate::server::{Disk, ObjectKind, Place, Server, TableDef, TableKey};
use crate::settings::ClickHouseSettings;
use crate::staging::Area;
pub(crate) use fetch::wrong;
use plan::Plan;

/// Says what stands in the way. Changes nothing.
pub(crate) async fn assess(
    cx: &RestoreContext,
    client: &Client,
    server: &Server,
    engine: &ClickHouseSettings,
    settings: &RestoreSettings,
) -> Result<Vec<Finding>> {
    let plan = Plan::make(cx.source().as_ref(), cx.selector(), settings).await?;
    let existing = server.tables(client).await?;
    let objects = Objects::open(&engine.object_disks)?;
    let mut findings = obstacles(cx, server, engine, settings, &plan, &existing);
    findings.extend(out_of_reach(client, server, engine, settings, &plan, &objects).await?);
    Ok(findings)
}

/// Tables that would be on object disks only of which nothing says how they are reached.
async fn out_of_reach(
    client: &Client,
    server: &Server,
    engine: &ClickHouseSettings,
    settings: &RestoreSettings,
    plan: &Plan,
    objects: &Objects,
) -> Result<Vec<Finding>> {
    let reached = |disk: &Disk| disk.place == Place::Local || objects.of(&server.disks, disk).is_some();
    if engine.staging.is_some() || server.disks.iter().all(reached) {
        return Ok(Vec::new());
    }
    let policies = server.policies(client).await?;
    let mut findings = Vec::new();
    for table in &plan.tables {
        if plan.contents.get(&table.key).is_none_or(|content| content.parts.is_empty()) {
            continue;
        }
        // What cannot be read is refused when it is made.
        let Ok(statement) = Statement::parse(table.create.clone()) else { continue };
        let policy = statement.setting("storage_policy").unwrap_or_else(|| Disk::DEFAULT.to_owned());
        let Some(names) = policies.get(&policy) else { continue };
        let mut disks = server.disks.iter().filter(|disk| names.contains(&disk.name));
        if !disks.any(reached) {
            let target = settings.target(&table.key);
            let text = unreachable(&target, names.iter().map(String::as_str));
            findings
                .push(Finding::new(Severity::Blocker, "object-disk", text).about(target.to_string()).in_surroundings());
        }
    }
    Ok(findings)
}

/// What is to be said of a table whose disks are these.
fn unreachable<'a>(table: &TableKey, disks: impl Iterator<Item = &'a str>) -> String {
    let disks = disks.collect::<Vec<_>>().join(", ");
    format!(
        "{table} is on disks in object stores ({disks}), and nothing says how their objects are reached: that is for object_disk to say, or the          server brings parts in by itself from a staging folder"
    )
}

fn obstacles(
    cx: &RestoreContext,
    server: &Server,
    engine: &ClickHouseSettings,
    settings: &RestoreSettings,
    plan: &Plan,
    existing: &BTreeMap<TableKey, TableDef>,
) -> Vec<Finding> {
    let mut findings = plan.findings.clone();
    let blocker = |code: &str, text: &str, about: String| Finding::new(Severity::Blocker, code, text).about(about);
    let mut targets = BTreeMap::new();
    for table in &plan.tables {
        let target = settings.target(&table.key);
        if let Some(other) = targets.insert(target.clone(), &table.key) {
            let text = format!("two tables are to have this name: {other} and {}", table.key);
            findings.push(blocker("table-twice", &text, target.to_string()));
        }
        // The table behind a view comes and goes with it.
        if existing.contains_key(&target) && settings.rule(&target) == OnExisting::Refuse && !table.is_inner() {
            let text = "exists already: it can be replaced, added to, or called by another name";
            findings.push(blocker("table-exists", text, target.to_string()));
        }
    }
    for (table, content) in &plan.contents {
        for part in content.parts.iter().filter(|part| part.damaged && !settings.skip_damaged) {
            let text = "was damaged when it was backed up: a restore is only possible without it";
            findings.push(blocker("part-damaged", text, format!("{table} {}", part.name)));
        }
    }
    let place = match engine.place(server) {
        Ok(None) => None,
        Ok(Some(text)) => Some(blocker("data-directory", &text, String::new())),
        Err(error) => Some(blocker("data-directory", &error.to_string(), String::new())),
    };
    findings.extend(place.map(Finding::in_surroundings));
    let from = cx.source().record().snapshot.version.parse::<crate::server::ServerVersion>();
    if from.is_ok_and(|from| from.release() > server.version.release()) {
        let text = format!("the backup is of a newer server than {}, which may not know all of it", server.version);
        findings.push(Finding::new(Severity::Warning, "older-server", text));
    }
    findings
}

/// The tables that a restore makes or adds to, as they are called in the target.
///
/// # Errors
/// Those of the source; [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when nothing of the backup is meant.
pub(crate) async fn targets(cx: &RestoreContext, settings: &RestoreSettings) -> Result<BTreeSet<TableKey>> {
    let plan = Plan::make(cx.source().as_ref(), cx.selector(), settings).await?;
    Ok(plan.tables.iter().map(|table| settings.target(&table.key)).collect())
}

/// Restores.
pub(crate) async fn restore(
    cx: &RestoreContext,
    client: &Client,
    server: &Server,
    engine: &ClickHouseSettings,
    settings: &RestoreSettings,
) -> Result<Restored> {
    let source = cx.source().as_ref();
    let plan = Plan::make(source, cx.selector(), settings).await?;
    let existing = server.tables(client).await?;
    // Told by the assessment; here only what refuses counts.
    let objects = Objects::open(&engine.object_disks)?;
    let mut findings = obstacles(cx, server, engine, settings, &plan, &existing);
    findings.extend(out_of_reach(client, server, engine, settings, &plan, &objects).await?);
    if let Some(blocker) = findings.iter().find(|finding| finding.severity == Severity::Blocker) {
        return Err(blocker.refusal("the restore"));
    }
    let mut restored = Restored::new(Extracted::default());
    let total = plan.contents.values().flat_map(|content| &content.parts).map(|part| part.bytes).sum();
    cx.work().started(Phase::Write, Some(total), Unit::Bytes);
    // Everything is here and is what it has to be before the server is asked for anything, and before anything of it is dropped.
    let area = match &engine.staging {
        None => None,
        Some(staging) => {
            let (area, findings) = Area::prepare(client, server, staging, cx.work()).await?;
            restored.findings.extend(findings);
            Some(area)
        }
    };
    let stage = match &area {
        None => stage::Stage::prepare(server).await?,
        Some(area) => stage::Stage::within(area).await?,
    };
    let fetch = fetch::Fetch { cx, client, server, settings, stage: &stage, existing: &existing };
    let fetched = fetch.all(&plan, engine.parallel).await?;
    cx.work().ended(Phase::Write);
    restored.extracted = fetched.extracted;
    restored.findings.extend(fetched.findings);
    let maker = create::Maker::new(cx, client, server, settings).await?;
    maker.databases(&plan).await?;
    if area.is_none() {
        maker.prove(&plan).await?;
    }
    if settings.existing == OnExisting::Replace {
        maker.drop_all(&plan, &existing).await?;
    }
    restored.findings.extend(maker.make(&plan).await?);
    let now = server.tables(client).await?;
    match &area {
        None => {
            let attach = attach::Attach { client, server, settings, objects: &objects, now: &now };
            attach.all(&plan, fetched.tables, engine.parallel, cx.work()).await?;
        }
        Some(area) => {
            let bring = native::Bring { client, server, settings, area, now: &now };
            bring.all(&plan, fetched.tables, engine.parallel, cx.work()).await?;
        }
    }
    stage.remove().await?;
    let access = plan.whole && !settings.keep_access;
    match area {
        None if access => restored.findings.extend(access::restore(source, client, server).await?),
        None => {}
        Some(area) => {
            restored.findings.extend(area.release().await);
            if access {
                restored.findings.extend(access::left_out(source).await?);
            }
        }
    }
    Ok(restored)
}

/// Which table of the target takes the parts of a table of the backup.
fn receiver<'a>(
    plan: &Plan,
    table: &TableKey,
    settings: &RestoreSettings,
    now: &'a BTreeMap<TableKey, TableDef>,
) -> Option<&'a TableDef> {
    let direct = || now.get(&settings.target(table));
    // The table behind a view is called by the view's UUID, which is another one now.
    let view = plan.tables.iter().find(|view| view.kind() == ObjectKind::MaterializedView && view.inner() == *table);
    match view {
        Some(view) => {
            let view = now.get(&settings.target(&view.key))?;
            now.get(&view.inner()).or_else(direct)
        }
        None => direct(),
    }
}
