#![allow(clippy::single_range_in_vec_init, reason = "sets of offsets are compared, often of one interval")]

use std::time::Duration;

use futures::TryStreamExt;
use proptest::prelude::*;
use tokio::task::JoinHandle;

use super::lines::{Lines, lineage, lines, millis};
use super::*;
use crate::catalog::BackupRecord;
use crate::engine::{LogOptions, LogSink};
use crate::log::{LineageRecord, LogPurpose, LogRange, Notation};

/// A repository and a deployment whose log is captured whenever the test says so.
struct Story {
    repository: MemoryRepository,
    env: Env,
    engine: Arc<Lines>,
}

/// A capture that runs.
struct Capture {
    task: JoinHandle<Result<Arc<dyn LogSink>>>,
    cancel: CancellationToken,
}

impl Capture {
    async fn end(self) -> Result<Arc<dyn LogSink>> {
        self.cancel.cancel();
        self.task.await.unwrap()
    }
}

impl Story {
    fn new() -> Self {
        Self { repository: repository(), env: Env::seeded(1), engine: Arc::new(Lines::of("a")) }
    }

    fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    async fn backup(&self) -> BackupRecord {
        self.env.clock().sleep(Duration::from_secs(1)).await;
        backup(&self.repository, &*self.engine, BackupOptions::default(), &self.work()).await.unwrap()
    }

    fn start(&self) -> Capture {
        let (repository, engine, cancel) =
            (self.repository.reopen(), Arc::clone(&self.engine), CancellationToken::new());
        let work = self.work().with_cancel(cancel.clone());
        let task = tokio::spawn(async move { capture(&repository, &*engine, LogOptions::default(), &work).await });
        Capture { task, cancel }
    }

    /// Captures all that there is.
    async fn capture(&self) {
        if self.engine.acknowledged() == Some(self.engine.position()) {
            return;
        }
        let running = self.start();
        while self.engine.acknowledged() != Some(self.engine.position()) {
            assert!(!running.task.is_finished(), "the capture has ended");
            tokio::task::yield_now().await;
        }
        running.end().await.unwrap();
    }

    async fn plan(&self, goal: Goal) -> Result<RestorePlan> {
        self.plan_target(RecoveryTarget::new(goal)).await
    }

    async fn plan_target(&self, target: RecoveryTarget) -> Result<RestorePlan> {
        plan_restore(&self.repository, &*self.engine, target, Selector::all(), &self.work()).await
    }

    /// The text after a restore, and the backup that it began with.
    async fn restored(&self, target: RecoveryTarget) -> Result<(String, BackupId)> {
        let plan = self.plan_target(target).await?;
        let target = Lines::of("target");
        restore(&target, &plan, &self.work()).await?;
        Ok((target.restored().unwrap(), plan.backup.id))
    }

    async fn restores(&self, goal: Goal) -> (String, BackupId) {
        self.restored(RecoveryTarget::new(goal)).await.unwrap()
    }

    async fn refuses(&self, goal: Goal) -> String {
        let error = self.plan(goal.clone()).await.map(|plan| plan.backup.id).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{goal:?}: {error}");
        error.to_string()
    }

    async fn windows(&self) -> Restorable {
        windows(&self.repository, Some("lines"), &self.work()).await.unwrap()
    }
}

#[tokio::test]
async fn a_capture_acknowledges_what_is_stored_and_goes_on_where_it_ended() {
    let story = Story::new();
    story.engine.write(1000, 'c', "a");
    let running = story.start();
    for (at, name) in [(2000, "b"), (3000, "c")] {
        let end = story.engine.write(at, 'c', name);
        while story.engine.acknowledged() != Some(story.engine.position()) {
            tokio::task::yield_now().await;
        }
        let covered = story.repository.log().await.unwrap().ledger().covered(&lineage(1)).as_slice().to_vec();
        assert_eq!(covered, [0..end], "what was acknowledged is stored");
    }
    let sink = running.end().await.unwrap();
    let end = story.engine.position();
    assert_eq!(sink.durable(), Some(end.clone()), "a cancelled capture is no failure, and tells what is durable");
    let state = story.repository.catalog().await.unwrap();
    assert!(state.log().writer(sink.epoch()).is_some_and(|writer| writer.ends.is_some()), "the writer was closed");

    story.engine.write(4000, 'c', "d");
    story.capture().await;
    let ledger = story.repository.log().await.unwrap().ledger();
    assert_eq!(ledger.covered(&lineage(1)).as_slice(), [0..story.engine.position().offset]);
    let stored = story.repository.log().await.unwrap();
    let pieces: Vec<_> = stored.index(LogRange::new(lineage(1), 0..u64::MAX)).try_collect().await.unwrap();
    let last = pieces.last().map(|(range, _)| range.offsets());
    assert_eq!(last, Some(end.offset..story.engine.position().offset), "nothing is stored twice");
}

