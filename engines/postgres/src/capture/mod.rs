//! Capturing the write-ahead log: a replica that remembers.
//!
//! A session of physical replication receives the log as a standby does; every byte is read, record by record, before it is
//! stored, so that what is stored is a log and not merely bytes. The server is told that we have it when the repository says
//! that it is durable, and never before: that is what its slot and a synchronous commit wait for.
//!
//! The rooms: `route` decides, purely, where a node's history continues what is stored; `node` looks at the nodes of the
//! connection string and chooses one; `stream` follows one timeline; `overlap` compares what is sent again with what is stored; `slots`
//! keeps the slots of all nodes; `import` takes segments that an archive command has left in a folder; `lineage` is how timelines
//! stand in the catalog.
//!
//! What cannot be mended ends the capture: another cluster, another history under the same name, a missing permission. Everything
//! else is tried again, after a moment: a failover is a lost connection and a node that is a primary now.

mod import;
mod lineage;
mod node;
mod overlap;
mod pieces;
mod reading;
mod route;
mod slots;
mod stream;

use std::time::Duration;

use backup_core::engine::LogContext;
use backup_core::log::LogRange;
use backup_core::observe::Progress;
use backup_core::{Error, ErrorKind, Finding, Result, Severity};

use crate::engine::{LogSlot, PostgresSettings};
use crate::lsn::{Lsn, TimelineId};
pub(crate) use import::import;
pub(crate) use lineage::{HISTORY, SEGMENT_SIZE, VERSION_NUM, lineage_of, timeline_of};
use node::{Node, Nodes};
use route::{Route, View};
use stream::{Appended, Ended, Follow};

