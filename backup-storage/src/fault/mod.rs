//! Stores that misbehave on purpose, and one that forbids misbehaviour. For tests, ours and those of embedders.
//!
//! - [`FaultStore`] wraps any object store and injects what real stores were seen to do: replies lost after the put landed,
//!   conflicts answered though nothing was written, stalls, bodies torn in the middle, full disks. Which fault strikes which request
//!   follows from a seed and the order of requests alone, so a failing run is repeated by its seed (on a single-threaded runtime).
//! - [`WriteOnceGuard`] sits between that and the real store and records what truly landed: any overwrite, any recycled name, any
//!   call that a write-once repository must not make is a violation.
//! - [`DroppedAfter`] drops a future in the middle, as cancellation does.
//!
//! Stack them as `Store → FaultStore → WriteOnceGuard → InMemory`. Nothing here reads a clock; waiting goes through the
//! runtime's timer, which `#[tokio::test(start_paused = true)]` makes instant.

mod dropped;
mod guard;
mod inject;
mod plan;

pub use dropped::DroppedAfter;
pub use guard::{GuardEvent, GuardOp, WriteOnceGuard};
pub use inject::{FaultStore, Injected};
pub use plan::{Crash, Fault, FaultOp, FaultPlan};
