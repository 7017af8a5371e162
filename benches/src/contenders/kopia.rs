//! kopia with its fastest zstd.

use std::path::{Path, PathBuf};

use super::{Place, SECRET};
use crate::Error;
use crate::measure::Job;
use crate::peers::{self, Missing, Program};
use crate::rounds::{Contender, Phase};

pub(crate) struct Kopia {
    program: Program,
    place: Place,
    tree: PathBuf,
}

impl Kopia {
    pub(crate) fn new(base: &Path, tree: &Path) -> Result<Self, Missing> {
        Ok(Self { program: peers::KOPIA.provide()?, place: Place::new(base, "kopia"), tree: tree.to_owned() })
    }

    fn command(&self, verbs: &[&str]) -> Job {
        let home = self.place.home();
        let job = self.program.job().args(verbs.iter().copied());
        job.arg("--no-progress")
            .arg("--log-level=error")
            .arg(format!("--log-dir={}", home.join("logs").display()))
            .env("KOPIA_PASSWORD", SECRET)
            .env("KOPIA_CONFIG_PATH", home.join("config"))
            .env("KOPIA_CACHE_DIRECTORY", home.join("cache"))
            .env("KOPIA_CHECK_FOR_UPDATES", "false")
            .env("HOME", home)
    }
}

impl Contender for Kopia {
    fn name(&self) -> String {
        self.program.name.to_owned()
    }

    fn terms(&self) -> String {
        format!(
            "{}; zstd at its fastest, AES-256-GCM; syncs its repository, not what it restores",
            self.program.version
        )
    }

    fn setup(&mut self) -> Result<(), Error> {
        self.place.make()?;
        std::fs::create_dir_all(self.place.repository())?;
        let path = format!("--path={}", self.place.repository().display());
        self.command(&["repository", "create", "filesystem"]).arg(path).run()?;
        self.command(&["policy", "set", "--global", "--compression=zstd-fastest"]).run().map(drop)
    }

    fn job(&mut self, phase: Phase) -> Result<Option<Job>, Error> {
        Ok(match phase {
            Phase::Full | Phase::Unchanged | Phase::Changed(_) => {
                Some(self.command(&["snapshot", "create"]).arg(&self.tree))
            }
            Phase::Restore | Phase::RestoreAgain => {
                let into = self.place.make_restored()?;
                Some(self.command(&["restore", "--snapshot-time=latest"]).arg(&self.tree).arg(into))
            }
            Phase::Delta | Phase::Archive | Phase::Fetch => None,
        })
    }

    fn output(&self, phase: Phase) -> PathBuf {
        match phase {
            Phase::Restore | Phase::RestoreAgain => self.place.restored(),
            _ => self.place.repository(),
        }
    }

    fn clean(&mut self) -> Result<(), Error> {
        self.place.remove()
    }
}
