//! What a store did, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

/// The kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Create,
    Get,
    Head,
    List,
    Delete,
}

impl Op {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// Counters of one store and all its sub-stores at one moment. Counters only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreMetrics {
    /// Puts. `bytes` are those sent, retries included.
    pub create: OpMetrics,
    /// Reads of whole objects, ranges and suffixes, read-backs of puts included; ranges that are far apart are requests of their own.
    /// `bytes` are those received.
    pub get: OpMetrics,
    /// Questions for size and age.
    pub head: OpMetrics,
    /// Listings; a listing of many pages counts once (S3 has 1000 names in a page). `bytes` is the number of names.
    pub list: OpMetrics,
    /// Deletions, one by one or in bulk (S3: up to 1000 names in one request). `bytes` is the number of names.
    pub delete: OpMetrics,
    /// Puts whose outcome had to be found out by reading the object back.
    pub read_backs: u64,
    /// Puts that turned out to have landed although the store had answered otherwise.
    pub landed_unseen: u64,
    /// Puts that met another body under their name.
    pub conflicts: u64,
}

/// Counters of one kind of request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OpMetrics {
    /// Requests sent, retries included.
    pub requests: u64,
    /// Requests that failed, answers such as "not found" and "exists" excluded.
    pub failures: u64,
    /// Requests that were sent because an earlier one had failed.
    pub retries: u64,
    /// Payload moved.
    pub bytes: u64,
    /// Time spent in requests, summed over concurrent ones, in microseconds.
    pub busy_us: u64,
}

#[derive(Debug, Default)]
pub(super) struct OpCounters {
    requests: AtomicU64,
    failures: AtomicU64,
    retries: AtomicU64,
    bytes: AtomicU64,
    busy_us: AtomicU64,
}

impl OpCounters {
    pub(super) fn request(&self, busy: Duration, failed: bool) {
        self.requests.fetch_add(1, Relaxed);
        self.failures.fetch_add(u64::from(failed), Relaxed);
        self.busy_us.fetch_add(u64::try_from(busy.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Counts requests that were sent besides the one that is counted with its time.
    pub(super) fn also(&self, requests: u64) {
        self.requests.fetch_add(requests, Relaxed);
    }

    pub(super) fn retry(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(super) fn bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    fn snapshot(&self) -> OpMetrics {
        OpMetrics {
            requests: self.requests.load(Relaxed),
            failures: self.failures.load(Relaxed),
            retries: self.retries.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            busy_us: self.busy_us.load(Relaxed),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    create: OpCounters,
    get: OpCounters,
    head: OpCounters,
    list: OpCounters,
    delete: OpCounters,
    pub(super) read_backs: AtomicU64,
    pub(super) landed_unseen: AtomicU64,
    pub(super) conflicts: AtomicU64,
}

impl Counters {
    pub(super) fn of(&self, op: Op) -> &OpCounters {
        match op {
            Op::Create => &self.create,
            Op::Get => &self.get,
            Op::Head => &self.head,
            Op::List => &self.list,
            Op::Delete => &self.delete,
        }
    }

    pub(super) fn snapshot(&self) -> StoreMetrics {
        StoreMetrics {
            create: self.create.snapshot(),
            get: self.get.snapshot(),
            head: self.head.snapshot(),
            list: self.list.snapshot(),
            delete: self.delete.snapshot(),
            read_backs: self.read_backs.load(Relaxed),
            landed_unseen: self.landed_unseen.load(Relaxed),
            conflicts: self.conflicts.load(Relaxed),
        }
    }
}
