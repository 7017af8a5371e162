//! Telling people.

use std::fmt::Debug;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::catalog::{Audited, DrillRecord};
use crate::error::Result;
use crate::id::ServiceId;

/// Something that somebody should hear of.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "notice")]
#[non_exhaustive]
pub enum Notice {
    /// A deadline comes near, e.g. the deletion of a service that is off for long.
    Deadline {
        /// Which one, in a word that stays the same.
        name: String,
        /// When it is.
        at: Timestamp,
        /// For people.
        text: String,
    },
    /// A change that was committed.
    Changed(Box<Audited>),
    /// A drill has not passed: a backup may not be what it should be.
    DrillFailed {
        /// What it has shown.
        record: Box<DrillRecord>,
    },
    /// Something went wrong and is tried again.
    Trouble {
        /// For people.
        text: String,
    },
}

/// Takes notices out to people and systems.
#[async_trait]
pub trait Notifier: Debug + Send + Sync + 'static {
    /// Sends one notice of `service`. One that fails is sent again where it matters: a deadline counts as told only when it was.
    ///
    /// # Errors
    /// When it was not delivered.
    async fn notify(&self, service: &ServiceId, notice: &Notice) -> Result<()>;
}

/// Writes notices to the log of the process.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogNotifier;

#[async_trait]
impl Notifier for LogNotifier {
    async fn notify(&self, service: &ServiceId, notice: &Notice) -> Result<()> {
        match notice {
            Notice::Deadline { name, at, text } => tracing::warn!(%service, deadline = name, %at, "{text}"),
            Notice::Changed(audited) => {
                tracing::info!(%service, by = %audited.by, at = %audited.at, change = ?audited.change, "changed");
            }
            Notice::DrillFailed { record } => {
                let problem = record.problem.as_deref().unwrap_or_default();
                tracing::error!(%service, drill = %record.id, backup = %record.backup, problem, "a drill has failed");
            }
            Notice::Trouble { text } => tracing::warn!(%service, "{text}"),
        }
        Ok(())
    }
}
