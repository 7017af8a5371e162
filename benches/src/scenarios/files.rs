//! Plain files beside restic, rustic and kopia: three trees, a first backup, one of nothing new, a restore.

use std::path::{Path, PathBuf};

use super::trees::Tree;
use crate::contenders::ours::Ours;
use crate::contenders::{Kopia, Restic, Rustic};
use crate::report::Report;
use crate::rounds::{Contender, Field, Phase};
use crate::work::Work;
use crate::{Common, Error, yardstick};

const PHASES: [Phase; 3] = [Phase::Full, Phase::Unchanged, Phase::Restore];

/// Makes each tree of about `size` MB and takes every contender through all phases.
#[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
pub(crate) async fn run(size: u64, common: &Common) -> Result<(), Error> {
    let Common { runs, out } = common;
    std::fs::create_dir_all(out)?;
    let settings = serde_json::json!({ "size_mb": size, "runs": runs });
    let title = format!("plain files, {size} MB, local disk, page cache");
    let mut report = Report::new("files", title, out, settings);
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir_in(std::path::absolute(out)?)?;
        let dir = scratch.path().join("tree");
        println!("{} of {size} MB are being made …", tree.title());
        let files = tree.plant(&dir, size << 20)?;
        // Files that were changed within two seconds before a backup are read again by the next one.
        let settled = backup_testkit::wait::Deadline::after(std::time::Duration::from_secs(3));
        backup_testkit::wait::until(std::time::Duration::from_secs(4), || settled.passed().then_some(()));
        let mut field = Field::new(None);
        field.enter(ours(scratch.path(), &dir));
        field.enter_if_had(Rustic::new(scratch.path(), &dir).map(|c| Box::new(c) as Box<dyn Contender>));
        field.enter_if_had(Restic::new(scratch.path(), &dir).map(|c| Box::new(c) as Box<dyn Contender>));
        field.enter_if_had(Kopia::new(scratch.path(), &dir).map(|c| Box::new(c) as Box<dyn Contender>));
        let bytes = yardstick::size(&dir)?;
        for round in 0..=*runs {
            println!("{}", if round > 0 { format!("round {round} of {runs} …") } else { "warming up …".to_owned() });
            field.setup()?;
            for phase in PHASES {
                field.turn(phase, bytes, round > 0)?;
            }
            field.check(Phase::Restore, |output| same(&dir, output))?;
            field.clean()?;
        }
        let name = format!("{files} {}", tree.title());
        report.take(&field, &PHASES, Some((&name, tree.slug())));
    }
    report.write(out)
}

pub(super) fn ours(base: &Path, tree: &Path) -> Box<dyn Contender> {
    Box::new(directory(base, tree))
}

/// Opened by a passphrase, because the others know nothing else: stretching it is the larger part of a backup of nothing new.
pub(super) fn directory(base: &Path, tree: &Path) -> Ours {
    let tree: PathBuf = tree.to_owned();
    let ours = Ours::new(base, "ours", move |place, vault, phase| {
        let vault = vault.to_owned();
        Ok(match phase {
            Phase::Full | Phase::Unchanged | Phase::Changed(_) => Some(Work::FilesBackup { vault, dir: tree.clone() }),
            Phase::Restore | Phase::RestoreAgain => {
                Some(Work::FilesRestore { vault, into: place.make_restored()?, delta: false })
            }
            Phase::Delta => Some(Work::FilesRestore { vault, into: place.restored(), delta: true }),
            Phase::Archive | Phase::Fetch => None,
        })
    });
    ours.by_passphrase()
}

/// Whether every file of `tree` is in `restored`, byte for byte.
pub(super) fn same(tree: &Path, restored: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(tree)? {
        let entry = entry?;
        let (one, two) = (entry.path(), restored.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            same(&one, &two)?;
        } else if std::fs::read(&one)? != std::fs::read(&two)? {
            return Err(format!("{} is not {}", two.display(), one.display()).into());
        }
    }
    Ok(())
}
