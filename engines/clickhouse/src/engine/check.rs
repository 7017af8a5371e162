//! Checks a stored backup without a server: every part is what its own list says, every table has its definition.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::engine::{BackupSource, BackupSourceExt, CheckContext, CheckReport};
use backup_core::entry::{EntryInfo, Selector};
use backup_core::observe::{Phase, Unit};
use backup_core::{Finding, Result, Severity};
use futures::{StreamExt, TryStreamExt, stream};

use super::record::{PartRecord, PartsRecord};
use crate::layout;
use crate::part::verify::{PartFacts, Verifier};
use crate::restore::wrong;
use crate::server::{ObjectKind, TableDef, TableKey};

/// Parts that are read at the same time.
const AT_A_TIME: usize = 4;
/// A definition has at most so many bytes.
const MAX_RECORD: u64 = 64 << 20;

/// The files of one part, as the backup lists them.
#[derive(Debug)]
struct StoredPart {
    table: TableKey,
    /// The folder of the partition and that of the part.
    folder: String,
    entries: Vec<EntryInfo>,
}

pub(super) async fn check(cx: &CheckContext) -> Result<CheckReport> {
    let source = cx.source().as_ref();
    let mut report = CheckReport::default();
    let tables = definitions(source, &mut report).await?;
    let records = PartsRecord::all(source, |_| true).await?;
    let mut missing: BTreeMap<&TableKey, BTreeMap<&str, &PartRecord>> = BTreeMap::new();
    for (table, record) in &records {
        missing.insert(table, record.parts.iter().map(|part| (part.name.as_str(), part)).collect());
    }
    for table in tables.iter().filter(|table| !records.contains_key(table)) {
        blocker(&mut report, "missing-parts", table.to_string(), "has no list of its parts");
    }
    cx.work().started(
        Phase::Verify,
        Some(records.values().flat_map(|record| &record.parts).map(|p| p.bytes).sum()),
        Unit::Bytes,
    );
    let mut checked = stored(source)
        .map_ok(|part| async move {
            cx.work().checkpoint()?;
            let facts = read(cx, &part).await?;
            Ok((part, facts))
        })
        .try_buffer_unordered(AT_A_TIME)
        .boxed();
    while let Some((part, facts)) = checked.try_next().await? {
        report.entries += part.entries.len() as u64;
        report.bytes += facts.bytes;
        let name = part.folder.rsplit('/').next().unwrap_or_default();
        let subject = format!("{} {name}", part.table);
        match missing.get_mut(&part.table).and_then(|parts| parts.remove(name)) {
            None => blocker(&mut report, "unknown-part", subject, "is in no list of parts"),
            Some(record) => {
                if let Some(wrong) = wrong(record, &facts) {
                    // It came like that: then it is known, and whoever restores decides.
                    let severity = if record.damaged { Severity::Warning } else { Severity::Blocker };
                    report.findings.push(Finding::new(severity, "part-damaged", wrong).about(subject));
                }
            }
        }
    }
    drop(checked);
    for (table, name) in missing.iter().flat_map(|(table, parts)| parts.keys().map(move |name| (table, name))) {
        blocker(&mut report, "missing-part", format!("{table} {name}"), "is listed and has no files");
    }
    cx.work().ended(Phase::Verify);
    Ok(report)
}

fn blocker(report: &mut CheckReport, code: &str, subject: String, text: &str) {
    report.findings.push(Finding::new(Severity::Blocker, code, text).about(subject));
}

/// The tables that have parts, by their definitions.
async fn definitions(source: &dyn BackupSource, report: &mut CheckReport) -> Result<BTreeSet<TableKey>> {
    let mut tables = BTreeSet::new();
    let mut entries = source.entries(Selector::parse([layout::METADATA])?);
    while let Some(entry) = entries.next().await {
        let entry = entry?;
        let path = &entry.meta.path;
        let bytes = source.read_small(path, MAX_RECORD).await?;
        report.entries += 1;
        report.bytes += entry.len;
        match serde_json::from_slice::<TableDef>(&bytes) {
            Ok(def) if layout::table_of(layout::METADATA, path).is_none_or(|(key, _)| key != def.key) => {
                blocker(report, "wrong-definition", path.to_string(), "is the definition of another table");
            }
            Ok(def) if def.kind() == ObjectKind::Parts => {
                tables.insert(def.key);
            }
            Ok(_) => {}
            Err(error) => blocker(report, "damaged-definition", path.to_string(), &error.to_string()),
        }
    }
    Ok(tables)
}

/// The parts, one after the other: the files of one stand together.
fn stored(source: &dyn BackupSource) -> impl futures::Stream<Item = Result<StoredPart>> + Send + '_ {
    let entries = match Selector::parse([layout::DATA]) {
        Ok(selector) => source.entries(selector),
        Err(error) => stream::once(async { Err(error) }).boxed(),
    };
    stream::try_unfold((entries, None::<StoredPart>), |(mut entries, mut current)| async move {
        loop {
            let Some(entry) = entries.try_next().await? else {
                return Ok(current.take().map(|part| (part, (entries, None))));
            };
            let Some((table, rest)) = layout::table_of(layout::DATA, &entry.meta.path) else { continue };
            if layout::is_loose(rest) {
                continue;
            }
            let mut names = rest.splitn(3, '/');
            let (partition, name) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
            let folder = format!("{partition}/{name}");
            match &mut current {
                Some(part) if part.table == table && part.folder == folder => part.entries.push(entry),
                _ => {
                    let next = StoredPart { table, folder, entries: vec![entry] };
                    if let Some(part) = current.replace(next) {
                        return Ok(Some((part, (entries, current))));
                    }
                }
            }
        }
    })
}

async fn read(cx: &CheckContext, part: &StoredPart) -> Result<PartFacts> {
    let mut verifier = Verifier::new();
    for entry in &part.entries {
        let path = &entry.meta.path;
        let below =
            layout::table_of(layout::DATA, path).map(|(_, rest)| rest.splitn(3, '/').nth(2).unwrap_or_default());
        verifier.file(below.unwrap_or_default(), entry.len);
        let mut pieces = cx.source().read(path, 0..entry.len);
        while let Some(piece) = pieces.try_next().await? {
            verifier.bytes(&piece);
            cx.work().advanced(Phase::Verify, piece.len() as u64);
        }
    }
    Ok(verifier.finish())
}
