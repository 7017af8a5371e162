//! Who the servers run as.
//!
//! PostgreSQL refuses to run as root (`src/backend/main/main.c`, `check_root`), and a test should not give a database
//! more rights than production does. So: not root → servers run as the caller. Root → servers run as the account
//! `nobody`, or the one named by `BACKUP_TESTKIT_USER`. The account must be listed in `/etc/passwd`, because
//! `initdb` looks its own name up even when it is told another superuser name.

use std::os::unix::fs::{MetadataExt, chown, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::error::{Error, Result};

/// The account that servers run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    drop: bool,
}

/// The account that servers run as on this machine: the caller, or an unprivileged account when the caller is root.
///
/// Tests use it to hand a restored directory to the server: `testkit::unprivileged().own_tree(&dir)`.
///
/// # Panics
/// When run as root and the account of `BACKUP_TESTKIT_USER` (default `nobody`) is missing from `/etc/passwd`, or is
/// root itself.
#[must_use]
pub fn unprivileged() -> Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    *IDENTITY.get_or_init(|| {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if !uid.is_root() {
            return Identity { uid: uid.as_raw(), gid: gid.as_raw(), drop: false };
        }
        let name = std::env::var("BACKUP_TESTKIT_USER").unwrap_or_else(|_| "nobody".to_owned());
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        match account(&passwd, &name) {
            Some((uid, gid)) if uid != 0 => Identity { uid, gid, drop: true },
            Some(_) => panic!("account {name} is root; set BACKUP_TESTKIT_USER to an unprivileged account"),
            None => panic!("account {name} is not in /etc/passwd; set BACKUP_TESTKIT_USER to an unprivileged account"),
        }
    })
}

/// Finds uid and gid of `name` in the text of a passwd file (`name:password:uid:gid:…`, passwd(5)).
fn account(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

impl Identity {
    /// Whether starting a process means dropping root first.
    #[must_use]
    pub fn drops_root(&self) -> bool {
        self.drop
    }

    /// Makes `command` run as this account. Supplementary groups are dropped with root.
    pub fn apply<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        if self.drop {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Gives one file or directory to this account; nothing to do when not root.
    ///
    /// # Errors
    /// The operating system's.
    pub fn own(&self, path: &Path) -> Result<()> {
        if self.drop {
            chown(path, Some(self.uid), Some(self.gid)).map_err(Error::io("chown", path))?;
        }
        Ok(())
    }

    /// Gives a whole tree to this account, without following symbolic links; nothing to do when not root.
    ///
    /// # Errors
    /// The operating system's.
    pub fn own_tree(&self, path: &Path) -> Result<()> {
        if !self.drop {
            return Ok(());
        }
        lchown(path, Some(self.uid), Some(self.gid)).map_err(Error::io("chown", path))?;
        if path.symlink_metadata().map_err(Error::io("stat", path))?.is_dir() {
            for entry in std::fs::read_dir(path).map_err(Error::io("list", path))? {
                self.own_tree(&entry.map_err(Error::io("list", path))?.path())?;
            }
        }
        Ok(())
    }

    /// The first directory on the way to `path` that this account can't pass, if any.
    ///
    /// Only the permission bits are looked at, which is what decides on the directories that caches live in.
    #[must_use]
    pub fn blocked_at(&self, path: &Path) -> Option<std::path::PathBuf> {
        if !self.drop {
            return None;
        }
        let path = path.canonicalize().ok()?;
        let mut ancestors: Vec<_> = path.ancestors().collect();
        ancestors.reverse();
        ancestors.into_iter().find(|dir| !self.may_enter(dir)).map(Path::to_owned)
    }

    fn may_enter(&self, dir: &Path) -> bool {
        let Ok(meta) = dir.metadata() else { return false };
        let mode = meta.mode();
        let bit = if meta.uid() == self.uid {
            0o100
        } else if meta.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        mode & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_exact_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody2:x:7:8::/:\nnobody:x:65534:65533:n:/:/bin/false\nbroken\n";
        assert_eq!(account(passwd, "nobody"), Some((65534, 65533)));
        assert_eq!(account(passwd, "root"), Some((0, 0)));
        assert_eq!(account(passwd, "broken"), None);
        assert_eq!(account(passwd, "absent"), None);
    }
}
