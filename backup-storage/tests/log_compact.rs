//! Compaction of the log: what can be restored, and what is known of it, stays the same, whoever does what at the same time and
//! wherever it is killed.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use backup_core::engine::{LogOptions, LogSink, LogSource, RestoreLog, Work};
use backup_core::env::{Entropy, Env, SeededEntropy};
use backup_core::log::{BackupPoint, Ledger, LineageRecord, LogPurpose, LogRange, Mark, Notation};
use backup_core::repository::{Repository as _, VerifyLevel};
use backup_core::{BackupId, ErrorKind, Lineage, ServiceId};
use backup_crypto::{Identity, RawKey};
use backup_storage::fault::{Crash, Fault, FaultPlan, FaultStore, WriteOnceGuard};
use backup_storage::store::{ObjectName, Store, StoreSettings};
use backup_storage::{CompactLog, CompactedLog, CreateOptions, Repository, RepositorySettings};
use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;
use object_store::memory::InMemory;

const PIECE: u64 = 100;

struct Bench {
    inner: Arc<InMemory>,
    guard: WriteOnceGuard,
    faults: FaultStore,
    store: Store,
    env: Env,
}

fn lineage(number: u64) -> Lineage {
    Lineage::new(number.to_string())
}

fn range(number: u64, start: u64, end: u64) -> LogRange {
    LogRange::new(lineage(number), start..end)
}

fn log(range: &LogRange) -> Bytes {
    let number: u64 = range.lineage.as_str().parse().unwrap();
    range
        .offsets()
        .map(|offset| (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number) >> 51) as u8)
        .collect()
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap()
}

fn small() -> CompactLog {
    CompactLog::default().least_age(Duration::ZERO).target(20 * PIECE)
}

impl Bench {
    fn over(inner: InMemory, seed: u64) -> Self {
        let inner = Arc::new(inner);
        let guard = WriteOnceGuard::new(Arc::clone(&inner) as _);
        let faults = FaultStore::new(Arc::new(guard.clone()), seed, FaultPlan::quiet());
        let env = Env::seeded(seed);
        let settings = StoreSettings::default().retries(8);
        let store = Store::from_object_store(Arc::new(faults.clone())).with_settings(settings).with_env(env.clone());
        Self { inner, guard, faults, store, env }
    }

    async fn new(seed: u64) -> Self {
        let bench = Self::over(InMemory::new(), seed);
        let recipients = vec![RawKey::take(&mut [1; 32]).into()];
        let (options, env) = (CreateOptions::default(), bench.env.clone());
        Repository::create(&bench.store, Self::service(), recipients, options, &Self::settings(), env).await.unwrap();
        bench
    }

    /// The same store once more, for another fate.
    fn fork(&self, seed: u64) -> Self {
        Self::over(self.inner.fork(), seed)
    }

    fn service() -> ServiceId {
        ServiceId::new("svc").unwrap()
    }

    fn settings() -> RepositorySettings {
        RepositorySettings::default().workers(1)
    }

    async fn repository(&self) -> Repository {
        let identity = Identity::from(RawKey::take(&mut [1; 32]));
        Repository::open(&self.store, Self::service(), identity, &Self::settings(), self.env.clone()).await.unwrap()
    }

    fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    async fn writer(&self, purpose: LogPurpose) -> Arc<dyn LogSink> {
        let options = LogOptions::of(purpose).idle_mark(Duration::ZERO);
        let sink = self.repository().await.open_log(options, &self.work()).await.unwrap();
        for number in [1, 2] {
            let record = LineageRecord::new(lineage(number), "source", Notation::HexHalves, at(number as i64));
            let record = if number == 1 { record } else { record.with_fork(lineage(1), FORK) };
            sink.declare(record).await.unwrap();
        }
        sink
    }

    async fn source(&self) -> Arc<dyn LogSource> {
        self.repository().await.log().await.unwrap()
    }

    async fn ledger(&self) -> Arc<Ledger> {
        self.source().await.ledger()
    }

