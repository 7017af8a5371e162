//! Writing a cluster.
//!
//! The target cannot be started before it is whole and durable: `global/pg_control` is removed first and put in place last.
//! Until then a marker names the backup, so that the same restore can be repeated and fetches only what is missing.
//!
//! The restored cluster replays the log that the backup contains up to the backup's end and becomes a primary on a timeline
//! of its own, so that its log can never be mistaken for the source's. It is started as a standby without a source, with the
//! last record of the backup as target and the action `promote` ("Recovery Target" in the manual): there is no command to
//! run, and a log that ends too early cannot be mistaken for the whole.
//!
//! These settings must not outlive the recovery: a standby that is made of the restored server would promote itself. They
//! stand in `standby.signal`, whose content the server ignores and which it removes when recovery has ended, and
//! `postgresql.auto.conf` includes that file if it exists. See `docs/decisions/0005-postgres-restore.md`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::engine::{Existing, Extract, RestoreContext, Restored};
use backup_core::entry::EntryPath;
use backup_core::{BackupId, BackupSourceExt, Error, Finding, Goal, Result, Severity};

use super::facts::Facts;
use super::recovery::Recovery;
use super::serve::Serving;
use super::settings::{PostgresSettings, Replay};
use super::supply::Supply;
use super::target::{self, MARKER, Placed};
use super::{assess, ending, pages, replay, stop};
use crate::control::ControlFile;
use crate::disk::{at, blocking, remove, sync_dir, write};

const CONTROL: &str = "global/pg_control";
pub(super) const AUTO_CONF: &str = "postgresql.auto.conf";
pub(super) const SIGNAL: &str = "standby.signal";
/// What a restore adds to `postgresql.auto.conf`.
const INCLUDE: [&str; 2] = [
    "# recovery settings of a restore; the server removes the file when recovery has ended",
    "include_if_exists 'standby.signal'",
];
/// Files that would have the server do something else than what is restored here: recover from another place, or make links
/// of tablespaces as they were. Neither taken from the backup nor left in the target.
const MISLEADING: [&str; 3] = [SIGNAL, "recovery.signal", "tablespace_map"];

/// Writes the context's source into the data directory.
pub(super) async fn restore(settings: &PostgresSettings, cx: &RestoreContext) -> Result<Restored> {
    let findings = assess::assess(settings, cx).await?;
    if let Some(blocker) = findings.iter().find(|f| f.severity == Severity::Blocker) {
        return Err(blocker.refusal("the restore"));
    }
    let record = cx.source().record();
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
    let supply = supply(cx, &facts).await?;
    let mut recovery = match &supply {
        Some(supply) => Recovery::to(supply.stop(), facts.timeline, settings.target_action),
        None => Recovery { last_record: ending::last_record(&**cx.source(), &facts).await?, ..Recovery::default() },
    };
    let target = Order { backup: record.id, dir, placed, mode: facts.mode };
    let fresh = {
        let target = target.clone();
        blocking(move || target.begin()).await?
    };

    let own =
        [CONTROL, AUTO_CONF].iter().chain(&MISLEADING).map(|path| EntryPath::new(*path)).collect::<Result<Vec<_>>>()?;
    let kept = [MARKER, AUTO_CONF].iter().map(|path| EntryPath::new(*path)).collect::<Result<Vec<_>>>()?;
    let links = target.placed.iter().map(Placed::entry).collect::<Result<Vec<_>>>()?;
    let existing = if fresh { Existing::Refuse } else { Existing::Delta };
    let mut order =
        Extract::into_dir(&target.dir).with_except(own).with_existing(existing).with_keep(kept).with_keep(links);
    for tablespace in &target.placed {
        order = order.with_elsewhere(tablespace.entry()?, &tablespace.dir);
    }
    let mut extracted = cx.source().extract(order, cx.work()).await?;
    extracted.entries += 1;
    extracted.bytes += control.len() as u64;
    extracted.written_bytes += control.len() as u64;
    let startable = target.dir.join("postgresql.conf");
    if let Some(supply) = &supply {
        let (own, dir, mode) = (supply.clone(), target.dir.clone(), target.file_mode());
        blocking(move || replay::histories(&own, &dir, mode)).await?;
    }
    let mut serving = None;
    match (&supply, settings.replay) {
        (Some(supply), Replay::Files) => {
            extracted.written_bytes += replay::segments(supply, &target.dir, target.file_mode(), cx.work()).await?;
        }
        (Some(supply), Replay::Serve) => {
            let started = Serving::start(supply, &record.snapshot.version, cx.work()).await?;
            recovery.conninfo = Some(started.conninfo());
            serving = Some(started);
        }
        (None, _) => {}
    }
    recovery.action = settings.target_action;
    let dir = target.dir.clone();
    blocking(move || target.finish(&auto_conf, &control, &recovery)).await?;
    if let Some(serving) = serving {
        serving.wait(&dir, SIGNAL, settings.target_action, cx.work()).await?;
    }
    let mut restored = Restored::new(extracted);
    restored.findings = findings;
    if !startable.exists() {
        let text = "is not part of the backup, the source had it elsewhere: give the server one before it is started";
        restored.findings.push(Finding::new(Severity::Warning, "no-configuration", text).about("postgresql.conf"));
    }
    if record.snapshot.findings.iter().any(|f| f.code == pages::CODE) {
        let text = "the backup contains pages with wrong checksums, as its source did";
        restored.findings.push(Finding::new(Severity::Warning, pages::CODE, text));
    }
    Ok(restored)
}

