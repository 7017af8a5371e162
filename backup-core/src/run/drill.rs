//! Proving that a backup can be restored, by restoring it.
//!
//! A drill that could not begin is none: without a target that can be reached, without a server, or without room nothing is proven either way, and
//! nothing is written down. From the first byte that is restored on, whatever comes of it is committed, also failure; only what the caller has
//! cancelled, and a store that is away, leave no record.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::restore::{RestorePlan, plan_restore, restore};
use super::windows::windows;
use crate::catalog::{Actor, BackupRecord, Catalog, DrillOutcome, DrillRecord, DrillStep, Event};
use crate::engine::{DrillEngine, RestoreContext, ScratchInstance, Work};
use crate::entry::Selector;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::id::DrillId;
use crate::repository::Repository;
use crate::scratch::{Scratch, ScratchRoot};
use crate::snapshot::{Finding, Severity};
use crate::target::{Goal, RecoveryTarget};

/// Of the room that a restore needs so much more must be free, in percent: an instance writes log, sorts, and updates its files.
const SPARE: u64 = 10;
/// And so many bytes at least.
const SPARE_LEAST: u64 = 256 << 20;
/// So many findings and so many bytes of a problem are written down.
const MOST_FINDINGS: usize = 100;
const MOST_TEXT: usize = 4000;

/// What a drill is to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DrillTarget {
    /// This.
    Chosen(RecoveryTarget),
    /// One of all the moments and backups that can be restored, drawn by the work's randomness: who proves only the newest backup learns nothing of
    /// the others.
    Random,
}

/// How a drill is done. Data, not components.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DrillOptions {
    /// What is to be reached.
    pub target: DrillTarget,
    /// Where the instance lives.
    pub scratch: ScratchRoot,
    /// Who wants it.
    pub by: Actor,
    /// The program that does it, with its version, for the record.
    pub program: String,
    /// Its id, when it was announced; a new one otherwise.
    pub id: Option<DrillId>,
}

impl DrillOptions {
    /// A drill of the newest state below `scratch`.
    #[must_use]
    pub fn new(scratch: ScratchRoot, by: Actor) -> Self {
        let program = concat!("backup-core ", env!("CARGO_PKG_VERSION")).to_owned();
        Self { target: DrillTarget::Chosen(RecoveryTarget::latest()), scratch, by, program, id: None }
    }

    /// Sets what is to be reached.
    #[must_use]
    pub fn target(mut self, target: DrillTarget) -> Self {
        self.target = target;
        self
    }

    /// Sets which program says it does it.
    #[must_use]
    pub fn program(mut self, program: impl Into<String>) -> Self {
        self.program = program.into();
        self
    }

    /// Sets the id.
    #[must_use]
    pub fn id(mut self, id: DrillId) -> Self {
        self.id = Some(id);
        self
    }
}

