//! The first thing that went wrong in a session.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};

/// Set once; everybody who comes later gets the same kind and message.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    failed: AtomicBool,
    first: Mutex<Option<First>>,
}

#[derive(Debug)]
struct First {
    kind: ErrorKind,
    message: String,
    /// The error itself, with its causes, for the first who asks.
    original: Option<Error>,
}

impl Failure {
    /// Notes `error`, unless something went wrong before.
    pub(crate) fn set(&self, error: Error) {
        let mut first = self.first.lock();
        if first.is_none() {
            *first = Some(First { kind: error.kind(), message: error.to_string(), original: Some(error) });
            self.failed.store(true, Ordering::Release);
        }
    }

    /// Whether something went wrong. Cheap.
    pub(crate) fn is_set(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// What went wrong, if anything.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.is_set() {
            return Ok(());
        }
        match self.first.lock().as_mut() {
            Some(first) => Err(first.original.take().unwrap_or_else(|| Error::new(first.kind, first.message.clone()))),
            None => Ok(()),
        }
    }
}
