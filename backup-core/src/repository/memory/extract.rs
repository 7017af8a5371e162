//! Writes entries into real directories.
//!
//! The order of the steps is the rule: refuse before anything is touched, take away what makes the target startable, write
//! everything else, remove what is foreign, make it durable, and only then write what makes it startable.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::content::{BLOCK, Manifest, StoredEntry};
use super::foreign;
use super::place::{Place, Places, what};
use crate::engine::{Existing, Extract, Extracted, Work};
use crate::entry::{EntryKind, EntryPath};
use crate::error::{Error, Result};
use crate::observe::{Phase, Unit};

pub(super) async fn extract(manifest: &Manifest, order: &Extract, work: &Work) -> Result<Extracted> {
    let places = Places::new(order)?;
    let mut job = Extraction::new(manifest, order, &places, work);
    job.refuse()?;
    let len = job.chosen.iter().map(|e| e.info.len).sum();
    work.started(Phase::Write, Some(len), Unit::Bytes);
    job.withdraw_last()?;
    job.folders()?;
    for entry in job.chosen.clone() {
        if entry.info.meta.kind == EntryKind::File && !order.last.contains(&entry.info.meta.path) {
            job.file(entry).await?;
        }
    }
    for entry in job.chosen.clone() {
        if let EntryKind::Symlink { target } = &entry.info.meta.kind {
            job.link(&entry.info.meta.path, target)?;
        }
    }
    if order.existing == Existing::Delta {
        job.done.removed = foreign::remove(manifest, order, &places)?;
    }
    job.folder_modes(|path| !order.last.iter().any(|l| l.is_within(path.as_bytes())))?;
    job.sync_folders()?;
    for entry in job.chosen.clone() {
        if entry.info.meta.kind == EntryKind::File && order.last.contains(&entry.info.meta.path) {
            job.file(entry).await?;
        }
    }
    job.folder_modes(|path| order.last.iter().any(|l| l.is_within(path.as_bytes())))?;
    job.sync_folders()?;
    work.ended(Phase::Write);
    Ok(job.done)
}

struct Extraction<'a> {
    order: &'a Extract,
    places: &'a Places,
    work: &'a Work,
    /// What is to be extracted, sorted by path.
    chosen: Vec<&'a StoredEntry>,
    /// Folders whose content changed.
    touched: BTreeSet<PathBuf>,
    done: Extracted,
}

impl<'a> Extraction<'a> {
    fn new(manifest: &'a Manifest, order: &'a Extract, places: &'a Places, work: &'a Work) -> Self {
        let chosen = manifest.values().map(AsRef::as_ref).filter(|e| {
            let meta = &e.info.meta;
            meta.kind != EntryKind::Record && order.selector.matches(&meta.path) && !order.except.contains(&meta.path)
        });
        Self { order, places, work, chosen: chosen.collect(), touched: BTreeSet::new(), done: Extracted::default() }
    }

    fn checkpoint(&self) -> Result<()> {
        self.work.checkpoint()
    }

    /// Everything that can be refused, is refused before anything is touched.
    fn refuse(&self) -> Result<()> {
        let solid: BTreeSet<&EntryPath> = self
            .chosen
            .iter()
            .filter(|e| e.info.meta.kind != EntryKind::Directory)
            .map(|e| &e.info.meta.path)
            .collect();
        for entry in &self.chosen {
            let path = &entry.info.meta.path;
            let mut above = path.parent();
            while let Some(folder) = above {
                if solid.contains(&folder) {
                    return Err(Error::damaged(format!("entry {path} lies below {folder}, which is no folder")));
                }
                above = folder.parent();
            }
            let place = self.places.locate(path);
            if let EntryKind::Symlink { target } = &entry.info.meta.kind
                && !place.may_link_to(target)
            {
                let target = target.escape_ascii();
                return Err(Error::invalid(format!(
                    "symbolic link {path} to {target} would leave the target directory"
                )));
            }
            if place.is_root() && entry.info.meta.kind != EntryKind::Directory {
                return Err(Error::invalid(format!("{path} goes to a directory of its own but is no folder")));
            }
            if self.order.existing == Existing::Refuse {
                if let Some(obstacle) = place.obstacle()? {
                    return Err(Error::invalid(format!("{} is in the way of entry {path}", obstacle.display())));
                }
                let folder = entry.info.meta.kind == EntryKind::Directory;
                if place.what()?.is_some_and(|kind| !(folder && kind.is_dir())) {
                    return Err(Error::invalid(format!("{} already exists", place.path().display())));
                }
            }
        }
        self.checkpoint()
    }

    /// Nothing of an earlier extraction may make a half-written target startable.
    fn withdraw_last(&mut self) -> Result<()> {
        for path in &self.order.last {
            let place = self.places.locate(path);
            if self.order.selector.matches(path) && place.what()?.is_some_and(|kind| !kind.is_dir()) {
                self.remove_file(&place.path())?;
                self.touch(&place);
            }
        }
        self.sync_folders()
    }

    fn folders(&mut self) -> Result<()> {
        for entry in self.chosen.clone() {
            let place = self.places.locate(&entry.info.meta.path);
            self.make_way(&place)?;
            if entry.info.meta.kind == EntryKind::Directory {
                self.done.entries += 1;
                if !place.is_root() {
                    self.folder(&place.path())?;
                    self.touch(&place);
                }
            }
        }
        Ok(())
    }

