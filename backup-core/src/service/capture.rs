//! The log of a running service, followed by one runner at a time.
//!
//! A capture goes on for as long as the service runs, beside backups, so it has a lease of its own with the same rules: the next number,
//! taken when the last one has ended, kept by commits. Whatever moves the service out of `Running` ends it in the same commit, because
//! whoever shuts a deployment down follows its log to the end itself.
//!
//! The lease says who *should* follow. Who *may acknowledge* is decided by the log's own epochs, of which only the newest does: a runner that
//! slept through the end of its lease finds its writer fenced before it can acknowledge anything.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::lease::{event, until};
use super::managed::{ManagedService, state_of};
use super::platform::Platform;
use crate::catalog::{Catalog, Rejected, ServiceChange, ServiceRejected, ServiceState};
use crate::engine::{BackupEngine, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::Repository;
use crate::run;

/// After a capture that failed the next attempt waits so long, twice as long after each further one, up to the second. A server that is
/// restarted is followed again at once; one that is down for long is asked once a minute, well inside of what its log is kept for.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A capture that has gone on for so long was in order: what fails after it is another failure.
const IN_ORDER: Duration = Duration::from_secs(300);

/// What a handle knows about the capture of its service without asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Following {
    /// The log is to be followed, as of the last look at the catalog.
    wanted: bool,
    /// The engine has none.
    no_log: bool,
}

/// How an attempt to follow the log ended.
enum Ended {
    /// As asked, or because the service does not run any more.
    Done,
    /// The engine has no log.
    NoLog,
    /// Another runner follows it until then.
    Busy(Timestamp),
}

impl ManagedService {
    /// Whether the log of the service is to be followed, as far as this handle has seen: it runs, and its engine is not known to have none.
    #[must_use]
    pub fn wants_capture(&self) -> bool {
        let following = self.following.lock();
        following.wanted && !following.no_log
    }

    /// Notes what the catalog says about it.
    pub(super) fn note_following(&self, service: &ServiceState) {
        let mut following = self.following.lock();
        let wanted = service.is_followed();
        if following.wanted != wanted {
            // The deployment that comes next may be another one.
            *following = Following { wanted, no_log: false };
            self.platform.changed().notify_one();
        }
    }

    /// Follows the log of the service into its repository until `work` is cancelled or the service does not run any more, which are its
    /// usual ends. Waits while another runner does, and takes over when that one has given no sign of life for the length of a lease.
    /// What fails is told and tried again after a pause. Returns at once when the engine has no log.
    ///
    /// [`Fleet::run`](super::Fleet::run) calls it for every service that [wants it](Self::wants_capture); whoever has a loop of ticks of
    /// their own does the same.
    ///
    /// # Cancel safety
    /// Cancelling `work` stores what was received and gives the capture back. When the future is dropped, nothing is lost that was
    /// acknowledged, and others take over when the lease has ended.
    ///
    /// # Errors
    /// None but a bug: everything else is tried again.
    pub async fn capture(&self, work: &Work) -> Result<()> {
        let clock = self.platform.env().clock();
        let mut failures = 0;
        while !work.cancel().is_cancelled() {
            let began = clock.monotonic();
            let pause = match self.follow(work).await {
                Ok(Ended::Done) => return Ok(()),
                Ok(Ended::NoLog) => {
                    self.following.lock().no_log = true;
                    return Ok(());
                }
                Ok(Ended::Busy(until)) => {
                    let left = Duration::try_from(until.duration_since(self.platform.env().now()));
                    left.unwrap_or_default().clamp(PAUSES.0, self.platform.lease())
                }
                Err(error) if error.kind() == ErrorKind::Internal => return Err(error),
                Err(_) if work.cancel().is_cancelled() => return Ok(()),
                Err(error) => {
                    if clock.monotonic().saturating_sub(began) >= IN_ORDER {
                        failures = 0;
                    }
                    failures += 1;
                    self.failed(failures, &error).await;
                    PAUSES.0.saturating_mul(1 << (failures - 1).min(16)).min(PAUSES.1)
                }
            };
            // Cancelled or not is what the loop asks next.
            let _ = work.cancel().run_until_cancelled(clock.sleep(pause)).await;
        }
        Ok(())
    }

    /// People hear of the first failure in a row; the log of the process has all of them.
    async fn failed(&self, failures: u32, error: &Error) {
        tracing::warn!(service = %self.id, failures, %error, "the log is not followed");
        if failures == 1 {
            self.trouble(format!("the log of service {} is not followed: {error}", self.id)).await;
        }
    }

    /// One attempt.
    async fn follow(&self, work: &Work) -> Result<Ended> {
        let catalog = work.run(self.catalog()).await?;
        let service = state_of(&catalog)?;
        self.note_following(service);
        if !service.is_followed() {
            return Ok(Ended::Done);
        }
        let now = self.platform.env().now();
        if let Some(held) = service.capture.as_ref().filter(|held| now < held.until) {
            return Ok(Ended::Busy(held.until));
        }
        let engine = work.run(self.platform.host().running(&self.id, &service.spec)).await?;
        if engine.log().is_none() {
            return Ok(Ended::NoLog);
        }
        let claim = match Claim::take(&self.platform, &self.repository).await {
            Ok(claim) => claim,
            // Somebody was faster, or has just begun to turn it off: the next look tells.
            Err(error) if is_overtaken(&error) => return Ok(Ended::Busy(now)),
            Err(error) => return Err(error),
        };
        let outcome = self.follow_under(&claim, &engine, work).await;
        claim.release().await;
        match outcome {
            Ok(()) => Ok(Ended::Done),
            Err(error) if is_overtaken(&error) => Ok(Ended::Busy(now)),
            // A writer that was fenced: by a power-off, which the next look tells, or by a capture that somebody started by hand.
            Err(error) if error.kind() == ErrorKind::Conflict && !self.is_still_followed().await? => Ok(Ended::Done),
            Err(error) => Err(error),
        }
    }