/// The pause before the first new attempt; it doubles up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Follows the log of the cluster until the work is cancelled.
pub(crate) async fn stream(settings: &PostgresSettings, cx: &LogContext) -> Result<()> {
    let capture = Capture { settings, cx, nodes: Nodes::new(settings)?, appended: Appended::default() };
    let mut known = false;
    let mut pause = SHORTEST_PAUSE;
    loop {
        if cx.work().cancel().is_cancelled() {
            return Ok(());
        }
        let durable = cx.sink().durable();
        let outcome = cx.work().cancel().run_until_cancelled(capture.once(&mut known)).await;
        let error = match outcome {
            None | Some(Ok(Ended::Cancelled)) => return Ok(()),
            Some(Ok(Ended::Timeline | Ended::ShutDown)) => {
                pause = SHORTEST_PAUSE;
                continue;
            }
            Some(Err(error)) => error,
        };
        // A wrong address is worth an error, a lost server is worth waiting for.
        if error.kind() != ErrorKind::Unavailable || !known {
            return Err(error);
        }
        if cx.sink().durable() != durable {
            pause = SHORTEST_PAUSE;
        }
        tracing::warn!(%error, "the log cannot be followed; trying again in {} ms", pause.as_millis());
        found(cx, Finding::new(Severity::Note, "log-interrupted", error.to_string()));
        let waited = cx.work().cancel().run_until_cancelled(cx.work().env().clock().sleep(pause)).await;
        if waited.is_none() {
            return Ok(());
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn found(cx: &LogContext, finding: Finding) {
    cx.work().observer().on(&Progress::Found(finding));
}

struct Capture<'a> {
    settings: &'a PostgresSettings,
    cx: &'a LogContext,
    nodes: Nodes,
    appended: Appended,
}

/// From where a timeline is followed.
#[derive(Debug, Clone, Copy)]
struct Start {
    timeline: TimelineId,
    /// The first byte that is not stored.
    at: Lsn,
}

impl Capture<'_> {
    /// Chooses a node and follows it for as long as it goes.
    async fn once(&self, known: &mut bool) -> Result<Ended> {
        self.appended.settle(self.cx).await?;
        let ledger = self.cx.sink().ledger();
        let source = ledger.trunk().and_then(|trunk| ledger.lineage(trunk)).map(|record| record.source.clone());
        let found = self.nodes.survey(source.as_deref()).await?;
        *known = true;
        for finding in found.findings {
            self::found(self.cx, finding);
        }
        let mut node = found.chosen;
        let view =
            View { timeline: node.facts.timeline, end: node.facts.position, history: node.facts.history.clone() };
        let start = match route::route(&ledger, &view) {
            Route::From { timeline, at } => Start { timeline, at },
            Route::Begin => {
                lineage::declare(self.cx, &node.facts).await?;
                self.begin(&mut node, None).await?
            }
            Route::Stale { stored } => {
                return Err(Error::unavailable(format!(
                    "{} is on timeline {}, which was left: what is stored goes on with timeline {stored}",
                    node.facts.name, node.facts.timeline
                )));
            }
            Route::Behind { timeline, at } if node.facts.standby => {
                return Err(Error::unavailable(format!(
                    "standby {} has timeline {timeline} up to {}, stored is {at}",
                    node.facts.name, node.facts.position
                )));
            }
            Route::Behind { timeline, at } => {
                return Err(Error::conflict(format!(
                    "the log of {} ends at {} of timeline {timeline}, but {at} is stored: the server was put back without a timeline of its own; \
                     take a copy of it through recovery, which gives it one, or begin another repository",
                    node.facts.name, node.facts.position
                )));
            }
        };
        lineage::declare(self.cx, &node.facts).await?;
        self.follow(node, start).await
    }

    /// Follows from `start`, and from later where the server has no longer what is missing.
    async fn follow(&self, mut node: Node, start: Start) -> Result<Ended> {
        let slot = self.slot(&mut node).await?;
        let mut start = start;
        loop {
            let follow =
                Follow { cx: self.cx, node: &node.facts, slot: slot.as_deref(), start, appended: &self.appended };
            let keeper = slots::Keeper::new(self.settings, self.cx, &self.nodes, &node.facts);
            match stream::follow(follow, &mut node.session, keeper).await {
                Err(error) if error.removed => {
                    let next = self.begin(&mut node, Some(start)).await?;
                    self.gap(start, next, &error.error).await?;
                    start = next;
                }
                Err(error) => return Err(error.error),
                Ok(ended) => return Ok(ended),
            }
        }
    }

    async fn slot(&self, node: &mut Node) -> Result<Option<String>> {
        match &self.settings.slot {
            LogSlot::None => Ok(None),
            LogSlot::Named(name) => {
                slots::ensure(&mut node.session, name).await?;
                Ok(Some(name.clone()))
            }
        }
    }

    /// Where to begin on `node` when nothing is stored, or when what comes `behind` is gone: with the end of the newest backup if
    /// the server may still have it, otherwise with what it keeps for the slot.
    async fn begin(&self, node: &mut Node, behind: Option<Start>) -> Result<Start> {
        let size = node.facts.segment_size;
        if let Some(backup) = self.cx.backup()
            && let Some(timeline) = timeline_of(&backup.lineage)
            && node.facts.history.contains(timeline)
        {
            let at = size.floor(Lsn(backup.offset));
            let new =
                behind.is_none_or(|start| start.timeline < timeline || (start.timeline == timeline && start.at < at));
            if new && self.has(node, timeline, at).await? {
                return Ok(Start { timeline, at });
            }
        }
        let kept = match self.slot(node).await? {
            Some(name) => node.session.read_slot(&name).await.map_err(Error::from)?.and_then(|slot| slot.restart),
            None => None,
        };
        let at = size.floor(kept.unwrap_or(node.facts.position));
        let timeline = node.facts.history.timeline_at(at);
        if behind.is_some_and(|start| start.timeline == timeline && at <= start.at) {
            let at = size.floor(node.facts.position);
            return Ok(Start { timeline: node.facts.timeline, at });
        }
        Ok(Start { timeline, at })
    }

    /// Whether the server can still send the log from `at` on.
    async fn has(&self, node: &mut Node, timeline: TimelineId, at: Lsn) -> Result<bool> {
        if at >= node.facts.position {
            return Ok(at == node.facts.position);
        }
        stream::probe(&mut node.session, timeline, at).await
    }

    /// Writes down what was lost.
    async fn gap(&self, lost: Start, next: Start, why: &Error) -> Result<()> {
        let ledger = self.cx.sink().ledger();
        let line = ledger.ancestry(&lineage_of(next.timeline));
        let reason = format!("the server had removed it before it was stored: {why}");
        for part in line {
            let Some(timeline) = timeline_of(&part.lineage) else { continue };
            if timeline < lost.timeline || timeline > next.timeline {
                continue;
            }
            let start = if timeline == lost.timeline { lost.at.0 } else { part.start };
            let end = if timeline == next.timeline { next.at.0 } else { part.end };
            if start < end {
                let range = LogRange::new(part.lineage, start..end);
                let text = format!("{} to {} of timeline {timeline} is lost: take a new backup", Lsn(start), Lsn(end));
                self.cx.sink().gap(range, &reason).await?;
                found(self.cx, Finding::new(Severity::Warning, "log-hole", text));
            }
        }
        Ok(())
    }
}
