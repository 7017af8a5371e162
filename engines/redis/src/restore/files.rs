//! The snapshot as the file that a server loads when it starts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use backup_core::engine::{Extracted, RestoreContext, Restored, Work};
use backup_core::observe::{Phase, Unit};
use backup_core::{Error, Finding, Result, Severity};
use bytes::Bytes;

use super::feed::Feed;
use super::settings::RestoreSettings;
use super::stored::{Stored, Verified};
use super::users;
use super::users_file::{self, USERS_FILE, UsersFile};
use crate::engine::facts::{DUMP, USERS};

/// What a server would load instead, or what would be overwritten.
const IN_THE_WAY: [&str; 4] = [DUMP, "appendonlydir", "appendonly.aof", USERS_FILE];
/// The file until it is whole.
const PARTIAL: &str = ".dump.rdb.partial";

pub(super) async fn assess(dir: &Path) -> Result<Vec<Finding>> {
    let dir = dir.to_owned();
    blocking(move || {
        let mut findings = Vec::new();
        let mut block = |code, text: String| findings.push(Finding::new(Severity::Blocker, code, text));
        if !dir.is_dir() {
            // One that is not there is made.
            if dir.symlink_metadata().is_ok() {
                block("data-directory", format!("{} is not a directory", dir.display()));
            }
            return Ok(findings);
        }
        for name in IN_THE_WAY {
            let ours = name == USERS_FILE && users_file::is_left_behind(&dir);
            if !ours && dir.join(name).symlink_metadata().is_ok() {
                block("data-directory-in-use", format!("{} has a {name} already", dir.display()));
            }
        }
        if let Some(pid) = server_in(&dir) {
            block("data-directory-in-use", format!("a server runs in {} (process {pid})", dir.display()));
        }
        Ok(findings)
    })
    .await
}

pub(super) async fn restore(
    settings: &RestoreSettings,
    dir: &Path,
    stored: &Stored,
    verified: &Verified,
    cx: &RestoreContext,
) -> Result<Restored> {
    let work = cx.work();
    let users = if settings.users { stored.record(USERS).await? } else { None };
    if let Some(record) = &users {
        users::parse(record)?;
    }
    work.started(Phase::Write, Some(verified.summary.len), Unit::Bytes);
    let mut target = Partial { path: dir.join(PARTIAL), dir: dir.to_owned(), begun: false };
    let file = target.create().await?;
    let (file, len) = fill(file, Feed::new(stored, &settings.rules, settings.version), work).await?;
    work.ended(Phase::Write);
    let mut extracted = Extracted::default();
    (extracted.entries, extracted.bytes) = (1, len);
    let mut beside = None;
    if let Some(record) = users {
        // The lines of the record are the lines of such a file; a server reads it when its `aclfile` names it.
        extracted.entries += 1;
        extracted.bytes += record.len() as u64;
        beside = Some(UsersFile::write(dir, record).await?);
    }
    extracted.written_bytes = extracted.bytes;
    if let Some(beside) = &mut beside {
        beside.stay();
    }
    target.finish(file).await?;
    if let Some(beside) = beside {
        beside.finish().await?;
    }
    let mut restored = Restored::new(extracted);
    restored.findings.clone_from(&verified.findings);
    Ok(restored)
}

/// Writes a whole snapshot to `file`. Gives it back with the number of bytes.
pub(super) async fn fill(mut file: File, mut feed: Feed<'_>, work: &Work) -> Result<(File, u64)> {
    let mut len = 0;
    while let Some(piece) = feed.next().await? {
        work.checkpoint()?;
        let given = piece.len() as u64;
        len += given;
        file = append(file, piece).await.map_err(|error| error.context("the snapshot cannot be written"))?;
        work.advanced(Phase::Write, given);
    }
    Ok((file, len))
}

/// Appends `bytes` to `file`, and gives it back.
pub(super) async fn append(mut file: File, bytes: Bytes) -> Result<File> {
    blocking(move || {
        file.write_all(&bytes)?;
        Ok(file)
    })
    .await
}

/// The file that is being written. It goes when it is not finished.
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
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Partial {
    async fn create(&mut self) -> Result<File> {
        let (path, dir) = (self.path.clone(), self.dir.clone());
        blocking(move || {
            fs::create_dir_all(&dir)?;
            // Left behind by a restore that died.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            create(&path, &dir)
        })
        .await
        .inspect(|_| self.begun = true)
    }

    /// Makes the file durable, and then visible under its name, which must not have come into being meanwhile.
    async fn finish(&self, file: File) -> Result<()> {
        let (path, dir) = (self.path.clone(), self.dir.clone());
        blocking(move || {
            file.sync_all()?;
            fs::hard_link(&path, dir.join(DUMP))?;
            fs::remove_file(&path)?;
            File::open(&dir)?.sync_all()
        })
        .await
    }
}

/// A new file that whoever owns the directory owns, too: that is the server's account.
pub(super) fn create(path: &Path, dir: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let (wanted, has) = (fs::metadata(dir)?, file.metadata()?);
    if (wanted.uid(), wanted.gid()) != (has.uid(), has.gid()) {
        std::os::unix::fs::fchown(&file, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    Ok(file)
}

/// The process of a server whose working directory this is, as servers have it. Only what the system lets us see.
fn server_in(dir: &Path) -> Option<u32> {
    let wanted = fs::metadata(dir).ok()?;
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        // The program may have any name, and stands in a folder of that name then.
        let title = fs::read(entry.path().join("cmdline")).ok()?;
        let place = fs::metadata(entry.path().join("cwd")).ok()?;
        let title = String::from_utf8_lossy(&title).into_owned();
        let is_server = ["redis", "valkey"].iter().any(|kind| title.contains(kind));
        (is_server && (place.dev(), place.ino()) == (wanted.dev(), wanted.ino())).then_some(pid)
    })
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| Error::io("restoring files", error)),
        Err(error) => Err(Error::internal(format!("a task of the restore ended by itself: {error}"))),
    }
}
