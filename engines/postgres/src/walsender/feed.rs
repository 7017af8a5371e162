//! Where the log comes from.

use std::fmt::{self, Debug};

use async_trait::async_trait;
use backup_core::Result;
use bytes::Bytes;

use crate::lsn::{Lsn, TimelineId};
use crate::wal::SegmentSize;

/// Whose log a feed holds. It does not change while the feed is served.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedIdentity {
    /// The identifier that `initdb` gave the cluster: a server that follows another one refuses to go on.
    pub system_id: u64,
    /// The size of the cluster's segments.
    pub segment_size: SegmentSize,
    /// What the parameter `server_version` says, for example `17.11`: clients such as `pg_receivewal` look at it.
    pub server_version: String,
}

impl FeedIdentity {
    /// The identity of these parts.
    pub fn new(system_id: u64, segment_size: SegmentSize, server_version: impl Into<String>) -> Self {
        Self { system_id, segment_size, server_version: server_version.into() }
    }
}

/// How far a log reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// The timeline that the log has come to. All that is served lies on it or on its ancestors.
    pub timeline: TimelineId,
    /// The position behind the last byte. It is the end of a record or of a page: a receiver relies on never being given
    /// part of a record that does not go on in the next page (`XLogSendPhysical` in walsender.c). Not before the
    /// position where the timeline began.
    pub position: Lsn,
}

impl fmt::Display for LogEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of timeline {}", self.position, self.timeline)
    }
}

/// A write-ahead log that can be read by position: a directory of segments, a repository.
///
/// A feed knows one cluster and one way through its timelines: the newest one and, from that one's history file, its
/// ancestors. Several connections call it at the same time. Its errors end the stream that met them, are told to the
/// client and to whoever runs the server; a client comes back and asks again.
#[async_trait]
pub trait WalFeed: Debug + Send + Sync + 'static {
    /// Whose log this is.
    fn identity(&self) -> &FeedIdentity;

    /// How far the log reaches at this moment.
    ///
    /// # Errors
    /// Whatever keeps the feed from knowing. Never an earlier end than one that was told before.
    async fn end(&self) -> Result<LogEnd>;

    /// Waits until the log reaches elsewhere than `known`: further, or onto the next timeline. For a log that cannot grow
    /// the future never resolves.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the next call sees what has come meanwhile.
    async fn grown(&self, known: LogEnd) -> Result<LogEnd>;

    /// The content of the history file of `timeline`, byte for byte, or `None` when there is none: the first timeline has
    /// none.
    ///
    /// A receiver asks for every number between its own timeline and the newest (`WalRcvFetchTimeLineHistoryFiles`), and
    /// finds the newest by counting up (`findNewestTimeLine`): a feed should have the files of timelines, too, that it
    /// has not followed.
    async fn history(&self, timeline: TimelineId) -> Result<Option<Bytes>>;

    /// The log from `at` on, at least one byte and at most `max`; the server asks again for the rest. `None` when that
    /// part is missing, which a client is told as "has already been removed".
    ///
    /// `timeline` is the one on which the byte at `at` was written, as the newest timeline's history says, and `at` lies
    /// before the end that was told. Several ranges are asked for at the same time, ahead of what is being sent.
    ///
    /// # Cancel safety
    /// The future is dropped when a client goes away.
    async fn read(&self, timeline: TimelineId, at: Lsn, max: usize) -> Result<Option<Bytes>>;
}