    /// Makes the folders above `place`, all of them real.
    fn make_way(&mut self, place: &Place<'_>) -> Result<()> {
        if let Some(obstacle) = place.obstacle()? {
            self.remove_file(&obstacle)?;
        }
        let Some(parent) = place.path().parent().map(Path::to_owned).filter(|_| !place.is_root()) else {
            return Ok(());
        };
        if what(&parent)?.is_none() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&parent);
            made.map_err(|e| Error::io(parent.display(), e))?;
        }
        Ok(())
    }

    /// Makes a folder that can be written into; its own mode comes at the end.
    fn folder(&self, path: &Path) -> Result<()> {
        match what(path)? {
            Some(kind) if kind.is_dir() => {
                let facts = fs::symlink_metadata(path).map_err(|e| Error::io(path.display(), e))?;
                let mode = Permissions::from_mode(facts.mode() & 0o7777 | 0o700);
                return fs::set_permissions(path, mode).map_err(|e| Error::io(path.display(), e));
            }
            Some(_) => self.remove_file(path)?,
            None => {}
        }
        DirBuilder::new().mode(0o700).create(path).map_err(|e| Error::io(path.display(), e))
    }

    fn folder_modes(&self, chosen: impl Fn(&EntryPath) -> bool) -> Result<()> {
        // Deepest first: a folder that becomes read-only hides nothing that is still to be changed.
        for entry in self.chosen.iter().rev() {
            let meta = &entry.info.meta;
            if meta.kind == EntryKind::Directory && chosen(&meta.path) {
                let path = self.places.locate(&meta.path).path();
                let mode = Permissions::from_mode(meta.mode);
                fs::set_permissions(&path, mode).map_err(|e| Error::io(path.display(), e))?;
            }
        }
        Ok(())
    }

    async fn file(&mut self, entry: &StoredEntry) -> Result<()> {
        self.checkpoint()?;
        tokio::task::yield_now().await;
        let place = self.places.locate(&entry.info.meta.path);
        let path = place.path();
        let named = |e: io::Error| Error::io(path.display(), e);
        self.make_way(&place)?;
        let file = match self.standing(&path)? {
            Some(file) => file,
            None => {
                self.touch(&place);
                OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(named)?
            }
        };
        let had = file.metadata().map_err(named)?.len();
        file.set_len(entry.info.len).map_err(named)?;
        let mut buffer = vec![0; BLOCK];
        for (number, block) in entry.blocks.iter().enumerate() {
            self.checkpoint()?;
            let offset = (number * BLOCK) as u64;
            let there = &mut buffer[..block.bytes.len()];
            // What lies behind the old end reads as zeros after it was enlarged, so holes need not be written.
            let known = if offset < had {
                file.read_exact_at(there, offset).map_err(named)?;
                there == block.bytes.as_ref()
            } else {
                block.session.is_none()
            };
            if !known {
                file.write_all_at(&block.bytes, offset).map_err(named)?;
                self.done.written_bytes += block.bytes.len() as u64;
            }
            self.work.advanced(if known { Phase::Compare } else { Phase::Write }, block.bytes.len() as u64);
        }
        file.set_permissions(Permissions::from_mode(entry.info.meta.mode)).map_err(named)?;
        file.sync_all().map_err(named)?;
        self.done.entries += 1;
        self.done.bytes += entry.info.len;
        Ok(())
    }

    /// The file that stands at `path` when it may be changed in place. Anything else there is taken away.
    fn standing(&self, path: &Path) -> Result<Option<File>> {
        let named = |e: io::Error| Error::io(path.display(), e);
        let Some(kind) = what(path)? else { return Ok(None) };
        if self.order.existing == Existing::Refuse {
            return Err(Error::invalid(format!("{} already exists", path.display())));
        }
        let facts = fs::symlink_metadata(path).map_err(named)?;
        // A file with a second name may be somebody else's.
        if kind.is_file() && facts.nlink() == 1 {
            let mode = Permissions::from_mode(facts.mode() & 0o7777 | 0o600);
            fs::set_permissions(path, mode).map_err(named)?;
            return OpenOptions::new().read(true).write(true).open(path).map(Some).map_err(named);
        }
        if kind.is_dir() {
            return Err(Error::invalid(format!("{} is a folder where the backup has a file", path.display())));
        }
        self.remove_file(path)?;
        Ok(None)
    }

    fn link(&mut self, path: &EntryPath, target: &[u8]) -> Result<()> {
        self.checkpoint()?;
        let place = self.places.locate(path);
        let at = place.path();
        self.make_way(&place)?;
        let target = Path::new(std::ffi::OsStr::from_bytes(target));
        self.done.entries += 1;
        if fs::read_link(&at).is_ok_and(|old| old == target) {
            return Ok(());
        }
        if what(&at)?.is_some() {
            self.remove_file(&at)?;
        }
        self.touch(&place);
        std::os::unix::fs::symlink(target, &at).map_err(|e| Error::io(at.display(), e))
    }

    /// Takes away what is in the way, which only a delta may do.
    fn remove_file(&self, path: &Path) -> Result<()> {
        if self.order.existing == Existing::Refuse {
            return Err(Error::invalid(format!("{} already exists", path.display())));
        }
        fs::remove_file(path).map_err(|e| Error::io(path.display(), e))
    }

    fn touch(&mut self, place: &Place<'_>) {
        self.touched
            .extend(place.path().ancestors().skip(1).take_while(|a| a.starts_with(place.dir())).map(Into::into));
    }

    fn sync_folders(&mut self) -> Result<()> {
        for folder in std::mem::take(&mut self.touched) {
            match File::open(&folder).and_then(|f| f.sync_all()) {
                Ok(()) => {}
                // Removed as foreign, or not readable by the mode that it was just given.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
                Err(e) => return Err(Error::io(folder.display(), e)),
            }
        }
        Ok(())
    }
}