    async fn is_still_followed(&self) -> Result<bool> {
        let catalog = self.catalog().await?;
        let service = state_of(&catalog)?;
        self.note_following(service);
        Ok(service.is_followed())
    }

    /// Follows the log while the claim is kept.
    async fn follow_under(&self, claim: &Claim<'_>, engine: &Arc<dyn BackupEngine>, work: &Work) -> Result<()> {
        let cancel = work.cancel().child_token();
        let inner = work.clone().with_cancel(cancel.clone());
        let options = self.platform.log_options();
        let mut capture = std::pin::pin!(run::capture(&*self.repository, &**engine, options, &inner));
        let mut renewing = std::pin::pin!(claim.renew());
        let lost = tokio::select! {
            outcome = &mut capture => return match outcome {
                Ok(_) if work.cancel().is_cancelled() => Ok(()),
                Ok(_) => Err(Error::unavailable("the capture has ended without a reason")),
                Err(error) => Err(error),
            },
            lost = &mut renewing => lost,
        };
        // What was received is stored, if nobody else follows yet. The reason to stop matters more than how that went.
        cancel.cancel();
        if let Err(error) = capture.await {
            tracing::debug!(service = %self.id, %error, "a capture that was overtaken has ended");
        }
        Err(lost)
    }

    /// Whether the deployment of a service that was deleted ran when that happened, so that there may be log that nobody has.
    pub(super) fn ran_when_deleted(service: &ServiceState) -> bool {
        let before = service.trail.iter().rev().skip_while(|a| !matches!(a.change, ServiceChange::Deleted { .. }));
        let moved = before.skip(1).find_map(|audited| match &audited.change {
            ServiceChange::Created { spec } => Some(spec.origin.is_none()),
            ServiceChange::Restored { .. } | ServiceChange::PowerOffGivenUp { .. } => Some(true),
            ServiceChange::PoweredOff { .. } | ServiceChange::RestoreBegun { .. } | ServiceChange::Recovered => {
                Some(false)
            }
            _ => None,
        });
        moved.unwrap_or(false)
    }
}

/// The right to follow the log of one service.
#[derive(Debug)]
struct Claim<'a> {
    platform: &'a Platform,
    repository: &'a Arc<dyn Repository>,
    number: u64,
}

impl<'a> Claim<'a> {
    /// Takes it.
    ///
    /// # Errors
    /// Conflict while another runner has it, and when the service does not run.
    async fn take(platform: &'a Platform, repository: &'a Arc<dyn Repository>) -> Result<Self> {
        let mut number = 0;
        let mut decide = |catalog: &Catalog| {
            let service = catalog.service().ok_or(Rejected::from(ServiceRejected::NotCreated))?;
            number = service.captures + 1;
            let until = until(platform.env().now(), platform.lease())?;
            let taken = ServiceChange::CaptureTaken { capture: number, runner: platform.runner().to_owned(), until };
            Ok(vec![event(platform, None, taken)])
        };
        repository.decide(&mut decide).await?;
        Ok(Self { platform, repository, number })
    }

    /// Keeps it until that is not possible any more.
    async fn renew(&self) -> Error {
        let clock = self.platform.env().clock();
        let (third, mut until_known) = (self.platform.lease() / 3, clock.monotonic() + self.platform.lease());
        loop {
            clock.sleep(third).await;
            let renewed = async {
                let until = until(self.platform.env().now(), self.platform.lease())?;
                self.commit(ServiceChange::CaptureRenewed { capture: self.number, until }).await
            };
            match renewed.await {
                Ok(()) => until_known = clock.monotonic() + self.platform.lease(),
                Err(error) if error.kind() == ErrorKind::Unavailable && clock.monotonic() < until_known => {
                    tracing::warn!(%error, repository = %self.repository, "a capture could not be renewed");
                }
                Err(error) => return error,
            }
        }
    }

    async fn commit(&self, change: ServiceChange) -> Result<()> {
        let mut decide = |_: &Catalog| Ok(vec![event(self.platform, None, change.clone())]);
        self.repository.decide(&mut decide).await.map(drop)
    }

    /// Gives it back. One that cannot be given back ends by itself.
    async fn release(self) {
        let mut decide = |catalog: &Catalog| {
            let held = catalog.service().and_then(|service| service.capture.as_ref());
            let ours = held.is_some_and(|held| held.number == self.number);
            let released = ServiceChange::CaptureReleased { capture: self.number };
            Ok(ours.then(|| event(self.platform, None, released)).into_iter().collect())
        };
        if let Err(error) = self.repository.decide(&mut decide).await {
            tracing::warn!(%error, repository = %self.repository, "a capture could not be given back");
        }
    }
}

/// Whether the catalog says that somebody else follows, or that nobody should.
fn is_overtaken(error: &Error) -> bool {
    let rejected = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Rejected>());
    matches!(
        rejected,
        Some(Rejected::Service(
            ServiceRejected::CaptureHeld { .. }
                | ServiceRejected::CaptureTaken(_)
                | ServiceRejected::CaptureLost(_)
                | ServiceRejected::WrongStage { .. }
        ))
    )
}

/// How long after a deletion the last of the log is still fetched before the machines are given up.
pub(super) const LAST_WORDS: SignedDuration = SignedDuration::from_hours(6);
