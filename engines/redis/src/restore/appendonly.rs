//! The snapshot and what happened behind it as the append-only log of several parts that servers since Redis 7.0 load.
//!
//! The snapshot is its base, the stored stream up to the target the part behind it. So a stock server starts at the target
//! without us. Lines of the form `#TS:` and a second stand where that second began: the server's own
//! `redis-check-aof --truncate-to-timestamp` goes back further with them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use backup_core::engine::{Extracted, RestoreContext, Restored, Work};
use backup_core::observe::{Phase, Unit};
use backup_core::{Error, Finding, Result, Severity};
use futures::stream::StreamExt as _;

use super::feed::Feed;
use super::files::{self, append, blocking, create};
use super::settings::RestoreSettings;
use super::stored::{Stored, Verified};
use super::tail::Tail;
use super::users;
use super::users_file::UsersFile;
use crate::engine::facts::USERS;
use crate::rdb::Dialect;
use crate::stream::Second;

/// Where a server looks by default (`appenddirname`, `appendfilename`).
const DIR: &str = "appendonlydir";
/// The directory until it is whole.
const PARTIAL: &str = ".appendonlydir.partial";
const BASE: &str = "appendonly.aof.1.base.rdb";
const CHANGES: &str = "appendonly.aof.1.incr.aof";
const MANIFEST: &str = "appendonly.aof.manifest";
/// The snapshot version of Redis 7.0, the first that knows such logs.
const SINCE: u16 = 10;

/// Whether the server that is to be started knows such logs, as far as the snapshot tells it.
pub(super) async fn assess(settings: &RestoreSettings, stored: &Stored) -> Result<Finding> {
    let version = match settings.version {
        Some(version) => version,
        None => stored.version().await?,
    };
    if version.dialect == Dialect::Redis && version.number < SINCE {
        let text = format!(
            "what happened behind the snapshot comes back as an append-only log of several parts, which servers of {version} \
             do not know: restore into a running server, name the backup itself, or have the snapshot written for Redis 7.0 \
             or later"
        );
        return Ok(Finding::new(Severity::Blocker, "append-only-log", text));
    }
    let text =
        format!("the data come back in {DIR}: start the server with `appendonly yes`, without it it starts empty");
    Ok(Finding::new(Severity::Note, "append-only-log", text))
}

pub(super) async fn restore(
    settings: &RestoreSettings,
    dir: &Path,
    stored: &Stored,
    verified: &Verified,
    tail: &Tail,
    cx: &RestoreContext,
) -> Result<Restored> {
    let work = cx.work();
    let users = if settings.users { stored.record(USERS).await? } else { None };
    if let Some(record) = &users {
        users::parse(record)?;
    }
    let seconds = tail.seconds().await?;
    let mut target = Partial { path: dir.join(PARTIAL), dir: dir.to_owned(), begun: false };
    target.begin().await?;
    work.started(Phase::Write, Some(verified.summary.len), Unit::Bytes);
    let feed = Feed::new(stored, &settings.rules, settings.version);
    let (base, mut len) = files::fill(target.file(BASE).await?, feed, work).await?;
    work.ended(Phase::Write);
    work.started(Phase::Replay, Some(tail.len()), Unit::Bytes);
    let (changes, more) = write_changes(target.file(CHANGES).await?, tail, &seconds, work).await?;
    work.ended(Phase::Replay);
    len += more;
    let mut extracted = Extracted::default();
    (extracted.entries, extracted.bytes) = (1, len);
    let mut beside = None;
    if let Some(record) = users {
        extracted.entries += 1;
        extracted.bytes += record.len() as u64;
        beside = Some(UsersFile::write(dir, record).await?);
    }
    extracted.written_bytes = extracted.bytes;
    if let Some(beside) = &mut beside {
        beside.stay();
    }
    target.finish(base, changes).await?;
    if let Some(beside) = beside {
        beside.finish().await?;
    }
    let mut restored = Restored::new(extracted);
    restored.findings.clone_from(&verified.findings);
    Ok(restored)
}

/// Writes the stream, and before the first change of each second the line that says so.
async fn write_changes(mut file: File, tail: &Tail, seconds: &[Second], work: &Work) -> Result<(File, u64)> {
    let select = tail.select();
    let (mut len, mut at) = (select.len() as u64, tail.start());
    file = append(file, select).await?;
    let mut seconds = seconds.iter().peekable();
    let mut changes = tail.changes();
    while let Some(mut piece) = changes.next().await.transpose()? {
        work.checkpoint()?;
        let given = piece.len() as u64;
        let mut lines = Vec::new();
        while let Some(next) = seconds.next_if(|next| next.offset < at + piece.len() as u64) {
            // Both are of one stream, and seconds come in order.
            let before = usize::try_from(next.offset.saturating_sub(at)).unwrap_or(usize::MAX).min(piece.len());
            lines.extend_from_slice(&piece.split_to(before));
            lines.extend_from_slice(format!("#TS:{}\r\n", next.second).as_bytes());
            at += before as u64;
        }
        at += piece.len() as u64;
        len += given;
        if !lines.is_empty() {
            file = append(file, lines.into()).await?;
        }
        file = append(file, piece).await?;
        work.advanced(Phase::Replay, given);
    }
    if len != tail.len() {
        return Err(Error::internal(format!("a stream of {} bytes has become {len} bytes", tail.len())));
    }
    Ok((file, len))
}

/// The directory that is being written. It goes when it is not finished.
#[derive(Debug)]
struct Partial {
    path: PathBuf,
    dir: PathBuf,
    /// Whether it is ours.
    begun: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.begun {
            // It is not there any more when it was finished.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Partial {
    async fn begin(&mut self) -> Result<()> {
        let (path, dir) = (self.path.clone(), self.dir.clone());
        self.begun = true;
        blocking(move || {
            fs::create_dir_all(&dir)?;
            // Left behind by a restore that died.
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            DirBuilder::new().mode(0o700).create(&path)?;
            // Whoever owns the directory is the server's account.
            let (wanted, has) = (fs::metadata(&dir)?, fs::metadata(&path)?);
            if (wanted.uid(), wanted.gid()) != (has.uid(), has.gid()) {
                std::os::unix::fs::chown(&path, Some(wanted.uid()), Some(wanted.gid()))?;
            }
            Ok(())
        })
        .await
    }

    async fn file(&self, name: &str) -> Result<File> {
        let (path, dir) = (self.path.join(name), self.path.clone());
        blocking(move || create(&path, &dir)).await
    }

    /// Makes everything durable, and then visible under its name, under which only an empty directory may have come into
    /// being meanwhile.
    async fn finish(&self, base: File, changes: File) -> Result<()> {
        let (path, dir) = (self.path.clone(), self.dir.clone());
        blocking(move || {
            base.sync_all()?;
            changes.sync_all()?;
            let mut manifest = create(&path.join(MANIFEST), &path)?;
            write!(manifest, "file {BASE} seq 1 type b\nfile {CHANGES} seq 1 type i\n")?;
            manifest.sync_all()?;
            File::open(&path)?.sync_all()?;
            fs::rename(&path, dir.join(DIR))?;
            File::open(&dir)?.sync_all()
        })
        .await
    }
}
