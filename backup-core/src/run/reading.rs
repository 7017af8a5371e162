//! Reading that must not find its backups destroyed under its hands.

use std::time::Duration;

use jiff::SignedDuration;

use crate::catalog::{Actor, Catalog, Event, Rejected, Role, ServiceChange};
use crate::engine::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::Repository;

/// For so long a reader that gives no sign of life keeps a purge waiting. Fifteen minutes: a purge has waited for weeks, and a restore
/// must survive a store that is away for a while.
const PATIENCE: Duration = Duration::from_secs(900);

/// Does `task`, which reads what is stored in `repository`, and keeps the purge of its service waiting until that is done. `what` is for
/// people: `restore`.
///
/// A service that is not under management is never purged, so nothing is written. Who may only read cannot say so in the catalog; then the
/// task is done without, as is logged: not being able to write must keep nobody from a restore.
///
/// # Cancel safety
/// That of the task. A reader that is dropped keeps a purge waiting for a quarter of an hour.
///
/// # Errors
/// Those of the task; [`InvalidInput`](crate::ErrorKind::InvalidInput) when the service is being purged already;
/// [`Cancelled`](crate::ErrorKind::Cancelled).
pub async fn while_reading<T>(
    repository: &dyn Repository,
    what: &str,
    work: &Work,
    task: impl Future<Output = Result<T>>,
) -> Result<T> {
    let catalog = work.run(repository.catalog()).await?;
    if catalog.service().is_none() {
        return task.await;
    }
    let reader = format!("{what} {:016x}", u64::from_be_bytes(work.env().random()));
    let reading = Reading { repository, reader, work };
    match work.run(reading.say()).await {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
        Err(error) if is_refusal(&error) => {
            return Err(Error::invalid(format!("nothing of service {} can be read any more", repository.service()))
                .with_source(error));
        }
        Err(error) => {
            tracing::warn!(%repository, %error, "a purge would not wait for this reader");
            return task.await;
        }
    }
    let mut task = std::pin::pin!(task);
    let outcome = tokio::select! {
        outcome = &mut task => outcome,
        never = reading.keep_saying() => match never {},
    };
    reading.leave().await;
    outcome
}

struct Reading<'a> {
    repository: &'a dyn Repository,
    reader: String,
    work: &'a Work,
}

impl Reading<'_> {
    async fn say(&self) -> Result<()> {
        let until = SignedDuration::try_from(PATIENCE).ok().and_then(|p| self.work.env().now().checked_add(p).ok());
        let until = until.ok_or_else(|| Error::internal("a reader reads after all time"))?;
        self.commit(ServiceChange::ReaderSeen { reader: self.reader.clone(), until }).await
    }

    async fn keep_saying(&self) -> std::convert::Infallible {
        loop {
            self.work.env().clock().sleep(PATIENCE / 3).await;
            if let Err(error) = self.say().await {
                tracing::warn!(repository = %self.repository, %error, "a purge may not wait for this reader any more");
            }
        }
    }

    async fn leave(&self) {
        if let Err(error) = self.commit(ServiceChange::ReaderLeft { reader: self.reader.clone() }).await {
            tracing::warn!(repository = %self.repository, %error, "a reader could not say that it is done");
        }
    }

    async fn commit(&self, change: ServiceChange) -> Result<()> {
        let (by, at) = (Actor::new(Role::Platform, &self.reader), self.work.env().now());
        let event = Event::Service { change, lease: None, by, at };
        self.repository.decide(&mut |_: &Catalog| Ok(vec![event.clone()])).await.map(drop)
    }
}

fn is_refusal(error: &Error) -> bool {
    std::error::Error::source(error).and_then(|source| source.downcast_ref::<Rejected>()).is_some()
}
