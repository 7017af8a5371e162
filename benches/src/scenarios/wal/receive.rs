//! `pg_receivewal`, whose complete segments go through `zstd -1`, as an archive script does it.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::contenders::Place;
use crate::measure::Job;
use crate::peers::{self, Missing, Program};
use crate::rounds::{Contender, Phase};
use crate::work::Work;

pub(super) struct Receive {
    program: Program,
    place: Place,
    url: String,
    end: String,
    rounds: std::ops::RangeFrom<u32>,
}

impl Receive {
    pub(super) fn new(base: &Path, url: &str, end: &str) -> Result<Self, Missing> {
        let (program, place) = (peers::PG_RECEIVEWAL.provide()?, Place::new(base, "receive"));
        Ok(Self { program, place, url: url.to_owned(), end: end.to_owned(), rounds: 0.. })
    }
}

impl Contender for Receive {
    fn name(&self) -> String {
        format!("{}, then zstd −1", self.program.name)
    }

    fn terms(&self) -> String {
        format!("{}; no encryption; syncs what it writes", self.program.version)
    }

    fn setup(&mut self) -> Result<(), Error> {
        std::fs::create_dir_all(self.place.repository())?;
        Ok(())
    }

    fn job(&mut self, phase: Phase) -> Result<Option<Job>, Error> {
        if phase != Phase::Archive {
            return Ok(None);
        }
        let slot = format!("receive_{}", self.rounds.next().unwrap_or(0));
        let (program, dir) = (self.program.path.clone(), self.place.repository());
        let work = Work::Receive { program, dir, url: self.url.clone(), slot, end: self.end.clone() };
        Ok(Some(work.job()?))
    }

    fn output(&self, _: Phase) -> PathBuf {
        self.place.repository()
    }

    fn clean(&mut self) -> Result<(), Error> {
        self.place.remove()
    }
}
