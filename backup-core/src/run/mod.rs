//! Orchestration: one engine and one repository brought together.

mod backup;
mod restore;

pub use backup::{BackupOptions, backup};
pub use restore::{RestorePlan, check, plan_restore, restore};

#[cfg(test)]
mod tests;
