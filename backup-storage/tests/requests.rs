//! The requests that work on a repository makes, counted, and what they cost at a price list: the figures of `docs/costs.md`.
//!
//! `BACKUP_REQUESTS_MIB=1024 cargo test -p backup-storage --test requests -- --nocapture` prints them for a GiB; an ordinary run holds a
//! small one to the bounds that the document promises. That the counters count what a service sees is shown in `store_s3.rs`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that reports")]

use std::fmt::Write as _;
use std::time::Duration;

use backup_core::catalog::{Actor, BackupRecord, Event, Role};
use backup_core::engine::{Extract, LocalFile, LogOptions, Work};
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_core::log::{LineageRecord, LogRange, Notation};
use backup_core::repository::{CollectOptions, ParentChoice, Repository as _, VerifyLevel};
use backup_core::{BackupSinkExt as _, Consistency, Lineage, ServiceId, Snapshot};
use backup_crypto::{Identity, RawKey};
use backup_storage::store::{Store, StoreMetrics};
use backup_storage::{CreateOptions, Repository, RepositorySettings};

/// Dollars for a request that writes or lists: S3 Standard, us-east-1, 0.005 for a thousand.
const WRITE: f64 = 0.005 / 1000.0;
/// Dollars for a request that reads, 0.0004 for a thousand. Deletions are free.
const READ: f64 = 0.0004 / 1000.0;
/// Names in a page of a listing.
const PAGE: u64 = 1000;
const FILE: usize = 64 << 20;
const BLOCK: usize = 128 << 10;

/// What one step of the story asked of the store.
#[derive(Debug)]
struct Step {
    name: &'static str,
    puts: u64,
    gets: u64,
    heads: u64,
    /// Pages of listings.
    lists: u64,
    deletes: u64,
    sent: u64,
    received: u64,
    dollars: f64,
}

/// Takes the difference of the metrics after each step.
struct Ledger {
    vault: Store,
    before: StoreMetrics,
    steps: Vec<Step>,
}

impl Ledger {
    fn book(&mut self, name: &'static str) {
        let (old, new) = (self.before, self.vault.metrics());
        self.before = new;
        let (puts, gets) = (new.create.requests - old.create.requests, new.get.requests - old.get.requests);
        let (heads, deletes) = (new.head.requests - old.head.requests, new.delete.requests - old.delete.requests);
        // A listing is one request at least, and one more for each full page.
        let lists = new.list.requests - old.list.requests + (new.list.bytes - old.list.bytes) / PAGE;
        let dollars = (puts + lists) as f64 * WRITE + (gets + heads) as f64 * READ;
        let (sent, received) = (new.create.bytes - old.create.bytes, new.get.bytes - old.get.bytes);
        self.steps.push(Step { name, puts, gets, heads, lists, deletes, sent, received, dollars });
    }
}

/// Files of noise, so that what is stored is as large as what was read.
struct Files {
    dir: tempfile::TempDir,
    count: usize,
}

impl Files {
    fn make(mib: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let count = usize::try_from(mib.div_ceil(64)).unwrap();
        for n in 0..count {
            std::fs::write(dir.path().join(format!("{n:04}")), noise(n as u64 + 1, FILE)).unwrap();
        }
        Self { dir, count }
    }

    fn locals(&self) -> Vec<LocalFile> {
        let local = |n: usize| {
            let name = format!("{n:04}");
            LocalFile::new(self.dir.path().join(&name), EntryMeta::file(EntryPath::new(name.as_str()).unwrap()))
        };
        (0..self.count).map(local).collect()
    }

