//! One request: a slot, a deadline, a count; and the loop that repeats it.

use std::future::Future;
use std::time::Duration;

use crate::error::{self, Error, ErrorKind, Result};

use super::metrics::Op;
use super::{Shared, Store};

/// How one request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The store was silent, or slower than the settings' minimum rate.
    TimedOut(Duration),
    /// A body ended early.
    Short { got: u64, promised: u64 },
    /// The client reports an error.
    Client(object_store::Error),
    /// The answer is final and already in the caller's terms.
    Final(Error),
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        Self::Client(error)
    }
}

impl Failure {
    /// Whether the same request may succeed later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::TimedOut(_) | Self::Short { .. } => true,
            Self::Client(error) => error::store_error_kind(error) == ErrorKind::Unavailable,
            Self::Final(_) => false,
        }
    }

    /// Whether the store answered that something is under the name already (for a create-only put).
    pub(super) fn says_exists(&self) -> bool {
        use object_store::Error as Client;
        matches!(
            self,
            Self::Client(Client::AlreadyExists { .. } | Client::Precondition { .. } | Client::NotModified { .. })
        )
    }

    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Client(object_store::Error::NotFound { .. }))
            || matches!(self, Self::Final(error) if error.is_not_found())
    }

    /// Whether this is an answer rather than a failure of the store, for the metrics.
    fn is_answer(&self) -> bool {
        self.says_exists() || self.is_not_found() || matches!(self, Self::Final(_))
    }

    pub(super) fn into_error(self, op: Op, name: &str) -> Error {
        let op = op.name();
        match self {
            Self::TimedOut(after) => {
                Error::unavailable(format!("{op} {name}: the store did not answer within {after:?}"))
            }
            Self::Short { got, promised } => {
                Error::unavailable(format!("{op} {name}: the body ended after {got} of {promised} bytes"))
            }
            Self::Client(error) => error::store_error(op, name, error),
            Self::Final(error) => error,
        }
    }
}

/// Runs `future` with a limit on the runtime's timer.
pub(super) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(limit, future).await.map_err(|_| Failure::TimedOut(limit))
}

/// The delays between the attempts of one request.
#[derive(Debug)]
pub(super) struct Backoff {
    attempt: u32,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { attempt: 0 }
    }

    /// Waits before the next attempt; `false` when all attempts are used up.
    ///
    /// The delay doubles from the first to the longest one, and a random part of up to half of it is taken off, so
    /// that clients which failed together do not come back together.
    pub(super) async fn wait(&mut self, shared: &Shared, op: Op) -> bool {
        let settings = &shared.settings;
        if self.attempt >= settings.retries {
            return false;
        }
        let full = settings.first_delay.saturating_mul(1u32.checked_shl(self.attempt).unwrap_or(u32::MAX));
        let full = full.min(settings.max_delay);
        let fraction = f64::from(u16::from_le_bytes(shared.env.random())) / f64::from(u16::MAX);
        self.attempt += 1;
        shared.counters.of(op).retry();
        shared.env.clock().sleep(full.mul_f64(1.0 - fraction / 2.0)).await;
        true
    }
}

impl Store {
    /// Runs one request in a slot and counts it.
    pub(super) async fn request<T>(
        &self,
        op: Op,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let slot = self.shared.requests.acquire().await;
        let clock = self.shared.env.clock();
        let start = clock.monotonic();
        let outcome = call.await;
        drop(slot);
        let failed = outcome.as_ref().err().is_some_and(|failure| !failure.is_answer());
        self.shared.counters.of(op).request(clock.monotonic().saturating_sub(start), failed);
        outcome
    }

    /// Repeats a request that may be repeated freely until it succeeds, fails for good, or the retries are used up.
    pub(super) async fn retrying<T, F>(&self, op: Op, name: &str, mut call: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut backoff = Backoff::new();
        loop {
            let failure = match self.request(op, call()).await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            if !failure.is_transient() {
                return Err(failure.into_error(op, name));
            }
            tracing::debug!(op = op.name(), name, ?failure, "request failed and may be repeated");
            if !backoff.wait(&self.shared, op).await {
                return Err(failure.into_error(op, name));
            }
        }
    }
}
