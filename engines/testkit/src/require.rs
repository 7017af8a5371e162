//! Skip loudly, or fail: what a test does when this machine can't have a server.

use std::io::Write;

use crate::error::Result;

/// Whether a server that can't be had is a failure: `BACKUP_TESTKIT=require` (continuous integration sets it).
///
/// # Panics
/// When the variable is neither `require` nor `skip` nor empty: a typo must not turn failures into skips.
#[must_use]
pub fn required() -> bool {
    match std::env::var("BACKUP_TESTKIT").as_deref() {
        Ok("require") => true,
        Ok("" | "skip") | Err(_) => false,
        Ok(other) => panic!("BACKUP_TESTKIT is {other:?}; it may be \"require\" or \"skip\""),
    }
}

/// `Some` server, or `None` when the test is to be skipped, which has then been said on standard error.
///
/// The message is written past the test harness's capture, so that it shows in a passing run too.
///
/// # Panics
/// When the server was had and failed, or can't be had and `BACKUP_TESTKIT=require`.
#[track_caller]
pub fn or_skip<T>(server: Result<T>) -> Option<T> {
    match server {
        Ok(server) => Some(server),
        Err(error) if error.is_unavailable() && !required() => {
            let test = std::thread::current();
            let caller = std::panic::Location::caller();
            // Not `eprintln!`: that is captured by the harness, and a silent skip looks like a pass.
            let _ = writeln!(
                std::io::stderr(),
                "\n*** SKIPPED {} ({caller}): {}\n*** set BACKUP_TESTKIT=require to make this a failure",
                test.name().unwrap_or("a test"),
                error.full(),
            );
            None
        }
        Err(error) => panic!("{}", error.full()),
    }
}

/// Unwraps a server, or says loudly why not and returns from the test; under `BACKUP_TESTKIT=require` it panics instead.
///
/// A second argument is the value to return from a test that returns something.
///
/// ```
/// # use backup_testkit as testkit;
/// async fn a_test() {
///     let server = testkit::require_or_skip!(testkit::Postgres::builder(testkit::PgVersion::V17).start().await);
///     let client = server.connect("postgres").await.unwrap();
/// }
/// ```
#[macro_export]
macro_rules! require_or_skip {
    ($server:expr) => {
        $crate::require_or_skip!($server, ())
    };
    ($server:expr, $skipped:expr) => {
        match $crate::or_skip($server) {
            Some(server) => server,
            None => return $skipped,
        }
    };
}