#[tokio::test]
async fn a_later_capture_ends_the_one_before_with_a_conflict() {
    let story = Story::new();
    story.engine.write(1000, 'c', "a");
    story.capture().await;
    let first = story.start();
    // Until it has been opened.
    while story.repository.catalog().await.unwrap().log().writers().count() < 2 {
        tokio::task::yield_now().await;
    }
    let second = story.repository.open_log(LogOptions::default(), &story.work()).await.unwrap();
    let acknowledged = story.engine.acknowledged();
    story.engine.write(2000, 'c', "b");
    let error = first.task.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(story.engine.acknowledged(), acknowledged, "a fenced capture acknowledges nothing");
    second.close().await.unwrap();
    story.capture().await;
    let end = story.engine.position().offset;
    assert_eq!(story.repository.log().await.unwrap().ledger().covered(&lineage(1)).as_slice(), [0..end]);
}

#[tokio::test]
async fn an_engine_without_a_log_has_nothing_to_capture() {
    let bench = Bench::new();
    let engine = Text::of("a");
    let captured = capture(&bench.repository, &engine, LogOptions::default(), &bench.work()).await;
    let dir = tempfile::tempdir().unwrap();
    let imported = import(&bench.repository, &engine, dir.path(), LogOptions::default(), &bench.work()).await;
    for error in [captured.map(drop).unwrap_err(), imported.map(drop).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("Text"), "{error}");
    }
    assert!(bench.repository.journal().is_empty(), "nothing was opened");
}

#[tokio::test]
async fn collected_pieces_are_imported_once_and_compared() {
    let story = Story::new();
    let first = story.engine.write(1000, 'c', "a");
    story.engine.write(2000, 'c', "b");
    let dir = tempfile::tempdir().unwrap();
    let text = story.engine.text(1, story.engine.position().offset);
    let (head, tail) = text.split_at(first as usize);
    std::fs::write(dir.path().join("1-0"), head).unwrap();
    std::fs::write(dir.path().join(format!("1-{first}")), tail).unwrap();
    let run =
        async || import(&story.repository, &*story.engine, dir.path(), LogOptions::default(), &story.work()).await;
    let done = run().await.unwrap();
    assert_eq!((done.stored, done.known, done.bytes), (2, 0, text.len() as u64));
    let done = run().await.unwrap();
    assert_eq!((done.stored, done.known, done.bytes), (0, 2, 0));
    let catalog = story.repository.catalog().await.unwrap();
    let purposes: Vec<_> = catalog.log().writers().map(|(_, w)| (w.purpose, w.ends.is_some())).collect();
    assert_eq!(purposes, [(LogPurpose::Import, true); 2], "an import fences nobody and is closed");

    std::fs::write(dir.path().join("1-0"), head.replace('a', "x")).unwrap();
    let error = run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(story.repository.log().await.unwrap().ledger().covered(&lineage(1)).as_slice(), [0..text.len() as u64]);
}