/// Restores a target from `repository` into a scratch instance, has it reach the target, looks at everything in it, and commits what that has shown.
/// Whether it passed is in the [record](DrillRecord); where nothing may be written, as to a region, that is a finding in it. To the repository it writes nothing else, and on this host it leaves nothing.
///
/// # Cancel safety
/// Dropping the future, or cancelling `work`, ends the server and removes the directory; nothing is written down. When the process dies, the next
/// drill below the same root does it.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the target cannot be reached; [`Environment`](crate::ErrorKind::Environment) when there is
/// no server for it here or not enough room; [`Conflict`](crate::ErrorKind::Conflict) while another drill works below the same root;
/// [`Unavailable`](crate::ErrorKind::Unavailable) when the store is away; [`Cancelled`](crate::ErrorKind::Cancelled).
#[tracing::instrument(skip_all, fields(%engine, %repository))]
pub async fn drill(
    repository: &dyn Repository,
    engine: &dyn DrillEngine,
    options: &DrillOptions,
    work: &Work,
) -> Result<DrillRecord> {
    let (target, drawn) = match &options.target {
        DrillTarget::Chosen(target) => (target.clone(), ""),
        DrillTarget::Random => (draw(repository, engine.descriptor().name, work).await?, ", drawn"),
    };
    let id = options.id.unwrap_or_else(|| DrillId::mint(work.env()));
    // Dropped in the other order: first the server ends, then its directory goes.
    let mut scratch = work.run(options.scratch.make(id, work.env())).await?;
    let mut instance = work.run(engine.prepare(&mut scratch, work)).await?;
    let plan = plan_restore(repository, instance.engine(), target, Selector::all(), work).await?;
    if let Some(blocker) = plan.blockers().next() {
        return Err(blocker.refusal(format_args!("a drill of {engine}")));
    }
    check_room(&scratch, &plan)?;
    let server = work.run(instance.make_ready(&mut scratch, &plan.context(work))).await?;
    let asked = format!("{}{drawn}", plan.target);
    let mut record =
        DrillRecord::new(id, (engine.descriptor().name, asked), plan.backup.id, work.env().now(), options.by.clone());
    record.program.clone_from(&options.program);
    record.server = Some(server);
    let outcome = perform(&mut *instance, &mut scratch, &plan, &mut record, work).await;
    drop(instance);
    if let Err(error) = outcome {
        if matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Unavailable) {
            return Err(error);
        }
        record.outcome = match error.kind() {
            ErrorKind::Damaged => DrillOutcome::Damaged,
            _ => DrillOutcome::Failed,
        };
        record.problem = Some(in_one_line(&error));
    }
    record.ended = work.env().now();
    shorten(&mut record);
    scratch.remove()?;
    let mut decide = |_: &Catalog| Ok(vec![Event::Drilled { record: Box::new(record.clone()) }]);
    match work.run(repository.decide(&mut decide)).await {
        Ok(_) => {}
        // What was seen was seen, also in a region, or by somebody who may only read.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Environment) => {
            let text = format!("the catalog does not know of this drill: {error}");
            record.findings.push(Finding::new(Severity::Warning, "drill-not-recorded", text));
        }
        Err(error) => return Err(error),
    }
    Ok(record)
}

/// The steps, measured.
async fn perform(
    instance: &mut dyn ScratchInstance,
    scratch: &mut Scratch,
    plan: &RestorePlan,
    record: &mut DrillRecord,
    work: &Work,
) -> Result<()> {
    let cx: RestoreContext = plan.context(work);
    let restored = step(record, "restore", work, restore(instance.engine(), plan, work)).await?;
    record.restored_bytes = restored.extracted.bytes.max(restored.extracted.written_bytes);
    record.findings.extend(restored.findings);
    step(record, "start", work, instance.start(scratch, &cx)).await?;
    let reached = step(record, "replay", work, instance.reach(&cx)).await?;
    (record.position, record.time) = (reached.position, reached.time);
    let examined = step(record, "check", work, instance.examine(scratch, &cx)).await?;
    record.checks = examined.checks;
    record.findings.extend(examined.findings);
    (record.outcome, record.problem) = (examined.outcome, examined.problem);
    Ok(())
}

