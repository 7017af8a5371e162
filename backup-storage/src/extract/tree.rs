//! The only way from extraction to the file system.
//!
//! Every folder is opened relative to the folder above it, and never through a symbolic link; files are opened relative to
//! their folder, likewise. So no link in the target, whether it lies there from the start or is put there meanwhile, leads a
//! write out of the directories of the order. Everything here blocks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::place::{Place, Places};
use crate::error::{Error, Result};

/// How many folders are kept open.
const OPEN_FOLDERS: usize = 128;

/// The directories of an order, opened.
pub(super) struct Tree {
    pub(super) places: Places,
    /// Whether what is in the way is removed.
    replace: bool,
    roots: Vec<Arc<OwnedFd>>,
    open: Mutex<HashMap<Place, Arc<OwnedFd>>>,
    /// One open folder of every file system that was met.
    devices: Mutex<BTreeMap<u64, Arc<OwnedFd>>>,
    /// Folders in which names came or went.
    changed: Mutex<BTreeSet<Place>>,
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

impl Tree {
    /// Opens the directories of `places`.
    pub(super) fn new(places: Places, replace: bool) -> Result<Self> {
        let mut roots = Vec::new();
        for root in &places.roots {
            let opened = rustix::fs::open(&root.dir, folder_flags(), Mode::empty());
            roots.push(Arc::new(opened.map_err(|e| failed(root.dir.display(), e))?));
        }
        let tree = Self {
            places,
            replace,
            roots,
            open: Mutex::default(),
            devices: Mutex::default(),
            changed: Mutex::default(),
        };
        for (number, root) in tree.roots.iter().enumerate() {
            tree.note_device(&Place { root: number, below: Vec::new() }, root)?;
        }
        Ok(tree)
    }

    /// An error met at `place`. Whatever it is, somebody has to look at the target.
    pub(super) fn failed(&self, place: &Place, error: impl Into<std::io::Error>) -> Error {
        failed(self.places.path(place).display(), error)
    }

    fn note_device(&self, place: &Place, folder: &Arc<OwnedFd>) -> Result<()> {
        let facts = rustix::fs::fstat(&**folder).map_err(|e| self.failed(place, e))?;
        self.devices.lock().entry(facts.st_dev).or_insert_with(|| Arc::clone(folder));
        Ok(())
    }

    /// The folders in which names came or went since the last call.
    pub(super) fn take_changed(&self) -> BTreeSet<Place> {
        std::mem::take(&mut *self.changed.lock())
    }

    /// Notes that names came or went in the folder of `place`.
    fn change(&self, place: &Place) {
        if let Some(folder) = place.folder() {
            self.changed.lock().insert(folder);
        }
    }

    /// Whether every directory of the order is empty.
    pub(super) fn is_empty(&self) -> Result<bool> {
        for root in 0..self.roots.len() {
            if !self.names(&Place { root, below: Vec::new() })?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The folder at `place`. `None` when it does not exist, or something else stands there or above it.
    pub(super) fn folder(&self, place: &Place) -> Result<Option<Arc<OwnedFd>>> {
        self.walk(place, |_, _| Ok(None))
    }

    /// The folder at `place`, made together with those above it where they are missing. What is in the way of one is
    /// removed where the order allows that.
    pub(super) fn make_folder(&self, place: &Place) -> Result<Arc<OwnedFd>> {
        let made = self.walk(place, |above, at| {
            if let Some(facts) = self.stat_in(above, at)? {
                if FileType::from_raw_mode(facts.st_mode).is_dir() {
                    // It is there, but may not be read.
                    let mode = Mode::from_raw_mode(facts.st_mode & 0o7777 | 0o700);
                    rustix::fs::chmodat(above, name(at), mode, AtFlags::empty()).map_err(|e| self.failed(at, e))?;
                    return self.open_in(above, at).map(Some).map_err(|e| self.failed(at, e));
                }
                self.unlink_in(above, at)?;
            }
            match rustix::fs::mkdirat(above, name(at), Mode::RWXU) {
                Ok(()) => self.change(at),
                Err(Errno::EXIST) => {}
                Err(e) => return Err(self.failed(at, e)),
            }
            self.open_in(above, at).map(Some).map_err(|e| self.failed(at, e))
        })?;
        made.ok_or_else(|| Error::internal(format!("folder {} was not made", self.places.path(place).display())))
    }

    fn open_in(&self, above: &OwnedFd, at: &Place) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(above, name(at), folder_flags(), Mode::empty())
    }

    /// Goes down to `place`, asking `missing` where a folder cannot be opened.
    fn walk(
        &self,
        place: &Place,
        missing: impl Fn(&OwnedFd, &Place) -> Result<Option<OwnedFd>>,
    ) -> Result<Option<Arc<OwnedFd>>> {
        // The lowest folder on the way that is open.
        let mut way = Vec::new();
        let mut at = place.clone();
        let mut folder = loop {
            if at.is_root() {
                break Arc::clone(&self.roots[at.root]);
            }
            if let Some(open) = self.open.lock().get(&at) {
                break Arc::clone(open);
            }
            let above = at.folder().ok_or_else(|| Error::internal("a place has no folder above it"))?;
            way.push(std::mem::replace(&mut at, above));
        };
        while let Some(at) = way.pop() {
            let next = match self.open_in(&folder, &at) {
                Ok(next) => next,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::MLINK | Errno::ACCESS) => {
                    match missing(&folder, &at)? {
                        Some(next) => next,
                        None => return Ok(None),
                    }
                }
                Err(e) => return Err(self.failed(&at, e)),
            };
            folder = Arc::new(next);
            self.note_device(&at, &folder)?;
            let mut open = self.open.lock();
            if open.len() >= OPEN_FOLDERS {
                // Places come in order: what was open is mostly behind us.
                open.clear();
            }
            open.insert(at, Arc::clone(&folder));
        }
        Ok(Some(folder))
    }

