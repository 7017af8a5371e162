//! What a repository wants besides backups: freeing what nobody needs, reading what is stored.

use jiff::{SignedDuration, Timestamp};

use super::managed::ManagedService;
use super::tick::Done;
use crate::catalog::Catalog;
use crate::engine::Work;
use crate::error::{ErrorKind, Result};
use crate::repository::{CollectOptions, VerifyLevel};

/// How often it is looked for what nobody needs, where something was let go. What is found is deleted a day later.
const COLLECT_EVERY: SignedDuration = SignedDuration::from_hours(24);
/// How often a part of what is stored is read.
const VERIFY_EVERY: SignedDuration = SignedDuration::from_hours(24);
/// And so many bytes at least: of small services everything, each time.
const VERIFY_LEAST: u64 = 64 << 20;

impl ManagedService {
    pub(super) fn collect_due(&self, catalog: &Catalog, now: Timestamp) -> bool {
        let something = || {
            let expired = catalog.expired().any(|(_, expired)| expired.record.is_some());
            expired || catalog.collections().next().is_some()
        };
        self.collected.lock().is_none_or(|last| now.duration_since(last).abs() >= COLLECT_EVERY) && something()
    }

    pub(super) fn verify_due(&self, catalog: &Catalog, now: Timestamp) -> bool {
        if self.platform.verify_days().is_none() || catalog.backups().next().is_none() {
            return false;
        }
        // Whoever did it last, wherever.
        let known = catalog.verifications().filter(|last| last.pass.is_some()).map(|last| last.began).max();
        let last = known.max(*self.verified.lock());
        last.is_none_or(|last| now.duration_since(last).abs() >= VERIFY_EVERY)
    }

    /// Takes away what nobody needs. What fails is tried again by the next turn and keeps nothing else from being done.
    pub(super) async fn collect(&self, work: &Work) -> Result<Option<Done>> {
        *self.collected.lock() = Some(self.platform.env().now());
        match self.repository.collect(&CollectOptions::default(), work).await {
            Ok(done) => {
                for finding in &done.findings {
                    tracing::warn!(service = %self.id, %finding, "while what nobody needs was taken away");
                }
                let collected = Done::Collected { condemned: done.condemned, deleted: done.deleted };
                Ok((done.condemned.is_some() || done.deleted > 0).then_some(collected))
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(error) => {
                self.trouble(format!("what nobody needs could not be taken away: {error}")).await;
                Ok(Some(Done::Failed { problem: error.to_string() }))
            }
        }
    }

    /// Reads a day's part of what is stored. What is damaged people are told each time, until it is mended or let go.
    pub(super) async fn verify(&self, work: &Work) -> Result<Option<Done>> {
        *self.verified.lock() = Some(self.platform.env().now());
        let Some(days) = self.platform.verify_days() else { return Ok(None) };
        let stored: u64 = self.catalog().await?.backups().map(|backup| backup.stored_bytes).sum();
        let budget = (stored / u64::from(days)).max(VERIFY_LEAST);
        match self.repository.verify(VerifyLevel::Budget(budget), work).await {
            Ok(report) if report.is_sound() => Ok(None),
            Ok(report) => {
                let (harmed, objects) = (report.harmed(), report.damages.len());
                let first = report.damages.first().map(|damage| format!("{}: {}", damage.object, damage.problem));
                self.trouble(format!(
                    "{objects} stored objects are damaged, {} backups cannot be restored completely; {}",
                    harmed.len(),
                    first.unwrap_or_default()
                ))
                .await;
                Ok(Some(Done::Damaged { harmed, objects }))
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(error) => {
                self.trouble(format!("what is stored could not be verified: {error}")).await;
                Ok(Some(Done::Failed { problem: error.to_string() }))
            }
        }
    }
}