    async fn compact(&self, options: &CompactLog) -> backup_core::Result<CompactedLog> {
        Ok(self.repository().await.compact_log(options, &self.work()).await?)
    }

    async fn objects(&self) -> Vec<ObjectName> {
        self.store.list("svc/log").map_ok(|object| object.name).try_collect().await.unwrap()
    }

    /// Everything that the ledger says is stored can be read.
    async fn assert_reads(&self, source: &dyn LogSource) {
        let ledger = source.ledger();
        for record in ledger.lineages() {
            for held in ledger.covered(&record.lineage).as_slice() {
                let range = LogRange::new(record.lineage.clone(), held.clone());
                let pieces: Vec<Bytes> = source.read(range.clone()).try_collect().await.unwrap();
                assert!(pieces.concat() == log(&range), "{range}");
            }
        }
    }

    async fn assert_sound(&self) {
        let report = self.repository().await.verify(VerifyLevel::Full, &self.work()).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
        self.guard.assert_clean();
    }

    /// A log of `count` pieces in lineage 1 by a writer that is closed.
    async fn of_pieces(seed: u64, count: u64) -> Self {
        let bench = Self::new(seed).await;
        let sink = bench.writer(LogPurpose::Stream).await;
        for number in 0..count {
            append(sink.as_ref(), range(1, number * PIECE, (number + 1) * PIECE), &[]).await;
        }
        sink.close().await.unwrap();
        bench
    }
}

/// Where lineage 2 leaves lineage 1.
const FORK: u64 = 20 * PIECE;

