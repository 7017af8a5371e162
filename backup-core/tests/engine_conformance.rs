//! A right engine passes the suite for engines, and wrong ones do not.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod directory_engine;

use std::panic::AssertUnwindSafe;

use backup_core::conformance::engine;
use directory_engine::{Directories, Fault};
use futures::FutureExt;

#[tokio::test]
async fn an_engine_of_directories_conforms() {
    engine::run(&Directories::new(None)).await;
}

#[tokio::test]
async fn the_suite_catches_wrong_engines() {
    for (fault, complaint) in [
        (Fault::Forgets, "digest of what was restored"),
        (Fault::Overwrites, "does not say that the target is occupied"),
        (Fault::StartsEarly, "has left something that starts"),
        (Fault::CannotResume, "is refused"),
        (Fault::Invents, "there is no deployment"),
        (Fault::Renames, "source of the snapshot"),
        (Fault::ChecksNothing, "a check"),
        (Fault::ChecksBlindly, "a check passed over damaged content"),
    ] {
        let harness = Directories::new(Some(fault));
        let outcome = AssertUnwindSafe(engine::run(&harness)).catch_unwind().await;
        let panic = outcome.expect_err(&format!("the suite did not notice that an engine {fault:?}"));
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        assert!(message.contains(complaint), "{fault:?} was noticed by {message:?}, not by {complaint:?}");
    }
}
