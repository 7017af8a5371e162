//! Users, roles, quotas, policies and profiles, and named collections: as the files that the server reads when it starts.
//!
//! Format: `DiskAccessStorage.cpp`. Each is a file `<uuid>.sql` with the statements that attach it. Beside them are lists by kind,
//! `users.list` and so on, which the server makes anew when it finds `need_rebuild_lists.mark`.

use std::path::{Path, PathBuf};

use backup_core::engine::{BackupSource, BackupSourceExt};
use backup_core::entry::Selector;
use backup_core::{Error, Finding, Result, Severity};
use bytes::Bytes;
use futures::StreamExt;

use crate::client::Client;
use crate::ddl::unescape_for_file_name;
use crate::files::{Owner, blocking};
use crate::layout;
use crate::server::{AccessPlace, Disk, Server, find};

const MAX_FILE: u64 = 16 << 20;
/// Tells the server to list the files anew.
const REBUILD: &str = "need_rebuild_lists.mark";

/// Writes the files that the target does not have.
pub(super) async fn restore(source: &dyn BackupSource, client: &Client, server: &Server) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let disk = server.default_disk()?;
    let users = read(source, layout::ACCESS).await?;
    if !users.is_empty() {
        match directory(client, server).await? {
            Ok(dir) => {
                let written = put(disk, dir, users, true).await?;
                findings.extend(restart(written, "users, roles and the like", layout::ACCESS));
            }
            Err(why) => {
                let text = format!("{} are not brought back: {why}", users.len());
                findings.push(Finding::new(Severity::Warning, "access-left-out", text).about(layout::ACCESS));
            }
        }
    }
    let collections = read(source, layout::COLLECTIONS).await?;
    if !collections.is_empty() {
        let written = put(disk, disk.dir.join(layout::COLLECTIONS), collections, false).await?;
        findings.extend(restart(written, "named collections", layout::COLLECTIONS));
    }
    Ok(findings)
}

/// Where the server has files of users that it may write: the first such place that it tells. Or why there is none.
async fn directory(client: &Client, server: &Server) -> Result<Result<PathBuf, String>> {
    let mut elsewhere = None;
    for (_, place) in server.access_places(client, true).await? {
        let AccessPlace::Files { path, dir, read_only: false } = place else { continue };
        let (own, beside) = (dir.clone(), find(&server.disks, path.trim_end_matches('/')).is_some());
        if beside || blocking(move || Ok(own.is_dir())).await? {
            return Ok(Ok(dir));
        }
        elsewhere = elsewhere.or(Some(format!("the server keeps users in {path}, which is not on this machine")));
    }
    Ok(Err(elsewhere.unwrap_or_else(|| "the server may write no directory of users".to_owned())))
}

async fn put(disk: &Disk, dir: PathBuf, files: Vec<(String, Bytes)>, lists: bool) -> Result<usize> {
    let root = disk.dir.clone();
    blocking(move || write(&root, &dir, &files, lists)).await
}

fn restart(written: usize, what: &str, folder: &str) -> Option<Finding> {
    let text = format!("{written} of {what} are written; the server reads them when it starts");
    (written > 0).then(|| Finding::new(Severity::Warning, "restart-needed", text).about(folder))
}

/// What of it a restore leaves out that does not reach the server's files.
pub(super) async fn left_out(source: &dyn BackupSource) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for folder in [layout::ACCESS, layout::COLLECTIONS] {
        let number = read(source, folder).await?.len();
        if number > 0 {
            let text = format!(
                "{number} are not brought back: they are files of the data directory, which is not on this machine"
            );
            findings.push(Finding::new(Severity::Warning, "access-left-out", text).about(folder));
        }
    }
    Ok(findings)
}

async fn read(source: &dyn BackupSource, folder: &str) -> Result<Vec<(String, Bytes)>> {
    let mut files = Vec::new();
    let mut entries = source.entries(Selector::parse([folder])?);
    while let Some(entry) = entries.next().await {
        let path = entry?.meta.path;
        let name = std::str::from_utf8(path.file_name()).ok().and_then(unescape);
        let Some(name) = name else {
            return Err(Error::damaged(format!("{path} is no name of a file of the server")));
        };
        files.push((name, source.read_small(&path, MAX_FILE).await?));
    }
    Ok(files)
}

/// The name of the file, which stays in its folder.
fn unescape(name: &str) -> Option<String> {
    let name = unescape_for_file_name(name)?;
    let plain = !name.is_empty() && !name.contains('/') && !name.contains('\0') && !name.starts_with('.');
    plain.then_some(name)
}

/// Writes what is not there. Blocking.
fn write(root: &Path, dir: &Path, files: &[(String, Bytes)], lists: bool) -> Result<usize> {
    let owner = Owner::of(root)?;
    let failed = |error| Error::io(dir.display(), error);
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut written = 0;
    for (name, content) in files {
        let path = dir.join(format!("{name}.sql"));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        let beside = dir.join(format!("{name}.sql.backup-library"));
        store(&beside, content)?;
        std::fs::rename(&beside, &path).map_err(failed)?;
        written += 1;
    }
    if lists && written > 0 {
        store(&dir.join(REBUILD), b"")?;
        let entries = std::fs::read_dir(dir).map_err(failed)?;
        for entry in entries {
            let path: PathBuf = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|end| end == "list") {
                std::fs::remove_file(&path).map_err(failed)?;
            }
        }
    }
    owner.own(dir)?;
    Ok(written)
}

fn store(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |error| Error::io(path.display(), error);
    let file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o640).open(path);
    let mut file = file.map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_added_and_the_lists_are_made_anew() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("access");
        std::fs::create_dir(&dir).unwrap();
        for (name, content) in [("there.sql", "ATTACH USER old"), ("users.list", "x"), ("roles.list", "y")] {
            std::fs::write(dir.join(name), content).unwrap();
        }
        let files = [("there".to_owned(), Bytes::from("new")), ("other".to_owned(), Bytes::from("ATTACH USER new"))];
        assert_eq!(write(root.path(), &dir, &files, true).unwrap(), 1);
        let mut names: Vec<_> =
            std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, [REBUILD, "other.sql", "there.sql"]);
        assert_eq!(std::fs::read_to_string(dir.join("there.sql")).unwrap(), "ATTACH USER old");
        assert_eq!(write(root.path(), &dir, &files, true).unwrap(), 0);
    }

    #[test]
    fn names_stay_in_their_folder() {
        for bad in ["", "%2E%2E%2Fx", "a%2Fb", "%2Ehidden", "%00"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
        assert_eq!(unescape("0a%2D1").as_deref(), Some("0a-1"));
    }
}
