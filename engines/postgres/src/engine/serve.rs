//! Serving a restored server the log behind its backup, until it has reached its target.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::engine::Work;
use backup_core::observe::{Phase, Progress, Unit};
use backup_core::{Error, ErrorKind, Finding, Result, Severity};
use bytes::{Bytes, BytesMut};
use futures::stream::TryStreamExt;

use super::probe;
use super::settings::TargetAction;
use super::supply::Supply;
use super::target;
use crate::control::ClusterState;
use crate::lsn::{Lsn, TimelineId};
use crate::walsender::{FeedIdentity, LogEnd, WalFeed, WalServer, WalServerOptions};

/// How often the restored server is looked at: what it does at its target it tells nobody.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The log up to the stop, as a feed.
#[derive(Debug)]
struct Feed {
    supply: Supply,
    identity: FeedIdentity,
    histories: BTreeMap<TimelineId, Bytes>,
}

#[async_trait]
impl WalFeed for Feed {
    fn identity(&self) -> &FeedIdentity {
        &self.identity
    }

    async fn end(&self) -> Result<LogEnd> {
        let stop = self.supply.stop();
        Ok(LogEnd { timeline: stop.timeline, position: stop.end })
    }

    async fn grown(&self, _: LogEnd) -> Result<LogEnd> {
        std::future::pending().await
    }

    async fn history(&self, timeline: TimelineId) -> Result<Option<Bytes>> {
        Ok(self.histories.get(&timeline).cloned())
    }

    async fn read(&self, _: TimelineId, at: Lsn, max: usize) -> Result<Option<Bytes>> {
        if at < self.supply.first() {
            return Ok(None);
        }
        let end = Lsn(at.0.saturating_add(max as u64)).min(self.supply.stop().end);
        let mut bytes = BytesMut::new();
        let mut pieces = self.supply.read(at, end);
        while let Some(piece) = pieces.try_next().await? {
            if bytes.is_empty() && piece.len() as u64 == end.0 - at.0 {
                return Ok(Some(piece));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Some(bytes.freeze()))
    }
}

/// A server for the log behind a restored directory.
#[derive(Debug)]
pub(super) struct Serving {
    server: WalServer,
    stop: Lsn,
    first: Lsn,
}

impl Serving {
    pub(super) async fn start(supply: &Supply, version: &str, work: &Work) -> Result<Self> {
        let identity = FeedIdentity::new(supply.system_id(), supply.segment_size(), version);
        let histories = supply.histories().into_iter().collect();
        let (stop, first) = (supply.stop().end, supply.first());
        let feed = Feed { supply: supply.clone(), identity, histories };
        let server = WalServer::start(Arc::new(feed), WalServerOptions::default(), work.env()).await?;
        Ok(Self { server, stop, first })
    }

    /// How the restored server connects.
    pub(super) fn conninfo(&self) -> String {
        self.server.conninfo()
    }

    /// Waits until the server in `dir` has done at the target what it was told to do.
    pub(super) async fn wait(self, dir: &Path, signal: &str, action: TargetAction, work: &Work) -> Result<()> {
        let text = format!(
            "start the server in {} now: it streams its log from this process up to {}",
            dir.display(),
            self.stop
        );
        let ready = Finding::new(Severity::Note, "start-server", text).about(dir.display().to_string());
        work.observer().on(&Progress::Found(ready));
        work.started(Phase::Replay, Some(self.stop.0.saturating_sub(self.first.0)), Unit::Bytes);
        let progress = self.server.progress();
        let (mut done, mut told) = (self.first, None);
        loop {
            let applied = progress.borrow().applied().min(self.stop);
            if applied > done {
                work.advanced(Phase::Replay, applied.0 - done.0);
                done = applied;
            }
            let (dir, signal): (PathBuf, _) = (dir.to_owned(), dir.join(signal));
            // A server that is to shut down may be gone before it has told how far it came; its control file says so.
            let look = move || {
                let running = target::running(&dir).is_some();
                let down = !running
                    && probe::read_control(&dir).is_ok_and(|control| control.state == ClusterState::ShutDownInRecovery);
                (signal.exists(), down)
            };
            let (recovering, down) = tokio::task::spawn_blocking(look)
                .await
                .map_err(|e| Error::internal("looking at a restored server panicked").with_source(e))?;
            let over = match action {
                TargetAction::Promote => !recovering,
                TargetAction::Pause => !recovering || applied >= self.stop,
                TargetAction::Shutdown => !recovering || down,
            };
            if over {
                work.advanced(Phase::Replay, self.stop.0.saturating_sub(done.0));
                work.ended(Phase::Replay);
                self.server.shutdown().await;
                return Ok(());
            }
            if let Some(failure) = self.server.failure() {
                if matches!(failure.kind(), ErrorKind::Damaged | ErrorKind::Environment) {
                    return Err(Error::new(failure.kind(), format!("the log cannot be served: {failure}")));
                }
                let text = failure.to_string();
                if told.as_ref() != Some(&text) {
                    let finding = Finding::new(Severity::Warning, "log-interrupted", text.clone());
                    work.observer().on(&Progress::Found(finding));
                    told = Some(text);
                }
            }
            work.env().clock().sleep(LOOK_EVERY).await;
        }
    }
}
