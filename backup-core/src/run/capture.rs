//! Capturing a log.

use std::path::Path;
use std::sync::Arc;

use crate::engine::{BackupEngine, Imported, LogContext, LogEngine, LogOptions, LogSink, Work};
use crate::error::{Error, Result};
use crate::log::LogPurpose;
use crate::repository::Repository;

/// Captures the change stream of `engine` into `repository` until `work` is cancelled, which is its usual end and no error. Returns the
/// writer, closed: it tells what is durable.
///
/// # Cancel safety
/// Dropping the future loses nothing that was acknowledged to the source; what was not is captured again by the next writer.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the engine has no log; [`Conflict`](crate::ErrorKind::Conflict) when a later writer was
/// opened; [`Cancelled`](crate::ErrorKind::Cancelled) when the work was cancelled before a writer was opened; those of the engine and of the
/// repository.
#[tracing::instrument(skip_all, fields(%engine, %repository))]
pub async fn capture(
    repository: &dyn Repository,
    engine: &dyn BackupEngine,
    options: LogOptions,
    work: &Work,
) -> Result<Arc<dyn LogSink>> {
    let log = log_of(engine)?;
    let catalog = work.run(repository.catalog()).await?;
    let own = catalog.backups().filter(|b| b.snapshot.engine == engine.descriptor().name);
    let newest = own.max_by_key(|b| (b.snapshot.consistent_at(), b.id));
    let end = newest.and_then(|b| b.snapshot.stop.clone());
    let sink = work.run(repository.open_log(options, work)).await?;
    let cx = LogContext::new(work.clone(), Arc::clone(&sink)).with_backup(end);
    let outcome = log.stream(&cx).await;
    finish(&*sink, outcome).await?;
    Ok(sink)
}

/// Stores the pieces of log that lie in `dir`, as an archive command has left them there.
///
/// # Errors
/// As [`capture`].
#[tracing::instrument(skip_all, fields(%engine, %repository))]
pub async fn import(
    repository: &dyn Repository,
    engine: &dyn BackupEngine,
    dir: &Path,
    mut options: LogOptions,
    work: &Work,
) -> Result<Imported> {
    let log = log_of(engine)?;
    options.purpose = LogPurpose::Import;
    let sink = work.run(repository.open_log(options, work)).await?;
    let cx = LogContext::new(work.clone(), Arc::clone(&sink));
    let outcome = work.run(log.import(&cx, dir)).await;
    finish(&*sink, outcome).await
}

fn log_of(engine: &dyn BackupEngine) -> Result<&dyn LogEngine> {
    let title = engine.descriptor().title;
    engine.log().ok_or_else(|| Error::invalid(format!("{title} has no change log that can be captured")))
}

/// Ends the writer. What was received is stored also when capturing failed; the first failure is the one that matters.
async fn finish<T>(sink: &dyn LogSink, outcome: Result<T>) -> Result<T> {
    let closed = sink.close().await;
    let value = outcome?;
    closed?;
    Ok(value)
}
