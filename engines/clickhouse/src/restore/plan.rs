//! What of a backup is brought into a server, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::engine::{BackupSource, BackupSourceExt};
use backup_core::entry::{EntryPath, Selector};
use backup_core::{Error, Finding, Result, Severity};
use futures::StreamExt;
use serde::de::DeserializeOwned;

use super::settings::RestoreSettings;
use crate::ddl::{self, Statement};
use crate::engine::{FunctionDef, PartRecord, PartsRecord, Stand};
use crate::layout;
use crate::server::{DatabaseDef, ObjectKind, TableDef, TableKey};

/// A definition has at most so many bytes.
const MAX_RECORD: u64 = 64 << 20;

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) databases: Vec<DatabaseDef>,
    pub(super) functions: Vec<FunctionDef>,
    /// In the order in which they can be made.
    pub(super) tables: Vec<TableDef>,
    /// What is brought into each table.
    pub(super) contents: BTreeMap<TableKey, Content>,
    /// Tables and views that need each other.
    pub(super) circles: BTreeSet<TableKey>,
    /// Whether everything is meant, what is in no table included.
    pub(super) whole: bool,
    pub(super) findings: Vec<Finding>,
}

/// What is brought into a table.
#[derive(Debug)]
pub(super) struct Content {
    /// In the order in which they are attached.
    pub(super) parts: Vec<PartRecord>,
    /// The files of mutations that had not come to their end.
    pub(super) mutations: Vec<String>,
    /// Parts that the server had merged, for which some of these stand.
    pub(super) stands: Vec<Stand>,
    /// Whether these are all parts that the table had.
    pub(super) whole: bool,
}

impl Plan {
    /// Reads the definitions of what `selector` means.
    ///
    /// # Errors
    /// Those of the source; [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when nothing of the backup is meant.
    pub(super) async fn make(
        source: &dyn BackupSource,
        selector: &Selector,
        settings: &RestoreSettings,
    ) -> Result<Self> {
        let all: BTreeMap<TableKey, TableDef> =
            tables(source).await?.into_iter().map(|table| (table.key.clone(), table)).collect();
        let meant = meant(&all, selector)?;
        if meant.is_empty() && !selector.is_all() {
            let text = "nothing of the backup is meant: tables are data/DATABASE/TABLE or metadata/DATABASE/TABLE";
            return Err(Error::invalid(text));
        }
        let mut plan = Self { whole: selector.is_all(), ..Self::default() };
        if !settings.structure_only {
            let parts = PartsRecord::all(source, |table| meant.get(table) == Some(&true)).await?;
            for (table, record) in parts {
                if let Some(holder) = &record.holder {
                    let text = format!("its parts come with the member {holder}, from which replicas fetch them");
                    plan.findings.push(Finding::new(Severity::Note, "parts-of-replica", text).about(table.to_string()));
                }
                let all = record.parts.len();
                let parts = chosen(&table, record.parts, selector)?;
                let whole = parts.len() == all;
                let PartsRecord { mutations, stands, .. } = record;
                plan.contents.insert(table, Content { parts, mutations, stands, whole });
            }
        }
        let wanted: BTreeMap<_, _> = all.iter().filter(|(key, _)| meant.contains_key(*key)).collect();
        let (order, circles) = order(&wanted);
        for circle in &circles {
            let names: Vec<_> = circle.iter().map(ToString::to_string).collect();
            let text = format!("need each other: {}", names.join(", "));
            plan.findings.push(Finding::new(Severity::Note, "definitions-in-circle", text));
        }
        plan.circles = circles.into_iter().flatten().collect();
        plan.tables = order.into_iter().filter_map(|key| all.get(&key)).cloned().collect();
        let names: BTreeSet<_> = plan.tables.iter().map(|table| table.key.database.clone()).collect();
        let databases: Vec<DatabaseDef> = records(source, layout::DATABASES).await?;
        plan.findings.extend(unknown(&all, &databases, settings));
        plan.databases = databases.into_iter().filter(|db| plan.whole || names.contains(&db.name)).collect();
        if plan.whole {
            plan.functions = records(source, layout::FUNCTIONS).await?;
        }
        Ok(plan)
    }
}

