//! Takes a backup of a server: of its files, or of what it writes by its own `BACKUP`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use backup_core::engine::{BackupContext, BackupSink, BackupSinkExt, LocalFile, Put};
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::observe::{Phase, Unit};
use backup_core::{Consistency, Error, Finding, LossyItem, Result, Severity, Snapshot};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use parking_lot::Mutex;

use super::frozen::{Content, FrozenPart, PartFile};
use super::merged::{self, Earlier, Found, Sources};
use super::record::{PartRecord, PartsRecord};
use super::shadow::Shadow;
use super::share::Share;
use super::snapshot::{self, Freezing, Frozen};
use super::unsent::Unsent;
use super::{DESCRIPTOR, extras, facts, native, remote};
use crate::client::Client;
use crate::export;
use crate::files::blocking;
use crate::layout;
use crate::objects::{Bucket, Objects};
use crate::part::{ObjectMetadata, PartName};
use crate::server::{ObjectKind, Server, TableDef, TableKey};
use crate::settings::{ClickHouseSettings, Merged};
use crate::staging::Area;

/// Parts whose files are read at the same time.
const PARTS_AT_A_TIME: usize = 8;
/// So many damaged files are named.
const MOST_FINDINGS: usize = 50;

/// Reads the server's files. Says, too, when its tables were frozen, by our clock.
pub(super) async fn backup(
    cx: &BackupContext,
    client: &Client,
    server: &Server,
    settings: &ClickHouseSettings,
    share: &Share,
) -> Result<(Snapshot, Timestamp)> {
    let started_at = cx.work().env().now();
    let objects = Objects::open(&settings.object_disks)?;
    let freezing = Freezing { work: cx.work(), client, server, objects: &objects, share };
    let (mut findings, outcome, left) = match &settings.staging {
        None => {
            let name = format!("{:016x}", u64::from_le_bytes(cx.work().env().random()));
            let (shadow, findings) = Shadow::prepare(client, server, &name).await?;
            let outcome = read(cx, freezing, settings, Held::Shadow(&shadow)).await;
            // Whatever has happened, and before it is told.
            (findings, outcome, shadow.release(client, server).await)
        }
        Some(staging) => {
            let (area, findings) = Area::prepare(client, server, staging, cx.work()).await?;
            let outcome = read(cx, freezing, settings, Held::Area(&area)).await;
            (findings, outcome, area.release().await)
        }
    };
    let taken = outcome?;
    findings.extend(left);
    findings.extend(taken.findings);
    let tally = taken.tally;
    let snapshot = Snapshot::new(
        DESCRIPTOR.name,
        server.version.to_string(),
        server.source.clone(),
        settings.method(),
        Consistency::PerPart,
        (started_at, cx.work().env().now()),
    )
    .with_fact(facts::TABLES, taken.tables.to_string())
    .with_fact(facts::PARTS, tally.parts.to_string())
    .with_fact(facts::PARTS_KEPT, tally.kept.to_string())
    .with_fact(facts::ROWS, tally.rows.to_string())
    .with_fact(facts::BYTES, tally.bytes.to_string())
    .with_fact(facts::KEPT_BYTES, tally.kept_bytes.to_string())
    .with_fact(facts::CHURN_BYTES, tally.churn_bytes.to_string())
    .with_fact(facts::SKEW, taken.skew.as_millis().to_string())
    .with_findings(findings);
    let snapshot = match settings.merged {
        Merged::Store => snapshot,
        Merged::FromParent => snapshot
            .with_fact(facts::TABLES_KEPT, tally.tables_kept.to_string())
            .with_fact(facts::STOOD_FOR, tally.stood_for.to_string())
            .with_fact(facts::SPARED_BYTES, tally.spared_bytes.to_string()),
    };
    Ok((taken.lossy.into_iter().fold(snapshot, Snapshot::with_lossy), taken.at))
}

