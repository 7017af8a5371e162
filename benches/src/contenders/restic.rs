//! restic with its fastest compression.

use std::path::{Path, PathBuf};

use super::{Place, SECRET};
use crate::Error;
use crate::measure::Job;
use crate::peers::{self, Missing, Program};
use crate::rounds::{Contender, Phase};

pub(crate) struct Restic {
    program: Program,
    place: Place,
    tree: PathBuf,
    /// The store and what opens it, where it is none of this disk.
    remote: Option<Remote>,
}

struct Remote {
    address: String,
    /// Where the store keeps its objects.
    objects: PathBuf,
    credentials: Vec<(&'static str, String)>,
}

impl Restic {
    pub(crate) fn new(base: &Path, tree: &Path) -> Result<Self, Missing> {
        let place = Place::new(base, "restic");
        Ok(Self { program: peers::RESTIC.provide()?, place, tree: tree.to_owned(), remote: None })
    }

    /// Into an S3 store at `endpoint`, whose objects lie in `objects`.
    pub(crate) fn at(
        mut self,
        endpoint: &str,
        bucket: &str,
        objects: PathBuf,
        credentials: Vec<(&'static str, String)>,
    ) -> Self {
        self.remote = Some(Remote { address: format!("s3:{endpoint}/{bucket}"), objects, credentials });
        self
    }

    fn command(&self, verb: &str) -> Job {
        let mut job = self.program.job().args([verb, "--quiet"]);
        job = match &self.remote {
            Some(Remote { address, credentials, .. }) => credentials
                .iter()
                .fold(job.env("RESTIC_REPOSITORY", address), |job, (name, value)| job.env(name, value)),
            None => job.env("RESTIC_REPOSITORY", self.place.repository()),
        };
        job.env("RESTIC_PASSWORD", SECRET)
            .env("RESTIC_CACHE_DIR", self.place.home().join("cache"))
            .env("RESTIC_COMPRESSION", "fastest")
            .env("HOME", self.place.home())
    }
}

impl Contender for Restic {
    fn name(&self) -> String {
        self.program.name.to_owned()
    }

    fn terms(&self) -> String {
        format!(
            "{}; zstd at its fastest, AES-256-CTR with Poly1305; syncs its repository, not what it restores",
            self.program.version
        )
    }

    fn setup(&mut self) -> Result<(), Error> {
        self.place.make()?;
        self.command("init").run().map(drop)
    }

    fn job(&mut self, phase: Phase) -> Result<Option<Job>, Error> {
        Ok(match phase {
            Phase::Full | Phase::Unchanged | Phase::Changed(_) => {
                Some(self.command("backup").arg(".").current_dir(&self.tree))
            }
            Phase::Restore | Phase::RestoreAgain => {
                Some(self.command("restore").args(["latest", "--target"]).arg(self.place.make_restored()?))
            }
            Phase::Delta | Phase::Archive | Phase::Fetch => None,
        })
    }

    fn output(&self, phase: Phase) -> PathBuf {
        match phase {
            Phase::Restore | Phase::RestoreAgain => self.place.restored(),
            _ => self.remote.as_ref().map_or_else(|| self.place.repository(), |remote| remote.objects.clone()),
        }
    }

    fn clean(&mut self) -> Result<(), Error> {
        self.place.remove()
    }
}
