//! Repositories that break a rule do not pass the suite: each mutant is caught by the case that is about its rule.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod mutant;
mod shelf;

use std::panic::AssertUnwindSafe;

use backup_core::conformance::repository as suite;
use backup_core::conformance::repository::RepositoryHarness;
use futures::FutureExt;
use futures::future::BoxFuture;
use mutant::{Fault, Mutant};
use shelf::Shelf;

type Case = for<'a> fn(&'a dyn RepositoryHarness) -> BoxFuture<'a, ()>;

async fn is_caught(fault: Fault, wrapped: Shelf, case: Case) {
    let outcome = AssertUnwindSafe(case(&wrapped)).catch_unwind().await;
    assert!(outcome.is_err(), "the case about it did not notice that a repository {fault:?}");
}

#[tokio::test]
async fn a_mutant_without_a_fault_conforms() {
    suite::run(&Shelf::wrapped(|inner| Mutant::boxed(inner, Fault::None))).await;
}

macro_rules! mutants {
    ($($test:ident: $fault:ident by $case:ident;)*) => {$(
        #[tokio::test]
        async fn $test() {
            let wrapped = Shelf::wrapped(|inner| Mutant::boxed(inner, Fault::$fault));
            is_caught(Fault::$fault, wrapped, |harness| Box::pin(suite::$case(harness))).await;
        }
    )*};
}

mutants! {
    losing_the_last_byte: LosesLastByte by contents_of_every_size;
    flipping_a_byte_of_large_content: FlipsByte by contents_of_every_size;
    losing_modes: LosesModes by special_entries;
    comparing_nothing_with_the_parent: NeverReuses by changed_blocks;
    reusing_nothing_by_identity: NeverReuses by identities_are_reused;
    accepting_a_path_twice: AcceptsDuplicates by duplicate_paths_are_refused;
    following_a_link_to_its_file: FollowsSources by vanished_and_odd_files;
    reading_what_need_not_be_read: ReadsAlways by unchanged_files_are_not_read;
    trusting_young_files: TrustsYoungFiles by unchanged_files_are_not_read;
    showing_the_inspector_things_twice: InspectsTwice by inspectors_see_everything_once;
    hiding_zeros_from_the_inspector: InspectsNoZeros by inspectors_see_everything_once;
    committing_when_dropped: CommitsWhenDropped by aborted_and_dropped_sessions;
    committing_in_spite_of_a_fence: IgnoresFences by fenced_sessions_cannot_commit;
    miscounting: Miscounts by counters;
    listing_in_another_order: ListsBackwards by entries_and_selectors;
    ignoring_selectors: IgnoresSelectors by entries_and_selectors;
    reading_past_the_end: ClampsRanges by ranges;
    reading_in_huge_pieces: ReadsInOnePiece by contents_of_every_size;
    extracting_last_things_early: ForgetsLast by extract_resumes;
    extracting_without_looking: ExtractsNaively by links_in_the_target_are_not_followed;
    extracting_over_files: ExtractsNaively by extract_refuses_existing;
    extracting_records: ExtractsNaively by records_never_become_files;
    writing_everything_in_a_delta: WritesEverything by extract_delta_writes_what_differs;
    keeping_what_is_foreign: ExtractsNaively by extract_keeps_and_removes;
    losing_modes_in_extraction: ExtractsNaively by extract_places_everything;
    making_links_that_escape: ExtractsNaively by escaping_links_are_refused;
    keeping_nothing: IgnoresKeep by extract_keeps_and_removes;
    calling_sound_things_damaged: CriesWolf by verification_of_sound_content;
    inventing_backups: OpensAnything by unknown_things_are_refused;
    hiding_other_handles: ShowsOldCatalog by two_sessions_at_once;
}