/// Where what is read lies as long as it is read.
#[derive(Debug, Clone, Copy)]
enum Held<'a> {
    /// In snapshots beside the data.
    Shadow(&'a Shadow),
    /// Where the server has written it by its own `BACKUP`.
    Area(&'a Area),
}

/// What was read.
struct Taken {
    tables: usize,
    tally: Tally,
    skew: std::time::Duration,
    at: Timestamp,
    findings: Vec<Finding>,
    lossy: Vec<LossyItem>,
}

/// What parts there were.
#[derive(Debug, Default)]
struct Tally {
    parts: u64,
    kept: u64,
    rows: u64,
    bytes: u64,
    kept_bytes: u64,
    churn_bytes: u64,
    tables_kept: u64,
    stood_for: u64,
    spared_bytes: u64,
    damaged: Vec<Finding>,
    records: BTreeMap<TableKey, PartsRecord>,
}

impl Tally {
    /// A part that is taken from the parent.
    fn count(&mut self, part: &PartRecord) {
        self.parts += 1;
        self.kept += 1;
        self.rows += part.rows.unwrap_or(0);
        self.bytes += part.bytes;
    }
}

async fn read(
    cx: &BackupContext,
    freezing: Freezing<'_>,
    settings: &ClickHouseSettings,
    held: Held<'_>,
) -> Result<Taken> {
    let Freezing { client, server, objects, share, .. } = freezing;
    let databases = server.databases(client).await?;
    let earlier = match (settings.merged, cx.parent_source()) {
        (Merged::FromParent, Some(parent)) => Earlier::all(parent.as_ref()).await?,
        _ => BTreeMap::new(),
    };
    let unsent = Unsent::ask(client, server).await?;
    let frozen = match held {
        Held::Shadow(shadow) => snapshot::take(freezing, shadow, settings.parallel, &earlier).await?,
        Held::Area(area) => native::take(freezing, area).await?,
    };
    let Frozen { tables, parts, mutations, kept, unsettled, mut lossy, skew, at, mut findings } = frozen;
    // Before and afterwards: what was sent in between came too late for the snapshot.
    lossy.extend(unsent.lossy(Unsent::ask(client, server).await?));
    let before = match cx.parent_source() {
        Some(parent) => {
            let parts = tables.values().filter(|table| table.kind() == ObjectKind::Parts);
            PartsRecord::of(parent.as_ref(), parts.map(|table| &table.key)).await?
        }
        None => BTreeMap::new(),
    };
    let mut sources = HashMap::new();
    for (key, earlier) in earlier.iter().filter(|(key, _)| !unsettled.contains(*key) && !kept.contains(*key)) {
        let Some(table) = tables.get(key) else { continue };
        if let Some(found) = Sources::look(earlier, table, &server.disks).await? {
            sources.insert(key, found);
        }
    }
    let before = before.iter().map(|(table, record)| (table, Before::new(record))).collect();
    let buckets =
        server.disks.iter().filter_map(|disk| Some((disk.name.clone(), objects.of(&server.disks, disk)?.clone())));
    let reader = Reader { cx, before, sources, settings, held, buckets: buckets.collect() };
    let mut tally = reader.parts(parts).await?;
    for (key, earlier) in earlier.iter().filter(|(key, _)| kept.contains(*key)) {
        cx.work().checkpoint()?;
        reader.keep(key, &earlier.record, &mut tally).await?;
    }
    findings.append(&mut tally.damaged);
    for pending in mutations {
        let meta = EntryMeta::file(layout::mutation(&pending.table, &pending.id)?).with_mode(0o640);
        cx.sink().put_bytes(meta, pending.content).await?;
        tally.records.entry(pending.table).or_default().mutations.push(pending.id);
    }
    for database in databases.iter().filter(|database| !database.name.starts_with(export::PREFIX)) {
        put_json(cx.sink(), layout::database(&database.name)?, database).await?;
    }
    for table in tables.values() {
        put_json(cx.sink(), layout::table(layout::METADATA, &table.key)?, table).await?;
        match table.kind() {
            ObjectKind::Content => lossy.extend(rows(cx, client, table).await?),
            _ if table.create.contains(HIDDEN) => {
                let item = format!("secrets in the definition of {}", table.key);
                lossy.push(LossyItem::new(item, "the server hides them"));
            }
            _ => {}
        }
        if table.kind() == ObjectKind::Parts {
            let mut record = tally.records.remove(&table.key).unwrap_or_default();
            record.holder = share.holder(&table.key).map(ToString::to_string);
            let path = layout::table(layout::PARTS, &table.key)?;
            cx.sink().put_bytes(EntryMeta::record(path), Bytes::from(record.encode()?)).await?;
        }
    }
    let extras = extras::put(cx.sink(), client, server, settings).await?;
    findings.extend(extras.findings);
    lossy.extend(extras.lossy);
    let tables = tables.values().filter(|table| table.kind() == ObjectKind::Parts).count();
    Ok(Taken { tables, tally, skew, at, findings, lossy })
}

/// What servers write in the place of secrets (`Common/maskSensitiveInfo…`, `IAST::FormatSettings`).
const HIDDEN: &str = "[HIDDEN]";

/// Stores the rows of a table without parts: there is no snapshot of it, so they are read as any reader reads them.
async fn rows(cx: &BackupContext, client: &Client, table: &TableDef) -> Result<Option<LossyItem>> {
    let lost = |why: String| Ok(Some(LossyItem::new(format!("content of {}", table.key), why)));
    if table.engine == "Set" {
        return lost("a table of the engine Set cannot be read".to_owned());
    }
    let sql = format!("SELECT * FROM {} FORMAT Native", table.key.quoted());
    let rows = match client.stream(&format!("the rows of {}", table.key), &sql).await {
        Ok(rows) => rows,
        Err(error @ crate::Error::Server { .. }) => return lost(error.to_string()),
        Err(error) => return Err(error.into()),
    };
    let meta = EntryMeta::file(layout::rows(&table.key)?);
    cx.sink().put_stream(meta, rows.map_err(Error::from).boxed(), None).await?;
    Ok(None)
}

pub(super) async fn put_json(sink: &Arc<dyn BackupSink>, path: EntryPath, value: &impl serde::Serialize) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::internal("a definition cannot be encoded").with_source(error))?;
    sink.put_bytes(EntryMeta::record(path), Bytes::from(bytes)).await.map(drop)
}

