//! What every repository must do with a log.
//!
//! Runs over a [`RepositoryHarness`], as the suite for repositories does.
//!
//! ```
//! # use std::sync::Arc;
//! # use async_trait::async_trait;
//! # use backup_core::ServiceId;
//! # use backup_core::conformance::repository::RepositoryHarness;
//! # use backup_core::env::Env;
//! # use backup_core::repository::{MemoryRepository, Repository};
//! use backup_core::conformance::log;
//!
//! # #[derive(Debug)]
//! # struct Harness(MemoryRepository);
//! # #[async_trait]
//! # impl RepositoryHarness for Harness {
//! #     fn env(&self) -> Env {
//! #         Env::seeded(1)
//! #     }
//! #     async fn fresh(&self) -> Arc<dyn Repository> {
//! #         Arc::new(self.0.reopen())
//! #     }
//! #     async fn reopen(&self, _: &ServiceId) -> Arc<dyn Repository> {
//! #         Arc::new(self.0.reopen())
//! #     }
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! # let harness = Harness(MemoryRepository::new(ServiceId::new("service").unwrap()));
//! log::empty_log(&harness).await; // or all of them: log::run(&harness).await
//! # });
//! ```

#![allow(clippy::single_range_in_vec_init, reason = "sets of offsets are compared, often of one interval")]

mod fencing;
mod index;
mod reading;
mod stage;
mod writing;

pub use fencing::{
    closed_writers_take_nothing, dropped_writers_lose_nothing_durable, imports_fence_nobody, newer_writers_fence_older,
    writers_are_known,
};
pub use index::{indices_come_back, quiet_sources_stay_fresh, words_about_later_places_wait};
pub use reading::{forks_are_followed, holes_are_damage, overlaps_are_read_once, pieces_and_parts};
pub use writing::{
    contents_of_every_size, durable_is_stored, empty_log, gaps_and_cuts_are_recorded, lineages_are_declared,
    odd_ranges_are_refused, ranges_must_meet,
};

use super::repository::RepositoryHarness;

/// Runs every case.
///
/// # Panics
/// At the first broken rule.
pub async fn run(harness: &dyn RepositoryHarness) {
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {$(
            tracing::info!(case = stringify!($case), "log conformance");
            $case(harness).await;
        )*};
    }
    cases![
        empty_log,
        contents_of_every_size,
        durable_is_stored,
        ranges_must_meet,
        odd_ranges_are_refused,
        lineages_are_declared,
        gaps_and_cuts_are_recorded,
        writers_are_known,
        newer_writers_fence_older,
        imports_fence_nobody,
        dropped_writers_lose_nothing_durable,
        closed_writers_take_nothing,
        pieces_and_parts,
        overlaps_are_read_once,
        holes_are_damage,
        forks_are_followed,
        indices_come_back,
        words_about_later_places_wait,
        quiet_sources_stay_fresh,
    ];
}
