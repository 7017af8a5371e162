//! Ours and the others, each as a list of command lines.
//!
//! Same work, same terms as far as programs allow: zstd at its fastest level, encryption, as many threads as they take by
//! themselves (pgBackRest: as many processes as there are processors). Where one differs, its terms say so and are printed below
//! the figures.

mod basebackup;
mod kopia;
pub(crate) mod ours;
pub(crate) mod pgbackrest;
mod restic;
mod rustic;
mod walg;

pub(crate) use basebackup::BaseBackup;
pub(crate) use kopia::Kopia;
pub(crate) use restic::Restic;
pub(crate) use rustic::Rustic;
pub(crate) use walg::WalG;

use std::path::{Path, PathBuf};

use crate::Error;

/// What everyone encrypts with; 32 bytes, as some want exactly so many.
pub(crate) const SECRET: &str = "a secret of the benches, 32 bytes";

/// The server that is backed up.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) data: PathBuf,
    pub(crate) sockets: PathBuf,
    pub(crate) port: u16,
    pub(crate) url: String,
}

/// A directory of a contender's own, with a repository, a place to restore into, and a home.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    dir: PathBuf,
}

impl Place {
    /// Below `base`, which is the scenario's.
    pub(crate) fn new(base: &Path, name: &str) -> Self {
        Self { dir: base.join(name) }
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.dir.join("repository")
    }

    pub(crate) fn restored(&self) -> PathBuf {
        self.dir.join("restored")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    /// Makes it, without a repository.
    pub(crate) fn make(&self) -> Result<(), Error> {
        std::fs::create_dir_all(self.home())?;
        Ok(())
    }

    /// An empty directory to restore into, whatever there was.
    pub(crate) fn make_restored(&self) -> Result<PathBuf, Error> {
        let dir = self.restored();
        remove(&dir)?;
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    pub(crate) fn remove(&self) -> Result<(), Error> {
        remove(&self.dir)
    }
}

fn remove(dir: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
