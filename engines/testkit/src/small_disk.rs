//! A file system that is soon full.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::scratch::scratch_dir;
use crate::unprivileged;

/// A file system in memory (`tmpfs`) of a few megabytes, mounted on a directory of its own; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Mounts one with room for `bytes`. None where this account may not mount: that is said on standard error, and the test is to be
    /// skipped, also under `BACKUP_TESTKIT=require`, since no package brings the right to mount.
    ///
    /// # Errors
    /// [`Error::Io`] when its directory cannot be made.
    pub fn mount(bytes: u64) -> Result<Option<Self>> {
        let dir = scratch_dir()?;
        if !mount(dir.path(), &format!("size={bytes},mode=755")) {
            let test = std::thread::current();
            // Not captured: a silent skip looks like a pass.
            let name = test.name().unwrap_or("a test");
            let _ = writeln!(std::io::stderr(), "\n*** SKIPPED {name}: this account may not mount a small tmpfs");
            return Ok(None);
        }
        let disk = Self { dir };
        unprivileged().own(disk.path())?;
        Ok(Some(disk))
    }

    /// Where it is mounted. It belongs to the servers' account.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves room for `more` files, folders and links beside those that there are, until it is said anew.
    ///
    /// # Errors
    /// [`Error::Io`] when the file system cannot be asked, [`Error::InvalidInput`] when it cannot be changed.
    pub fn leave_room_for(&self, more: u64) -> Result<()> {
        let found = rustix::fs::statvfs(self.path()).map_err(|e| Error::io("ask", self.path())(e.into()))?;
        let files = found.f_files - found.f_ffree + more;
        match mount(self.path(), &format!("remount,nr_inodes={files}")) {
            true => Ok(()),
            false => Err(Error::invalid(format!("{} does not take a limit of {files} files", self.path().display()))),
        }
    }
}

fn mount(dir: &Path, options: &str) -> bool {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What still has a file open on it keeps it until then.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            let _ = writeln!(std::io::stderr(), "{} stays mounted", self.path().display());
        }
    }
}
