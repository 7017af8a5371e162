//! Brings staged parts into tables: moved to where the server attaches or loads them from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backup_core::engine::Work;
use backup_core::{Error, Result};
use futures::{StreamExt, TryStreamExt, stream};

use super::plan::Plan;
use super::receiver;
use super::settings::RestoreSettings;
use super::stage::{Staged, StagedPart};
use super::{unreachable, upload};
use crate::client::Client;
use crate::ddl::quote;
use crate::files::{Owner, blocking, remove};
use crate::objects::Objects;
use crate::part::checksums::NAME;
use crate::server::{Disk, Place, Server, TableDef, TableKey, homes};

/// A directory of a table, and the disk that it is on.
type Home<'a> = (&'a Disk, PathBuf);

/// Attaching, and what is needed for it.
pub(super) struct Attach<'a> {
    pub(super) client: &'a Client,
    pub(super) server: &'a Server,
    pub(super) settings: &'a RestoreSettings,
    pub(super) objects: &'a Objects,
    /// The tables of the target, as they are now.
    pub(super) now: &'a BTreeMap<TableKey, TableDef>,
}

impl Attach<'_> {
    /// Attaches what is staged, `parallel` tables at a time.
    pub(super) async fn all(&self, plan: &Plan, staged: Vec<Staged>, parallel: usize, work: &Work) -> Result<()> {
        // Futures that nobody polls cost nothing.
        let mut tables = Vec::new();
        for staged in &staged {
            tables.push(self.table(plan, staged, work));
        }
        stream::iter(tables).buffer_unordered(parallel.max(1)).try_collect::<Vec<()>>().await.map(drop)
    }

    async fn table(&self, plan: &Plan, staged: &Staged, work: &Work) -> Result<()> {
        let Some(target) = receiver(plan, &staged.table, self.settings, self.now) else {
            return Err(Error::conflict(format!("the table for the parts of {} is gone", staged.table)));
        };
        let homes: Vec<_> = homes(&self.server.disks, target).collect();
        if homes.is_empty() {
            let text = format!("{} has no directory that can be found on this machine", target.key);
            return Err(Error::environment(text));
        }
        if !staged.loaded {
            for part in &staged.parts {
                work.checkpoint()?;
                self.put(self.home(target, &homes, &part.disk)?, Some("detached"), part, work).await?;
                self.attach(&target.key, &part.name).await?;
            }
            return Ok(());
        }
        let name = target.key.quoted();
        self.client.execute(&format!("unloading {}", target.key), &format!("DETACH TABLE {name}")).await?;
        let outcome = self.load(target, &homes, staged, work).await;
        // Also when it went wrong: what is not loaded cannot be dropped.
        let loaded = self.client.execute(&format!("loading {}", target.key), &format!("ATTACH TABLE {name}")).await;
        outcome?;
        Ok(loaded?)
    }

    /// The directory of a table for what was on `disk`: on the same one, else on a local one, else where objects can be put.
    fn home<'h>(&self, table: &TableDef, homes: &'h [Home<'h>], disk: &str) -> Result<&'h Home<'h>> {
        let bucket = |home: &&Home<'_>| self.objects.of(&self.server.disks, home.0).is_some();
        let local = |home: &&Home<'_>| home.0.place == Place::Local;
        let same = homes.iter().filter(|home| local(home) || bucket(home)).find(|(other, _)| other.name == disk);
        let found = same.or_else(|| homes.iter().find(local)).or_else(|| homes.iter().find(bucket));
        found.ok_or_else(|| {
            Error::environment(unreachable(&table.key, homes.iter().map(|(disk, _)| disk.name.as_str())))
        })
    }

    async fn put(&self, home: &Home<'_>, below: Option<&str>, part: &StagedPart, work: &Work) -> Result<()> {
        let (disk, home) = home;
        let to = below.map_or_else(|| home.clone(), |below| home.join(below)).join(&part.name);
        if let Some(bucket) = self.objects.of(&self.server.disks, disk) {
            return upload::part(bucket, work.env(), &part.path, &to).await;
        }
        let from = part.path.clone();
        blocking(move || put_in_place(&from, &to)).await
    }

    /// Puts parts and mutations where the server finds them when it loads the table.
    async fn load(&self, table: &TableDef, homes: &[Home<'_>], staged: &Staged, work: &Work) -> Result<()> {
        for part in &staged.parts {
            self.put(self.home(table, homes, &part.disk)?, None, part, work).await?;
        }
        let (disk, home) = self.home(table, homes, Disk::DEFAULT)?;
        for (name, content) in staged.mutations.clone() {
            let file = home.join(name);
            if let Some(bucket) = self.objects.of(&self.server.disks, disk) {
                upload::one(bucket, work.env(), &content, &file).await?;
                continue;
            }
            let home = home.clone();
            blocking(move || {
                std::fs::write(&file, &content).map_err(|error| Error::io(file.display(), error))?;
                Owner::of(&home)?.own(&file)
            })
            .await?;
        }
        Ok(())
    }

    async fn attach(&self, table: &TableKey, part: &str) -> Result<()> {
        let sql = format!("ALTER TABLE {} ATTACH PART {}", table.quoted(), quote::string(part));
        Ok(self.client.execute(&format!("attaching {part} to {table}"), &sql).await?)
    }
}