    fn stat_in(&self, folder: &OwnedFd, place: &Place) -> Result<Option<Stat>> {
        match rustix::fs::statat(folder, name(place), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(facts) => Ok(Some(facts)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.failed(place, e)),
        }
    }

    /// What stands at `place`. `None` when nothing does, or when what is above is no folder.
    pub(super) fn stat(&self, place: &Place) -> Result<Option<Stat>> {
        let Some(above) = place.folder() else {
            return rustix::fs::fstat(&*self.roots[place.root]).map(Some).map_err(|e| self.failed(place, e));
        };
        match self.folder(&above)? {
            Some(folder) => self.stat_in(&folder, place),
            None => Ok(None),
        }
    }

    /// The topmost thing above `place` that is in the way because it is no folder.
    pub(super) fn obstacle(&self, place: &Place) -> Result<Option<Place>> {
        let mut above: Vec<_> = std::iter::successors(place.folder(), Place::folder).filter(|p| !p.is_root()).collect();
        while let Some(folder) = above.pop() {
            match self.stat(&folder)? {
                None => return Ok(None),
                Some(facts) if FileType::from_raw_mode(facts.st_mode).is_dir() => {}
                Some(_) => return Ok(Some(folder)),
            }
        }
        Ok(None)
    }

    fn above(&self, place: &Place) -> Result<Arc<OwnedFd>> {
        let folder = place.folder().ok_or_else(|| self.occupied(place))?;
        self.make_folder(&folder)
    }