/// The parts that a table had in the parent.
struct Before<'a> {
    hashes: HashSet<&'a str>,
    /// By partition.
    names: HashMap<String, Vec<PartName>>,
}

impl<'a> Before<'a> {
    fn new(record: &'a PartsRecord) -> Self {
        let mut names: HashMap<_, Vec<_>> = HashMap::new();
        for name in record.parts.iter().filter_map(|part| part.parsed().ok()) {
            names.entry(name.partition().to_owned()).or_default().push(name);
        }
        Self { hashes: record.parts.iter().map(|part| part.hash.as_str()).collect(), names }
    }

    fn has(&self, part: &PartRecord) -> bool {
        // Of all files, but for their names in the table: a mutation that does not touch a part gives it another name.
        !part.hash.is_empty() && self.hashes.contains(part.hash.as_str())
    }

    /// Whether rows of a part, which is not in the parent, were there in other parts.
    fn had_rows(&self, name: &PartName) -> bool {
        let others = self.names.get(name.partition());
        others.is_some_and(|others| others.iter().any(|other| name.covers(other) && !other.covers(name)))
    }
}

struct Reader<'a> {
    cx: &'a BackupContext,
    before: HashMap<&'a TableKey, Before<'a>>,
    sources: HashMap<&'a TableKey, Sources<'a>>,
    settings: &'a ClickHouseSettings,
    held: Held<'a>,
    /// Of object disks, by their names.
    buckets: HashMap<String, Bucket>,
}

