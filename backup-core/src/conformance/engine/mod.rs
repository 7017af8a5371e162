//! What every engine must do.
//!
//! The harness has one running deployment and can make empty targets. What "equal" means is the harness's digest: it must
//! cover everything that a user of the database could see.

mod cases;
mod interruption;

use std::sync::Arc;

use async_trait::async_trait;

pub use cases::{
    checks_find_sound_backups_sound, describes_itself, every_backup_restores_alone, full_backup_restores,
    incremental_backup_restores, inspects_its_deployment, occupied_targets_are_refused, unreachable_deployments,
};
pub use interruption::{damaged_content_is_never_started, interrupted_backups, interrupted_restores};

use crate::engine::BackupEngine;
use crate::env::Env;
use crate::repository::Repository;

/// A deployment of the engine under test, and targets for its backups.
#[async_trait]
pub trait EngineHarness: Send + Sync {
    /// The environment of all work.
    fn env(&self) -> Env;

    /// A new, empty repository.
    async fn repository(&self) -> Arc<dyn Repository>;

    /// An engine on the running deployment, the same one at every call.
    async fn engine(&self) -> Arc<dyn BackupEngine>;

    /// Changes the deployment so that its digest becomes another one. `step` counts up over a run of the suite: what is
    /// written depends on it and on nothing else.
    async fn mutate(&self, step: u32);

    /// Of everything that a user of the running deployment can see.
    async fn digest(&self) -> String;

    /// A new, empty target. Dropping it may remove it.
    async fn target(&self) -> Box<dyn EngineTarget>;

    /// An engine on a deployment that is not there: stopped, or at an address that nobody listens at. `None` when the
    /// engine cannot have one; the case is then skipped.
    async fn unreachable(&self) -> Option<Arc<dyn BackupEngine>>;

    /// Removes what the harness has made. Called when all cases have passed.
    async fn cleanup(&self) {}
}

/// Something that can be restored into.
#[async_trait]
pub trait EngineTarget: Send + Sync {
    /// An engine on it.
    fn engine(&self) -> Arc<dyn BackupEngine>;

    /// Starts what was restored, takes the same digest as [`EngineHarness::digest`], and stops it. `None` when it does not
    /// start.
    async fn digest(&self) -> Option<String>;
}

/// Runs every case.
///
/// # Panics
/// At the first broken rule.
pub async fn run(harness: &dyn EngineHarness) {
    let mut suite = Suite { harness, steps: 0 };
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {$(
            tracing::info!(case = stringify!($case), "engine conformance");
            $case(&mut suite).await;
        )*};
    }
    cases![
        describes_itself,
        inspects_its_deployment,
        full_backup_restores,
        incremental_backup_restores,
        every_backup_restores_alone,
        occupied_targets_are_refused,
        interrupted_backups,
        interrupted_restores,
        damaged_content_is_never_started,
        checks_find_sound_backups_sound,
        unreachable_deployments,
    ];
    harness.cleanup().await;
}

/// A harness and how often its deployment was changed.
#[expect(missing_debug_implementations, reason = "a harness need not have one")]
pub struct Suite<'a> {
    harness: &'a dyn EngineHarness,
    steps: u32,
}

impl<'a> Suite<'a> {
    /// For running single cases.
    pub fn new(harness: &'a dyn EngineHarness) -> Self {
        Self { harness, steps: 0 }
    }
}
