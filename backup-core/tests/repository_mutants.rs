//! Repositories that break a rule do not pass the suite: each mutant is caught by the case that is about its rule.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod mutant;
mod shelf;

use std::panic::AssertUnwindSafe;

use backup_core::conformance::log;
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
    log::run(&Shelf::wrapped(|inner| Mutant::boxed(inner, Fault::None))).await;
}

macro_rules! mutants {
    ($($test:ident: $fault:ident by $suite:ident::$case:ident;)*) => {$(
        #[tokio::test]
        async fn $test() {
            let wrapped = Shelf::wrapped(|inner| Mutant::boxed(inner, Fault::$fault));
            is_caught(Fault::$fault, wrapped, |harness| Box::pin($suite::$case(harness))).await;
        }
    )*};
}

mutants! {
    losing_the_last_byte: LosesLastByte by suite::contents_of_every_size;
    flipping_a_byte_of_large_content: FlipsByte by suite::contents_of_every_size;
    losing_modes: LosesModes by suite::special_entries;
    comparing_nothing_with_the_parent: NeverReuses by suite::changed_blocks;
    reusing_nothing_by_identity: NeverReuses by suite::identities_are_reused;
    accepting_a_path_twice: AcceptsDuplicates by suite::duplicate_paths_are_refused;
    following_a_link_to_its_file: FollowsSources by suite::vanished_and_odd_files;
    reading_what_need_not_be_read: ReadsAlways by suite::unchanged_files_are_not_read;
    taking_changed_files_whole: IgnoresChanges by suite::changes_make_the_next_backup;
    believing_what_is_to_be_verified: BelievesChanges by suite::changes_that_are_verified;
    forgetting_what_a_patch_brings: ForgetsPatches by suite::patches_make_complete_entries;
    taking_patches_of_any_length: TakesAnyPatch by suite::patches_that_do_not_fit;
    believing_patches_that_are_to_be_verified: BelievesPatches by suite::patches_that_are_verified;
    showing_the_inspector_patches_twice: InspectsTwice by suite::inspectors_see_what_a_patch_brings;
    trusting_young_files: TrustsYoungFiles by suite::unchanged_files_are_not_read;
    showing_the_inspector_things_twice: InspectsTwice by suite::inspectors_see_everything_once;
    hiding_zeros_from_the_inspector: InspectsNoZeros by suite::inspectors_see_everything_once;
    committing_when_dropped: CommitsWhenDropped by suite::aborted_and_dropped_sessions;
    committing_in_spite_of_a_fence: IgnoresFences by suite::fenced_sessions_cannot_commit;
    miscounting: Miscounts by suite::counters;
    listing_in_another_order: ListsBackwards by suite::entries_and_selectors;
    ignoring_selectors: IgnoresSelectors by suite::entries_and_selectors;
    reading_past_the_end: ClampsRanges by suite::ranges;
    reading_in_huge_pieces: ReadsInOnePiece by suite::contents_of_every_size;
    extracting_last_things_early: ForgetsLast by suite::extract_resumes;
    extracting_without_looking: ExtractsNaively by suite::links_in_the_target_are_not_followed;
    extracting_over_files: ExtractsNaively by suite::extract_refuses_existing;
    extracting_records: ExtractsNaively by suite::records_never_become_files;
    writing_everything_in_a_delta: WritesEverything by suite::extract_delta_writes_what_differs;
    keeping_what_is_foreign: ExtractsNaively by suite::extract_keeps_and_removes;
    losing_modes_in_extraction: ExtractsNaively by suite::extract_places_everything;
    making_links_that_escape: ExtractsNaively by suite::escaping_links_are_refused;
    keeping_nothing: IgnoresKeep by suite::extract_keeps_and_removes;
    extracting_members_among_each_other: IgnoresFolders by suite::members_go_on_from_their_parents;
    storing_members_again: NeverReuses by suite::members_go_on_from_their_parents;
    calling_sound_things_damaged: CriesWolf by suite::verification_of_sound_content;
    deciding_by_halves: DecidesByHalves by suite::decisions_are_made_once;
    inventing_backups: OpensAnything by suite::unknown_things_are_refused;
    hiding_other_handles: ShowsOldCatalog by suite::two_sessions_at_once;
    acknowledging_log_that_is_not_stored: AcknowledgesEarly by log::durable_is_stored;
    flipping_a_byte_of_log: FlipsByte by log::contents_of_every_size;
    accepting_log_that_does_not_go_on: SwallowsConflicts by log::ranges_must_meet;
    two_writers_at_once: NeverFencesLogs by log::newer_writers_fence_older;
    imports_that_fence: FencesByImport by log::imports_fence_nobody;
    losing_the_origin_of_a_lineage: ForgetsForks by log::forks_are_followed;
    losing_why_log_is_missing: ForgetsReasons by log::gaps_and_cuts_are_recorded;
    losing_moments_and_names: ForgetsMarks by log::indices_come_back;
    taking_log_after_the_end: StaysOpen by log::closed_writers_take_nothing;
    reading_over_holes: ReadsOverHoles by log::holes_are_damage;
    describing_log_twice: DescribesTwice by log::overlaps_are_read_once;
}
