//! The users as a file beside the data, for a server whose `aclfile` names it.
//!
//! It has to be there before the data are: a server that starts in between would be open to whom it was not. So a restore that dies
//! in between leaves it without data. The next one has to know it from a file of somebody else, and does so by a second name of the
//! same file, which is removed when the data are there: nobody else makes a link of that name to it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use backup_core::Result;
use bytes::Bytes;

use super::files::{blocking, create};

/// What it is called.
pub(super) const USERS_FILE: &str = "users.acl";
/// Its second name, until the data are there.
const SECOND: &str = ".users.acl.partial";

/// The file of a restore that is not at its end. It goes when the restore ends before the data begin to be shown.
#[derive(Debug)]
pub(super) struct UsersFile {
    dir: PathBuf,
    /// Whether it goes with us.
    goes: bool,
}

impl UsersFile {
    /// Writes it into `dir`, in place of one that was left behind.
    pub(super) async fn write(dir: &Path, users: Bytes) -> Result<Self> {
        let made = dir.to_owned();
        blocking(move || {
            remove(&made)?;
            let second = made.join(SECOND);
            let mut file = create(&second, &made)?;
            file.write_all(&users)?;
            file.sync_all()?;
            fs::hard_link(&second, made.join(USERS_FILE))
        })
        .await?;
        Ok(Self { dir: dir.to_owned(), goes: true })
    }

    /// The data are about to be shown: from now on it stays.
    pub(super) fn stay(&mut self) {
        self.goes = false;
    }

    /// The data are there.
    pub(super) async fn finish(self) -> Result<()> {
        let second = self.dir.join(SECOND);
        blocking(move || gone(fs::remove_file(second))).await
    }
}

impl Drop for UsersFile {
    fn drop(&mut self) {
        if self.goes
            && let Err(error) = remove(&self.dir)
        {
            // The next restore knows it.
            tracing::warn!(dir = %self.dir.display(), %error, "the file of the users stays behind");
        }
    }
}

/// Whether the file of the users in `dir` was left behind by a restore that died.
pub(super) fn is_left_behind(dir: &Path) -> bool {
    let place = |name| fs::symlink_metadata(dir.join(name)).ok().map(|found| (found.dev(), found.ino()));
    let second = place(SECOND);
    second.is_some() && second == place(USERS_FILE)
}

fn remove(dir: &Path) -> io::Result<()> {
    if is_left_behind(dir) {
        gone(fs::remove_file(dir.join(USERS_FILE)))?;
    }
    gone(fs::remove_file(dir.join(SECOND)))
}

fn gone(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_was_left_behind_is_known_and_what_is_of_others_is_not() {
        let dir = tempfile::tempdir().unwrap();
        drop(UsersFile::write(dir.path(), "user a".into()).await.unwrap());
        assert_eq!(names(dir.path()), Vec::<String>::new(), "it goes with the restore");

        std::mem::forget(UsersFile::write(dir.path(), "user a".into()).await.unwrap());
        assert!(is_left_behind(dir.path()));
        let mut again = UsersFile::write(dir.path(), "user b".into()).await.unwrap();
        assert_eq!(fs::read(dir.path().join(USERS_FILE)).unwrap(), b"user b");
        again.stay();
        again.finish().await.unwrap();
        assert_eq!(names(dir.path()), [USERS_FILE]);
        assert!(!is_left_behind(dir.path()), "it belongs to the data");

        // Somebody put one of their own there meanwhile.
        fs::write(dir.path().join(SECOND), b"user b").unwrap();
        assert!(!is_left_behind(dir.path()));
        UsersFile::write(dir.path(), "user c".into()).await.unwrap_err();
        assert_eq!(fs::read(dir.path().join(USERS_FILE)).unwrap(), b"user b");
    }
}