#[tokio::test]
async fn windows_say_from_when_to_when() {
    let story = Story::new();
    assert!(story.windows().await.windows.is_empty());
    story.engine.write(1000, 'c', "a");
    let first = story.backup().await;
    let alone = story.windows().await;
    assert_eq!(alone.windows.len(), 1, "a backup without log is a window of one moment");
    assert_eq!((alone.windows[0].from_time, alone.windows[0].to_time), (millis(1000), millis(1000)));
    story.engine.write(2000, 'c', "b");
    let stop = story.backup().await.snapshot.stop.unwrap();
    story.engine.write(5000, 'c', "c");
    // Nobody has captured what came before.
    let sink = story.repository.open_log(LogOptions::default(), &story.work()).await.unwrap();
    let record = LineageRecord::new(lineage(1), "a", Notation::Decimal, story.env.now());
    sink.declare(record).await.unwrap();
    sink.close().await.unwrap();
    let text = story.engine.text(1, story.engine.position().offset);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(format!("1-{}", stop.offset)), &text[stop.offset as usize..]).unwrap();
    import(&story.repository, &*story.engine, dir.path(), LogOptions::default(), &story.work()).await.unwrap();

    let found = story.windows().await;
    let times: Vec<_> = found.windows.iter().map(|w| (w.from_time, w.to_time, w.window.orphaned)).collect();
    assert_eq!(times, [(millis(1000), millis(1000), false), (millis(2000), millis(5000), false)]);
    assert!(found.holes.is_empty(), "what comes before the first stored piece is not missing");
    let other = windows(&story.repository, Some("text"), &story.work()).await.unwrap();
    assert!(other.windows.is_empty(), "backups of another engine");
    let text = story.refuses(Goal::Time(millis(1500))).await;
    assert!(text.contains(&millis(2000).to_string()) && text.contains(&millis(5000).to_string()), "{text}");
    assert_eq!(story.restores(Goal::Time(millis(1000))).await.1, first.id);
}

#[tokio::test]
async fn the_latest_state_is_the_end_of_the_log() {
    let story = Story::new();
    story.engine.write(1000, 'c', "a");
    story.backup().await;
    let alone = story.plan(Goal::Latest).await.unwrap();
    assert!(alone.log().is_none(), "there is no log");
    story.engine.write(2000, 'c', "b");
    story.capture().await;
    let second = story.backup().await;
    story.engine.write(3000, 'c', "c");
    story.capture().await;
    let end = story.engine.position().offset;
    assert_eq!(story.restores(Goal::Latest).await, (story.engine.text(1, end), second.id));
    let backup = story.plan(Goal::Backup(second.id)).await.unwrap();
    assert!(backup.log().is_none(), "exactly the backup");
    assert_eq!(
        story.restores(Goal::Backup(second.id)).await.0,
        story.engine.text(1, second.snapshot.stop.unwrap().offset)
    );
}

#[tokio::test]
async fn positions_names_and_transactions_are_reached() {
    let story = Story::new();
    let a = story.engine.write(1000, 'c', "a");
    let first = story.backup().await;
    let b = story.engine.write(2000, 'c', "b");
    let named = story.engine.write(2500, 'p', "before");
    let c = story.engine.write(3000, 'c', "c");
    story.capture().await;
    let second = story.backup().await;
    let d = story.engine.write(4000, 'c', "d");
    story.engine.write(4500, 'p', "again");
    story.engine.write(4600, 'p', "again");
    story.capture().await;
    let text = |end| story.engine.text(1, end);
    for (goal, inclusive, exclusive, from) in [
        (Goal::Position(b.to_string()), b, a, &first),
        (Goal::Position(format!("1/{named}")), named, b, &first),
        (Goal::Position(d.to_string()), d, c, &second),
        (Goal::Named("before".into()), named, b, &first),
        (Goal::Transaction("b".into()), b, a, &first),
        (Goal::Transaction("c".into()), c, named, &first),
        (Goal::Transaction("d".into()), d, c, &second),
    ] {
        assert_eq!(story.restores(goal.clone()).await, (text(inclusive), from.id), "{goal:?}");
        let target = RecoveryTarget::new(goal.clone()).exclusive();
        assert_eq!(story.restored(target).await.unwrap(), (text(exclusive), from.id), "{goal:?}, exclusive");
    }
    for refused in [
        Goal::Position((a - 1).to_string()),
        Goal::Position("99999".into()),
        Goal::Position("2/10".into()),
        Goal::Position("somewhere".into()),
        Goal::Named("after".into()),
        Goal::Transaction("a".into()),
        Goal::Transaction("z".into()),
    ] {
        story.refuses(refused).await;
    }
    let text = story.refuses(Goal::Named("again".into())).await;
    assert!(text.contains("ambiguous") && text.contains(&millis(4600).to_string()), "{text}");
}

