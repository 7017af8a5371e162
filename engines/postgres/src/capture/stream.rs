//! Following one timeline on one node.
//!
//! Source: manual, "Streaming Replication Protocol"; `src/backend/replication/walsender.c`.

use std::time::Duration;

use backup_core::engine::LogContext;
use backup_core::log::{LogRange, Mark};
use backup_core::{Error, Lineage, LogPosition};
use bytes::{Buf, Bytes};
use jiff::{SignedDuration, Timestamp};

use super::Start;
use super::lineage::lineage_of;
use super::node::NodeFacts;
use super::overlap::Overlap;
use super::reading::Reading;
use super::slots::Keeper;
use crate::lsn::{Lsn, TimelineId};
use crate::wal::WalFormat;
use crate::wire::{CopyBoth, Session};

/// How often the server hears from us though nothing has become durable: well within half of its `wal_sender_timeout`.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// A server that was asked for a word and has not said any for so long is not there any more, whatever the network pretends.
const SILENCE: Duration = Duration::from_secs(60);
/// A record that crosses into a segment is missed by a reader that begins there, so reading begins at least so much before.
const BEFORE: u64 = 64 << 10;

/// What is followed.
pub(super) struct Follow<'a> {
    pub(super) cx: &'a LogContext,
    pub(super) node: &'a NodeFacts,
    pub(super) slot: Option<&'a str>,
    pub(super) start: Start,
    pub(super) appended: &'a Appended,
}

/// Up to where the log was handed to the sink, durable or not.
#[derive(Debug, Default)]
pub(super) struct Appended(parking_lot::Mutex<Option<(Lineage, u64)>>);

impl Appended {
    fn note(&self, range: &LogRange) {
        *self.0.lock() = Some((range.lineage.clone(), range.end));
    }

    /// Returns when all of it is durable: what is stored is then where the log goes on.
    ///
    /// # Errors
    /// Those that end the writer.
    pub(super) async fn settle(&self, cx: &LogContext) -> Result<(), Error> {
        let Some((lineage, end)) = self.0.lock().clone() else { return Ok(()) };
        cx.sink().flush();
        let mut known = cx.sink().durable();
        while known.as_ref().is_none_or(|k| k.lineage != lineage || k.offset < end) {
            known = cx.sink().advanced(known.as_ref()).await?;
        }
        Ok(())
    }
}

/// Why following ended without being cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The work is to stop.
    Cancelled,
    /// The timeline has ended: another one goes on.
    Timeline,
    /// The server shuts down, and we have all that it wrote.
    ShutDown,
}

/// Why following failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// The server has removed the log that was asked for.
    pub(super) removed: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, removed: false }
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        // 58P01: "requested WAL segment … has already been removed".
        let removed = error.sqlstate() == Some("58P01");
        Self { error: error.into(), removed }
    }
}

/// Whether the server can send the log of `timeline` from `at` on.
pub(super) async fn probe(session: &mut Session, timeline: TimelineId, at: Lsn) -> Result<bool, Error> {
    let command = format!("START_REPLICATION PHYSICAL {at} TIMELINE {timeline}");
    let failure = match session.copy_both(&command).await {
        Ok(mut copy) => match copy.receive().await {
            Ok(_) => {
                copy.finish().await?;
                return Ok(true);
            }
            Err(error) => error,
        },
        Err(error) => error,
    };
    match failure.sqlstate() {
        Some("58P01" | "XX000") => Ok(false),
        _ => Err(failure.into()),
    }
}

/// Where reading begins so that what is sent from there on is whole: at the start of a segment, or of what is stored.
fn reading_start(follow: &Follow<'_>) -> Lsn {
    let Start { timeline, at } = follow.start;
    let lineage = lineage_of(timeline);
    let ledger = follow.cx.sink().ledger();
    // What ends at `at` and is stored of this timeline without a hole.
    let stored = at.0.checked_sub(1).and_then(|last| ledger.covered(&lineage).containing(last));
    let Some(stored) = stored else { return at };
    let wished = follow.node.segment_size.floor(Lsn(at.0.saturating_sub(BEFORE)));
    let fork = ledger.lineage(&lineage).and_then(|record| record.fork.as_ref()).map_or(0, |fork| fork.offset);
    let first = if stored.start <= wished.0 {
        wished.0
    } else if stored.start == fork {
        // A timeline begins with a record.
        return Lsn(fork);
    } else {
        stored.start.next_multiple_of(u64::from(WalFormat::PAGE_SIZE))
    };
    Lsn(first.min(at.0))
}

