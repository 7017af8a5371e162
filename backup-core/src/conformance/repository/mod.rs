//! What every repository must do.
//!
//! ```
//! # use std::sync::Arc;
//! # use std::sync::atomic::{AtomicU32, Ordering};
//! use async_trait::async_trait;
//! use backup_core::conformance::repository::{self, RepositoryHarness};
//! use backup_core::env::Env;
//! use backup_core::repository::{MemoryRepository, Repository};
//! use backup_core::{ServiceId, SessionId};
//! # use parking_lot::Mutex;
//! # use std::collections::BTreeMap;
//!
//! #[derive(Debug)]
//! struct Harness {
//!     env: Env,
//!     made: Mutex<BTreeMap<ServiceId, MemoryRepository>>,
//! }
//!
//! #[async_trait]
//! impl RepositoryHarness for Harness {
//!     fn env(&self) -> Env {
//!         self.env.clone()
//!     }
//!     async fn fresh(&self) -> Arc<dyn Repository> {
//!         let service = ServiceId::new(format!("service-{}", self.made.lock().len())).unwrap();
//!         let repository = MemoryRepository::new(service.clone());
//!         self.made.lock().insert(service, repository.clone());
//!         Arc::new(repository)
//!     }
//!     async fn reopen(&self, service: &ServiceId) -> Arc<dyn Repository> {
//!         Arc::new(self.made.lock()[service].reopen())
//!     }
//!     async fn fence(&self, service: &ServiceId, session: SessionId) -> bool {
//!         let repository = self.made.lock()[service].clone();
//!         repository.fence(session, &self.env).unwrap();
//!         true
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let harness = Harness { env: Env::seeded(1), made: Mutex::default() };
//! repository::empty_repository(&harness).await; // or all of them: repository::run(&harness).await
//! # });
//! ```

mod changes;
mod decisions;
mod extraction;
mod hostile;
mod increments;
mod localfiles;
mod members;
mod patches;
mod reading;
mod roundtrip;
mod sessions;
mod stage;
mod verification;

use std::sync::Arc;

use async_trait::async_trait;

pub use changes::{changes_make_the_next_backup, changes_that_are_verified};
pub use decisions::decisions_are_made_once;
pub use extraction::{
    extract_delta_writes_what_differs, extract_keeps_and_removes, extract_places_everything, extract_refuses_existing,
    extract_resumes, extract_writes_last_things_last,
};
pub use hostile::{escaping_links_are_refused, links_in_the_target_are_not_followed, records_never_become_files};
pub use increments::{
    backups_stay_restorable_alone, changed_blocks, deleted_entries, grown_and_shrunk, identities_are_reused,
    nothing_changed, streams_are_compared_too,
};
pub use localfiles::{
    files_that_change_while_read, inspectors_see_everything_once, local_files_bring_their_facts,
    unchanged_files_are_not_read, vanished_and_odd_files,
};
pub use members::{members_are_backups_of_their_own, members_go_on_from_their_parents};
pub use patches::{
    inspectors_see_what_a_patch_brings, patches_make_complete_entries, patches_of_zeros_and_of_the_same,
    patches_that_are_verified, patches_that_do_not_fit,
};
pub use reading::{entries_and_selectors, footprints, ranges, unknown_things_are_refused};
pub use roundtrip::{contents_of_every_size, odd_pieces, special_entries};
pub use sessions::{
    aborted_and_dropped_sessions, duplicate_paths_are_refused, empty_repository, failed_puts_put_nothing,
    fenced_sessions_cannot_commit, nothing_is_visible_before_commit, two_sessions_at_once,
};
pub use verification::{counters, verification_of_sound_content};

use crate::env::Env;
use crate::id::{ServiceId, SessionId};
use crate::repository::Repository;

/// Makes repositories for the suite.
#[async_trait]
pub trait RepositoryHarness: Send + Sync {
    /// The environment of all work. Its clock must be a [`ManualClock`](crate::env::ManualClock) or quick: cases sleep.
    fn env(&self) -> Env;

    /// A new, empty repository of a service that no other call was given.
    async fn fresh(&self) -> Arc<dyn Repository>;

    /// A further handle on the repository of `service`, which [`fresh`](Self::fresh) has made, as another process would
    /// open it: nothing but what is stored is shared.
    async fn reopen(&self, service: &ServiceId) -> Arc<dyn Repository>;

    /// Ends an open session as one that gave no sign of life. `false` when the harness has no way to do that; the case is
    /// then skipped.
    async fn fence(&self, service: &ServiceId, session: SessionId) -> bool {
        let _ = (service, session);
        false
    }
}

/// Runs every case.
///
/// # Panics
/// At the first broken rule.
pub async fn run(harness: &dyn RepositoryHarness) {
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {$(
            tracing::info!(case = stringify!($case), "repository conformance");
            $case(harness).await;
        )*};
    }
    cases![
        empty_repository,
        contents_of_every_size,
        special_entries,
        odd_pieces,
        nothing_changed,
        changed_blocks,
        grown_and_shrunk,
        streams_are_compared_too,
        identities_are_reused,
        deleted_entries,
        backups_stay_restorable_alone,
        entries_and_selectors,
        ranges,
        footprints,
        unknown_things_are_refused,
        nothing_is_visible_before_commit,
        aborted_and_dropped_sessions,
        two_sessions_at_once,
        fenced_sessions_cannot_commit,
        duplicate_paths_are_refused,
        decisions_are_made_once,
        failed_puts_put_nothing,
        local_files_bring_their_facts,
        vanished_and_odd_files,
        files_that_change_while_read,
        inspectors_see_everything_once,
        unchanged_files_are_not_read,
        changes_make_the_next_backup,
        changes_that_are_verified,
        patches_make_complete_entries,
        patches_of_zeros_and_of_the_same,
        patches_that_do_not_fit,
        patches_that_are_verified,
        inspectors_see_what_a_patch_brings,
        members_are_backups_of_their_own,
        members_go_on_from_their_parents,
        extract_places_everything,
        extract_refuses_existing,
        extract_writes_last_things_last,
        extract_delta_writes_what_differs,
        extract_keeps_and_removes,
        extract_resumes,
        escaping_links_are_refused,
        links_in_the_target_are_not_followed,
        records_never_become_files,
        verification_of_sound_content,
        counters,
    ];
}
