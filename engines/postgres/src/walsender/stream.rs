//! `START_REPLICATION`: the log of one timeline, as far as it reaches and as it grows.
//!
//! Source: `StartReplication`, `WalSndLoop` and `XLogSendPhysical` in walsender.c. One task does it all: it listens to the
//! client, sends what has been read ahead, and waits for the log to grow; nothing is queued beyond one range that was read.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use backup_core::Error;
use bytes::Bytes;
use tokio::time::Instant;

use super::ahead::{Ahead, Missing};
use super::command::error;
use super::feed::LogEnd;
use super::link::Stop;
use super::options::MAX_SEND;
use super::progress::Report;
use super::reply::{INT8, TEXT};
use super::request::Request;
use super::route::Route;
use super::session::{Failed, Session};
use super::slots::Held;
use super::standby::StandbyMessage;
use crate::error::ServerError;
use crate::lsn::{Lsn, TimelineId};

/// The size of a page of the log (`XLOG_BLCKSZ`).
const PAGE: u64 = 8192;

type Growth = Pin<Box<dyn Future<Output = backup_core::Result<LogEnd>> + Send>>;

/// Answers `START_REPLICATION`. Returns when the client or the timeline has ended the stream.
pub(super) async fn serve(
    session: &mut Session,
    slot: Option<String>,
    start: Lsn,
    timeline: Option<TimelineId>,
) -> Result<(), Failed> {
    let shared = Arc::clone(&session.shared);
    let held = slot.map(|name| shared.slots.hold(&name, session.number)).transpose()?;
    let end = session.end().await?;
    let mut route = session.route_to(end).await?;
    let timeline = timeline.unwrap_or(end.timeline);
    if !route.has(timeline) {
        return Err(not_here(timeline).into());
    }
    let fork = route.fork(timeline);
    if let Some(fork) = fork.filter(|fork| fork.at < start) {
        let text = format!("requested starting point {start} on timeline {timeline} is not in this server's history");
        let mut refused = error("XX000", text);
        refused.detail = Some(format!("This server's history forked from timeline {timeline} at {}.", fork.at));
        return Err(refused.into());
    }
    // Where nothing of a timeline is left to send there is not even a COPY.
    if fork.is_none_or(|fork| start < fork.at) {
        session.reply.copy_both();
        session.send();
        if end.position < start {
            let position = end.position;
            let text = format!(
                "requested starting point {start} is ahead of the WAL flush position of this server {position}"
            );
            return Err(error("XX000", text).into());
        }
        let report = shared.board.enter(shared.number(), &session.application, timeline, start);
        let ahead = Ahead::new(Arc::clone(&shared.feed), shared.options.depth(), start);
        let now = Instant::now();
        let stream = Stream {
            session,
            route,
            timeline,
            held,
            report,
            ahead,
            growth: None,
            queued: start,
            applied: Lsn::INVALID,
            done: false,
            client_done: false,
            reply_owed: false,
            pinged: false,
            heard: now,
            wrote: now,
            asked: now,
        };
        route = stream.run().await?;
    }
    if let Some(fork) = route.fork(timeline) {
        session.reply.row(&[
            ("next_tli", INT8, Some(fork.next.to_string().as_bytes())),
            ("next_tli_startpos", TEXT, Some(fork.at.to_string().as_bytes())),
        ]);
    }
    // Both: a receiver reads the second one after the result (`libpqrcv_endstreaming`).
    session.reply.complete("START_STREAMING").complete("START_REPLICATION");
    Ok(())
}

fn not_here(timeline: TimelineId) -> Box<ServerError> {
    error("XX000", format!("requested timeline {timeline} is not in this server's history"))
}

struct Stream<'a> {
    session: &'a mut Session,
    route: Route,
    timeline: TimelineId,
    held: Option<Held>,
    report: Report,
    ahead: Ahead,
    growth: Option<Growth>,
    /// The end of what has been given to the connection.
    queued: Lsn,
    /// What the receiver says that it has replayed.
    applied: Lsn,
    /// Whether we have said that nothing more comes.
    done: bool,
    /// Whether the client has said so.
    client_done: bool,
    /// Whether the client waits for a sign of life.
    reply_owed: bool,
    /// Whether we wait for one.
    pinged: bool,
    /// When the client was heard last.
    heard: Instant,
    /// When the client took something last, or when there was nothing for it.
    wrote: Instant,
    /// When the client was asked last how far it is.
    asked: Instant,
}

