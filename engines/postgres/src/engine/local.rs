//! Reading a data directory directly, in parallel, while its server runs.
//!
//! That the directory is the very server's is proven by the slot that every backup makes under a random name: its folder
//! appears in `pg_replslot` of that server and nowhere else, whatever identifiers, ports and containers are alike.

use std::path::Path;
use std::sync::Arc;

use backup_core::engine::{BackupContext, BackupSink, BackupSinkExt, LocalFile, OnShrink, Put, Unchanged};
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::observe::{Phase, Unit};
use backup_core::{Error, Finding, Result, Severity};
use bytes::Bytes;

use super::facts::Tablespace;
use super::pages::{BadPages, PageInspector};
use super::probe::{self, Server};
use super::settings::PostgresSettings;
use super::waldir::{self, WalDir};
use super::{Taken, changed, label, pages, walk};
use crate::label::BackupLabel;
use crate::lsn::Lsn;
use crate::page::PageCheck;
use crate::wal::{LongPageHeader, SegmentName, TimelineHistory};
use crate::wire::Session;

/// Takes a backup of the server's files below `root`.
///
/// `unchanged` tells whether files that the parent read at the same place may be taken by size and time.
pub(super) async fn backup(
    cx: &BackupContext,
    session: &mut Session,
    server: &Server,
    root: &Path,
    settings: &PostgresSettings,
    unchanged: Unchanged,
    name: &str,
) -> Result<Taken> {
    if let Some(slot) = label::start(session, server, name, settings.checkpoint).await? {
        let (dir, folder) = (root.to_owned(), root.join("pg_replslot").join(slot));
        if !blocking(move || Ok(folder.is_dir())).await? {
            let text = format!("{} is not the data directory of the server that answers", dir.display());
            return Err(Error::environment(text));
        }
    }
    let known = changed::since_parent(cx, session, server, root, settings.changes).await?;
    tracing::debug!(?unchanged, known = %known, "what need not be read");
    let dir = root.to_owned();
    let listing = blocking(move || walk::list(&dir)).await?;
    cx.work().started(Phase::Read, Some(listing.bytes), Unit::Bytes);
    for folder in listing.folders {
        cx.sink().put_node(folder).await?;
    }
    let configured = listing.files.iter().any(|(entry, _)| entry.as_bytes() == b"postgresql.conf");
    let bad = Arc::new(BadPages::default());
    // Where the backup starts is known exactly only from its label, at the end. The redo position of the checkpoint that
    // the start has just made is where replay begins; a page that is at least as new will be replayed.
    let check = PageCheck { start_lsn: redo(root).await? };
    let suspects = cx.parent().map(|parent| pages::known(&parent.snapshot)).unwrap_or_default();
    let files = listing.files.into_iter().map(|(entry, path)| {
        // Of a page that was wrong the log does not say that it became right.
        let suspect = suspects.contains_key(entry.to_string().as_str());
        let unchanged = if suspect { unchanged.clone() } else { known.rule(&entry, &unchanged) };
        let inspector = server
            .data_checksums
            .then(|| PageInspector::for_file(check, &entry, server.blocks_per_segment, Some(path.clone()), &bad))
            .flatten();
        let file = LocalFile::new(path, EntryMeta::file(entry)).with_on_shrink(OnShrink::PadWithZeros);
        let file = file.with_unchanged(unchanged);
        match inspector {
            Some(inspector) => file.with_inspector(inspector),
            None => file,
        }
    });
    // Pages of a file that is not read again are what they were.
    let mut carried = Vec::new();
    let mut read = Read::default();
    // A file that has vanished belongs to something that was dropped: the log says so too.
    let each = |meta: &EntryMeta, put: Put| {
        let Some(stored) = put.stored() else { return Ok(()) };
        read.bytes += stored.read_bytes;
        if stored.unexpected > 0 {
            read.unexpected.push((meta.path.clone(), stored.unexpected));
        }
        if stored.unread
            && let Some(findings) = suspects.get(meta.path.to_string().as_str())
        {
            carried.extend(findings.iter().map(|finding| (*finding).clone()));
        }
        Ok(())
    };
    cx.sink().put_files(files, each).await?;
    cx.work().ended(Phase::Read);

    // Last of all files: on a standby it says up to where everything that was read before may be.
    let dir = root.to_owned();
    let (control, bytes) = blocking(move || probe::parse_control(&dir)).await?;
    if control.system_id != server.system_id {
        return Err(Error::conflict("the data directory was replaced during the backup"));
    }
    put(cx.sink(), "global/pg_control", bytes).await?;
    let stopped = label::stop(session, server).await?;
    let label = BackupLabel::parse(stopped.backup_label.as_bytes())?;
    put(cx.sink(), "backup_label", stopped.backup_label.into_bytes()).await?;
    if !stopped.tablespace_map.is_empty() {
        put(cx.sink(), "tablespace_map", stopped.tablespace_map.into_bytes()).await?;
    }
    // A standby that follows its primary onto another timeline has written the log of the backup under two names.
    if server.standby && control.min_recovery_timeline.is_some_and(|timeline| timeline != label.timeline) {
        let text = format!("the standby left timeline {} while the backup ran", label.timeline);
        return Err(Error::conflict(text));
    }
    wal(cx, server, root, &label, stopped.stop).await?;
    let own = WalDir { root: root.to_owned(), server: server.clone(), timeline: label.timeline };
    let witness = own.seen(waldir::witnesses(label.start, stopped.stop)).await?;
    let mut findings = listing.findings;
    findings.extend(bad.findings());
    findings.extend(carried);
    findings.extend(read.unexpected.iter().map(|(path, bytes)| {
        let text = format!("blocks of {bytes} bytes changed though the log does not say so");
        Finding::new(Severity::Warning, "changes-wrong", text).about(path.to_string())
    }));
    Ok(Taken {
        known,
        read_bytes: Some(read.bytes),
        witness: Some(witness),
        start: label.start,
        stop: stopped.stop,
        timeline: label.timeline,
        tablespaces: sorted(listing.tablespaces),
        findings,
        configured,
    })
}

