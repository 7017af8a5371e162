//! Writing a cluster.
//!
//! The target cannot be started before it is whole and durable: `global/pg_control` is removed first and put in place last.
//! Until then a marker names the backup, so that the same restore can be repeated and fetches only what is missing.
//!
//! The restored cluster replays the log that the backup contains up to the backup's end and becomes a primary on a timeline
//! of its own, so that its log can never be mistaken for the source's. It is started as a standby without a source, with
//! `recovery_target = 'immediate'` and the action `promote` ("Recovery Target" in the manual): there is no command to run and
//! the end of the log cannot be mistaken for the target.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use backup_core::engine::{Existing, Extract, RestoreContext, Restored};
use backup_core::entry::EntryPath;
use backup_core::{BackupSourceExt, Error, Finding, Goal, Result, Severity};

use super::assess;
use super::facts::Facts;
use super::settings::PostgresSettings;
use super::target::{self, MARKER, Placed};
use crate::control::ControlFile;

const CONTROL: &str = "global/pg_control";
const AUTO_CONF: &str = "postgresql.auto.conf";
const SIGNAL: &str = "standby.signal";
/// What stands before and after the settings of a restore in `postgresql.auto.conf`.
const BEGIN: &str = "# begin: recovery settings of a restore, without effect once recovery has ended";
const END: &str = "# end: recovery settings of a restore";

/// Entries that a restore writes by itself or not at all. `tablespace_map` only has links made, which are made here.
const OWN: [&str; 3] = [CONTROL, AUTO_CONF, "tablespace_map"];

/// Writes the context's source into the data directory.
pub(super) async fn restore(settings: &PostgresSettings, cx: &RestoreContext) -> Result<Restored> {
    let findings = assess::assess(settings, cx).await?;
    if let Some(blocker) = findings.iter().find(|f| f.severity == Severity::Blocker) {
        return Err(Error::invalid(format!("the restore is refused: {blocker}")));
    }
    let record = cx.source().record();
    match &cx.target().goal {
        Goal::Latest => {}
        Goal::Backup(id) if *id == record.id => {}
        _ => return Err(Error::invalid(format!("{} cannot be reached from a backup without a log", cx.target()))),
    }
    let dir = settings.data_dir.clone().ok_or_else(|| Error::invalid("a restore needs the data directory to write"))?;
    let facts = Facts::of(&record.snapshot)?;
    let placed = target::place(settings, &facts.tablespaces, &dir)?;

    // Read and checked before anything is written: a target is not begun that cannot be finished.
    let control = cx.source().read_small(&EntryPath::new(CONTROL)?, 64 << 10).await?;
    let parsed = ControlFile::parse(&control)
        .map_err(|e| Error::damaged("the stored pg_control is not readable").with_source(e))?;
    if parsed.system_id != facts.system_id {
        return Err(Error::damaged("the stored pg_control belongs to another cluster"));
    }
    let auto_conf = match cx.source().entry(&EntryPath::new(AUTO_CONF)?).await? {
        Some(_) => cx.source().read_small(&EntryPath::new(AUTO_CONF)?, 16 << 20).await?,
        None => bytes::Bytes::new(),
    };
    let fresh = {
        let (dir, placed, id) = (dir.clone(), placed.clone(), record.id.to_string());
        blocking(move || begin(&dir, &placed, &id)).await?
    };

    let own = OWN.iter().map(|path| EntryPath::new(*path)).collect::<Result<Vec<_>>>()?;
    let kept = [MARKER, AUTO_CONF].iter().map(|path| EntryPath::new(*path)).collect::<Result<Vec<_>>>()?;
    let links = placed.iter().map(Placed::entry).collect::<Result<Vec<_>>>()?;
    let existing = if fresh { Existing::Refuse } else { Existing::Delta };
    let mut order = Extract::into_dir(&dir).with_except(own).with_existing(existing).with_keep(kept).with_keep(links);
    for tablespace in &placed {
        order = order.with_elsewhere(tablespace.entry()?, &tablespace.dir);
    }
    let mut extracted = cx.source().extract(order, cx.work()).await?;
    extracted.entries += 1;
    extracted.bytes += control.len() as u64;
    extracted.written_bytes += control.len() as u64;
    blocking(move || finish(&dir, &placed, &auto_conf, &control)).await?;
    let mut restored = Restored::new(extracted);
    restored.findings = findings;
    if record.snapshot.findings.iter().any(|f| f.code == "page-checksum") {
        let text = "the backup contains pages with wrong checksums, as its source did";
        restored.findings.push(Finding::new(Severity::Warning, "page-checksum", text));
    }
    Ok(restored)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("writing the data directory panicked").with_source(e))?
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|e| Error::io(path.display(), e))
}

fn sync_dir(dir: &Path) -> Result<()> {
    at(dir, File::open(dir).and_then(|dir| dir.sync_all()))
}

/// Writes a small file durably, under its name only when it is whole.
fn write(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let (path, staged) = (dir.join(name), dir.join(format!("{name}.restoring")));
    let folder = path.parent().unwrap_or(dir);
    remove(&staged)?;
    let mut file = at(&staged, OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged))?;
    at(&staged, file.write_all(content).and_then(|()| file.sync_all()))?;
    at(&path, fs::rename(&staged, &path))?;
    sync_dir(folder)
}

fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io(path.display(), e)),
    }
}

/// Makes the target unable to start and marks it. True when there was nothing in it.
fn begin(dir: &Path, placed: &[Placed], backup: &str) -> Result<bool> {
    let fresh = target::state(dir)? == target::State::Free;
    for folder in std::iter::once(dir).chain(placed.iter().map(|p| &*p.dir)) {
        if !folder.exists() {
            at(folder, fs::create_dir_all(folder))?;
        }
        at(folder, fs::set_permissions(folder, fs::Permissions::from_mode(0o700)))?;
    }
    if remove(&dir.join(CONTROL))? {
        sync_dir(&dir.join("global"))?;
    }
    write(dir, MARKER, format!("{backup}\n").as_bytes())?;
    // Links of tablespaces from before would lead a rewriting restore elsewhere.
    if let Ok(entries) = fs::read_dir(dir.join("pg_tblspc")) {
        for entry in entries {
            let entry = at(&dir.join("pg_tblspc"), entry)?;
            if at(&entry.path(), entry.file_type())?.is_symlink() {
                remove(&entry.path())?;
            }
        }
    }
    Ok(fresh)
}

/// Makes the target startable.
fn finish(dir: &Path, placed: &[Placed], auto_conf: &[u8], control: &[u8]) -> Result<()> {
    let links = dir.join("pg_tblspc");
    if !links.exists() {
        at(&links, fs::create_dir(&links))?;
    }
    for tablespace in placed {
        let link = links.join(tablespace.oid.to_string());
        // Extraction may have made the folder whose content went elsewhere.
        match fs::symlink_metadata(&link) {
            Ok(found) if found.is_dir() => at(&link, fs::remove_dir(&link))?,
            Ok(_) => at(&link, fs::remove_file(&link))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(link.display(), e)),
        }
        at(&link, std::os::unix::fs::symlink(&tablespace.dir, &link))?;
    }
    sync_dir(&links)?;
    write(dir, AUTO_CONF, &recovery_settings(auto_conf))?;
    write(dir, SIGNAL, b"")?;
    remove(&dir.join("recovery.signal"))?;
    adopt(dir, placed)?;
    write(dir, CONTROL, control)?;
    own_as(dir, &dir.join(CONTROL))?;
    remove(&dir.join(MARKER))?;
    sync_dir(dir)
}

/// `postgresql.auto.conf` with the settings of this restore, and without those of an earlier one.
fn recovery_settings(stored: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(stored.len() + 512);
    let mut inside = false;
    for line in stored.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        inside |= text == BEGIN.as_bytes();
        if !inside {
            out.extend_from_slice(line);
        }
        inside &= text != END.as_bytes();
    }
    if out.last().is_some_and(|byte| *byte != b'\n') {
        out.push(b'\n');
    }
    // The last setting of a name wins: whatever the source had configured for its own recovery must not act here.
    let settings = [
        ("primary_conninfo", ""),
        ("primary_slot_name", ""),
        ("restore_command", ""),
        ("archive_cleanup_command", ""),
        ("recovery_end_command", ""),
        ("recovery_target", "immediate"),
        ("recovery_target_lsn", ""),
        ("recovery_target_name", ""),
        ("recovery_target_time", ""),
        ("recovery_target_xid", ""),
        ("recovery_target_timeline", "current"),
        ("recovery_target_action", "promote"),
    ];
    out.extend_from_slice(format!("{BEGIN}\n").as_bytes());
    for (name, value) in settings {
        out.extend_from_slice(format!("{name} = '{value}'\n").as_bytes());
    }
    out.extend_from_slice(format!("{END}\n").as_bytes());
    out
}

/// Gives everything that root has written to the owner of the directory it was written into.
fn adopt(dir: &Path, placed: &[Placed]) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    for root in std::iter::once(dir).chain(placed.iter().map(|p| &*p.dir)) {
        let Some((uid, gid)) = target::owner(root).filter(|(uid, _)| *uid != 0) else { continue };
        let mut folders: Vec<PathBuf> = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in at(&folder, fs::read_dir(&folder))? {
                let entry = at(&folder, entry)?;
                let path = entry.path();
                at(&path, std::os::unix::fs::lchown(&path, Some(uid), Some(gid)))?;
                if at(&path, entry.file_type())?.is_dir() {
                    folders.push(path);
                }
            }
        }
    }
    Ok(())
}

fn own_as(dir: &Path, path: &Path) -> Result<()> {
    match target::owner(dir) {
        Some((uid, gid)) if uid != 0 && rustix::process::geteuid().is_root() => {
            at(path, std::os::unix::fs::lchown(path, Some(uid), Some(gid)))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_an_earlier_restore_are_replaced() {
        let once = recovery_settings(b"# Do not edit\nport = '5433'");
        let twice = recovery_settings(&once);
        assert_eq!(once, twice);
        let text = String::from_utf8(twice).unwrap();
        assert!(text.starts_with("# Do not edit\nport = '5433'\n# begin"), "{text}");
        assert_eq!(text.matches("recovery_target = 'immediate'").count(), 1);
    }
}
