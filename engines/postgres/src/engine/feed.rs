//! The events of a base backup, taken apart into entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::engine::{BackupContext, BackupSink, BackupSinkExt, BlockInspector, Changes, Patch, Stored};
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::observe::{Phase, Unit};
use backup_core::{Error, Finding, Result, Severity};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::increment::Increment;
use super::overlay::Overlay;
use super::pages::{BadPages, PageInspector};
use super::probe::Server;
use crate::basebackup::{Event, Finished, IncrementReader, Started};
use crate::label::BackupLabel;
use crate::lsn::Lsn;
use crate::manifest::{ChecksumAlgorithm, FileHasher, ManifestReader, ManifestWriter};
use crate::page::PageCheck;
use crate::tar;

/// How many entries are on their way into the sink at a time. The server sends one after the other; small files overlap.
const IN_FLIGHT: usize = 16;
/// Messages of the server have at most 32 KiB; so much is handed on at a time.
const PIECE: usize = 256 << 10;
/// A label has some lines.
const MOST_LABEL: usize = 64 << 10;

/// What is made of what the server sends.
#[derive(Debug)]
enum Way {
    /// Whole files, which are stored. Of those that are named, all that differs elsewhere from the parent is counted.
    Whole(BTreeMap<EntryPath, Changes>),
    /// Changes, which are stored over the parent's files.
    Changes(Increment),
    /// Changes, of which only is noted where they are.
    Places(Increment, BTreeMap<EntryPath, Changes>),
}

/// Takes the events of a base backup apart into entries.
#[derive(Debug)]
pub(super) struct Feed<'a> {
    cx: &'a BackupContext,
    server: &'a Server,
    way: Way,
    bad: Arc<BadPages>,
    started: Option<Started>,
    finished: Option<Finished>,
    /// Before the paths of the current archive: empty, or `pg_tblspc/<oid>/`.
    prefix: Vec<u8>,
    archive: Option<tar::Reader>,
    current: Current,
    puts: JoinSet<Result<(EntryPath, Stored)>>,
    unexpected: Vec<(EntryPath, u64)>,
    received: u64,
    configured: bool,
}

/// What the bytes that come belong to.
#[derive(Debug)]
enum Current {
    /// To nothing: none may come.
    Nothing,
    /// To something that is not wanted.
    Skipped,
    /// To an entry.
    Whole(Open),
    /// To the label, which is changed before it is stored.
    Label(EntryMeta, Vec<u8>),
    /// To a list of changes.
    Changing(Box<Changing>),
    /// To the manifest of an increment.
    Manifest(Box<Rewriting>),
}

/// An entry whose bytes are still coming.
#[derive(Debug)]
struct Open {
    bytes: mpsc::Sender<Bytes>,
    piece: BytesMut,
}

impl Open {
    /// Hands bytes on. False when nobody takes them any more.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        self.piece.extend_from_slice(bytes);
        self.piece.len() < PIECE || self.bytes.send(self.piece.split().freeze()).await.is_ok()
    }

    async fn end(mut self) -> bool {
        self.piece.is_empty() || self.bytes.send(self.piece.split().freeze()).await.is_ok()
    }
}

/// An entry whose changes are still coming.
#[derive(Debug)]
struct Changing {
    meta: EntryMeta,
    reader: IncrementReader,
    /// Once it is known which changes these are. Nothing is open when they are only noted.
    over: Option<(Overlay, Option<Open>)>,
}

/// The manifest of an increment, of which that of the whole backup is made.
#[derive(Debug)]
struct Rewriting {
    reader: ManifestReader,
    writer: ManifestWriter,
    open: Open,
}

/// What was taken.
#[derive(Debug)]
pub(super) struct Fed {
    pub(super) started: Started,
    pub(super) finished: Finished,
    pub(super) findings: Vec<Finding>,
    /// Bytes that the server sent.
    pub(super) received: u64,
    pub(super) configured: bool,
    /// Where the changes are, if that was to be noted.
    pub(super) places: BTreeMap<EntryPath, Changes>,
}

