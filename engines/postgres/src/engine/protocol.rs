//! Reading a cluster through its server, by `BASE_BACKUP`.

use std::sync::Arc;
use std::time::Duration;

use backup_core::engine::{BackupContext, BackupSink, BackupSinkExt, BlockInspector, Stored};
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::observe::{Phase, Unit};
use backup_core::{Error, Finding, Result, Severity};
use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::facts::Tablespace;
use super::pages::{BadPages, PageInspector};
use super::probe::{self, Server};
use super::settings::{Checkpoint, PostgresSettings};
use super::{Taken, changed, local, receive};
use crate::basebackup::{self, BaseBackup, BaseBackupOptions, Event, Finished, Started};
use crate::lsn::Lsn;
use crate::page::PageCheck;
use crate::tar;
use crate::wire::{Session, SessionKind};

/// How many entries are on their way into the sink at a time. The server sends one after the other; small files overlap.
const IN_FLIGHT: usize = 16;
/// How long the server may send nothing while it reads files.
const SILENCE: Duration = Duration::from_secs(300);
/// Exempts a session from what the server may have configured for idle ones.
const IDLE: &str = " -c idle_session_timeout=0";
/// Messages of the server have at most 32 KiB; so much is handed on at a time.
const PIECE: usize = 256 << 10;

/// Takes a backup through the server.
pub(super) async fn backup(
    cx: &BackupContext,
    settings: &PostgresSettings,
    server: &Server,
    name: &str,
) -> Result<Taken> {
    let mut connection = probe::connection(settings)?;
    if server.version.major() >= 14 {
        // The session that holds the slot is idle for as long as the files take.
        connection.options = Some([connection.options.as_deref().unwrap_or_default(), IDLE].concat());
    }
    // A slot of its own session keeps the log until it has been fetched.
    let mut log = Session::connect(&connection, SessionKind::Replication).await?;
    let slot = format!("backup_{name}");
    let kept = receive::keep(&mut log, &slot).await?;
    let mut session = Session::connect(&connection, SessionKind::Replication).await?;
    let checkpoint = match settings.checkpoint {
        Checkpoint::Fast => basebackup::Checkpoint::Fast,
        Checkpoint::Spread => basebackup::Checkpoint::Spread,
    };
    let options = BaseBackupOptions::default().label(name).checkpoint(checkpoint);
    session.set_read_timeout(None);
    let version = session.version();
    let mut backup = BaseBackup::start(&mut session, &options, version).await?;
    let mut feed = Feed::new(cx, server);
    // Before the first event there may be a spread checkpoint and the estimate of a large cluster; then silence is death.
    let mut event = backup.next().await?;
    while let Some(happened) = event {
        cx.work().checkpoint()?;
        feed.take(happened).await?;
        event = tokio::time::timeout(SILENCE, backup.next())
            .await
            .map_err(|_| Error::unavailable(format!("the server sent nothing for {} seconds", SILENCE.as_secs())))??;
    }
    let (started, finished) = feed.finish().await?;
    drop(backup);
    session.close().await;
    let (start, timeline) = (started.position, started.timeline);
    if finished.timeline != timeline {
        return Err(Error::conflict(format!(
            "the server went from timeline {timeline} to {} during the backup",
            finished.timeline
        )));
    }
    receive::store(cx, log, kept.then_some(slot.as_str()), server, timeline, start, finished.end).await?;
    // One that lies in place, below pg_tblspc itself, has a relative location and is restored as it is.
    let outside = started.tablespaces.iter().filter(|t| t.location.starts_with(b"/"));
    let tablespaces = outside.map(|t| Tablespace { oid: t.oid, location: text(&t.location) }).collect();
    Ok(Taken {
        known: changed::Known::Nothing,
        read_bytes: None,
        witness: None,
        start,
        stop: finished.end,
        timeline,
        tablespaces: local::sorted(tablespaces),
        findings: feed.findings(&finished),
        configured: feed.configured,
    })
}

fn text(location: &[u8]) -> String {
    match std::str::from_utf8(location) {
        Ok(text) => text.to_owned(),
        Err(_) => location.escape_ascii().to_string(),
    }
}

/// Takes the events of a base backup apart into entries.
#[derive(Debug)]
struct Feed<'a> {
    cx: &'a BackupContext,
    server: &'a Server,
    bad: Arc<BadPages>,
    started: Option<Started>,
    finished: Option<Finished>,
    /// Before the paths of the current archive: empty, or `pg_tblspc/<oid>/`.
    prefix: Vec<u8>,
    archive: Option<tar::Reader>,
    open: Option<Open>,
    puts: JoinSet<Result<Stored>>,
    configured: bool,
}

/// An entry whose bytes are still coming.
#[derive(Debug)]
struct Open {
    bytes: mpsc::Sender<Bytes>,
    piece: BytesMut,
}