/// Follows the timeline until it ends, the work is cancelled, or something fails.
pub(super) async fn follow(follow: Follow<'_>, session: &mut Session, keeper: Keeper<'_>) -> Result<Ended, Failure> {
    let Follow { cx, node, slot, start, .. } = &follow;
    let from = reading_start(&follow);
    let format = WalFormat::new(node.version.major(), node.segment_size, node.system_id, start.timeline)?;
    let slot = slot.map(|name| format!("SLOT \"{name}\" ")).unwrap_or_default();
    let command = format!("START_REPLICATION {slot}PHYSICAL {from} TIMELINE {}", start.timeline);
    tracing::info!(node = %node.name, timeline = %start.timeline, from = %from, stored = %start.at, "following the log");
    let source = cx.sink().source();
    let mut intake = Intake {
        cx,
        node,
        timeline: start.timeline,
        stored: start.at,
        at: from,
        reading: Reading::new(format, from)?,
        overlap: (from < start.at).then(|| Overlap::new(&*source, start.timeline, from, start.at)),
        heard: None,
        appended: follow.appended,
    };
    let mut copy = session.copy_both(&command).await?;
    let mut keeper = std::pin::pin!(keeper.run());
    let clock = std::sync::Arc::clone(cx.work().env().clock());
    let mut timer = clock.sleep(REPORT_EVERY);
    let mut heard = clock.monotonic();
    let mut known = cx.sink().durable();
    report(&mut copy, start.timeline, known.as_ref(), false).await?;
    loop {
        enum Happened {
            Cancelled,
            Durable(Option<LogPosition>),
            Due,
            Sent(Option<Bytes>),
        }
        let happened = tokio::select! {
            biased;
            () = cx.work().cancel().cancelled() => Happened::Cancelled,
            durable = cx.sink().advanced(known.as_ref()) => Happened::Durable(durable?),
            () = &mut timer => Happened::Due,
            () = &mut keeper => Happened::Due,
            sent = copy.receive() => Happened::Sent(sent?),
        };
        match happened {
            Happened::Cancelled => return Ok(Ended::Cancelled),
            Happened::Durable(durable) => {
                known = durable;
                report(&mut copy, start.timeline, known.as_ref(), false).await?;
            }
            Happened::Due => {
                timer = clock.sleep(REPORT_EVERY);
                // A server that we report to says nothing by itself while it has nothing to send.
                let silent = clock.monotonic().saturating_sub(heard);
                if silent >= SILENCE {
                    let text = format!("{} has said nothing for {} s", node.name, silent.as_secs());
                    return Err(Error::unavailable(text).into());
                }
                report(&mut copy, start.timeline, known.as_ref(), silent >= REPORT_EVERY / 2).await?;
            }
            Happened::Sent(Some(message)) => {
                // Storing may have to wait for the store; the server must not take that for our death.
                let urgent = {
                    let mut taking = std::pin::pin!(intake.take(message));
                    loop {
                        tokio::select! {
                            urgent = &mut taking => break urgent?,
                            () = &mut timer => {
                                timer = clock.sleep(REPORT_EVERY);
                                known = cx.sink().durable();
                                report(&mut copy, start.timeline, known.as_ref(), false).await?;
                            }
                        }
                    }
                };
                // Only from here on it is listened to again.
                heard = clock.monotonic();
                if urgent {
                    known = cx.sink().durable();
                    report(&mut copy, start.timeline, known.as_ref(), false).await?;
                }
            }
            Happened::Sent(None) if copy.is_shut_down() => return Ok(Ended::ShutDown),
            Happened::Sent(None) => {
                copy.finish().await?;
                return Ok(Ended::Timeline);
            }
        }
    }
}

/// Tells the server what is durable, and asks it for a word if `ask`.
async fn report(
    copy: &mut CopyBoth<'_>,
    timeline: TimelineId,
    durable: Option<&LogPosition>,
    ask: bool,
) -> Result<(), Error> {
    // Written and flushed are the same to us: what the process only has in memory is gone when it dies. Nothing is ever applied.
    let flushed = durable.filter(|d| d.lineage == lineage_of(timeline)).map_or(0, |d| d.offset);
    let mut status = Vec::with_capacity(34);
    status.push(b'r');
    for value in [flushed, flushed, 0, 0] {
        status.extend_from_slice(&value.to_be_bytes());
    }
    status.push(u8::from(ask));
    copy.send(&status).await?;
    Ok(())
}

