//! When to back up and what to keep, decided by pure functions.
//!
//! Nothing here reads a clock, a file or a socket: each function gets what it has to know, `now` among it, and returns a
//! decision with its reasons. So a decision can be shown before it is carried out, repeated, simulated over years, and tested
//! against the sentences that were promised.
//!
//! - A [`Matrix`] says which [`Profile`] a service has on its plan. It is data: plans, services and tiers are added in a document.
//! - A [`Schedule`] says when a backup is due.
//! - A [`DrillSchedule`] says when it is to be proven again that a backup can be restored.
//! - A [`RetentionPlan`](retention::RetentionPlan) says which backups and which log are kept, why, and until when.
//! - A [`Lifecycle`](lifecycle::Lifecycle) says what a service that is off or deleted may still become, and when it ends.
//! - [`forecast`](forecast::forecast) says what there will be on some day.
//!
//! ```
//! use backup_policy::retention::{Backup, Facts, RetentionPlan};
//! use backup_policy::{BackupTime, Matrix, Plan, Schedule, ServiceKind};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let matrix = Matrix::built_in();
//! let profile = matrix.offer(&ServiceKind::REDIS, &Plan::STARTUP)?.profile().ok_or("no backups")?;
//! let schedule = Schedule::new(profile.cadence().clone(), BackupTime::new(Some(3), Some(30))?, "redis-1")?;
//! assert_eq!(schedule.next("2026-11-27T07:00:00Z".parse()?), Some("2026-11-27T15:30:00Z".parse()?));
//!
//! let backup = |id: u32, at: &str| at.parse().map(|at| Backup::new(id, at, at));
//! let facts = Facts::of_backups(vec![
//!     backup(1, "2026-11-26T03:30:00Z")?,
//!     backup(2, "2026-11-26T15:30:00Z")?,
//!     backup(3, "2026-11-27T03:30:00Z")?,
//! ]);
//! let plan = RetentionPlan::of(profile, "2026-11-27T07:00:00Z".parse()?, &facts);
//! assert_eq!(plan.expired().collect::<Vec<_>>(), [1]);
//! # Ok(())
//! # }
//! ```

mod age;
mod drill;
mod error;
pub mod forecast;
pub mod lifecycle;
mod matrix;
mod profile;
pub mod retention;
mod schedule;

use jiff::SignedDuration;

pub use age::Age;
pub use drill::{DrillHistory, DrillSchedule};
pub use error::{Error, Result};
pub use matrix::{Matrix, MatrixDocument, Offer, OfferDocument, OffersDocument, Plan, ServiceKind};
pub use profile::{Cadence, Period, Profile, ProfileBuilder, ProfileDocument, Rights, Tier, TierDocument};
pub use schedule::{BackupTime, Due, History, Run, Schedule};

/// How far a time may lie behind `now` and still be believed: clocks of hosts differ.
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(10);
