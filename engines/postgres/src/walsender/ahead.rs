//! Reading ahead: while one part of the log is sent, the next ones are on their way.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use backup_core::Error;
use bytes::{Bytes, BytesMut};
use tokio_util::task::AbortOnDropHandle;

use super::feed::WalFeed;
use super::route::Route;
use crate::lsn::{Lsn, TimelineId};

/// Why a part of the log cannot be had.
#[derive(Debug)]
pub(super) enum Missing {
    /// The feed does not have it.
    Hole(TimelineId, Lsn),
    /// The feed failed.
    Feed(Error),
}

/// How much is read at once and in advance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Depth {
    /// Bytes of one range. Ranges end at multiples of it.
    pub(super) fetch: u64,
    /// Bytes that are held or on their way, at most.
    pub(super) ahead: u64,
    /// How long the feed may take for one answer.
    pub(super) patience: Duration,
}

/// Ranges of the log in their order, each being read by a task of its own, which ends with this value.
pub(super) struct Ahead {
    feed: Arc<dyn WalFeed>,
    depth: Depth,
    fetches: VecDeque<Fetch>,
    next: Lsn,
}

struct Fetch {
    range: Range<Lsn>,
    task: AbortOnDropHandle<Result<Bytes, Missing>>,
}

impl Ahead {
    /// Begins at `start`.
    pub(super) fn new(feed: Arc<dyn WalFeed>, depth: Depth, start: Lsn) -> Self {
        Self { feed, depth, fetches: VecDeque::new(), next: start }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fetches.is_empty()
    }

    /// Sets out to read up to `limit`, as far as the depth allows.
    pub(super) fn plan(&mut self, route: &Route, limit: Lsn) {
        let Depth { fetch, ahead, patience } = self.depth;
        let mut under_way: u64 = self.fetches.iter().map(|fetch| fetch.range.end.0 - fetch.range.start.0).sum();
        while self.next < limit {
            let end = Lsn((self.next.0 / fetch + 1).saturating_mul(fetch)).min(limit);
            let length = end.0 - self.next.0;
            // One at least, whatever the limit says.
            if under_way > 0 && under_way + length > ahead {
                break;
            }
            under_way += length;
            let range = self.next..end;
            let legs = route.legs(range.clone());
            let task = tokio::spawn(read(Arc::clone(&self.feed), legs, patience));
            self.fetches.push_back(Fetch { range, task: AbortOnDropHandle::new(task) });
            self.next = end;
        }
    }

    /// The next part of the log. Pending for ever when none is planned.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the part where it is.
    pub(super) async fn next(&mut self) -> Result<(Range<Lsn>, Bytes), Missing> {
        let Some(front) = self.fetches.front_mut() else { return std::future::pending().await };
        let read = (&mut front.task).await;
        let range = front.range.clone();
        self.fetches.pop_front();
        match read {
            Ok(bytes) => bytes.map(|bytes| (range, bytes)),
            Err(failed) => Err(Missing::Feed(
                Error::internal(format!("reading the log at {} panicked", range.start)).with_source(failed),
            )),
        }
    }

    /// Begins again at `start`, because what was planned beyond is no longer wanted.
    pub(super) fn restart(&mut self, start: Lsn) {
        self.fetches.clear();
        self.next = start;
    }

    /// How far reading was planned.
    pub(super) fn planned(&self) -> Lsn {
        self.next
    }
}

async fn read(
    feed: Arc<dyn WalFeed>,
    legs: Vec<(TimelineId, Range<Lsn>)>,
    patience: Duration,
) -> Result<Bytes, Missing> {
    let mut first: Option<Bytes> = None;
    let mut more = BytesMut::new();
    for (timeline, leg) in legs {
        let mut at = leg.start;
        while at < leg.end {
            let max = usize::try_from(leg.end.0 - at.0).unwrap_or(usize::MAX);
            let answer = tokio::time::timeout(patience, feed.read(timeline, at, max)).await;
            let late = |_| Error::unavailable(format!("the log at {at} was not read within {patience:?}"));
            let bytes = answer
                .unwrap_or_else(|elapsed| Err(late(elapsed)))
                .map_err(Missing::Feed)?
                .ok_or(Missing::Hole(timeline, at))?;
            if bytes.is_empty() || bytes.len() > max {
                let text = format!("the feed gave {} bytes at {at} where 1 to {max} were asked for", bytes.len());
                return Err(Missing::Feed(Error::internal(text)));
            }
            at = Lsn(at.0 + bytes.len() as u64);
            match &first {
                None => first = Some(bytes),
                Some(begun) => {
                    if more.is_empty() {
                        more.extend_from_slice(begun);
                    }
                    more.extend_from_slice(&bytes);
                }
            }
        }
    }
    Ok(if more.is_empty() { first.unwrap_or_default() } else { more.freeze() })
}

#[cfg(test)]
mod tests {
    use super::super::feed::{FeedIdentity, LogEnd};
    use super::*;
    use crate::wal::SegmentSize;
    use async_trait::async_trait;
    use parking_lot::Mutex;
    use tokio::sync::Semaphore;