/// Appends `range` as a piece of its own.
async fn append(sink: &dyn LogSink, range: LogRange, marks: &[Mark]) {
    let bytes = log(&range);
    let known = sink.durable();
    sink.append(range.clone(), bytes, marks).await.unwrap();
    sink.flush();
    if !range.is_empty() {
        let durable = |known: &Option<backup_core::LogPosition>| {
            known.as_ref().is_some_and(|k| k.lineage == range.lineage && k.offset == range.end)
        };
        let mut known = known;
        while !durable(&known) {
            known = sink.advanced(known.as_ref()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn many_small_objects_become_few_large_ones() {
    let bench = Bench::of_pieces(1, 205).await;
    let (before, lazy) = (bench.ledger().await, bench.source().await);
    let done = bench.compact(&small()).await.unwrap();
    assert_eq!((done.objects_before, done.objects_after, done.written, done.deleted), (205, 11, 11, 205), "{done:?}");
    assert!(done.findings.is_empty() && done.left == 0 && done.bytes_after < done.bytes_before, "{done:?}");
    assert_eq!(bench.objects().await.len(), 11);
    assert_eq!(bench.ledger().await, before);
    bench.assert_reads(bench.source().await.as_ref()).await;
    // Who had listed what is gone lists again.
    bench.assert_reads(lazy.as_ref()).await;
    bench.assert_sound().await;
    // What is done is done, and costs nothing to find out.
    let (again, entries) = (bench.compact(&small()).await.unwrap(), bench.store.metrics().create.requests);
    assert_eq!((again.written, again.deleted, again.objects_after), (0, 0, 11), "{again:?}");
    assert_eq!(bench.store.metrics().create.requests, entries, "no writer was opened for nothing");
    serde_json::to_string(&done).unwrap();
}

#[tokio::test]
async fn young_objects_and_those_beyond_the_allowance_are_left() {
    let bench = Bench::of_pieces(2, 100).await;
    let old = small().least_age(Duration::from_secs(1 << 40));
    let done = bench.compact(&old).await.unwrap();
    assert_eq!((done.written, done.deleted, done.left), (0, 0, 0));
    let size = done.bytes_before / 100;
    let done = bench.compact(&small().most_bytes(size * 31)).await.unwrap();
    assert!(done.left > 0 && (28..=32).contains(&done.deleted), "{done:?}");
    let mut left = done.left;
    while left > 0 {
        left = bench.compact(&small().most_bytes(size * 31)).await.unwrap().left;
    }
    assert!(bench.objects().await.len() <= 7, "{:?}", bench.objects().await);
    bench.assert_reads(bench.source().await.as_ref()).await;
    bench.assert_sound().await;
}

#[tokio::test]
async fn the_last_objects_of_a_writer_tell_its_successor_how_far_it_came() {
    let bench = Bench::new(3).await;
    let sink = bench.writer(LogPurpose::Stream).await;
    for number in 0..50 {
        append(sink.as_ref(), range(1, number * PIECE, (number + 1) * PIECE), &[]).await;
    }
    bench.compact(&small()).await.unwrap();
    let names = bench.objects().await;
    let own = names.iter().filter(|name| name.as_str().contains("/00000001/")).count();
    assert_eq!((own, names.len()), (16, 18), "{names:?}");
    // The writer goes on, and dies without a word.
    for number in 50..60 {
        append(sink.as_ref(), range(1, number * PIECE, (number + 1) * PIECE), &[]).await;
    }
    drop(sink);
    let next = bench.writer(LogPurpose::Stream).await;
    assert_eq!(next.ledger().covered(&lineage(1)).as_slice(), std::slice::from_ref(&(0..60 * PIECE)));
    append(next.as_ref(), range(1, 60 * PIECE, 61 * PIECE), &[]).await;
    next.close().await.unwrap();
    bench.compact(&small()).await.unwrap();
    assert_eq!(bench.ledger().await.covered(&lineage(1)).as_slice(), std::slice::from_ref(&(0..61 * PIECE)));
    assert!(bench.objects().await.len() <= 5, "{:?}", bench.objects().await);
    bench.assert_reads(bench.source().await.as_ref()).await;
    bench.assert_sound().await;
}

#[tokio::test]
async fn credentials_that_may_only_add_lose_nothing_and_do_nothing_twice() {
    let bench = Bench::of_pieces(4, 60).await;
    bench.faults.set_plan(FaultPlan::quiet().with(Fault::DeleteDenied, 1.0));
    let done = bench.compact(&small()).await.unwrap();
    assert_eq!((done.written, done.deleted, done.objects_after), (3, 0, 63), "{done:?}");
    assert_eq!(done.findings.iter().map(|f| f.code.as_str()).collect::<Vec<_>>(), ["log-delete-refused"]);
    let (deletes, entries) = (bench.store.metrics().delete.requests, bench.store.metrics().create.requests);
    assert!(deletes <= 3, "{deletes} refusals");
    let done = bench.compact(&small()).await.unwrap();
    assert_eq!((done.written, done.deleted, done.findings.len()), (0, 0, 1), "{done:?}");
    assert_eq!(bench.store.metrics().create.requests, entries);
    bench.faults.set_plan(FaultPlan::quiet());
    let done = bench.compact(&small()).await.unwrap();
    assert_eq!((done.written, done.deleted, done.objects_after), (0, 60, 3), "{done:?}");
    bench.assert_reads(bench.source().await.as_ref()).await;
    bench.assert_sound().await;
}

#[tokio::test]
async fn an_object_that_cannot_be_read_stays_alone() {
    let bench = Bench::of_pieces(5, 40).await;
    let before = bench.ledger().await;
    let name = bench.objects().await[7].clone();
    let mut bytes = bench.store.get(&name).await.unwrap().to_vec();
    bytes[200] ^= 1;
    bench.guard.excuse("log/");
    bench.store.delete(&name).await.unwrap();
    assert!(bench.store.create(&name, bytes).await.unwrap().is_ours());
    let done = bench.compact(&small()).await.unwrap();
    let found: Vec<_> = done.findings.iter().map(|f| (f.code.as_str(), f.subject.as_str())).collect();
    assert_eq!(found, [("log-object-unreadable", name.as_str().strip_prefix("svc/").unwrap())]);
    assert_eq!((bench.objects().await.len(), done.deleted), (4, 39), "{done:?}");
    assert_eq!(bench.ledger().await, before, "what is damaged is for verification to say");
    let source = bench.source().await;
    for (start, end) in [(0, 7 * PIECE), (8 * PIECE, 40 * PIECE)] {
        let pieces: Vec<Bytes> = source.read(range(1, start, end)).try_collect().await.unwrap();
        assert!(pieces.concat() == log(&range(1, start, end)));
    }
    let report = bench.repository().await.verify(VerifyLevel::Full, &bench.work()).await.unwrap();
    assert_eq!(report.damages.len(), 1, "{report:?}");
}

#[tokio::test]
async fn a_word_is_kept_until_a_piece_says_the_same() {
    let bench = Bench::new(6).await;
    let (sink, end) = (bench.writer(LogPurpose::Stream).await, 9 * PIECE);
    append(sink.as_ref(), range(1, 0, end), &[]).await;
    for minute in 0..40 {
        append(sink.as_ref(), range(1, end, end), &[Mark::AsOf { offset: end, at: at(minute) }]).await;
        while (bench.objects().await.len() as i64) < minute + 2 {
            tokio::task::yield_now().await;
        }
    }
    sink.close().await.unwrap();
    let known = async || {
        let (source, from) = (bench.source().await, backup_core::LogPosition::new(lineage(1), 0, "0/0"));
        let path = source.ledger().path(&from, &lineage(1)).unwrap();
        RestoreLog::new(source, path).known_until().await.unwrap()
    };
    assert_eq!(known().await, Some(at(39)));
    // The piece is too large to be written again for a word, so the last word stays by itself, and only that.
    let done = bench.compact(&small()).await.unwrap();
    assert_eq!((done.written, done.deleted, bench.objects().await.len()), (0, 39, 2), "{done:?}");
    assert_eq!(known().await, Some(at(39)));
    let done = bench.compact(&small()).await.unwrap();
    assert_eq!((done.written, done.deleted, done.objects_after), (0, 0, 2), "{done:?}");
    let next = bench.writer(LogPurpose::Stream).await;
    append(next.as_ref(), range(1, end, 2 * end), &[]).await;
    next.close().await.unwrap();
    let done = bench.compact(&small()).await.unwrap();
    assert_eq!((done.written, bench.objects().await.len()), (1, 1), "{done:?}");
    assert_eq!(known().await, Some(at(39)));
    bench.assert_sound().await;
}

#[tokio::test]
async fn large_objects_are_made_and_read_in_stretches() {
    const MIB: u64 = 1 << 20;
    let bench = Bench::new(8).await;
    let sink = bench.writer(LogPurpose::Stream).await;
    for number in 0..6 {
        let start = FORK + number * 4 * MIB;
        append(sink.as_ref(), range(2, start, start + 4 * MIB), &[]).await;
    }
    sink.close().await.unwrap();
    let done = bench.compact(&CompactLog::default().least_age(Duration::ZERO)).await.unwrap();
    assert_eq!((done.written, done.objects_after), (1, 1), "{done:?}");
    let source = bench.source().await;
    let before = bench.store.metrics();
    bench.assert_reads(source.as_ref()).await;
    let requests = bench.store.metrics().get.requests - before.get.requests;
    assert!(requests <= 4, "{requests} requests: header, end, and two stretches");
    for (start, end) in [(5 * MIB + 3, 23 * MIB + 7), (15 * MIB + 9, 16 * MIB + 1), (7, 8), (24 * MIB - 1, 24 * MIB)] {
        let part = range(2, FORK + start, FORK + end);
        let pieces: Vec<Bytes> = source.read(part.clone()).try_collect().await.unwrap();
        assert!(pieces.concat() == log(&part), "{part}");
    }
    bench.assert_sound().await;
}

struct Dice(SeededEntropy);

impl Dice {
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound.max(1)
    }
}

/// What was written, so that every answer can be checked.
#[derive(Default)]
struct Truth {
    commits: Vec<(u64, u64, i64)>,
    names: Vec<(u64, u64, String)>,
    now: i64,
}

impl Truth {
    /// Lets several writers write two lineages, with pieces of all sizes, cuts, holes, words and repetitions.
    async fn write(&mut self, bench: &Bench, dice: &Dice) {
        let mut ends = [0, FORK];
        for _ in 0..1 + dice.below(3) {
            let sink = bench.writer(LogPurpose::Stream).await;
            for _ in 0..dice.below(50) {
                let number = if ends[0] < FORK || dice.below(3) == 0 { 1 } else { 2 };
                let from = ends[number as usize - 1];
                let len = match dice.below(8) {
                    0 => 0,
                    1 => 1 + dice.below(15 * PIECE),
                    _ => 1 + dice.below(PIECE),
                };
                match dice.below(40) {
                    0 => sink.gap(range(number, from, from), "cut").await.unwrap(),
                    1 => {
                        sink.gap(range(number, from, from + len), "lost").await.unwrap();
                        ends[number as usize - 1] += len;
                        continue;
                    }
                    _ => {}
                }
                let marks = self.notice(number, (from, from + len), dice);
                append(sink.as_ref(), range(number, from, from + len), &marks).await;
                ends[number as usize - 1] += len;
            }
            if dice.below(3) > 0 {
                sink.close().await.unwrap();
            }
        }
        // Somebody collects complete pieces besides.
        let import = bench.writer(LogPurpose::Import).await;
        for _ in 0..dice.below(4) {
            let start = dice.below(ends[0] + 1);
            let end = (start + dice.below(500)).min(ends[0]);
            append(import.as_ref(), range(1, start, end), &self.known(1, (start, end))).await;
        }
        import.close().await.unwrap();
    }

    fn notice(&mut self, number: u64, (start, end): (u64, u64), dice: &Dice) -> Vec<Mark> {
        self.now += 1000 + dice.below(4000) as i64;
        let mut offsets: Vec<_> = (0..dice.below(6)).map(|_| start + 1 + dice.below(end - start)).collect();
        offsets.retain(|offset| *offset <= end);
        offsets.sort_unstable();
        offsets.dedup();
        for offset in offsets {
            self.commits.push((number, offset, self.now + dice.below(800) as i64 - 400));
            if dice.below(6) == 0 {
                self.names.push((number, offset, format!("name-{}", dice.below(5))));
            }
        }
        let mut marks = self.known(number, (start, end));
        if dice.below(3) == 0 {
            marks.push(Mark::AsOf { offset: end, at: at(self.now + 500) });
        }
        marks
    }

    /// What anyone notices in these bytes.
    fn known(&self, number: u64, (start, end): (u64, u64)) -> Vec<Mark> {
        let inside = |other: u64, offset: u64| other == number && start < offset && offset <= end;
        let commits = self.commits.iter().filter(|c| inside(c.0, c.1));
        let commits = commits.map(|(_, offset, millis)| Mark::Commit { offset: *offset, at: at(*millis) });
        let names = self.names.iter().filter(|n| inside(n.0, n.1));
        let names = names.flat_map(|(_, offset, name)| {
            let note = Mark::Note { offset: *offset, bytes: name.clone().into() };
            [Mark::Name { offset: *offset, name: name.clone(), at: at(0) }, note]
        });
        commits.chain(names).collect()
    }

    /// Everything that a restore asks, resolved as an engine does it: by the log itself, where the index says.
    async fn answers(&self, source: &Arc<dyn LogSource>, dice_seed: u64) -> Vec<String> {
        let (dice, ledger) = (Dice(SeededEntropy::new(dice_seed)), source.ledger());
        let mut answers = vec![format!("{:?}", ledger.holes())];
        let points = (0..4).map(|n| {
            let number = 1 + n % 2;
            let position = ledger.position(&lineage(number), dice.below(5000));
            BackupPoint::new(BackupId::from_bytes([n as u8; 16]), position, at(n as i64))
        });
        for window in ledger.windows(points.collect::<Vec<_>>()) {
            let log = RestoreLog::new(Arc::clone(source), window.path.clone());
            answers.push(format!("{window:?} known until {:?}", log.known_until().await.unwrap()));
            let mut notes = BTreeSet::new();
            for part in &window.path.ranges {
                let indices: Vec<_> = source.index(part.clone()).try_collect().await.unwrap();
                let all = indices.into_iter().flat_map(|(_, index)| index.notes);
                let inside = all.filter(|note| part.start < note.offset && note.offset <= part.end);
                notes.extend(inside.map(|note| (part.lineage.clone(), note.offset, note.bytes)));
            }
            let on = |n: &&(u64, u64, String)| self.passes(&log, n.0, n.1);
            let said = self.names.iter().filter(on).map(|n| (lineage(n.0), n.1, n.2.clone().into_bytes()));
            assert_eq!(notes, said.collect::<BTreeSet<_>>());
            for name in 0..5 {
                let name = format!("name-{name}");
                let found: Vec<_> =
                    log.named(&name).await.unwrap().into_iter().map(|(p, _)| (p.lineage, p.offset)).collect();
                let on = |n: &&(u64, u64, String)| n.2 == name && self.passes(&log, n.0, n.1);
                let true_names: BTreeSet<_> = self.names.iter().filter(on).map(|n| (lineage(n.0), n.1)).collect();
                assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), true_names);
                answers.push(format!("{name}: {true_names:?}"));
            }
            for _ in 0..6 {
                let target = dice.below(self.now as u64 + 5000) as i64 - 1000;
                let later = log.first_later(at(target)).await.unwrap();
                // The first in the order of the path.
                let first = window.path.ranges.iter().find_map(|part| {
                    let on = |c: &&(u64, u64, i64)| lineage(c.0) == part.lineage && part.start < c.1 && c.1 <= part.end;
                    let beyond = self.commits.iter().filter(on).filter(|c| c.2 > target).map(|c| c.1);
                    beyond.min().map(|offset| (part.lineage.clone(), offset))
                });
                let place = |lineage: &Lineage, offset: u64| {
                    let part = window.path.ranges.iter().position(|part| part.lineage == *lineage);
                    (part.unwrap_or(0), offset)
                };
                match (&first, later) {
                    (None, None) => {}
                    (Some((lineage, offset)), Some((after, until))) => {
                        assert!(
                            place(&after.lineage, after.offset) < place(lineage, *offset),
                            "{after} {until} {first:?}"
                        );
                        assert!(place(lineage, *offset) <= place(&until.lineage, until.offset), "{until} {first:?}");
                    }
                    // Where the clock went backwards only the log itself can tell.
                    (None, Some((_, until))) => assert_eq!((&until.lineage, until.offset), window.path.end()),
                    other => panic!("{other:?}"),
                }
                answers.push(format!("{target}: {first:?}"));
            }
        }
        answers
    }

    fn passes(&self, log: &RestoreLog, number: u64, offset: u64) -> bool {
        let on = |part: &LogRange| part.lineage == lineage(number) && part.start < offset && offset <= part.end;
        log.path().ranges.iter().any(on)
    }
}

#[tokio::test(start_paused = true)]
async fn every_question_has_the_same_answer_before_and_after() {
    let mut merged = 0;
    for seed in 0..40 {
        let (bench, dice, mut truth) = (Bench::new(seed).await, Dice(SeededEntropy::new(seed)), Truth::default());
        truth.write(&bench, &dice).await;
        let source = bench.source().await;
        let (ledger, answers) = (source.ledger(), truth.answers(&source, seed).await);
        for round in 0..3 {
            let done = bench.compact(&small().target(PIECE * (1 + dice.below(40)))).await.unwrap();
            assert!(done.findings.is_empty(), "{done:?}");
            merged += done.deleted;
            let fresh = bench.source().await;
            assert_eq!(fresh.ledger(), ledger, "seed {seed}, round {round}");
            assert_eq!(truth.answers(&fresh, seed).await, answers, "seed {seed}, round {round}");
            bench.assert_reads(fresh.as_ref()).await;
        }
        assert_eq!(truth.answers(&source, seed).await, answers, "seed {seed}, by one who had listed before");
        bench.assert_sound().await;
    }
    assert!(merged > 600, "{merged} objects were merged");
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_request_nothing_is_lost() {
    let whole = Bench::of_pieces(7, 45).await;
    let (before, mut deaths) = (whole.ledger().await, 0);
    for after in 0..140 {
        let bench = whole.fork(after);
        bench.faults.crash(Crash { after, lands: after % 2 == 0, hangs: after % 3 == 0 });
        tokio::select! {
            outcome = async { Ok::<_, backup_core::Error>(self::open(&bench).await?.compact_log(&small(), &bench.work()).await?) } => {
                deaths += u64::from(outcome.is_err());
            }
            () = bench.faults.crashed() => deaths += 1,
        }
        bench.faults.revive();
        assert_eq!(bench.ledger().await, before, "killed after {after}");
        bench.assert_reads(bench.source().await.as_ref()).await;
        // What is stored twice is found and cleaned.
        bench.compact(&small()).await.unwrap();
        bench.compact(&small()).await.unwrap();
        assert!(bench.objects().await.len() <= 5, "killed after {after}: {:?}", bench.objects().await);
        assert_eq!(bench.ledger().await, before, "killed after {after}");
        bench.assert_reads(bench.source().await.as_ref()).await;
        bench.guard.assert_clean();
    }
    assert!(deaths > 60, "{deaths} deaths");
}

async fn open(bench: &Bench) -> backup_core::Result<Repository> {
    let identity = Identity::from(RawKey::take(&mut [1; 32]));
    let (settings, env) = (Bench::settings(), bench.env.clone());
    Ok(Repository::open(&bench.store, Bench::service(), identity, &settings, env).await?)
}

#[tokio::test(start_paused = true)]
async fn two_at_once_beside_a_writer_and_readers_on_a_stormy_store() {
    for seed in 0..24 {
        let bench = Bench::of_pieces(seed, 60).await;
        let sink = bench.writer(LogPurpose::Stream).await;
        let odds = if seed % 2 == 0 { 0.0 } else { 0.01 };
        bench.faults.set_plan(FaultPlan::stormy(odds).yields(6));
        let writing = async {
            for number in 60..90 {
                append(sink.as_ref(), range(1, number * PIECE, (number + 1) * PIECE), &[]).await;
            }
        };
        let compacting = async |delay: u64| {
            for _ in 0..delay {
                tokio::task::yield_now().await;
            }
            for _ in 0..2 {
                match bench.compact(&small()).await {
                    Ok(done) => assert!(done.findings.is_empty(), "seed {seed}: {done:?}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "seed {seed}: {error}"),
                }
            }
        };
        let reading = async {
            for _ in 0..4 {
                let source = bench.source().await;
                assert!(source.ledger().covered(&lineage(1)).contains(&(0..60 * PIECE)), "seed {seed}");
                bench.assert_reads(source.as_ref()).await;
            }
        };
        futures::join!(writing, compacting(0), compacting(seed * 3), reading);
        bench.faults.set_plan(FaultPlan::quiet());
        bench.faults.flush_late().await;
        sink.close().await.unwrap();
        bench.compact(&small()).await.unwrap();
        bench.compact(&small()).await.unwrap();
        assert_eq!(
            bench.ledger().await.covered(&lineage(1)).as_slice(),
            std::slice::from_ref(&(0..90 * PIECE)),
            "seed {seed}"
        );
        assert!(bench.objects().await.len() <= 12, "seed {seed}: {:?}", bench.objects().await);
        bench.assert_reads(bench.source().await.as_ref()).await;
        bench.assert_sound().await;
    }
}
