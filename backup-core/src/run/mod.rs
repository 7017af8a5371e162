//! Orchestration: one engine and one repository brought together.

mod backup;
mod capture;
mod choose;
mod restore;
mod windows;

pub use backup::{BackupOptions, backup};
pub use capture::{capture, import};
pub use restore::{RestorePlan, check, plan_restore, restore};
pub use windows::{Restorable, TimedWindow, windows};

#[cfg(test)]
pub(crate) mod tests;
