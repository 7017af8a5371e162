//! rustic, which writes restic's format, with zstd −1.

use std::path::{Path, PathBuf};

use super::{Place, SECRET};
use crate::Error;
use crate::measure::Job;
use crate::peers::{self, Missing, Program};
use crate::rounds::{Contender, Phase};

pub(crate) struct Rustic {
    program: Program,
    place: Place,
    tree: PathBuf,
}

impl Rustic {
    pub(crate) fn new(base: &Path, tree: &Path) -> Result<Self, Missing> {
        Ok(Self { program: peers::RUSTIC.provide()?, place: Place::new(base, "rustic"), tree: tree.to_owned() })
    }

    fn command(&self, verb: &str) -> Job {
        let job = self.program.job().args([verb]);
        job.env("RUSTIC_REPOSITORY", self.place.repository())
            .env("RUSTIC_PASSWORD", SECRET)
            .env("RUSTIC_CACHE_DIR", self.place.home().join("cache"))
            .env("RUSTIC_NO_PROGRESS", "true")
            .env("RUSTIC_LOG_LEVEL", "warn")
            .env("HOME", self.place.home())
    }
}

impl Contender for Rustic {
    fn name(&self) -> String {
        self.program.name.to_owned()
    }

    fn terms(&self) -> String {
        format!(
            "{}; zstd −1, AES-256-CTR with Poly1305; syncs its repository, not what it restores",
            self.program.version
        )
    }

    fn setup(&mut self) -> Result<(), Error> {
        self.place.make()?;
        self.command("init").args(["--set-compression", "1"]).run().map(drop)
    }

    fn job(&mut self, phase: Phase) -> Result<Option<Job>, Error> {
        Ok(match phase {
            Phase::Full | Phase::Unchanged | Phase::Changed(_) => {
                Some(self.command("backup").arg(".").current_dir(&self.tree))
            }
            Phase::Restore | Phase::RestoreAgain => {
                Some(self.command("restore").arg("latest").arg(self.place.make_restored()?))
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