/// What was read of the files.
#[derive(Debug, Default)]
struct Read {
    bytes: u64,
    unexpected: Vec<(EntryPath, u64)>,
}

pub(super) fn sorted(mut tablespaces: Vec<Tablespace>) -> Vec<Tablespace> {
    tablespaces.sort_unstable_by_key(|t| t.oid);
    tablespaces
}

pub(super) async fn put(sink: &Arc<dyn BackupSink>, path: &str, bytes: Vec<u8>) -> Result<()> {
    let meta = EntryMeta::file(EntryPath::new(path)?);
    sink.put_bytes(meta, Bytes::from(bytes)).await.map(drop)
}

async fn redo(root: &Path) -> Result<Lsn> {
    let dir = root.to_owned();
    Ok(blocking(move || probe::read_control(&dir)).await?.redo)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("reading a data directory panicked").with_source(e))?
}

/// Stores the log from the start of the backup to its end, so that the backup is restorable alone.
async fn wal(cx: &BackupContext, server: &Server, root: &Path, label: &BackupLabel, stop: Lsn) -> Result<()> {
    let size = server.wal_segment_size;
    let folder = root.join("pg_wal");
    let mut at = size.floor(label.start);
    while at < stop {
        let segment = size.name(label.timeline, at);
        let path = folder.join(segment.to_string());
        check_header(&path, segment, server.system_id).await?;
        let entry = EntryPath::new(format!("pg_wal/{segment}"))?;
        let file = LocalFile::new(path.clone(), EntryMeta::file(entry)).with_on_shrink(OnShrink::Fail);
        if cx.sink().put_file(file).await? == Put::Vanished {
            return Err(removed(segment));
        }
        // The server reuses a file by renaming it: one that still has its name was not overwritten while it was read.
        check_header(&path, segment, server.system_id).await?;
        at = Lsn(at.0 + size.bytes());
    }
    if label.timeline.get() > 1 {
        let name = TimelineHistory::file_name(label.timeline);
        let file = LocalFile::new(folder.join(&name), EntryMeta::file(EntryPath::new(format!("pg_wal/{name}"))?));
        // A cluster that was promoted long ago may have lost it; recovery inside one timeline does not need it.
        if cx.sink().put_file(file).await? == Put::Vanished {
            tracing::debug!(%name, "the timeline's history is not in pg_wal");
        }
    }
    Ok(())
}

pub(super) fn removed(segment: SegmentName) -> Error {
    Error::environment(format!(
        "wal segment {segment} was removed while the backup ran: allow it a replication slot or raise wal_keep_size"
    ))
}

/// A recycled file has its future name and an old address, so the name alone proves nothing.
async fn check_header(path: &Path, segment: SegmentName, system_id: u64) -> Result<()> {
    let path = path.to_owned();
    let header = blocking(move || {
        let mut bytes = [0; LongPageHeader::LENGTH];
        let read =
            std::fs::File::open(&path).and_then(|file| std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0));
        match read {
            Ok(()) => Ok(Some(LongPageHeader::parse(&bytes)?)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(path.display(), e)),
        }
    })
    .await?;
    // A file under its future name, with the address of its past, is one that was removed and reused.
    let header = header.filter(|header| header.check_name(segment).is_ok()).ok_or_else(|| removed(segment))?;
    if header.system_id != system_id {
        let text = format!("wal segment {segment} belongs to the cluster with system identifier {}", header.system_id);
        return Err(Error::damaged(text));
    }
    Ok(())
}
