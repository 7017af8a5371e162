//! Log that is sent again is compared with what is stored.
//!
//! After every new start the segment that was begun is read from its start once more: that is how its records are followed
//! without a hole in the reading, and how a server is noticed that has another history under the same name.

use backup_core::engine::LogSource;
use backup_core::log::LogRange;
use backup_core::{Error, Result};
use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};

use super::lineage::lineage_of;
use crate::lsn::{Lsn, TimelineId};

/// The stored bytes that come again.
pub(super) struct Overlap<'a> {
    stored: BoxStream<'a, Result<Bytes>>,
    ahead: BytesMut,
    timeline: TimelineId,
}

impl<'a> Overlap<'a> {
    /// What is stored of `timeline` from `start` to before `end`.
    pub(super) fn new(source: &'a dyn LogSource, timeline: TimelineId, start: Lsn, end: Lsn) -> Self {
        let range = LogRange::new(lineage_of(timeline), start.0..end.0);
        Self { stored: source.read(range), ahead: BytesMut::new(), timeline }
    }

    /// Compares the bytes that come next with `sent`, which stand at `at`.
    ///
    /// # Errors
    /// Conflict when they differ; those of reading what is stored.
    pub(super) async fn compare(&mut self, at: Lsn, sent: &[u8]) -> Result<()> {
        while self.ahead.len() < sent.len() {
            let more = self.stored.next().await;
            let more = more.ok_or_else(|| Error::internal("more log is compared than is stored"))?;
            self.ahead.extend_from_slice(&more?);
        }
        let stored = self.ahead.split_to(sent.len());
        match stored.iter().zip(sent).position(|(a, b)| a != b) {
            None => Ok(()),
            Some(number) => Err(Error::conflict(format!(
                "timeline {} has other bytes at {} than those that are stored: this is another history under the same name; \
                 what is stored is kept, and nothing is added to it",
                self.timeline,
                Lsn(at.0 + number as u64)
            ))),
        }
    }
}
