//! A snapshot on its way into the repository: verified to its end before the repository hears that it has ended.

use std::fs::File;
use std::sync::Arc;

use backup_core::engine::BackupContext;
use backup_core::entry::EntryMeta;
use backup_core::{ErrorKind, Finding, LossyItem, Result};
use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use parking_lot::Mutex;

use super::facts;
use crate::client::{Answer, Body, Connection, Framing, Link, StreamPosition, Wish};
use crate::error::Error;
use crate::rdb::Summary;

/// A file is read in pieces of this size.
const PIECE: usize = 1 << 20;

/// What was received.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) summary: Summary,
    /// Where the snapshot stands in the stream of its server.
    pub(super) position: Option<StreamPosition>,
    /// When the server said which position it sends, by our clock.
    pub(super) answered: Option<Timestamp>,
    /// What deserves attention of the way it came.
    pub(super) findings: Vec<Finding>,
    /// What could not come that way.
    pub(super) lossy: Vec<LossyItem>,
}

impl Received {
    /// A whole snapshot.
    fn whole(summary: Summary, position: Option<StreamPosition>, answered: Option<Timestamp>) -> Self {
        let mut lossy = Vec::new();
        if position.is_none() {
            let reason =
                "nobody replicates from this server, so it counts no stream: a log begins with the next backup";
            lossy.push(LossyItem::new("the position of the snapshot", reason));
        }
        Self { summary, position, answered, findings: Vec::new(), lossy }
    }
}

/// Asks `connection` for a snapshot and stores it.
///
/// # Errors
/// [`Damaged`](ErrorKind::Damaged) when it is not whole or not sound; those of the connection and of the sink.
pub(super) async fn replica(cx: &BackupContext, connection: Connection) -> Result<Received> {
    let answered = Mutex::new(None);
    let clock = cx.work().env();
    let note = || *answered.lock() = Some(clock.now());
    let (link, answer) = connection.replicate_noting(Wish::Snapshot, None, note).await?;
    let answered = answered.into_inner();
    let Answer::Full { position, framing, .. } = answer else {
        return Err(Error::Protocol("the server sends no snapshot though one was asked for".to_owned()).into());
    };
    tracing::info!(id = %position.id, offset = position.offset, "the server sends a snapshot");
    let verdict = Verdict::default();
    store(cx, pieces(link, framing, &verdict)).await?;
    let summary = judged(&verdict)?;
    if let Some((id, offset)) = summary.replication()
        && (id.to_ascii_lowercase() != position.id || offset != position.offset)
    {
        let text = format!(
            "the snapshot says that it is of {offset} of {id}, announced was {} of {}",
            position.offset, position.id
        );
        return Err(Error::Protocol(text).into());
    }
    Ok(Received::whole(summary, Some(position), answered))
}

/// Stores a file of the server's. It must be one that nobody writes into.
///
/// # Errors
/// As [`replica`].
pub(super) async fn file(cx: &BackupContext, file: File) -> Result<Received> {
    let len = file.metadata().map_err(|error| unreadable(&error))?.len();
    let verdict = Verdict::default();
    store(cx, chunks(file, len, &verdict)).await?;
    let summary = judged(&verdict)?;
    let position = summary
        .replication()
        .and_then(|(id, offset)| Some(StreamPosition::new(crate::client::identifier(id)?, offset)));
    Ok(Received::whole(summary, position, None))
}

/// Stores what `body` gives as the snapshot.
pub(super) async fn store(cx: &BackupContext, body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
    let meta = EntryMeta::file(facts::path(facts::DUMP)?).with_mode(0o600);
    cx.sink().put_stream(meta, body, None).await.map(drop)
}

/// What was found at the end of a stream that somebody else reads.
type Verdict = Arc<Mutex<Option<Summary>>>;

fn judged(verdict: &Verdict) -> Result<Summary> {
    let summary = verdict.lock().take();
    summary.ok_or_else(|| backup_core::Error::internal("a snapshot was stored without being read to its end"))
}

/// Something that gives the bytes of a snapshot, and who watches them. None behind the end.
type Reading<S> = Option<(S, Watch)>;

/// What was seen of a snapshot, and where the verdict goes.
struct Watch {
    body: Body,
    verdict: Verdict,
}

/// The bytes of a snapshot that comes by replication. The stream ends only behind a sound one.
fn pieces<'a>(link: Link, framing: Framing, verdict: &Verdict) -> BoxStream<'a, Result<Bytes>> {
    async fn next(reading: Reading<Link>) -> Result<Option<(Vec<Bytes>, Reading<Link>)>> {
        let Some((mut link, watch)) = reading else { return Ok(None) };
        let bytes = link.bytes().await?;
        let (pieces, rest) = watch.take(bytes)?;
        Ok(Some((pieces, rest.map(|watch| (link, watch)))))
    }
    stream::try_unfold(Some((link, Watch::new(framing, verdict))), next).map_ok(whole).try_flatten().boxed()
}

/// The bytes of a file. The stream ends only behind a sound one.
fn chunks<'a>(file: File, len: u64, verdict: &Verdict) -> BoxStream<'a, Result<Bytes>> {
    async fn next(reading: Reading<File>) -> Result<Option<(Vec<Bytes>, Reading<File>)>> {
        let Some((file, watch)) = reading else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || read(file)).await;
        let (file, bytes) = read
            .map_err(|error| backup_core::Error::internal(error.to_string()))?
            .map_err(|error| unreadable(&error))?;
        let (pieces, rest) = watch.take(bytes)?;
        Ok(Some((pieces, rest.map(|watch| (file, watch)))))
    }
    let framing = Framing::Length(len);
    stream::try_unfold(Some((file, Watch::new(framing, verdict))), next).map_ok(whole).try_flatten().boxed()
}

fn whole(pieces: Vec<Bytes>) -> impl Stream<Item = Result<Bytes>> {
    stream::iter(pieces.into_iter().filter(|piece| !piece.is_empty()).map(Ok))
}

impl Watch {
    fn new(framing: Framing, verdict: &Verdict) -> Self {
        Self { body: Body::new(framing), verdict: Arc::clone(verdict) }
    }

    /// Takes the next bytes, none at the end. Who is given back goes on watching.
    fn take(mut self, bytes: Bytes) -> Result<(Vec<Bytes>, Option<Self>)> {
        let ended = bytes.is_empty();
        let taken = self.body.push(bytes)?;
        if !ended && taken.rest.is_none() {
            return Ok((taken.data, Some(self)));
        }
        let summary = self.body.finish()?;
        sound(&summary)?;
        *self.verdict.lock() = Some(summary);
        Ok((taken.data, None))
    }
}

fn read(mut file: File) -> std::io::Result<(File, Bytes)> {
    use std::io::Read as _;
    let mut bytes = Vec::with_capacity(PIECE);
    (&mut file).take(PIECE as u64).read_to_end(&mut bytes)?;
    Ok((file, bytes.into()))
}

fn unreadable(error: &std::io::Error) -> backup_core::Error {
    backup_core::Error::new(ErrorKind::Environment, format!("the server's file cannot be read: {error}"))
}

/// Refuses a file in which the server counted other keys than there are.
pub(super) fn sound(summary: &Summary) -> crate::Result<()> {
    if let Some(database) = summary.differing().next() {
        let (keys, expires) = database.declared.unwrap_or_default();
        return Err(Error::Corrupt {
            offset: summary.len,
            reason: format!(
                "database {} has {} keys, {} of them with an expiry, but was said to have {keys} and {expires}",
                database.number, database.keys, database.expires
            ),
        });
    }
    Ok(())
}