impl Reader<'_> {
    async fn parts(&self, parts: Vec<FrozenPart>) -> Result<Tally> {
        let tally = Mutex::new(Tally::default());
        self.cx.work().started(Phase::Read, None, Unit::Bytes);
        let at_a_time = self.cx.sink().concurrency().div_ceil(PARTS_AT_A_TIME);
        stream::iter(parts.into_iter().map(Ok))
            .try_for_each_concurrent(PARTS_AT_A_TIME, |part| {
                let tally = &tally;
                async move {
                    self.cx.work().checkpoint()?;
                    self.part(part, at_a_time, tally).await
                }
            })
            .await?;
        self.cx.work().ended(Phase::Read);
        let mut tally = tally.into_inner();
        for record in tally.records.values_mut() {
            // Read side by side, and told in the order in which they have to be attached.
            record.parts.sort_by_cached_key(|part| (part.parsed().ok(), part.name.clone()));
        }
        Ok(tally)
    }

    async fn part(&self, part: FrozenPart, at_a_time: usize, tally: &Mutex<Tally>) -> Result<()> {
        let content = self.content(&part).await?;
        if content.wrong.is_empty() && self.stood_for(&part, &content.record, at_a_time, tally).await? {
            return Ok(());
        }
        self.store(part, content, at_a_time, tally).await
    }

    /// What is in a part, wherever its bytes are.
    async fn content(&self, part: &FrozenPart) -> Result<Content> {
        if let Some(bucket) = self.bucket(part) {
            return remote::read(part, bucket).await;
        }
        let own = part.clone();
        blocking(move || own.read()).await
    }

    /// Where the objects of a part are, if it consists of objects. What the server has written by its own `BACKUP` are files.
    fn bucket(&self, part: &FrozenPart) -> Option<&Bucket> {
        self.buckets.get(&part.disk).filter(|_| matches!(self.held, Held::Shadow(_)))
    }

    async fn store(&self, part: FrozenPart, content: Content, at_a_time: usize, tally: &Mutex<Tally>) -> Result<()> {
        let Content { mut record, files, mut wrong } = content;
        let folder = layout::part(&part.table, &part.name)?;
        let kept_bytes = Mutex::new(0);
        let bad = stream::iter(files.into_iter().map(Ok))
            .map_ok(|file| self.file(&folder, file, self.bucket(&part), &kept_bytes))
            .try_buffer_unordered(at_a_time)
            .try_filter_map(|bad| std::future::ready(Ok(bad)))
            .try_collect::<Vec<_>>()
            .await?;
        wrong.extend(bad);
        record.damaged = !wrong.is_empty();
        let before = self.before.get(&part.table);
        let kept = before.is_some_and(|before| before.has(&record));
        let mut tally = tally.lock();
        tally.parts += 1;
        tally.kept += u64::from(kept);
        tally.rows += record.rows.unwrap_or(0);
        tally.bytes += record.bytes;
        tally.kept_bytes += kept_bytes.into_inner();
        if !kept && before.is_some_and(|before| before.had_rows(&part.name)) {
            tally.churn_bytes += record.bytes;
        }
        for text in wrong {
            if tally.damaged.len() < MOST_FINDINGS {
                let subject = format!("{} {}", part.table, part.name);
                tally.damaged.push(Finding::new(Severity::Warning, "part-damaged", text).about(subject));
            }
        }
        tally.records.entry(part.table).or_default().parts.push(record);
        Ok(())
    }

    /// Stores the parts that stand for this one instead of it. False where none do, or not certainly.
    async fn stood_for(
        &self,
        part: &FrozenPart,
        record: &PartRecord,
        at_a_time: usize,
        tally: &Mutex<Tally>,
    ) -> Result<bool> {
        let (Some(sources), Some(parent), Held::Shadow(shadow)) =
            (self.sources.get(&part.table), self.cx.parent_source(), self.held)
        else {
            return Ok(false);
        };
        let Some(Found { stand, known, retired }) = sources.of(record, shadow).await? else { return Ok(false) };
        for part in retired {
            let content = self.content(&part).await?;
            self.store(part, content, at_a_time, tally).await?;
        }
        let folders: Result<Vec<_>> = known.iter().map(|one| layout::part(&part.table, &one.parsed()?)).collect();
        let bytes = match folders? {
            folders if folders.is_empty() => 0,
            folders => merged::carry(self.cx, parent.as_ref(), folders).await?,
        };
        let mut tally = tally.lock();
        tally.stood_for += 1;
        tally.spared_bytes += record.bytes;
        tally.kept_bytes += bytes;
        for record in &known {
            tally.count(record);
        }
        let own = tally.records.entry(part.table.clone()).or_default();
        own.parts.extend(known.into_iter().cloned());
        own.stands.push(stand);
        Ok(true)
    }

    /// Takes a table that has not changed from the parent.
    async fn keep(&self, table: &TableKey, record: &PartsRecord, tally: &mut Tally) -> Result<()> {
        let Some(parent) = self.cx.parent_source() else { return Err(Error::internal("a table is kept of no parent")) };
        let folder = layout::table(layout::DATA, table)?;
        tally.kept_bytes += merged::carry(self.cx, parent.as_ref(), vec![folder]).await?;
        tally.tables_kept += 1;
        for part in &record.parts {
            tally.count(part);
        }
        tally.records.insert(table.clone(), record.clone());
        Ok(())
    }

    /// Puts one file; says what is wrong with it.
    async fn file(
        &self,
        folder: &EntryPath,
        file: PartFile,
        bucket: Option<&Bucket>,
        kept_bytes: &Mutex<u64>,
    ) -> Result<Option<String>> {
        let sink = self.cx.sink();
        let mut meta = EntryMeta::file(EntryPath::new(format!("{folder}/{}", file.name))?).with_mode(0o640);
        let identity = file.identity()?;
        if let Some(identity) = identity.clone() {
            meta = meta.with_identity(identity);
            if let Some(stored) = sink.reuse(meta.clone()).await? {
                *kept_bytes.lock() += stored.len;
                return Ok(None);
            }
        }
        let (mut bad, mut content) = (None, file.content.clone());
        if identity.is_none() && file.listed.is_some() {
            bad = Some(format!("{} has another length than its list says", file.name));
        } else if self.settings.verify && identity.is_some() && content.is_none() && file.objects.is_none() {
            let own = file.clone();
            let (sound, read) = blocking(move || own.verified()).await?;
            content = read;
            if !sound {
                bad = Some(format!("{} is not what its list says", file.name));
                // Under its identity something else would be found one day.
                meta.identity = None;
            }
        }
        if let Some(content) = content {
            let stored = sink.put_bytes(meta, content).await?;
            self.cx.work().advanced(Phase::Read, stored.read_bytes);
            return Ok(bad);
        }
        if let (Some(objects), Some(bucket)) = (&file.objects, bucket) {
            let wrong = self.objects(meta, &file, objects, bucket).await?;
            return Ok(wrong.or(bad));
        }
        match sink.put_file(LocalFile::new(file.path.clone(), meta)).await? {
            Put::Stored(stored) => self.cx.work().advanced(Phase::Read, stored.read_bytes),
            Put::Vanished => {
                let text = format!("{} vanished: somebody removed the snapshot", file.path.display());
                return Err(Error::conflict(text));
            }
        }
        Ok(bad)
    }

    /// Puts a file whose bytes are in objects, which are fetched once; says what is wrong with it.
    async fn objects(
        &self,
        meta: EntryMeta,
        file: &PartFile,
        objects: &ObjectMetadata,
        bucket: &Bucket,
    ) -> Result<Option<String>> {
        let (mut meta, mut bad) = (meta, None);
        let mut expected = file.listed.filter(|_| self.settings.verify && meta.identity.is_some());
        loop {
            let (body, verdict) = remote::body(bucket, objects, expected);
            match self.cx.sink().put_stream(meta.clone(), body, None).await {
                Ok(stored) => {
                    self.cx.work().advanced(Phase::Read, stored.read_bytes);
                    return Ok(bad);
                }
                Err(_) if expected.is_some() && verdict.is_other() => {
                    bad = Some(format!("{} is not what its list says", file.name));
                    // As it is, and not under its identity: something else would be found by that one day.
                    (meta.identity, expected) = (None, None);
                }
                Err(error) => {
                    return verdict.missing().map_or(Err(error), |why| Ok(Some(format!("{}: {why}", file.name))));
                }
            }
        }
    }
}