impl<'a> Feed<'a> {
    /// Stores whole files. Of those in `claimed` only these places may differ from the parent.
    pub(super) fn whole(cx: &'a BackupContext, server: &'a Server, claimed: BTreeMap<EntryPath, Changes>) -> Self {
        Self {
            cx,
            server,
            way: Way::Whole(claimed),
            bad: Arc::new(BadPages::default()),
            started: None,
            finished: None,
            prefix: Vec::new(),
            archive: None,
            current: Current::Nothing,
            puts: JoinSet::new(),
            unexpected: Vec::new(),
            received: 0,
            configured: false,
        }
    }

    /// From here on it takes `increment`, and stores it or only notes where it changes something.
    pub(super) fn increment(&mut self, increment: Increment, store: bool) {
        self.way = if store { Way::Changes(increment) } else { Way::Places(increment, BTreeMap::new()) };
    }

    fn stores(&self) -> bool {
        !matches!(self.way, Way::Places(..))
    }

    pub(super) async fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Started(started) => {
                // The server's estimate is of whole files.
                let total = matches!(self.way, Way::Whole(_)).then(|| started.estimated_bytes()).flatten();
                self.cx.work().started(Phase::Read, total, Unit::Bytes);
                self.started = Some(started);
            }
            Event::Archive { tablespace, .. } => {
                self.end_archive()?;
                self.prefix = Vec::new();
                if let Some(space) = tablespace {
                    let folder = format!("pg_tblspc/{}", space.oid);
                    self.node(EntryMeta::directory(EntryPath::new(folder.clone())?)).await?;
                    self.prefix = format!("{folder}/").into_bytes();
                }
                self.archive = Some(tar::Reader::new());
            }
            Event::Data(bytes) => {
                self.received += bytes.len() as u64;
                let mut archive = self.archive.take().ok_or_else(|| Error::damaged("data before an archive"))?;
                archive.push(bytes);
                while let Some(event) = archive.next()? {
                    self.entry(event).await?;
                }
                self.archive = Some(archive);
            }
            Event::ManifestStart => {
                self.end_archive()?;
                self.manifest().await?;
            }
            Event::ManifestData(bytes) => self.data(bytes).await?,
            Event::Progress(_) => {}
            Event::Finished(finished) => {
                self.end().await?;
                self.end_archive()?;
                self.finished = Some(finished);
            }
        }
        Ok(())
    }

    fn end_archive(&mut self) -> Result<()> {
        match self.archive.take() {
            Some(archive) => Ok(archive.finish()?),
            None => Ok(()),
        }
    }

    async fn node(&self, meta: EntryMeta) -> Result<()> {
        if self.stores() { self.cx.sink().put_node(meta).await } else { Ok(()) }
    }

    async fn entry(&mut self, event: tar::Event) -> Result<()> {
        match event {
            tar::Event::Entry(entry) => {
                let path = EntryPath::new([&self.prefix[..], &entry.path].concat())?;
                match entry.kind {
                    tar::EntryKind::Directory => {
                        // The folder of a tablespace stands in its own archive and as a link in the main one.
                        self.node(EntryMeta::directory(path).with_mode(entry.mode)).await
                    }
                    tar::EntryKind::File => {
                        let modified = Timestamp::from_second(entry.mtime).ok();
                        self.file(path, entry.size, |meta| meta.with_mode(entry.mode).with_modified(modified)).await
                    }
                    // Links are tablespaces, whose locations the server has told before.
                    _ => Ok(()),
                }
            }
            tar::Event::Data(bytes) => self.data(bytes).await,
            tar::Event::End => self.end().await,
        }
    }

    async fn file(&mut self, path: EntryPath, len: u64, facts: impl Fn(EntryMeta) -> EntryMeta) -> Result<()> {
        self.end().await?;
        self.configured |= path.as_bytes() == b"postgresql.conf";
        let target = match &self.way {
            Way::Whole(_) => None,
            Way::Changes(increment) | Way::Places(increment, _) => increment.target(&path),
        };
        if let Some(target) = target {
            let meta = facts(EntryMeta::file(target));
            let reader = IncrementReader::new(self.server.blocks_per_segment);
            self.current = Current::Changing(Box::new(Changing { meta, reader, over: None }));
            return Ok(());
        }
        let meta = facts(EntryMeta::file(path));
        self.current = match &self.way {
            Way::Places(..) => Current::Skipped,
            Way::Changes(_) if meta.path.as_bytes() == b"backup_label" => Current::Label(meta, Vec::new()),
            Way::Changes(_) => Current::Whole(self.open_stream(meta).await?),
            Way::Whole(claimed) => match claimed.get(&meta.path).cloned() {
                Some(changes) => Current::Whole(self.open_patch(meta, len, changes.verified()).await?),
                None => Current::Whole(self.open_stream(meta).await?),
            },
        };
        Ok(())
    }

    async fn manifest(&mut self) -> Result<()> {
        self.end().await?;
        let meta = EntryMeta::file(EntryPath::new("backup_manifest")?);
        self.current = match &self.way {
            Way::Places(..) => Current::Skipped,
            Way::Whole(_) => Current::Whole(self.open_stream(meta).await?),
            Way::Changes(_) => {
                let open = self.open_stream(meta).await?;
                let writer = ManifestWriter::new(self.server.system_id);
                Current::Manifest(Box::new(Rewriting { reader: ManifestReader::new(), writer, open }))
            }
        };
        Ok(())
    }

    fn inspector(&self, path: &EntryPath) -> Option<Arc<dyn BlockInspector>> {
        let check = PageCheck { start_lsn: self.started.as_ref().map_or(Lsn(0), |s| s.position) };
        let per_segment = self.server.blocks_per_segment;
        let wanted = self.server.data_checksums;
        wanted.then(|| PageInspector::for_file(check, path, per_segment, None, &self.bad)).flatten()
    }

    async fn open_stream(&mut self, meta: EntryMeta) -> Result<Open> {
        let inspector = self.inspector(&meta.path);
        self.open(move |sink, body| {
            Box::pin(async move {
                let path = meta.path.clone();
                Ok((path, sink.put_stream(meta, body, inspector).await?))
            })
        })
        .await
    }

    async fn open_patch(&mut self, meta: EntryMeta, len: u64, changes: Changes) -> Result<Open> {
        let inspector = self.inspector(&meta.path);
        self.open(move |sink, body| {
            Box::pin(async move {
                let path = meta.path.clone();
                let patch = Patch::new(meta, len, changes).with_inspector(inspector);
                Ok((path, sink.put_patch(patch, body).await?))
            })
        })
        .await
    }

    async fn open<F>(&mut self, put: F) -> Result<Open>
    where
        F: FnOnce(
            Arc<dyn BackupSink>,
            BoxStream<'static, Result<Bytes>>,
        ) -> BoxFuture<'static, Result<(EntryPath, Stored)>>,
    {
        while self.puts.len() >= IN_FLIGHT {
            self.join().await?;
        }
        let (bytes, mut received) = mpsc::channel(2);
        let body = stream::poll_fn(move |cx| received.poll_recv(cx)).map(Ok).boxed();
        self.puts.spawn(put(Arc::clone(self.cx.sink()), body));
        Ok(Open { bytes, piece: BytesMut::new() })
    }

    async fn data(&mut self, bytes: Bytes) -> Result<()> {
        let mut current = std::mem::replace(&mut self.current, Current::Nothing);
        let taken = match &mut current {
            Current::Nothing => return Err(Error::damaged("data outside of an entry")),
            Current::Skipped => true,
            Current::Whole(open) => open.send(&bytes).await,
            Current::Label(_, label) => {
                if label.len() + bytes.len() > MOST_LABEL {
                    return Err(Error::damaged("the label of a backup is too long"));
                }
                label.extend_from_slice(&bytes);
                true
            }
            Current::Changing(changing) => self.changes(changing, bytes).await?,
            Current::Manifest(rewriting) => {
                let Rewriting { reader, writer, open } = &mut **rewriting;
                let Way::Changes(increment) = &self.way else { return Err(Error::internal("a manifest of nothing")) };
                reader.push(&bytes, &mut |file| writer.file(&increment.described(file)))?;
                open.send(&writer.take()).await
            }
        };
        if !taken {
            return self.refused().await;
        }
        self.current = current;
        Ok(())
    }

    /// Whoever takes the bytes has failed and says why.
    async fn refused(&mut self) -> Result<()> {
        self.join_all().await?;
        Err(Error::internal("an entry ended before its bytes"))
    }

    async fn changes(&mut self, changing: &mut Changing, bytes: Bytes) -> Result<bool> {
        let (header, bytes) = changing.reader.push(bytes)?;
        if let Some(header) = header {
            let path = &changing.meta.path;
            let (overlay, store) = match &mut self.way {
                Way::Whole(_) => return Err(Error::internal("changes of nothing")),
                Way::Changes(increment) => (increment.overlay(path, &header).await?, true),
                Way::Places(increment, places) => {
                    let overlay = increment.overlay(path, &header).await?;
                    places.insert(path.clone(), overlay.changes().clone());
                    (overlay, false)
                }
            };
            let open = match store {
                true => {
                    let (meta, changes) = (changing.meta.clone(), overlay.changes().clone());
                    Some(self.open_patch(meta, overlay.len(), changes).await?)
                }
                false => None,
            };
            changing.over = Some((overlay, open));
        }
        if let Some((overlay, Some(open))) = &mut changing.over {
            overlay.push(bytes);
            while let Some(piece) = overlay.next() {
                if !open.send(&piece).await {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn end(&mut self) -> Result<()> {
        let taken = match std::mem::replace(&mut self.current, Current::Nothing) {
            Current::Nothing | Current::Skipped => true,
            Current::Whole(open) => open.end().await,
            Current::Label(meta, label) => {
                self.label(meta, &label).await?;
                true
            }
            Current::Changing(changing) => {
                changing.reader.finish()?;
                match changing.over {
                    Some((_, Some(open))) => open.end().await,
                    _ => true,
                }
            }
            Current::Manifest(rewriting) => {
                let Rewriting { reader, writer, mut open } = *rewriting;
                let summary = reader.finish()?;
                open.send(&writer.finish(&summary.wal_ranges)).await && open.end().await
            }
        };
        if taken { Ok(()) } else { self.refused().await }
    }

    /// Stores the label of a whole backup.
    async fn label(&mut self, meta: EntryMeta, label: &[u8]) -> Result<()> {
        let label = BackupLabel::without_incremental(label);
        let mut hasher = FileHasher::new(ChecksumAlgorithm::Sha256);
        hasher.update(&label);
        if let Way::Changes(increment) = &mut self.way {
            increment.label(label.len() as u64, hasher.finish());
        }
        self.cx.sink().put_bytes(meta, label.into()).await.map(drop)
    }

    async fn join(&mut self) -> Result<()> {
        match self.puts.join_next().await {
            Some(Ok(stored)) => {
                let (path, stored) = stored?;
                if stored.unexpected > 0 {
                    self.unexpected.push((path, stored.unexpected));
                }
                Ok(())
            }
            Some(Err(e)) => Err(Error::internal("storing an entry panicked").with_source(e)),
            None => Ok(()),
        }
    }

    async fn join_all(&mut self) -> Result<()> {
        while !self.puts.is_empty() {
            self.join().await?;
        }
        Ok(())
    }

    /// Waits until everything is in the sink.
    pub(super) async fn finish(mut self) -> Result<Fed> {
        self.join_all().await?;
        self.cx.work().ended(Phase::Read);
        let (Some(started), Some(finished)) = (self.started.take(), self.finished.take()) else {
            return Err(Error::unavailable("the server ended the base backup early"));
        };
        let mut findings = self.bad.findings();
        if finished.checksum_failures && findings.is_empty() {
            let text = "the server met pages with wrong checksums";
            findings.push(Finding::new(Severity::Warning, "page-checksum", text));
        }
        findings.extend(self.unexpected.iter().map(|(path, bytes)| {
            let text = format!("blocks of {bytes} bytes changed though the server's summaries do not say so");
            Finding::new(Severity::Warning, "changes-wrong", text).about(path.to_string())
        }));
        let places = match self.way {
            Way::Whole(_) => BTreeMap::new(),
            Way::Changes(increment) => {
                findings.extend(increment.findings());
                BTreeMap::new()
            }
            Way::Places(_, places) => places,
        };
        let (received, configured) = (self.received, self.configured);
        Ok(Fed { started, finished, findings, received, configured, places })
    }
}