impl<'a> Feed<'a> {
    fn new(cx: &'a BackupContext, server: &'a Server) -> Self {
        Self {
            cx,
            server,
            bad: Arc::new(BadPages::default()),
            started: None,
            finished: None,
            prefix: Vec::new(),
            archive: None,
            open: None,
            puts: JoinSet::new(),
            configured: false,
        }
    }

    async fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Started(started) => {
                self.cx.work().started(Phase::Read, started.estimated_bytes(), Unit::Bytes);
                self.started = Some(started);
            }
            Event::Archive { tablespace, .. } => {
                self.end_archive()?;
                self.prefix = Vec::new();
                if let Some(space) = tablespace {
                    let folder = format!("pg_tblspc/{}", space.oid);
                    self.cx.sink().put_node(EntryMeta::directory(EntryPath::new(folder.clone())?)).await?;
                    self.prefix = format!("{folder}/").into_bytes();
                }
                self.archive = Some(tar::Reader::new());
            }
            Event::Data(bytes) => {
                let mut archive = self.archive.take().ok_or_else(|| Error::damaged("data before an archive"))?;
                archive.push(bytes);
                while let Some(event) = archive.next()? {
                    self.entry(event).await?;
                }
                self.archive = Some(archive);
            }
            Event::ManifestStart => {
                self.end_archive()?;
                let meta = EntryMeta::file(EntryPath::new("backup_manifest")?);
                self.begin(meta, None).await?;
            }
            Event::ManifestData(bytes) => self.data(&bytes).await?,
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

    async fn entry(&mut self, event: tar::Event) -> Result<()> {
        match event {
            tar::Event::Entry(entry) => {
                let path = EntryPath::new([&self.prefix[..], &entry.path].concat())?;
                match entry.kind {
                    tar::EntryKind::Directory => {
                        // The folder of a tablespace stands in its own archive and as a link in the main one.
                        let meta = EntryMeta::directory(path).with_mode(entry.mode);
                        self.cx.sink().put_node(meta).await
                    }
                    tar::EntryKind::File => {
                        self.configured |= path.as_bytes() == b"postgresql.conf";
                        let check = PageCheck { start_lsn: self.started.as_ref().map_or(Lsn(0), |s| s.position) };
                        let per_segment = self.server.blocks_per_segment;
                        let inspector = self
                            .server
                            .data_checksums
                            .then(|| PageInspector::for_file(check, &path, per_segment, None, &self.bad))
                            .flatten();
                        let modified = Timestamp::from_second(entry.mtime).ok();
                        let meta = EntryMeta::file(path).with_mode(entry.mode).with_modified(modified);
                        self.begin(meta, inspector).await
                    }
                    // Links are tablespaces, whose locations the server has told before.
                    _ => Ok(()),
                }
            }
            tar::Event::Data(bytes) => self.data(&bytes).await,
            tar::Event::End => self.end().await,
        }
    }

    async fn begin(&mut self, meta: EntryMeta, inspector: Option<Arc<dyn BlockInspector>>) -> Result<()> {
        self.end().await?;
        while self.puts.len() >= IN_FLIGHT {
            self.join().await?;
        }
        let (bytes, mut received) = mpsc::channel(2);
        let sink: Arc<dyn BackupSink> = Arc::clone(self.cx.sink());
        self.puts.spawn(async move {
            let body = stream::poll_fn(move |cx| received.poll_recv(cx)).map(Ok).boxed();
            sink.put_stream(meta, body, inspector).await
        });
        self.open = Some(Open { bytes, piece: BytesMut::new() });
        Ok(())
    }

    async fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(open) = &mut self.open else { return Err(Error::damaged("data outside of an entry")) };
        open.piece.extend_from_slice(bytes);
        if open.piece.len() < PIECE {
            return Ok(());
        }
        let piece = open.piece.split().freeze();
        if open.bytes.send(piece).await.is_err() {
            // Whoever takes the bytes has failed and says why.
            self.open = None;
            self.join_all().await?;
            return Err(Error::internal("an entry ended before its bytes"));
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        if !open.piece.is_empty() && open.bytes.send(open.piece.split().freeze()).await.is_err() {
            self.join_all().await?;
            return Err(Error::internal("an entry ended before its bytes"));
        }
        Ok(())
    }

    async fn join(&mut self) -> Result<()> {
        match self.puts.join_next().await {
            Some(Ok(stored)) => stored.map(drop),
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
    async fn finish(&mut self) -> Result<(Started, Finished)> {
        self.join_all().await?;
        self.cx.work().ended(Phase::Read);
        match (self.started.take(), self.finished.take()) {
            (Some(started), Some(finished)) => Ok((started, finished)),
            _ => Err(Error::unavailable("the server ended the base backup early")),
        }
    }

    fn findings(&self, finished: &Finished) -> Vec<Finding> {
        let mut findings = self.bad.findings();
        if finished.checksum_failures && findings.is_empty() {
            let text = "the server met pages with wrong checksums";
            findings.push(Finding::new(Severity::Warning, "page-checksum", text));
        }
        findings
    }
}