    /// Changes one block of a hundred, each one alone.
    fn change(&self) {
        use std::os::unix::fs::FileExt as _;
        for n in 0..self.count {
            let file = std::fs::File::options().write(true).open(self.dir.path().join(format!("{n:04}")));
            let file = file.unwrap();
            for block in (n % 100..FILE / BLOCK).step_by(100) {
                file.write_all_at(&noise((n * 7919 + block) as u64 | 1 << 40, BLOCK), (block * BLOCK) as u64).unwrap();
            }
        }
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn key() -> RawKey {
    RawKey::take(&mut [7; 32])
}

fn service() -> ServiceId {
    ServiceId::new("requests").unwrap()
}

async fn open(vault: &Store) -> Repository {
    let settings = RepositorySettings::default();
    Repository::open(vault, service(), Identity::from(key()), &settings, Env::system()).await.unwrap()
}

async fn take(repository: &Repository, files: &Files, parent: ParentChoice) -> BackupRecord {
    let (work, env) = (Work::default(), Env::system());
    let started = env.now();
    let session = repository.begin(parent, &work).await.unwrap();
    session.sink().put_files(files.locals(), |_, _| Ok(())).await.unwrap();
    let times = (started, env.now());
    session.commit(Snapshot::new("files", "1", "source", "local", Consistency::PerPart, times)).await.unwrap()
}

async fn restore(repository: &Repository, record: &BackupRecord) {
    let into = tempfile::tempdir().unwrap();
    let source = repository.open(record.id).await.unwrap();
    source.extract(Extract::into_dir(into.path()), &Work::default()).await.unwrap();
}

/// A log in pieces of 64 KiB, one for each second of a minute, each made durable before the next one.
async fn minute_of_log(repository: &Repository) {
    let work = Work::default();
    let log = repository.open_log(LogOptions::default().flush_after(Duration::ZERO), &work).await.unwrap();
    let lineage = Lineage::new("1");
    let piece = noise(3, 64 << 10);
    log.declare(LineageRecord::new(lineage.clone(), "source", Notation::HexHalves, Env::system().now())).await.unwrap();
    for second in 0..60_u64 {
        let start = second * piece.len() as u64;
        let range = LogRange::new(lineage.clone(), start..start + piece.len() as u64);
        log.append(range, piece.clone().into(), &[]).await.unwrap();
        log.flush();
        let mut durable = log.durable();
        while durable.as_ref().is_none_or(|at| at.offset < start + piece.len() as u64) {
            durable = log.advanced(durable.as_ref()).await.unwrap();
        }
    }
    log.close().await.unwrap();
}

/// Tells the story of a repository of `mib` MiB on a store in memory.
async fn story(mib: u64) -> Vec<Step> {
    let files = Files::make(mib);
    let vault = Store::memory();
    let mut ledger = Ledger { before: vault.metrics(), vault: vault.clone(), steps: Vec::new() };
    let (settings, options) = (RepositorySettings::default(), CreateOptions::default());
    let made = Repository::create(&vault, service(), vec![key().into()], options, &settings, Env::system()).await;
    let repository = made.unwrap();
    ledger.book("repository made, with the probe");
    let first = take(&repository, &files, ParentChoice::None).await;
    ledger.book("full backup");
    take(&repository, &files, ParentChoice::Newest).await;
    ledger.book("backup, nothing changed");
    files.change();
    let third = take(&repository, &files, ParentChoice::Newest).await;
    ledger.book("backup, 1 % changed, scattered");
    minute_of_log(&repository).await;
    ledger.book("a minute of log, a piece a second");
    let reader = open(&vault).await;
    ledger.book("opened by another process");
    restore(&reader, &first).await;
    ledger.book("restore of the full backup");
    restore(&reader, &third).await;
    ledger.book("restore of the changed one");
    for (level, name) in [
        (VerifyLevel::Catalog, "verify, catalog"),
        (VerifyLevel::Objects, "verify, objects"),
        (VerifyLevel::Full, "verify, full"),
    ] {
        let report = reader.verify(level, &Work::default()).await.unwrap();
        assert!(report.is_sound(), "{:?}", report.damages);
        ledger.book(name);
    }
    let by = Actor::new(Role::Operator, "test");
    let expired = Event::BackupExpired { backup: third.id, reason: "a test".to_owned(), by, at: Env::system().now() };
    reader.decide(&mut |_| Ok(vec![expired.clone()])).await.unwrap();
    reader.collect(&CollectOptions::default().grace(Duration::ZERO), &Work::default()).await.unwrap();
    ledger.book("a backup expired and collected");
    ledger.steps
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_stay_within_what_the_document_promises() {
    let mib = std::env::var("BACKUP_REQUESTS_MIB").map_or(128, |mib| mib.parse().unwrap());
    let steps = story(mib).await;
    println!("{}", table(mib, &steps));
    let step = |name: &str| steps.iter().find(|step| step.name == name).unwrap();
    // Packs hold 16 MiB, and each worker may close one early at the end.
    let packs = mib / 16 + 4 + std::thread::available_parallelism().unwrap().get() as u64;
    let full = step("full backup");
    assert!(full.puts <= packs + 8, "{full:?}");
    assert!(full.gets + full.heads + full.lists <= 16, "{full:?}");
    let unchanged = step("backup, nothing changed");
    assert!(unchanged.puts <= 8 && unchanged.sent < 1 << 20, "{unchanged:?}");
    let restored = step("restore of the full backup");
    assert!(restored.gets + restored.heads <= packs * 4 + 16, "{restored:?}");
    assert_eq!(restored.puts, 0);
    let log = step("a minute of log, a piece a second");
    assert!((60..=70).contains(&log.puts), "{log:?}");
    let whole: f64 = steps.iter().map(|step| step.dollars).sum();
    assert!(whole < 0.01 * (1.0 + mib as f64 / 1024.0), "about a cent for a GiB, {whole}");
}

/// A Markdown table.
fn table(mib: u64, steps: &[Step]) -> String {
    let mut text = format!(
        "| {mib} MiB | put | get | head | list | delete | MB sent | MB received | $ |\n|---|---|---|---|---|---|---|---|---|\n"
    );
    for step in steps {
        let Step { name, puts, gets, heads, lists, deletes, .. } = step;
        let (sent, received) = (step.sent as f64 / 1e6, step.received as f64 / 1e6);
        let _ = writeln!(
            text,
            "| {name} | {puts} | {gets} | {heads} | {lists} | {deletes} | {sent:.1} | {received:.1} | {:.6} |",
            step.dollars
        );
    }
    text
}