/// Moves a part to where the server attaches it from, as a folder of the server's.
fn put_in_place(from: &Path, to: &Path) -> Result<()> {
    let failed = |error| Error::io(to.display(), error);
    let home = to.parent().ok_or_else(|| Error::internal("a part has no folder above it"))?;
    Owner::of(home)?.own(from)?;
    // What lies there was detached by somebody, who may want it back, unless it is the same part, as a restore leaves it that was killed.
    if to.is_dir() && is_same(from, to) {
        remove(to)?;
    } else if to.symlink_metadata().is_ok() {
        let text = format!("{} is there already: it is to be removed or attached first", to.display());
        return Err(Error::conflict(text));
    }
    match std::fs::rename(from, to) {
        // The table is on other disks than it was.
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => copy(from, to),
        outcome => outcome.map_err(failed),
    }
}

/// Whether both are parts with the same list, which says what is in every file.
fn is_same(a: &Path, b: &Path) -> bool {
    let list = |dir: &Path| std::fs::read(dir.join(NAME)).ok();
    list(a).is_some_and(|list_of_a| list(b).is_some_and(|list_of_b| list_of_a == list_of_b))
}

/// Copies a part to another disk, durably and as one piece.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    // A name that no server attaches.
    let beside = to.with_file_name(format!("tmp_backup_library_{name}"));
    remove(&beside)?;
    copy_level(from, &beside)?;
    Owner::of(from)?.own(&beside)?;
    std::fs::rename(&beside, to).map_err(|error| Error::io(to.display(), error))
}

fn copy_level(from: &Path, to: &Path) -> Result<()> {
    let failed = |error| Error::io(to.display(), error);
    std::fs::create_dir_all(to).map_err(failed)?;
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let copy = to.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            copy_level(&entry.path(), &copy)?;
            continue;
        }
        std::fs::copy(entry.path(), &copy).map_err(failed)?;
        std::fs::File::open(&copy).and_then(|file| file.sync_all()).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_has_detached_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (from, home) = (dir.path().join("stage"), dir.path().join("detached"));
        std::fs::create_dir_all(from.join("x.proj")).unwrap();
        std::fs::create_dir_all(home.join("all_1_1_0")).unwrap();
        let error = put_in_place(&from, &home.join("all_1_1_0")).unwrap_err();
        assert_eq!(error.kind(), backup_core::ErrorKind::Conflict);
        std::fs::write(from.join("checksums.txt"), "same").unwrap();
        std::fs::create_dir_all(home.join("all_2_2_0")).unwrap();
        std::fs::write(home.join("all_2_2_0/checksums.txt"), "same").unwrap();
        put_in_place(&from, &home.join("all_2_2_0")).unwrap();
        assert!(home.join("all_2_2_0/x.proj").is_dir());
    }
}