    /// Makes a file that does not exist.
    ///
    /// # Errors
    /// InvalidInput when something stands there.
    pub(super) fn create(&self, place: &Place) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&*self.above(place)?, name(place), flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => {
                self.change(place);
                Ok(file.into())
            }
            Err(Errno::EXIST) => Err(self.occupied(place)),
            Err(e) => Err(self.failed(place, e)),
        }
    }

    /// Opens a file that exists and is no symbolic link.
    pub(super) fn open(&self, place: &Place) -> Result<File> {
        let folder = self.above(place)?;
        // Whatever else it has become, opening it does not wait.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match rustix::fs::openat(&*folder, name(place), flags, Mode::empty()) {
            Err(Errno::ACCESS) => {
                if let Some(facts) = self.stat_in(&folder, place)?
                    && FileType::from_raw_mode(facts.st_mode).is_file()
                {
                    let mode = Mode::from_raw_mode(facts.st_mode & 0o7777 | 0o600);
                    rustix::fs::chmodat(&*folder, name(place), mode, AtFlags::empty())
                        .map_err(|e| self.failed(place, e))?;
                }
                rustix::fs::openat(&*folder, name(place), flags, Mode::empty())
            }
            other => other,
        };
        let file: File = opened.map_err(|e| self.failed(place, e))?.into();
        if !file.metadata().map_err(|e| self.failed(place, e))?.is_file() {
            return Err(self.occupied(place));
        }
        Ok(file)
    }

    /// Makes a symbolic link where nothing stands.
    pub(super) fn link(&self, place: &Place, target: &[u8]) -> Result<()> {
        let folder = self.above(place)?;
        match rustix::fs::symlinkat(OsStr::from_bytes(target), &*folder, name(place)) {
            Ok(()) => {
                self.change(place);
                Ok(())
            }
            Err(Errno::EXIST) => Err(self.occupied(place)),
            Err(e) => Err(self.failed(place, e)),
        }
    }

    /// Where the symbolic link at `place` leads.
    pub(super) fn read_link(&self, place: &Place) -> Result<Vec<u8>> {
        let target = rustix::fs::readlinkat(&*self.above(place)?, name(place), Vec::new());
        Ok(target.map_err(|e| self.failed(place, e))?.into_bytes())
    }

    /// Removes what stands at `place` and is no folder. Nothing there is fine too.
    ///
    /// # Errors
    /// InvalidInput when the order does not allow that.
    pub(super) fn unlink(&self, place: &Place) -> Result<()> {
        let Some(folder) = place.folder().map(|above| self.folder(&above)).transpose()?.flatten() else {
            return Ok(());
        };
        self.unlink_in(&folder, place)
    }

    fn unlink_in(&self, folder: &OwnedFd, place: &Place) -> Result<()> {
        if !self.replace {
            return Err(self.occupied(place));
        }
        match rustix::fs::unlinkat(folder, name(place), AtFlags::empty()) {
            Ok(()) => {
                self.change(place);
                Ok(())
            }
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.failed(place, e)),
        }
    }

    /// Removes the folder at `place` if it is empty.
    pub(super) fn remove_empty_folder(&self, place: &Place) -> Result<()> {
        let Some(folder) = place.folder().map(|above| self.folder(&above)).transpose()?.flatten() else {
            return Ok(());
        };
        self.open.lock().remove(place);
        match rustix::fs::unlinkat(&*folder, name(place), AtFlags::REMOVEDIR) {
            Ok(()) => {
                self.change(place);
                self.changed.lock().remove(place);
                Ok(())
            }
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(e) => Err(self.failed(place, e)),
        }
    }

    /// Removes what stands at `place`, folders with all that is in them.
    ///
    /// # Errors
    /// InvalidInput when the order does not allow that.
    pub(super) fn clear(&self, place: &Place) -> Result<()> {
        let Some(facts) = self.stat(place)? else { return Ok(()) };
        if !FileType::from_raw_mode(facts.st_mode).is_dir() {
            return self.unlink(place);
        }
        if !self.replace || place.is_root() {
            return Err(self.occupied(place));
        }
        let mut stack = vec![(place.clone(), false)];
        while let Some((at, emptied)) = stack.pop() {
            if emptied {
                self.remove_empty_folder(&at)?;
                continue;
            }
            stack.push((at.clone(), true));
            for (name, folder) in self.names(&at)? {
                let inside = at.inside(&name);
                if folder { stack.push((inside, false)) } else { self.unlink(&inside)? }
            }
        }
        Ok(())
    }

    /// Lets names come and go in `folder` until it gets its final mode.
    pub(super) fn make_writable(&self, place: &Place, folder: &OwnedFd) -> Result<()> {
        let mode = rustix::fs::fstat(folder).map_err(|e| self.failed(place, e))?.st_mode & 0o7777;
        if mode & 0o700 == 0o700 { Ok(()) } else { self.set_folder_mode(place, folder, mode | 0o700) }
    }

    /// Gives `folder`, which is the one at `place`, permission bits.
    pub(super) fn set_folder_mode(&self, place: &Place, folder: &OwnedFd, mode: u32) -> Result<()> {
        rustix::fs::fchmod(folder, Mode::from_raw_mode(mode & 0o7777)).map_err(|e| self.failed(place, e))
    }

    /// Makes the file at `place` durable. False when it may not be opened for that.
    pub(super) fn sync_file(&self, place: &Place) -> Result<bool> {
        let Some(folder) = place.folder().map(|above| self.folder(&above)).transpose()?.flatten() else {
            return Ok(false);
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(&*folder, name(place), flags, Mode::empty()) {
            Ok(file) => rustix::fs::fsync(file).map(|()| true).map_err(|e| self.failed(place, e)),
            Err(Errno::ACCESS) => Ok(false),
            Err(e) => Err(self.failed(place, e)),
        }
    }

    /// Makes everything durable that was written to the file systems of the order.
    pub(super) fn sync_everything(&self) -> Result<()> {
        #[cfg(target_os = "linux")]
        for folder in self.devices.lock().values() {
            rustix::fs::syncfs(&**folder)
                .map_err(|e| failed("a file system of the target cannot be written out", e))?;
        }
        #[cfg(not(target_os = "linux"))]
        rustix::fs::sync();
        Ok(())
    }

    /// The names in the folder at `place`, sorted, and which of them are folders.
    pub(super) fn names(&self, place: &Place) -> Result<Vec<(Vec<u8>, bool)>> {
        let Some(folder) = self.folder(place)? else { return Ok(Vec::new()) };
        let listing = rustix::fs::Dir::read_from(&*folder).map_err(|e| self.failed(place, e))?;
        let mut names = Vec::new();
        for item in listing {
            let item = item.map_err(|e| self.failed(place, e))?;
            let name = item.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = match item.file_type() {
                // Some file systems do not say.
                FileType::Unknown => match self.stat_in(&folder, &place.inside(name))? {
                    Some(facts) => FileType::from_raw_mode(facts.st_mode),
                    None => continue,
                },
                kind => kind,
            };
            names.push((name.to_vec(), kind.is_dir()));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Something stands where it must not.
    pub(super) fn occupied(&self, place: &Place) -> Error {
        Error::invalid(format!("{} already exists", self.places.path(place).display()))
    }
}

impl Place {
    /// The place of `name` in the folder at this place.
    pub(super) fn inside(&self, name: &[u8]) -> Self {
        let mut below = self.below.clone();
        if !below.is_empty() {
            below.push(b'/');
        }
        below.extend_from_slice(name);
        Self { root: self.root, below }
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("places", &self.places).finish_non_exhaustive()
    }
}

fn name(place: &Place) -> &OsStr {
    OsStr::from_bytes(place.name())
}

fn failed(what: impl fmt::Display, error: impl Into<std::io::Error>) -> Error {
    let error = error.into();
    Error::environment(format!("{what}: {error}")).with_source(error)
}
