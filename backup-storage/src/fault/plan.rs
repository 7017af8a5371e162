//! What may go wrong, and how often.

use std::time::Duration;

/// The kinds of requests that a fault can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FaultOp {
    /// A put.
    Put,
    /// A read of an object, a range, several ranges or the metadata.
    Get,
    /// A listing (struck when it is opened or between two entries).
    List,
    /// The deletion of one object.
    Delete,
}

/// One way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// A put lands and its reply is lost: the client sees an error.
    LostReply,
    /// A request fails before it had any effect.
    Refused,
    /// A put lands and is answered "already exists", as when the client's own retry meets the first attempt.
    OwnPutExists,
    /// Nothing is written, yet the answer is "already exists" (S3 answers 409 while another put is under way).
    FalseConflict,
    /// A put fails for the client and lands some requests later.
    LandsLate,
    /// A request never reaches the store and never returns.
    Stall,
    /// A request has its effect and never returns.
    StallAfter,
    /// The body of a read ends early without an error.
    ShortBody,
    /// The body of a read breaks off with an error.
    BrokenBody,
    /// A read is answered "not found" although the object is there.
    Vanished,
    /// A put meets a full disk.
    FullDisk,
    /// The credentials do not allow deletion.
    DeleteDenied,
    /// A listing breaks off with an error.
    BrokenList,
}

impl Fault {
    /// All faults.
    pub const ALL: [Self; 13] = [
        Self::LostReply,
        Self::Refused,
        Self::OwnPutExists,
        Self::FalseConflict,
        Self::LandsLate,
        Self::Stall,
        Self::StallAfter,
        Self::ShortBody,
        Self::BrokenBody,
        Self::Vanished,
        Self::FullDisk,
        Self::DeleteDenied,
        Self::BrokenList,
    ];

    /// Whether this can happen to a request of the kind `op`.
    #[must_use]
    pub fn strikes(self, op: FaultOp) -> bool {
        match self {
            Self::LostReply | Self::StallAfter => matches!(op, FaultOp::Put | FaultOp::Delete),
            Self::OwnPutExists | Self::FalseConflict | Self::LandsLate | Self::FullDisk => op == FaultOp::Put,
            Self::Refused | Self::Stall => true,
            Self::ShortBody | Self::BrokenBody | Self::Vanished => op == FaultOp::Get,
            Self::DeleteDenied => op == FaultOp::Delete,
            Self::BrokenList => op == FaultOp::List,
        }
    }

    /// Whether a reader can tell this fault from lost data.
    ///
    /// [`Fault::Vanished`] is the exception: a store that denies an object which it has looks like one that lost it.
    #[must_use]
    pub fn is_honest(self) -> bool {
        self != Self::Vanished
    }
}

/// How often each fault strikes. Probabilities are per request; several may be given, the first that strikes wins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultPlan {
    pub(super) odds: Vec<(Fault, f64)>,
    pub(super) max_yields: u32,
    pub(super) max_latency: Duration,
}

impl FaultPlan {
    /// Nothing goes wrong by chance; faults come from scripts only.
    #[must_use]
    pub fn quiet() -> Self {
        Self::default()
    }

    /// Every honest fault that can be survived by patience strikes with probability `each`, and requests overtake one another.
    #[must_use]
    pub fn stormy(each: f64) -> Self {
        let lasting = [Fault::FullDisk, Fault::DeleteDenied];
        let survivable = Fault::ALL.into_iter().filter(|fault| fault.is_honest() && !lasting.contains(fault));
        Self { odds: survivable.map(|fault| (fault, each)).collect(), ..Self::default() }.yields(4)
    }

    /// Adds a fault that strikes with `probability`.
    #[must_use]
    pub fn with(mut self, fault: Fault, probability: f64) -> Self {
        self.odds.push((fault, probability));
        self
    }

    /// Each request lets other tasks run up to `yields` times before and after its effect, which reorders concurrent requests.
    #[must_use]
    pub fn yields(mut self, yields: u32) -> Self {
        self.max_yields = yields;
        self
    }

    /// Each request takes up to `latency` on the runtime's timer.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.max_latency = latency;
        self
    }
}

/// The end of a process, as the store sees it: from some request on, nothing arrives any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// How many more requests are served before the fatal one.
    pub after: u64,
    /// Whether the fatal request still has its effect.
    pub lands: bool,
    /// Whether dead requests hang for ever (the test drops the future, see [`FaultStore::crashed`](super::FaultStore::crashed))
    /// or fail at once, finally.
    pub hangs: bool,
}
