//! Waiting for a process that this crate does not control.
//!
//! The rule of this module: every wait is for a *condition*, with a deadline, and nothing else in the crate reads a
//! clock or sleeps. A real server tells nobody when it has become ready or has ended, so it has to be asked again and
//! again; an injected clock would only pretend that the server lives in simulated time.

use std::time::{Duration, Instant};

/// How long to wait between two looks: short enough that it does not show in the start time of a server.
const PAUSE: Duration = Duration::from_millis(5);

/// A moment after which waiting is given up.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline `timeout` from now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a real server runs in real time")]
    pub fn after(timeout: Duration) -> Self {
        Self(Instant::now() + timeout)
    }

    /// Whether the moment has passed.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a real server runs in real time")]
    pub fn passed(self) -> bool {
        Instant::now() >= self.0
    }
}

/// Measures how long something takes, for reports and log lines.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "measures real servers")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// This moment as requests of Amazon's interfaces carry it, for example `20260212T201848Z`.
#[expect(clippy::disallowed_methods, reason = "a real server compares it with its own clock")]
pub(crate) fn utc_stamp() -> String {
    jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Blocks until `look` finds something or `timeout` has passed; then `None`.
///
/// `look` is asked at least once. Blocks the thread: in async code use [`until_async`].
#[expect(clippy::disallowed_methods, reason = "polls a real process, which announces nothing")]
pub fn until<T>(timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Deadline::after(timeout);
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if deadline.passed() {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits until `look` finds something or `timeout` has passed; then `None`. `look` must not block.
///
/// # Cancel safety
/// Dropping the future stops the looking, nothing else.
#[expect(clippy::disallowed_methods, reason = "polls a real process, which announces nothing")]
pub async fn until_async<T>(timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Deadline::after(timeout);
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if deadline.passed() {
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Pauses between two asynchronous questions to a server; for loops that ask over a connection.
pub async fn pause() {
    #[expect(clippy::disallowed_methods, reason = "polls a real server, which announces nothing")]
    tokio::time::sleep(PAUSE * 4).await;
}