/// The log behind the backup up to the target. None when the restore ends with the backup itself.
///
/// # Errors
/// InvalidInput when the target cannot be reached.
pub(super) async fn supply(cx: &RestoreContext, facts: &Facts) -> Result<Option<Supply>> {
    let record = cx.source().record();
    match (cx.log(), &cx.target().goal) {
        (_, Goal::Backup(id)) if *id == record.id => Ok(None),
        (None, Goal::Latest) => Ok(None),
        (Some(log), _) => {
            let stop = stop::resolve(log, cx.target()).await?;
            Ok(stop.map(|stop| Supply::new(Arc::clone(cx.source()), log.clone(), facts.clone(), stop)))
        }
        (None, goal) => {
            // A window of one moment: the end of the backup, which the caller has found to be the target.
            let end = &record.snapshot.stop;
            match goal {
                Goal::Position(_) | Goal::Time(_) if end.is_some() => Ok(None),
                _ => Err(Error::invalid(format!("{} cannot be reached from a backup without a log", cx.target()))),
            }
        }
    }
}

/// What is to be written where.
#[derive(Debug, Clone)]
struct Order {
    backup: BackupId,
    dir: PathBuf,
    placed: Vec<Placed>,
    /// Permissions of the data directory.
    mode: u32,
}

impl Order {
    /// The data directory and those of the tablespaces.
    fn roots(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&*self.dir).chain(self.placed.iter().map(|tablespace| &*tablespace.dir))
    }

    /// Permissions of files that belong to everyone who may enter the data directory.
    fn file_mode(&self) -> u32 {
        self.mode & 0o660
    }

    /// Makes the target unable to start and marks it. True when there was nothing in it.
    fn begin(&self) -> Result<bool> {
        let fresh = target::state(&self.dir)? == target::State::Free;
        for folder in self.roots() {
            at(folder, fs::create_dir_all(folder))?;
            at(folder, fs::set_permissions(folder, fs::Permissions::from_mode(0o700)))?;
        }
        if remove(&self.dir.join(CONTROL))? {
            sync_dir(&self.dir.join("global"))?;
        }
        for folder in self.roots() {
            write(folder, MARKER, format!("{}\n", self.backup).as_bytes(), 0o600)?;
        }
        for name in MISLEADING {
            remove(&self.dir.join(name))?;
        }
        // Links of tablespaces from before would lead a rewriting restore elsewhere. They go after the marks, by which a
        // repeated restore knows the directories again.
        if let Ok(entries) = fs::read_dir(self.dir.join("pg_tblspc")) {
            for entry in entries {
                let entry = at(&self.dir.join("pg_tblspc"), entry)?;
                if at(&entry.path(), entry.file_type())?.is_symlink() {
                    remove(&entry.path())?;
                }
            }
        }
        Ok(fresh)
    }

    /// Makes the target startable.
    fn finish(&self, stored_auto_conf: &[u8], control: &[u8], recovery: &Recovery) -> Result<()> {
        let (dir, mode) = (&*self.dir, self.file_mode());
        let links = dir.join("pg_tblspc");
        at(&links, fs::create_dir_all(&links))?;
        for tablespace in &self.placed {
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
        let in_place = at(&links, in_place(&links))?;
        write(dir, SIGNAL, recovery.text(in_place).as_bytes(), mode)?;
        write(dir, AUTO_CONF, &auto_conf(stored_auto_conf), mode)?;
        for folder in self.roots() {
            adopt(folder)?;
            at(folder, fs::set_permissions(folder, fs::Permissions::from_mode(self.mode)))?;
            if folder != dir {
                remove(&folder.join(MARKER))?;
                sync_dir(folder)?;
            }
        }
        write(dir, CONTROL, control, mode)?;
        if let Some((uid, gid)) = heir(dir) {
            let path = dir.join(CONTROL);
            at(&path, std::os::unix::fs::lchown(&path, Some(uid), Some(gid)))?;
        }
        remove(&dir.join(MARKER))?;
        sync_dir(dir)
    }
}

/// `postgresql.auto.conf` with the inclusion of the signal file, once.
pub(super) fn auto_conf(stored: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(stored.len() + 256);
    for line in stored.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if !INCLUDE.iter().any(|own| own.as_bytes() == text) {
            out.extend_from_slice(line);
        }
    }
    if out.last().is_some_and(|byte| *byte != b'\n') {
        out.push(b'\n');
    }
    // At the end: the last setting of a name wins.
    for line in INCLUDE {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    out
}

/// Whether a tablespace lies in `pg_tblspc` itself.
fn in_place(links: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(links)? {
        if entry?.file_type()?.is_dir() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// To whom root gives what it has written into `root`: the owner of the directory, unless that is root too.
fn heir(root: &Path) -> Option<(u32, u32)> {
    target::owner(root).filter(|(uid, _)| *uid != 0 && rustix::process::geteuid().is_root())
}

/// Gives everything that root has written into `root` to its heir.
fn adopt(root: &Path) -> Result<()> {
    let Some((uid, gid)) = heir(root) else { return Ok(()) };
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inclusion_of_an_earlier_restore_is_replaced() {
        let once = auto_conf(b"# Do not edit\nport = '5433'");
        assert_eq!(once, auto_conf(&once));
        let text = String::from_utf8(once).unwrap();
        assert!(text.starts_with("# Do not edit\nport = '5433'\n# recovery"), "{text}");
        assert!(text.ends_with("\ninclude_if_exists 'standby.signal'\n"), "{text}");
        assert_eq!(auto_conf(b"").split(|b| *b == b'\n').count(), 3);
    }
}
