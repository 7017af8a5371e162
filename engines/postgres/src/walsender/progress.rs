//! How far receivers have come.

use std::sync::Arc;

use tokio::sync::watch;

use super::standby::StandbyStatus;
use crate::lsn::{Lsn, TimelineId};

/// Streams that have ended are remembered up to this number.
const MAX_ENDED: usize = 16;

/// All that is streamed, and what was lately.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The streams, oldest first. A receiver that comes back after an interruption, or that goes on to the next timeline,
    /// is a further one.
    pub replicas: Vec<Replica>,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replica {
    /// A number that no other stream of this server has.
    pub stream: u64,
    /// The `application_name` of the connection.
    pub name: String,
    /// Whether it goes on.
    pub active: bool,
    /// The timeline that is sent.
    pub timeline: TimelineId,
    /// What has been sent.
    pub sent: Lsn,
    /// What the receiver has written, by its own word.
    pub written: Lsn,
    /// What is durable at the receiver.
    pub flushed: Lsn,
    /// What the receiver has replayed: the position behind the last record. 0 until it has told, and for receivers that
    /// do not replay.
    pub applied: Lsn,
}

impl Progress {
    /// How far any receiver has replayed.
    #[must_use]
    pub fn applied(&self) -> Lsn {
        self.replicas.iter().map(|replica| replica.applied).max().unwrap_or_default()
    }

    /// Whether anything is being streamed.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.replicas.iter().any(|replica| replica.active)
    }
}

/// Where streams report.
#[derive(Debug)]
pub(super) struct Board(watch::Sender<Progress>);

impl Board {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Progress::default()))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Progress> {
        self.0.subscribe()
    }

    pub(super) fn enter(self: &Arc<Self>, stream: u64, name: &str, timeline: TimelineId, start: Lsn) -> Report {
        self.0.send_modify(|progress| {
            let ended = progress.replicas.iter().filter(|replica| !replica.active).count();
            if ended > MAX_ENDED
                && let Some(oldest) = progress.replicas.iter().position(|replica| !replica.active)
            {
                progress.replicas.remove(oldest);
            }
            progress.replicas.push(Replica {
                stream,
                name: name.to_owned(),
                active: true,
                timeline,
                sent: start,
                written: Lsn::INVALID,
                flushed: Lsn::INVALID,
                applied: Lsn::INVALID,
            });
        });
        Report { board: Arc::clone(self), stream }
    }
}

/// The entry of one stream; when this is dropped the stream has ended.
#[derive(Debug)]
pub(super) struct Report {
    board: Arc<Board>,
    stream: u64,
}

impl Report {
    fn update(&self, change: impl FnOnce(&mut Replica) -> bool) {
        self.board.0.send_if_modified(|progress| {
            progress.replicas.iter_mut().find(|replica| replica.stream == self.stream).is_some_and(change)
        });
    }

    pub(super) fn sent(&self, position: Lsn) {
        self.update(|replica| std::mem::replace(&mut replica.sent, position) != position);
    }

    pub(super) fn status(&self, status: StandbyStatus) {
        self.update(|replica| {
            let told = (status.written, status.flushed, status.applied);
            let before = (replica.written, replica.flushed, replica.applied);
            (replica.written, replica.flushed, replica.applied) = told;
            told != before
        });
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.update(|replica| std::mem::replace(&mut replica.active, false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_come_and_go() {
        let board = Arc::new(Board::new());
        let mut watch = board.subscribe();
        let report = board.enter(1, "a", TimelineId::FIRST, Lsn(5));
        report.sent(Lsn(9));
        report.status(StandbyStatus { applied: Lsn(7), ..StandbyStatus::default() });
        assert!(watch.has_changed().unwrap());
        let progress = watch.borrow_and_update().clone();
        assert_eq!((progress.applied(), progress.is_active(), progress.replicas[0].sent), (Lsn(7), true, Lsn(9)));
        report.sent(Lsn(9));
        assert!(!watch.has_changed().unwrap(), "nothing new");
        drop(report);
        assert!(!watch.borrow().is_active());
        for stream in 2..100 {
            drop(board.enter(stream, "b", TimelineId::FIRST, Lsn(0)));
        }
        let progress = watch.borrow().clone();
        assert!(progress.replicas.len() <= MAX_ENDED + 1 && progress.replicas.last().unwrap().stream == 99);
    }
}
