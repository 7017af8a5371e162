//! A clock that a test moves under a running server.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::scratch::scratch_dir;

/// Stands between the server and the C library. Compiled when a test asks for it, in a second.
const SOURCE: &str = include_str!("clock.c");

/// The time of day of a server: the real one, and as many seconds as the test says. Give it to
/// [`PostgresBuilder::clock`](super::PostgresBuilder::clock).
#[derive(Debug)]
pub struct ServerClock {
    home: TempDir,
    offset: std::fs::File,
}

impl ServerClock {
    /// A clock that goes right. Blocks while it is compiled.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where there is no C compiler, or no loader that puts a library before others.
    pub fn new() -> Result<Self> {
        const NAME: &str = "a clock that can be moved";
        if !cfg!(target_os = "linux") {
            return Err(Error::unavailable(NAME, "it is made for Linux"));
        }
        let home = scratch_dir()?;
        let source = home.path().join("clock.c");
        std::fs::write(&source, SOURCE).map_err(Error::io("write", &source))?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(library(home.path())).arg(&source);
        let compiled = compiler
            .output()
            .map_err(|error| Error::unavailable_because(NAME, "there is no C compiler called cc", error))?;
        if !compiled.status.success() {
            return Err(Error::unavailable(NAME, String::from_utf8_lossy(&compiled.stderr)));
        }
        let path = offset(home.path());
        let offset = std::fs::File::create_new(&path).map_err(Error::io("create", &path))?;
        let clock = Self { home, offset };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets the server's clock to so many seconds after the real time; before it, if negative.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set(&self, seconds: i64) -> Result<()> {
        let path = offset(self.home.path());
        self.offset.write_all_at(&seconds.to_ne_bytes(), 0).map_err(Error::io("write", &path))
    }

    /// What a server's environment has to say.
    pub(super) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![("LD_PRELOAD", library(self.home.path())), ("BACKUP_TESTKIT_CLOCK", offset(self.home.path()))]
    }
}

fn library(home: &Path) -> PathBuf {
    home.join("clock.so")
}

fn offset(home: &Path) -> PathBuf {
    home.join("offset")
}
