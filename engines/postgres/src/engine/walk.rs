//! The files of a data directory that belong into a backup.

use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::{Error, Finding, Result, Severity};

use super::facts::Tablespace;
use crate::exclude::{Decision, Unlogged, decide};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Folders, parents first.
    pub(super) folders: Vec<EntryMeta>,
    /// Files and where they are, by path; without `global/pg_control`, which is read last.
    pub(super) files: Vec<(EntryPath, PathBuf)>,
    /// Sum of the files' sizes.
    pub(super) bytes: u64,
    pub(super) tablespaces: Vec<Tablespace>,
    pub(super) findings: Vec<Finding>,
}

/// Lists `root`. Files that vanish meanwhile are left out.
pub(super) fn list(root: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    folder(root, b"", &mut listing)?;
    // What the server needs below pg_wal, which is left empty: its content is captured as a log.
    for inside in ["pg_wal/archive_status", "pg_wal/summaries"] {
        if root.join(inside).is_dir() {
            listing.folders.push(EntryMeta::directory(EntryPath::new(inside)?));
        }
    }
    listing.files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(listing)
}

fn folder(dir: &Path, inside: &[u8], listing: &mut Listing) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        // A database or a temporary folder that was dropped meanwhile.
        Err(e) if e.kind() == io::ErrorKind::NotFound && !inside.is_empty() => return Ok(()),
        Err(e) => return Err(Error::io(dir.display(), e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => names.push(entry.file_name()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(dir.display(), e)),
        }
    }
    let unlogged = Unlogged::new(inside, names.iter().map(|name| name.as_bytes()));
    for name in names {
        let path = dir.join(&name);
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io(path.display(), e)),
        };
        let entry = if inside.is_empty() { Vec::new() } else { [inside, b"/"].concat() };
        let entry = EntryPath::new([&entry[..], name.as_bytes()].concat())?;
        one(path, entry, name.as_bytes(), inside, &found, &unlogged, listing)?;
    }
    Ok(())
}

fn one(
    path: PathBuf,
    entry: EntryPath,
    name: &[u8],
    inside: &[u8],
    found: &fs::Metadata,
    unlogged: &Unlogged,
    listing: &mut Listing,
) -> Result<()> {
    let link = found.is_symlink();
    // A link counts as what it points at: pg_wal may be one, and every tablespace is.
    let target = if link { fs::metadata(&path).ok() } else { Some(found.clone()) };
    let is_dir = target.as_ref().is_some_and(fs::Metadata::is_dir);
    let decision = decide(entry.as_bytes(), is_dir);
    if decision == Decision::Skip || unlogged.skips(name) {
        return Ok(());
    }
    if link && inside == b"pg_tblspc" && is_dir {
        return tablespace(&path, &entry, name, listing);
    }
    if is_dir && (!link || decision == Decision::Empty) {
        let mode = target.map_or(0o700, |t| t.mode() & 0o7777);
        listing.folders.push(EntryMeta::directory(entry.clone()).with_mode(mode));
        return if decision == Decision::Empty { Ok(()) } else { folder(&path, entry.as_bytes(), listing) };
    }
    if found.is_file() {
        if entry.as_bytes() != b"global/pg_control" {
            listing.bytes += found.len();
            listing.files.push((entry, path));
        }
        return Ok(());
    }
    // The server skips what is neither file nor folder, with a warning.
    let text = "is neither a file nor a folder and is not part of the backup";
    listing.findings.push(Finding::new(Severity::Warning, "special-file", text).about(entry.to_string()));
    Ok(())
}

fn tablespace(path: &Path, entry: &EntryPath, name: &[u8], listing: &mut Listing) -> Result<()> {
    let Some(oid) = std::str::from_utf8(name).ok().and_then(|text| text.parse().ok()) else {
        let text = "is not named like a tablespace and is not part of the backup";
        listing.findings.push(Finding::new(Severity::Warning, "special-file", text).about(entry.to_string()));
        return Ok(());
    };
    let target = fs::read_link(path).map_err(|e| Error::io(path.display(), e))?;
    let location = match target.to_str() {
        Some(text) => text.to_owned(),
        None => target.into_os_string().into_vec().escape_ascii().to_string(),
    };
    listing.tablespaces.push(Tablespace { oid, location });
    listing.folders.push(EntryMeta::directory(entry.clone()));
    folder(path, entry.as_bytes(), listing)
}