/// New names for what the backup does not have. With a typo in it, what was meant would come back under its old name, and perhaps over
/// what is there.
fn unknown(all: &BTreeMap<TableKey, TableDef>, databases: &[DatabaseDef], settings: &RestoreSettings) -> Vec<Finding> {
    let has = |name: &str| {
        databases.iter().any(|database| database.name == name) || all.keys().any(|key| key.database == name)
    };
    let wrong = settings.databases.keys().filter(|name| !has(name)).cloned();
    let tables = settings.tables.iter().filter(|(from, _)| !all.contains_key(from)).map(|(from, _)| from.to_string());
    let text = "is to have another name, and is not in the backup";
    wrong.chain(tables).map(|name| Finding::new(Severity::Blocker, "rename-unknown", text).about(name)).collect()
}

/// Every table of a backup.
async fn tables(source: &dyn BackupSource) -> Result<Vec<TableDef>> {
    let mut tables = Vec::new();
    let mut entries = source.entries(Selector::parse([layout::METADATA])?);
    while let Some(entry) = entries.next().await {
        let path = entry?.meta.path;
        let table: TableDef = record(source, &path).await?;
        if layout::table(layout::METADATA, &table.key)? != path {
            return Err(Error::damaged(format!("{path} is the definition of another table, {}", table.key)));
        }
        tables.push(table);
    }
    Ok(tables)
}

async fn record<T: DeserializeOwned>(source: &dyn BackupSource, path: &EntryPath) -> Result<T> {
    let bytes = source.read_small(path, MAX_RECORD).await?;
    let wrong = |error| Error::damaged(format!("{path} cannot be read")).with_source(error);
    serde_json::from_slice(&bytes).map_err(wrong)
}

/// All records in a folder.
async fn records<T: DeserializeOwned>(source: &dyn BackupSource, folder: &str) -> Result<Vec<T>> {
    let mut all = Vec::new();
    let mut entries = source.entries(Selector::parse([folder])?);
    while let Some(entry) = entries.next().await {
        all.push(record(source, &entry?.meta.path).await?);
    }
    Ok(all)
}

/// The tables that are meant, and whether rows of them are.
fn meant(all: &BTreeMap<TableKey, TableDef>, selector: &Selector) -> Result<BTreeMap<TableKey, bool>> {
    let mut meant = BTreeMap::new();
    for (key, table) in all {
        let rows = selector.inside(&layout::table(layout::DATA, key)?).is_some();
        let definition = selector.matches(&layout::table(layout::METADATA, key)?);
        if !rows && !definition {
            continue;
        }
        meant.insert(key.clone(), rows);
        // A view without a table of its own is nothing without it.
        let inner = table.inner();
        if table.kind() == ObjectKind::MaterializedView && all.contains_key(&inner) {
            *meant.entry(inner).or_insert(rows) |= rows;
        }
    }
    Ok(meant)
}

fn chosen(table: &TableKey, parts: Vec<PartRecord>, selector: &Selector) -> Result<Vec<PartRecord>> {
    // Behind a view, its table is meant with it.
    let direct = selector.inside(&layout::table(layout::DATA, table)?).is_some();
    let mut chosen = Vec::new();
    for part in parts {
        let path = layout::part(table, &part.parsed()?)?;
        if !direct || selector.inside(&path).is_some() {
            chosen.push(part);
        }
    }
    Ok(chosen)
}

/// The path of a part in the backup.
pub(super) fn path(table: &TableKey, part: &PartRecord) -> Result<EntryPath> {
    layout::part(table, &part.parsed()?)
}

/// The order in which they can be made, and what is made in a circle.
fn order(wanted: &BTreeMap<&TableKey, &TableDef>) -> (Vec<TableKey>, Vec<Vec<TableKey>>) {
    let mut needs = Vec::new();
    for table in wanted.values() {
        let of = |other: &TableKey| (table.key.clone(), other.clone());
        needs.extend(table.needs.iter().map(of));
        // What cannot be read is refused when it is made.
        let references = Statement::parse(table.create.clone()).map(|statement| statement.references());
        for reference in references.unwrap_or_default() {
            let database = reference.database.unwrap_or_else(|| table.key.database.clone());
            needs.push(of(&TableKey::new(database, reference.name)));
        }
    }
    // Tables with rows first, where nothing speaks against it: then views are made of what is there.
    let rank = |table: &TableDef| match table.kind() {
        ObjectKind::Parts => 0,
        ObjectKind::Content => 1,
        ObjectKind::Dictionary => 2,
        ObjectKind::Other => 3,
        ObjectKind::MaterializedView => 4,
    };
    let mut nodes: Vec<_> = wanted.values().collect();
    nodes.sort_by_key(|table| rank(table));
    let order = ddl::order(nodes.into_iter().map(|table| table.key.clone()), needs);
    (order.sorted, order.cycles)
}
