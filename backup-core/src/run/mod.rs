//! Orchestration: one engine and one repository brought together.

mod backup;
mod capture;
mod choose;
mod drill;
mod expire;
mod reading;
mod reinstate;
mod restore;
mod windows;

pub use backup::{BackupOptions, backup};
pub use capture::{capture, import};
pub use drill::{DrillOptions, DrillTarget, drill};
pub use expire::{Expired, Retention, expire, plan_expiry};
pub(crate) use expire::{expiring, stored_log};
pub use reading::while_reading;
pub use reinstate::reinstate;
pub use restore::{RestorePlan, check, plan_restore, restore};
pub use windows::{Restorable, TimedWindow, windows};

#[cfg(test)]
pub(crate) mod tests;
