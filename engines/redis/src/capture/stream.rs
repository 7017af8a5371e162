//! Following one node.

use std::sync::Arc;
use std::time::Duration;

use backup_core::engine::LogContext;
use backup_core::log::{LogRange, Mark};
use backup_core::{Error, LogPosition, Result};
use bytes::Bytes;
use jiff::Timestamp;

use super::clock::SourceClock;
use super::intake::{Intake, Piece};
use super::lineage::lineage_of;
use crate::client::{Connection, Link, Pipeline, Reply};
use crate::node::{Info, NodeFacts};

/// How often the server hears from us. It counts us out after a minute, and shows how far behind we are.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How often the server's clock is asked for, and where its stream ends.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// Pieces of log end where we say if we say so before the sink's own limit, which is larger than this by default.
const FLUSH_BYTES: u64 = 3 << 20;

/// A node that is followed.
pub(super) struct Follow<'a> {
    pub(super) cx: &'a LogContext,
    pub(super) link: Link,
    /// Tells the time. None when the server would not talk to us twice.
    pub(super) watch: Option<Connection>,
    /// The name of the history that the node is on.
    pub(super) id: String,
    pub(super) intake: Intake,
    pub(super) appended: &'a Appended,
    /// A server that says nothing for so long is not there any more.
    pub(super) silence: Duration,
}

/// Up to where the log was handed to the sink, durable or not.
#[derive(Debug, Default)]
pub(super) struct Appended(parking_lot::Mutex<Option<LogRange>>);

impl Appended {
    /// Returns when all of it is durable: what is stored is then where the log goes on.
    ///
    /// # Errors
    /// Those that end the writer.
    pub(super) async fn settle(&self, cx: &LogContext) -> Result<()> {
        let Some(LogRange { lineage, end, .. }) = self.0.lock().clone() else { return Ok(()) };
        cx.sink().flush();
        let mut known = cx.sink().durable();
        while known.as_ref().is_none_or(|k| k.lineage != lineage || k.offset < end) {
            known = cx.sink().advanced(known.as_ref()).await?;
        }
        Ok(())
    }
}

/// Follows until the work is cancelled or something fails. `first` came with the answer.
///
/// # Errors
/// [`Unavailable`](backup_core::ErrorKind::Unavailable) when the node is gone or has changed its role; those of the sink.
pub(super) async fn follow(follow: Follow<'_>, first: Bytes) -> Result<()> {
    let Follow { cx, mut link, watch, id, intake, appended, silence } = follow;
    let env = cx.work().env();
    let clock = Arc::clone(env.clock());
    let begun = intake.given().offset;
    let mut reader = Reader { cx, intake, appended, clock: SourceClock::default(), unflushed: 0 };
    let mut watch = watch.map(|connection| Watch { connection, id, due: Duration::ZERO });
    let mut known = cx.sink().durable();
    let mut heard = clock.monotonic();
    let mut timer = clock.sleep(Duration::ZERO);
    reader.take(first).await?;
    loop {
        enum Happened {
            Cancelled,
            Durable(Option<LogPosition>),
            Due,
            Sent(Bytes),
        }
        let happened = tokio::select! {
            biased;
            () = cx.work().cancel().cancelled() => Happened::Cancelled,
            durable = cx.sink().advanced(known.as_ref()) => Happened::Durable(durable?),
            () = &mut timer => Happened::Due,
            sent = link.bytes() => Happened::Sent(sent?),
        };
        match happened {
            Happened::Cancelled => return reader.end().await,
            Happened::Durable(durable) => {
                known = durable;
                link.acknowledge(durable_offset(begun, known.as_ref())).await?;
            }
            Happened::Due => {
                timer = clock.sleep(REPORT_EVERY);
                link.acknowledge(durable_offset(begun, known.as_ref())).await?;
                if let Some(watch) = watch.as_mut().filter(|watch| clock.monotonic() >= watch.due) {
                    watch.due = clock.monotonic() + ASK_EVERY;
                    if watch.ask(&mut reader).await? {
                        heard = clock.monotonic();
                    }
                }
                let silent = clock.monotonic().saturating_sub(heard);
                if silent >= silence {
                    return Err(Error::unavailable(format!("the server has said nothing for {} s", silent.as_secs())));
                }
            }
            Happened::Sent(bytes) if bytes.is_empty() => {
                reader.end().await?;
                return Err(Error::unavailable(
                    "the server hung up: it has ended, changed its role, or found us too slow",
                ));
            }
            Happened::Sent(bytes) => {
                // Storing may have to wait for the store; the server must not take that for our death.
                {
                    let mut taking = std::pin::pin!(reader.take(bytes));
                    loop {
                        tokio::select! {
                            taken = &mut taking => break taken?,
                            () = &mut timer => {
                                timer = clock.sleep(REPORT_EVERY);
                                known = cx.sink().durable();
                                link.acknowledge(durable_offset(begun, known.as_ref())).await?;
                            }
                        }
                    }
                }
                heard = clock.monotonic();
            }
        }
    }
}

