//! Typed progress, for bars, logs and metrics of the embedder.

use std::fmt::Debug;
use std::sync::Arc;

use crate::snapshot::Finding;

/// What a number of progress counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unit {
    /// Bytes of plaintext.
    Bytes,
    /// Entries, objects or other things.
    Items,
}

/// A stage of a longer operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Finding out what is there.
    Inspect,
    /// Reading the source and storing what is new.
    Read,
    /// Waiting until everything is durable in the store.
    Upload,
    /// Making the backup visible.
    Commit,
    /// Comparing what is on disk with the backup.
    Compare,
    /// Writing the target.
    Write,
    /// Making the target durable.
    Sync,
    /// Checking stored content.
    Verify,
    /// A restored deployment is replaying its log.
    Replay,
}

impl Phase {
    /// The phase as a word for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Read => "read",
            Self::Upload => "upload",
            Self::Commit => "commit",
            Self::Compare => "compare",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Verify => "verify",
            Self::Replay => "replay",
        }
    }
}

/// Something that happened. Rates and remaining times follow from `done`, `total` and the observer's own clock.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Progress {
    /// A phase begins.
    Started {
        /// Which.
        phase: Phase,
        /// How much there will be, where that is known.
        total: Option<u64>,
        /// What the numbers count.
        unit: Unit,
    },
    /// More of a phase is done. Not called for every byte; at most a few hundred times a second.
    Advanced {
        /// Which.
        phase: Phase,
        /// How much more than at the last call.
        by: u64,
    },
    /// A phase has ended.
    Ended {
        /// Which.
        phase: Phase,
    },
    /// Something was noticed.
    Found(Finding),
}

/// Gets [`Progress`] as it happens. Called from worker threads too: must be quick and must not block.
pub trait Observer: Debug + Send + Sync + 'static {
    /// Something happened.
    fn on(&self, progress: &Progress);
}

/// Observes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn on(&self, _: &Progress) {}
}

/// An observer that observes nothing, ready to be shared.
#[must_use]
pub fn silent() -> Arc<dyn Observer> {
    Arc::new(Silent)
}