#[tokio::test]
async fn after_a_failover_the_latest_state_is_that_of_the_successor() {
    let story = Story::new();
    let a = story.engine.write(1000, 'c', "a");
    let first = story.backup().await;
    let b = story.engine.write(2000, 'c', "b");
    let c = story.engine.write(3000, 'c', "c");
    story.capture().await;
    // The old primary was backed up when it was ahead of its successor already.
    let ahead = story.backup().await;
    story.engine.fail_over(b);
    let d = story.engine.write(3500, 'c', "d");
    story.capture().await;

    assert_eq!(story.restores(Goal::Latest).await, (story.engine.text(2, d), first.id));
    assert_eq!(story.restores(Goal::Time(millis(3499))).await, (story.engine.text(1, b), first.id));
    assert_eq!(story.restores(Goal::Backup(ahead.id)).await.0, story.engine.text(1, c));
    assert_eq!(story.restores(Goal::Position(format!("1/{c}"))).await.0, story.engine.text(1, c), "what was orphaned");
    assert_eq!(story.restores(Goal::Position(b.to_string())).await.0, story.engine.text(1, b));
    assert_eq!(story.restores(Goal::Transaction("c".into())).await.0, story.engine.text(1, c));
    let orphaned: Vec<_> = story.windows().await.windows.iter().map(|w| (w.window.orphaned, w.to_time)).collect();
    assert_eq!(orphaned, [(false, millis(3500)), (true, millis(3000))]);
    assert!(a < b);
    // A backup of the successor is the newest again.
    let last = story.backup().await;
    assert_eq!(story.restores(Goal::Latest).await.1, last.id);
}

#[tokio::test]
async fn a_hole_stops_every_restore_before_it() {
    let story = Story::new();
    story.engine.write(1000, 'c', "a");
    let first = story.backup().await;
    let b = story.engine.write(2000, 'c', "b");
    story.capture().await;
    let sink = story.repository.open_log(LogOptions::default(), &story.work()).await.unwrap();
    let c = story.engine.write(3000, 'c', "c");
    sink.gap(LogRange::new(lineage(1), b..c), "the slot was lost").await.unwrap();
    let d = story.engine.write(4000, 'c', "d");
    let text = Bytes::from(story.engine.text(1, d).split_off(c as usize));
    sink.append(LogRange::new(lineage(1), c..d), text, &[]).await.unwrap();
    sink.close().await.unwrap();

    assert_eq!(story.restores(Goal::Latest).await, (story.engine.text(1, b), first.id));
    let text = story.refuses(Goal::Position(d.to_string())).await;
    assert!(text.contains(&format!("missing from {b} to {c}")), "{text}");
    let found = story.windows().await;
    assert_eq!(found.holes[0].reason.as_deref(), Some("the slot was lost"));
    story.refuses(Goal::Time(millis(4000))).await;
    let again = story.backup().await;
    assert_eq!(story.restores(Goal::Latest).await.1, again.id);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A restore to any moment stops before the first later commit behind the backup, whatever the clock did.
    #[test]
    fn a_restore_to_a_moment_stops_before_the_first_later_commit(
        steps in prop::collection::vec((-400_i64..3000, 0_u8..8), 1..60),
        target in 0_i64..60_000,
        inclusive in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let story = Story::new();
            let mut at = 10_000;
            story.engine.write(at, 'c', "first");
            let mut backups = vec![story.backup().await];
            for (number, (later, action)) in steps.iter().enumerate() {
                at += later;
                story.engine.write(at, 'c', &format!("t{number}"));
                match action {
                    0 => backups.push(story.backup().await),
                    1..4 => story.capture().await,
                    _ => {}
                }
            }
            story.capture().await;
            let target = RecoveryTarget { goal: Goal::Time(millis(target)), inclusive };
            let Goal::Time(time) = target.goal else { unreachable!() };
            let window = &story.windows().await.windows[0];
            let inside = window.from_time <= time && time <= window.to_time;
            let outcome = story.restored(target).await;
            prop_assert_eq!(outcome.is_ok(), inside, "{:?}", outcome.map(|(_, id)| id));
            let Ok((text, id)) = outcome else { return Ok(()) };
            let backup = backups.iter().find(|backup| backup.id == id).unwrap();
            let stop = backup.snapshot.stop.clone().unwrap().offset;
            prop_assert!(backup.snapshot.consistent_at() <= time);
            let all = story.engine.text(1, story.engine.position().offset);
            let stops = |line: &lines::Line| line.end > stop && (line.at > time || (!inclusive && line.at == time));
            let end = lines(0, all.as_bytes()).iter().find(|line| stops(line)).map_or(all.len(), |line| line.start as usize);
            prop_assert_eq!(text, &all[..end]);
            Ok(())
        })?;
    }
}