/// What may be acknowledged: what is durable, and at least what was when following began. Offsets go on over a failover.
fn durable_offset(begun: u64, durable: Option<&LogPosition>) -> u64 {
    durable.map_or(begun, |durable| durable.offset.max(begun))
}

/// Hands on what comes.
struct Reader<'a> {
    cx: &'a LogContext,
    intake: Intake,
    appended: &'a Appended,
    clock: SourceClock,
    unflushed: u64,
}

impl Reader<'_> {
    async fn take(&mut self, bytes: Bytes) -> Result<()> {
        let at = self.clock.at(self.cx.work().env().now());
        for piece in self.intake.take(&bytes, at)? {
            self.append(piece).await?;
        }
        Ok(())
    }

    async fn append(&mut self, piece: Piece) -> Result<()> {
        let Piece { range, bytes, marks } = piece;
        self.cx.work().run(self.cx.sink().append(range.clone(), bytes, &marks)).await?;
        self.unflushed += range.len();
        *self.appended.0.lock() = Some(range);
        if self.unflushed >= FLUSH_BYTES {
            self.unflushed = 0;
            self.cx.sink().flush();
        }
        Ok(())
    }

    /// Says what was not said yet.
    async fn end(&mut self) -> Result<()> {
        if let Some(piece) = self.intake.rest()? {
            let Piece { range, bytes, marks } = piece;
            self.cx.sink().append(range, bytes, &marks).await?;
        }
        Ok(())
    }
}

/// A second connection to the node, which answers questions.
struct Watch {
    connection: Connection,
    id: String,
    /// When it is asked again.
    due: Duration,
}

impl Watch {
    /// Asks for the time and the end of the stream. Whether the node has nothing that we have not.
    async fn ask(&mut self, reader: &mut Reader<'_>) -> Result<bool> {
        let env = reader.cx.work().env();
        let mut questions = Pipeline::new();
        questions.push(&["TIME"]);
        questions.push(&["INFO", "everything"]);
        let asked = env.now();
        let answers = self.connection.pipeline(&questions).await?;
        let [time, info] = answers.as_slice() else { return Ok(false) };
        let text = info.text().unwrap_or_default();
        let (Some(time), Some(facts)) = (moment(time), NodeFacts::of(&Info::parse(&text))) else { return Ok(false) };
        if facts.position.id != self.id {
            return Err(Error::unavailable(format!("the node went over to another history, {}", facts.position.id)));
        }
        reader.clock.learn(time, asked);
        let (given, come, end) = (reader.intake.given(), reader.intake.offset(), facts.position.offset);
        // Signs of life that are held back are no changes: whoever has what was given has everything.
        let offset = if reader.intake.is_idle() && end == come { given.offset } else { end };
        if offset >= given.offset {
            let range = LogRange::new(lineage_of(&given.id), given.offset..given.offset);
            let mark = Mark::AsOf { offset, at: time };
            reader.cx.work().run(reader.cx.sink().append(range, Bytes::new(), &[mark])).await?;
        }
        Ok(end == come)
    }
}

/// Seconds and microseconds since 1970.
pub(crate) fn moment(reply: &Reply) -> Option<Timestamp> {
    let [seconds, micros] = reply.items() else { return None };
    Timestamp::from_microsecond(seconds.int()?.checked_mul(1_000_000)?.checked_add(micros.int()?)?).ok()
}
