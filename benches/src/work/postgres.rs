//! PostgreSQL into a vault and back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_core::RecoveryTarget;
use backup_core::engine::{BackupEngine as _, LogContext, LogOptions, LogSink, Work as Context};
use backup_core::entry::Selector;
use backup_core::repository::Repository as _;
use backup_core::run::{BackupOptions, backup, plan_restore, restore};
use backup_postgres::{ChangeTracking, PostgresEngine, PostgresSettings};
use backup_storage::Repository;
use tokio_util::sync::CancellationToken;

use super::{made, requests};
use crate::Error;
use crate::measure::Said;

pub(super) async fn take(repository: &Repository, url: String, changes: &str) -> Result<Said, Error> {
    let tracking = if changes == "never" { ChangeTracking::Never } else { ChangeTracking::Auto };
    let engine = PostgresEngine::new(PostgresSettings::default().url(url).changes(tracking))?;
    let record = backup(repository, &engine, BackupOptions::default(), &Context::default()).await?;
    let doubt = record.snapshot.findings.iter().find(|finding| finding.code == "changes-unknown");
    if let Some(doubt) = doubt.filter(|_| changes == "log") {
        return Err(doubt.to_string().into());
    }
    Ok(Said {
        bytes: record.data_bytes,
        stored: record.stored_bytes,
        content_read: record.snapshot.fact("read_bytes").and_then(|text| text.parse().ok()).unwrap_or(0),
        requests: requests(repository),
    })
}

pub(super) async fn put_back(repository: &Repository, into: PathBuf, delta: bool) -> Result<Said, Error> {
    let engine = PostgresEngine::new(PostgresSettings::default().data_dir(into).delta(delta))?;
    let work = Context::default();
    let plan = plan_restore(repository, &engine, RecoveryTarget::latest(), Selector::all(), &work).await?;
    let extracted = restore(&engine, &plan, &work).await?.extracted;
    let requests = requests(repository);
    Ok(Said { bytes: extracted.bytes, stored: extracted.written_bytes, requests, ..Said::default() })
}

/// A capture that runs.
pub(crate) struct Following {
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<backup_core::Result<Arc<dyn LogSink>>>,
    sink: Arc<dyn LogSink>,
}

impl Following {
    /// Follows the server at `url` with a slot of its own.
    pub(crate) async fn start(vault: &Path, url: &str, flush_after: Duration) -> Result<Self, Error> {
        let settings = PostgresSettings::default().url(url);
        let options = LogOptions::default().flush_after(flush_after);
        Self::with(&made(vault).await?, settings, options).await
    }

    pub(super) async fn with(
        repository: &Repository,
        settings: PostgresSettings,
        options: LogOptions,
    ) -> Result<Self, Error> {
        let engine = PostgresEngine::new(settings)?;
        let cancel = CancellationToken::new();
        let work = Context::default().with_cancel(cancel.clone());
        let sink = repository.open_log(options, &work).await?;
        let cx = LogContext::new(work, Arc::clone(&sink));
        let task = tokio::spawn(async move {
            let log = engine.log().ok_or_else(|| backup_core::Error::internal("the engine has a log"))?;
            log.stream(&cx).await?;
            cx.sink().close().await?;
            Ok(Arc::clone(cx.sink()))
        });
        Ok(Self { cancel, task, sink })
    }

    /// Returns when the log is in the vault up to `end`.
    pub(crate) async fn reaches(&self, end: u64) -> Result<(), Error> {
        let mut known = self.sink.durable();
        while known.as_ref().is_none_or(|known| known.offset < end) {
            known = self.sink.advanced(known.as_ref()).await?;
        }
        Ok(())
    }

    /// Ends it; where the stored log begins.
    pub(crate) async fn stop(self) -> Result<u64, Error> {
        self.cancel.cancel();
        let sink = self.task.await??;
        let ledger = sink.ledger();
        let lineage = ledger.trunk().ok_or("no log is stored")?;
        Ok(ledger.covered(lineage).as_slice().first().map_or(0, |range| range.start))
    }
}