    /// A log whose byte at position `p` is `p % 251`, in answers of at most `most` bytes, each of which waits for a permit.
    #[derive(Debug)]
    struct Counted {
        identity: FeedIdentity,
        most: usize,
        gate: Semaphore,
        asked: Mutex<Vec<(u32, u64)>>,
    }

    impl Counted {
        fn new(most: usize, permits: usize) -> Arc<Self> {
            let identity = FeedIdentity::new(1, SegmentSize::DEFAULT, "17");
            Arc::new(Self { identity, most, gate: Semaphore::new(permits), asked: Mutex::default() })
        }
    }

    #[async_trait]
    impl WalFeed for Counted {
        fn identity(&self) -> &FeedIdentity {
            &self.identity
        }

        async fn end(&self) -> backup_core::Result<LogEnd> {
            Ok(LogEnd { timeline: TimelineId::FIRST, position: Lsn(1 << 20) })
        }

        async fn grown(&self, _: LogEnd) -> backup_core::Result<LogEnd> {
            std::future::pending().await
        }

        async fn history(&self, _: TimelineId) -> backup_core::Result<Option<Bytes>> {
            Ok(None)
        }

        async fn read(&self, timeline: TimelineId, at: Lsn, max: usize) -> backup_core::Result<Option<Bytes>> {
            self.asked.lock().push((timeline.get(), at.0));
            self.gate.acquire().await.unwrap().forget();
            if at.0 >= 5000 {
                return Ok(None);
            }
            Ok(Some((at.0..at.0 + max.min(self.most) as u64).map(|p| (p % 251) as u8).collect()))
        }
    }

    fn route(position: u64, history: Option<&'static str>) -> Route {
        let timeline = TimelineId::new(if history.is_some() { 2 } else { 1 }).unwrap();
        Route::new(LogEnd { timeline, position: Lsn(position) }, history.map(Bytes::from).as_ref()).unwrap()
    }

    const DEPTH: Depth = Depth { fetch: 1000, ahead: 3000, patience: Duration::from_secs(60) };

    #[tokio::test]
    async fn parts_come_in_order_and_whole() {
        for most in [1, 7, 1000, 5000] {
            let feed = Counted::new(most, Semaphore::MAX_PERMITS);
            let mut ahead = Ahead::new(Arc::clone(&feed) as Arc<dyn WalFeed>, DEPTH, Lsn(10));
            let route = route(4321, Some("1\t0/5DC\tx\n"));
            let mut got = Vec::new();
            let mut at = Lsn(10);
            while at < Lsn(4321) {
                ahead.plan(&route, Lsn(4321));
                let (range, bytes) = ahead.next().await.unwrap();
                assert_eq!((range.start, range.end.0 - range.start.0), (at, bytes.len() as u64));
                assert!(range.end.0 % 1000 == 0 || range.end.0 == 4321);
                at = range.end;
                got.extend_from_slice(&bytes);
            }
            assert!(got.iter().zip(10_u64..).all(|(byte, p)| *byte == (p % 251) as u8));
            // 0x5dc = 1500: what lies before was written on timeline 1.
            assert!(feed.asked.lock().iter().all(|(timeline, at)| (*timeline == 1) == (*at < 1500)));
        }
    }

    #[tokio::test]
    async fn no_more_is_under_way_than_allowed() {
        let feed = Counted::new(1000, 0);
        let mut ahead = Ahead::new(Arc::clone(&feed) as Arc<dyn WalFeed>, DEPTH, Lsn(0));
        let route = route(4500, None);
        ahead.plan(&route, Lsn(4500));
        ahead.plan(&route, Lsn(4500));
        assert_eq!((ahead.fetches.len(), ahead.planned()), (3, Lsn(3000)));
        while feed.asked.lock().len() < 3 {
            tokio::task::yield_now().await;
        }
        // All three were asked for before any was answered.
        feed.gate.add_permits(1);
        assert!(tokio::time::timeout(Duration::from_secs(60), ahead.next()).await.unwrap().is_ok());
        ahead.plan(&route, Lsn(4500));
        assert_eq!(ahead.planned(), Lsn(4000));
        ahead.restart(Lsn(1000));
        assert!(ahead.is_empty() && ahead.planned() == Lsn(1000));
    }

    #[tokio::test]
    async fn a_hole_and_a_slow_feed_are_told() {
        let feed = Counted::new(1000, Semaphore::MAX_PERMITS);
        let mut ahead = Ahead::new(feed, DEPTH, Lsn(4500));
        ahead.plan(&route(6000, None), Lsn(6000));
        assert!(ahead.next().await.is_ok());
        assert!(matches!(ahead.next().await, Err(Missing::Hole(TimelineId::FIRST, Lsn(5000)))));

        let depth = Depth { patience: Duration::from_millis(10), ..DEPTH };
        let mut ahead = Ahead::new(Counted::new(1, 0), depth, Lsn(0));
        ahead.plan(&route(6000, None), Lsn(10));
        let slow = ahead.next().await;
        assert!(matches!(slow, Err(Missing::Feed(e)) if e.kind() == backup_core::ErrorKind::Unavailable));
    }
}