async fn step<T>(
    record: &mut DrillRecord,
    name: &str,
    work: &Work,
    task: impl Future<Output = Result<T>>,
) -> Result<T> {
    let begun = work.env().clock().monotonic();
    let outcome = work.run(task).await;
    record.steps.push(DrillStep::new(name, millis(work.env().clock().monotonic().saturating_sub(begun))));
    outcome.map_err(|error| error.context(format!("the {name} of the drill failed")))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn check_room(scratch: &Scratch, plan: &RestorePlan) -> Result<()> {
    let log = plan.log().map_or(0, |log| log.path().len());
    let bytes = plan.footprint.bytes.saturating_add(log);
    let (needs, free) = (bytes.saturating_add((bytes / 100 * SPARE).max(SPARE_LEAST)), scratch.free_bytes()?);
    if free >= needs {
        return Ok(());
    }
    let dir = scratch.dir().display();
    Err(Error::environment(format!(
        "a drill of backup {} needs {needs} bytes in {dir}, {free} are free",
        plan.backup.id
    )))
}

/// What is written down has a size that a journal can bear, whatever a server says.
fn shorten(record: &mut DrillRecord) {
    let problems = record.checks.iter_mut().filter_map(|check| check.problem.as_mut()).chain(&mut record.problem);
    problems.for_each(cut);
    let more = record.findings.len().saturating_sub(MOST_FINDINGS);
    if more > 0 {
        record.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        record.findings.truncate(MOST_FINDINGS);
        let text = format!("{more} more findings are not written down");
        record.findings.push(crate::snapshot::Finding::new(crate::snapshot::Severity::Note, "more-findings", text));
    }
    record.findings.iter_mut().for_each(|finding| cut(&mut finding.message));
}

fn cut(text: &mut String) {
    if let Some((end, _)) = text.char_indices().take_while(|(at, _)| *at <= MOST_TEXT).last()
        && text.len() > MOST_TEXT
    {
        text.truncate(end);
        text.push('…');
    }
}

fn in_one_line(error: &Error) -> String {
    let mut line = error.message().to_owned();
    for cause in error.causes() {
        if !line.contains(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line.replace(['\n', '\r'], " ")
}

/// One of everything that can be restored: in half of the cases a moment, each as likely as any other along the history that the source follows,
/// and in the other half a backup. Where there is no log, a backup.
async fn draw(repository: &dyn Repository, engine: &str, work: &Work) -> Result<RecoveryTarget> {
    let restorable = windows(repository, Some(engine), work).await?;
    let catalog = work.run(repository.catalog()).await?;
    let backups: Vec<&BackupRecord> = catalog.backups().filter(|backup| backup.snapshot.engine == engine).collect();
    let followed = restorable.windows.iter().filter(|timed| !timed.window.orphaned);
    let spans: Vec<_> = followed.map(|timed| (timed.from_time, timed.to_time)).collect();
    let moment = moment(&spans, work.env()).filter(|_| work.env().random::<1>()[0] & 1 == 0);
    match (moment, below(backups.len() as u128, work.env())) {
        (Some(moment), _) => Ok(RecoveryTarget::new(Goal::Time(moment))),
        (None, Some(index)) => {
            let index = usize::try_from(index).unwrap_or_default();
            let backup = backups.get(index).ok_or_else(|| Error::internal("a backup was drawn that is not there"))?;
            Ok(RecoveryTarget::backup(backup.id))
        }
        (None, None) => Err(Error::invalid(format!("there is no {engine} backup that a drill could restore"))),
    }
}

/// A moment of these spans, to the microsecond. None when they have no length.
fn moment(spans: &[(Timestamp, Timestamp)], env: &Env) -> Option<Timestamp> {
    let length = |(from, to): &(Timestamp, Timestamp)| {
        u128::try_from(to.as_microsecond().saturating_sub(from.as_microsecond())).unwrap_or_default()
    };
    let mut left = below(spans.iter().map(length).sum(), env)?;
    for span in spans {
        match left.checked_sub(length(span)) {
            Some(rest) => left = rest,
            None => {
                // In whole microseconds from the first one that lies within.
                let from = Timestamp::from_microsecond(span.0.as_microsecond()).ok()?;
                let offset = SignedDuration::from_micros(i64::try_from(left).ok()?);
                return from.checked_add(offset).ok().map(|moment| moment.clamp(span.0, span.1));
            }
        }
    }
    None
}

/// A number below `bound`, each as likely as any other. None when there is none.
fn below(bound: u128, env: &Env) -> Option<u128> {
    let bound = std::num::NonZeroU128::new(bound)?;
    // 128 random bits for bounds far below: what is left over cannot be noticed.
    Some(u128::from_be_bytes(env.random()) % bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(micros).unwrap()
    }

    proptest! {
        #[test]
        fn a_moment_lies_in_one_of_the_spans(
            lengths in prop::collection::vec((1_i64..1_000_000, 0_i64..5_000_000), 1..6), seed in any::<u64>(),
        ) {
            let mut from = 0;
            let spans: Vec<_> = lengths.iter().map(|(gap, length)| {
                let span = (at(from + gap), at(from + gap + length));
                from += gap + length;
                span
            }).collect();
            let found = moment(&spans, &Env::seeded(seed));
            let within = |moment: Timestamp| spans.iter().any(|(from, to)| *from <= moment && moment <= *to);
            prop_assert_eq!(found.is_some(), lengths.iter().any(|(_, length)| *length > 0));
            prop_assert!(found.is_none_or(within), "{found:?}");
        }
    }

    #[test]
    fn long_spans_are_drawn_more_often() {
        let spans = [(at(0), at(1_000)), (at(10_000), at(19_000))];
        let late = (0..2_000).filter(|seed| moment(&spans, &Env::seeded(*seed)).unwrap() >= at(10_000)).count();
        assert!((1_700..1_900).contains(&late), "{late}");
    }

    #[test]
    fn what_a_server_says_is_cut() {
        let mut text = "ü".repeat(MOST_TEXT);
        cut(&mut text);
        assert!(text.len() <= MOST_TEXT + 3 && text.ends_with('…'));
        let mut short = "short".to_owned();
        cut(&mut short);
        assert_eq!(short, "short");
    }
}