/// What becomes of the server's messages.
struct Intake<'a> {
    cx: &'a LogContext,
    node: &'a NodeFacts,
    timeline: TimelineId,
    /// The first byte that was not stored when following began.
    stored: Lsn,
    /// The byte that comes next.
    at: Lsn,
    reading: Reading,
    overlap: Option<Overlap<'a>>,
    /// The last word of the server about an idle log that was handed on.
    heard: Option<Timestamp>,
    appended: &'a Appended,
}

impl Intake<'_> {
    /// Takes one message. True when the server wants an answer at once.
    async fn take(&mut self, mut message: Bytes) -> Result<bool, Error> {
        let short = || Error::from(crate::Error::protocol("a replication message is too short"));
        match message.first() {
            Some(b'w') if message.len() >= 25 => {
                message.advance(1);
                let (start, end, time) = (message.get_u64(), message.get_u64(), message.get_i64());
                self.log(Lsn(start), Lsn(end), moment(time), message).await?;
                Ok(false)
            }
            Some(b'k') if message.len() >= 18 => {
                message.advance(1);
                let (end, time, urgent) = (message.get_u64(), message.get_i64(), message.get_u8() != 0);
                self.idle(Lsn(end), moment(time)).await?;
                Ok(urgent)
            }
            Some(b'w' | b'k') | None => Err(short()),
            Some(other) => Err(crate::Error::protocol(format!("replication message {other:#04x}")).into()),
        }
    }

    async fn log(&mut self, start: Lsn, end: Lsn, time: Option<Timestamp>, bytes: Bytes) -> Result<(), Error> {
        if start != self.at {
            let text = format!("the server sent log from {start}, expected was {}", self.at);
            return Err(crate::Error::protocol(text).into());
        }
        let mut fresh = bytes.clone();
        let known = self.stored.0.saturating_sub(self.at.0).min(bytes.len() as u64) as usize;
        if let Some(overlap) = &mut self.overlap
            && known > 0
        {
            overlap.compare(self.at, &bytes[..known]).await?;
        }
        fresh.advance(known);
        if self.at.0 + known as u64 >= self.stored.0 {
            self.overlap = None;
        }
        let mut marks = Vec::new();
        self.reading.push(bytes.clone(), self.stored, &mut marks)?;
        if let Some(at) = self.reading.ended() {
            let text = format!("what the server sent at {at} of timeline {} is no log", self.timeline);
            return Err(crate::Error::malformed("wal stream", text).into());
        }
        let begin = Lsn(self.at.0 + known as u64);
        self.at = Lsn(self.at.0 + bytes.len() as u64);
        if fresh.is_empty() {
            return Ok(());
        }
        // The server's word that this is all there was.
        if let Some(at) = time
            && self.at >= end
        {
            marks.push(Mark::AsOf { offset: self.at.0, at });
            self.heard = Some(at);
        }
        let range = LogRange::new(lineage_of(self.timeline), begin.0..self.at.0);
        let size = self.node.segment_size;
        let crossed = size.number(begin) != size.number(self.at);
        self.cx.sink().append(range.clone(), fresh, &marks).await?;
        self.appended.note(&range);
        if crossed {
            self.cx.sink().flush();
        }
        Ok(())
    }

    /// The server has nothing new.
    async fn idle(&mut self, end: Lsn, time: Option<Timestamp>) -> Result<(), Error> {
        let Some(at) = time.filter(|_| self.at >= end && self.at >= self.stored) else { return Ok(()) };
        // Its clock is not told about every keep-alive; a second is as exact as anyone asks.
        if self.heard.is_some_and(|heard| at.duration_since(heard) < SignedDuration::from_secs(1)) {
            return Ok(());
        }
        self.heard = Some(at);
        let range = LogRange::new(lineage_of(self.timeline), self.at.0..self.at.0);
        self.cx.sink().append(range, Bytes::new(), &[Mark::AsOf { offset: self.at.0, at }]).await
    }
}

/// A moment in the server's notation: microseconds since 2000-01-01.
fn moment(time: i64) -> Option<Timestamp> {
    const EPOCH: i64 = 946_684_800_000_000;
    time.checked_add(EPOCH).and_then(|micros| Timestamp::from_microsecond(micros).ok())
}