enum Event {
    Request(Request),
    Wrote,
    Log(Range<Lsn>, Bytes),
    Grown(LogEnd),
    Tick,
}

impl Stream<'_> {
    /// Streams until both sides have said that nothing more comes. The way as it was known last.
    async fn run(mut self) -> Result<Route, Failed> {
        loop {
            let fork = self.route.fork(self.timeline);
            let limit = self.route.limit(self.timeline);
            if !self.done && fork.is_some() && self.queued >= limit {
                self.finish();
            }
            if self.done && self.client_done && self.session.outlet.is_empty() {
                return Ok(self.route);
            }
            if !self.done {
                self.ahead.plan(&self.route, limit);
                self.signs_of_life(fork.is_none() && self.queued == limit);
                if fork.is_none() && self.growth.is_none() {
                    let (feed, known) = (Arc::clone(&self.session.shared.feed), self.route.end());
                    self.growth = Some(Box::pin(async move { feed.grown(known).await }));
                }
            }
            if self.session.outlet.is_empty() {
                self.report.sent(self.queued);
                self.wrote = Instant::now();
            }
            let deadline = self.deadline(limit);
            let event = match tokio::time::timeout_at(deadline, self.event()).await {
                Ok(event) => event?,
                Err(_) => Event::Tick,
            };
            match event {
                Event::Request(request) => self.request(request)?,
                Event::Wrote => self.wrote = Instant::now(),
                Event::Log(range, bytes) => self.send(range, bytes),
                Event::Grown(end) => self.grown(end).await?,
                Event::Tick => self.check()?,
            }
        }
    }

    /// What happens next.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    async fn event(&mut self) -> Result<Event, Failed> {
        let Session { inlet, outlet, shared, .. } = &mut *self.session;
        let idle = outlet.is_empty();
        tokio::select! {
            request = inlet.request(), if !self.client_done => Ok(Event::Request(request?)),
            written = outlet.write_some(), if !idle => written.map(|()| Event::Wrote).map_err(Failed::Session),
            // One range at a time goes to the connection: back-pressure.
            part = self.ahead.next(), if idle && !self.done && !self.ahead.is_empty() => match part {
                Ok((range, bytes)) => Ok(Event::Log(range, bytes)),
                Err(Missing::Feed(failure)) => Err(shared.failed(failure).into()),
                Err(Missing::Hole(timeline, at)) => {
                    let name = shared.feed.identity().segment_size.name(timeline, at);
                    shared.failed(Error::damaged(format!("the log at {at} of timeline {timeline} is missing")));
                    Err(error("58P01", format!("requested WAL segment {name} has already been removed")).into())
                }
            },
            grown = grown(&mut self.growth), if !self.done => {
                grown.map(Event::Grown).map_err(|failure| shared.failed(failure).into())
            }
            // Both sides are done and all is sent: the caller does not ask.
            else => std::future::pending().await,
        }
    }

    /// When something has to be done although nothing happens.
    fn deadline(&self, limit: Lsn) -> Instant {
        let options = &self.session.shared.options;
        let patience = options.client_timeout;
        if !self.session.outlet.is_empty() {
            // It cannot be asked for a sign of life before it takes what it has been given.
            return (self.heard + patience).min(self.wrote + patience);
        }
        let heard = self.heard + if self.pinged || self.done { patience } else { patience / 2 };
        if !self.done && self.queued == limit && self.applied < self.queued {
            return heard.min(self.asked + options.progress_interval);
        }
        heard
    }

    /// Leaves a client that is stuck, as a server does: without a word, because it takes none.
    fn check(&self) -> Result<(), Stop> {
        let patience: Duration = self.session.shared.options.client_timeout;
        if self.heard.elapsed() >= patience {
            return Err(Stop::Gone(format!("the client said nothing for {patience:?}")));
        }
        if !self.session.outlet.is_empty() && self.wrote.elapsed() >= patience {
            return Err(Stop::Gone(format!("the client took nothing for {patience:?}")));
        }
        Ok(())
    }

    /// Answers what the client asked, and asks it what is due. Only when nothing is queued: a client that takes nothing
    /// must not make us collect answers for it.
    fn signs_of_life(&mut self, caught_up: bool) {
        if !self.session.outlet.is_empty() {
            return;
        }
        let options = &self.session.shared.options;
        let ping = !self.pinged && self.heard.elapsed() >= options.client_timeout / 2;
        let ask = caught_up && self.applied < self.queued && self.asked.elapsed() >= options.progress_interval;
        if !ping && !ask && !self.reply_owed {
            return;
        }
        let time = self.session.shared.time();
        self.session.reply.keepalive(self.queued, time, ping || ask);
        self.session.send();
        self.pinged |= ping;
        self.reply_owed = false;
        if ask {
            self.asked = Instant::now();
        }
    }

    fn finish(&mut self) {
        self.session.reply.copy_done();
        self.session.send();
        self.done = true;
    }

    fn request(&mut self, request: Request) -> Result<(), Stop> {
        self.heard = Instant::now();
        self.pinged = false;
        match request {
            Request::CopyData(data) => match StandbyMessage::parse(&data) {
                Ok(StandbyMessage::Status(status)) => {
                    self.applied = status.applied;
                    self.reply_owed |= status.reply_requested;
                    if let Some(held) = self.held.as_ref().filter(|_| status.flushed.is_valid()) {
                        held.advance(status.flushed);
                    }
                    self.report.status(status);
                    Ok(())
                }
                Ok(StandbyMessage::Feedback) => Ok(()),
                Err(failure) => Err(Stop::fatal("08P01", failure.to_string())),
            },
            Request::CopyDone => {
                if !self.done {
                    self.finish();
                }
                self.client_done = true;
                Ok(())
            }
            Request::Terminate => Err(Stop::Gone("the client ended the session".to_owned())),
            _ => Err(Stop::fatal("08P01", "invalid standby message type")),
        }
    }

    /// Gives a range to the connection, in messages that end with a page wherever the log does not end itself.
    fn send(&mut self, range: Range<Lsn>, mut bytes: Bytes) {
        let (end, time) = (self.route.limit(self.timeline), self.session.shared.time());
        let mut at = range.start;
        while !bytes.is_empty() {
            let whole = (at.0 + MAX_SEND) / PAGE * PAGE - at.0;
            let part = bytes.split_to(bytes.len().min(usize::try_from(whole).unwrap_or(usize::MAX)));
            self.session.reply.log(at, end, time, part.len());
            self.session.send();
            at = Lsn(at.0 + part.len() as u64);
            self.session.outlet.push(part);
        }
        self.queued = range.end;
    }

    /// The log has grown, or has gone on to another timeline.
    async fn grown(&mut self, end: LogEnd) -> Result<(), Failed> {
        self.growth = None;
        let before = self.route.end();
        self.route = match self.route.further(end) {
            Some(further) => further,
            None if end.timeline > before.timeline => self.session.route_to(end).await?,
            None => {
                let text = format!("the feed says that its log has grown from {before} to {end}");
                return Err(self.session.shared.failed(Error::internal(text)).into());
            }
        };
        if !self.route.has(self.timeline) {
            return Err(not_here(self.timeline).into());
        }
        // The timeline was left before its end: what was read beyond belongs to nobody's past. What was sent of it is the
        // beginning of a record at most (`XLogSendPhysical`), or the client refuses to follow.
        let limit = self.route.limit(self.timeline);
        if self.ahead.planned() > limit {
            self.ahead.restart(self.queued);
        }
        Ok(())
    }
}

async fn grown(growth: &mut Option<Growth>) -> backup_core::Result<LogEnd> {
    match growth {
        Some(growth) => growth.await,
        None => std::future::pending().await,
    }
}
