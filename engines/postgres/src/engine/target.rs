//! The directory that a restore writes, and what must be known of it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backup_core::entry::EntryPath;
use backup_core::{BackupId, Error, Result};

use super::facts::Tablespace;
use super::settings::PostgresSettings;
use crate::disk::staged;

/// Stands in a data directory while a restore is writing it, and names the backup.
pub(super) const MARKER: &str = "backup_restore_in_progress";

/// What a directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It does not exist, or is empty.
    Free,
    /// A restore of this backup was interrupted here. Not a backup's id when the marker was cut off.
    Interrupted(Option<BackupId>),
    /// It holds a cluster with this system identifier; not a number when `pg_control` is not readable.
    Cluster(Option<u64>),
    /// It holds something else.
    Other,
}

/// The names in `dir`, without what a restore leaves when it is killed in its very first step. None when it does not exist.
fn names(dir: &Path) -> Result<Option<Vec<OsString>>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(dir.display(), e)),
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>();
    let mut names = names.map_err(|e| Error::io(dir.display(), e))?;
    names.retain(|name| *name != *staged(MARKER));
    Ok(Some(names))
}

/// Looks at `dir`. Blocking.
pub(super) fn state(dir: &Path) -> Result<State> {
    if names(dir)?.unwrap_or_default().is_empty() {
        return Ok(State::Free);
    }
    match fs::read_to_string(dir.join(MARKER)) {
        Ok(text) => return Ok(State::Interrupted(text.trim().parse().ok())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io(dir.join(MARKER).display(), e)),
    }
    if !dir.join("PG_VERSION").exists() {
        return Ok(State::Other);
    }
    Ok(State::Cluster(super::probe::read_control(dir).ok().map(|control| control.system_id)))
}

/// The process that runs in `dir`, by its `postmaster.pid`. Blocking.
pub(super) fn running(dir: &Path) -> Option<i32> {
    let text = fs::read_to_string(dir.join("postmaster.pid")).ok()?;
    // Negative for a standalone backend, which holds the directory just the same.
    let pid: i32 = text.lines().next()?.trim().parse().ok()?;
    let process = rustix::process::Pid::from_raw(pid.abs())?;
    match rustix::process::test_kill_process(process) {
        Ok(()) | Err(rustix::io::Errno::PERM) => Some(pid.abs()),
        Err(_) => None,
    }
}

/// Who owns `path`, if it exists. Blocking.
pub(super) fn owner(path: &Path) -> Option<(u32, u32)> {
    fs::metadata(path).ok().map(|found| (found.uid(), found.gid()))
}

/// The device that `path`, or its nearest parent that exists, lies on, and the bytes that can be written there. Blocking.
pub(super) fn free_bytes(path: &Path) -> Option<(u64, u64)> {
    let existing = path.ancestors().find(|p| p.exists())?;
    let found = rustix::fs::statvfs(existing).ok()?;
    Some((fs::metadata(existing).ok()?.dev(), found.f_bavail.saturating_mul(found.f_frsize)))
}

/// What stands in the directory of a tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Contents {
    /// Nothing.
    Free,
    /// Only what is of this tablespace: the cluster in the data directory uses it, or an interrupted restore wrote it.
    Own,
    /// Something else, which must stay. Names one thing.
    Foreign(OsString),
}

/// Looks at the directory of a tablespace of the cluster in `data_dir`. Blocking.
pub(super) fn contents(placed: &Placed, data_dir: &Path, major: u32) -> Result<Contents> {
    let names = names(&placed.dir)?.unwrap_or_default();
    let Some(first) = names.first().cloned() else { return Ok(Contents::Free) };
    // Two clusters of different versions may share a location, each in a folder of its own.
    let version = format!("PG_{major}_");
    let own = |name: &OsString| *name == *MARKER || name.as_encoded_bytes().starts_with(version.as_bytes());
    if let Some(foreign) = names.iter().find(|name| !own(name)) {
        return Ok(Contents::Foreign(foreign.clone()));
    }
    let link = data_dir.join("pg_tblspc").join(placed.oid.to_string());
    let linked = fs::canonicalize(link).is_ok_and(|link| fs::canonicalize(&placed.dir).is_ok_and(|dir| dir == link));
    let marked = names.iter().any(|name| *name == *MARKER);
    Ok(if marked || linked { Contents::Own } else { Contents::Foreign(first) })
}

/// A tablespace and the directory that it is restored into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) oid: u32,
    pub(super) dir: PathBuf,
}

impl Placed {
    /// Where it stands in the backup.
    pub(super) fn entry(&self) -> Result<EntryPath> {
        EntryPath::new(format!("pg_tblspc/{}", self.oid))
    }
}

/// Where every tablespace of a backup goes.
///
/// # Errors
/// InvalidInput for a mapping of a tablespace that the backup does not have, for one that is not absolute, and for two in one
/// place.
pub(super) fn place(settings: &PostgresSettings, tablespaces: &[Tablespace], data_dir: &Path) -> Result<Vec<Placed>> {
    for (which, dir) in &settings.tablespaces {
        if !tablespaces.iter().any(|t| named(t, which)) {
            return Err(Error::invalid(format!("the backup has no tablespace {which}")));
        }
        if !dir.is_absolute() {
            return Err(Error::invalid(format!("{} for tablespace {which} is not an absolute path", dir.display())));
        }
    }
    let mut placed: Vec<Placed> = Vec::new();
    for tablespace in tablespaces {
        let mapped =
            settings.tablespaces.iter().find(|(which, _)| named(tablespace, which)).map(|(_, dir)| dir.clone());
        let below = || settings.tablespace_root.as_ref().map(|root| root.join(tablespace.oid.to_string()));
        let dir = mapped.or_else(below).unwrap_or_else(|| PathBuf::from(&tablespace.location));
        if !dir.is_absolute() || dir.starts_with(data_dir) || data_dir.starts_with(&dir) {
            let text =
                format!("tablespace {} cannot be restored into {}: map it elsewhere", tablespace.oid, dir.display());
            return Err(Error::invalid(text));
        }
        if let Some(other) = placed.iter().find(|p| p.dir.starts_with(&dir) || dir.starts_with(&p.dir)) {
            let text = format!("tablespaces {} and {} would share {}", other.oid, tablespace.oid, dir.display());
            return Err(Error::invalid(text));
        }
        placed.push(Placed { oid: tablespace.oid, dir });
    }
    Ok(placed)
}

fn named(tablespace: &Tablespace, which: &str) -> bool {
    tablespace.location == which || which.parse() == Ok(tablespace.oid)
}
