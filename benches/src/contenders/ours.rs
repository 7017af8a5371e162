//! Our own contenders: the bench's own program does the work, as an embedder's would, in a process of its own.

use std::path::{Path, PathBuf};

use super::{Place, SECRET};
use crate::Error;
use crate::measure::{Cost, Job};
use crate::rounds::{Contender, Phase};
use crate::work::{self, Work};

/// What a phase is; none where there is no such thing.
type Does = Box<dyn FnMut(&Place, &Path, Phase) -> Result<Option<Work>, Error>>;

/// A vault and what is put into it.
pub(crate) struct Ours {
    name: &'static str,
    terms: String,
    place: Place,
    /// The vault's address where it is not this disk, and where its objects lie.
    remote: Option<(String, PathBuf)>,
    environment: Vec<(&'static str, String)>,
    does: Does,
}

impl Ours {
    pub(crate) fn new(
        base: &Path,
        name: &'static str,
        does: impl FnMut(&Place, &Path, Phase) -> Result<Option<Work>, Error> + 'static,
    ) -> Self {
        let suite = backup_crypto::Suite::preferred_here();
        let terms = format!("zstd −1, {suite}; syncs what it writes, into the vault and into what it restores");
        Self {
            name,
            terms,
            place: Place::new(base, &name.replace([' ', ','], "-")),
            remote: None,
            environment: vec![],
            does: Box::new(does),
        }
    }

    /// Says more about how it does that.
    pub(crate) fn also(mut self, terms: &str) -> Self {
        self.terms = format!("{}; {terms}", self.terms);
        self
    }

    /// Into the store at `address`, whose objects lie in `objects`.
    pub(crate) fn at(mut self, address: String, objects: PathBuf, credentials: Vec<(&'static str, String)>) -> Self {
        self.remote = Some((address, objects));
        self.environment.extend(credentials);
        self
    }

    /// Has the vault opened by a passphrase instead of a key.
    pub(crate) fn by_passphrase(mut self) -> Self {
        self.environment.push((work::PASSPHRASE, SECRET.to_owned()));
        self.also("opened by a passphrase (Argon2id)")
    }

    fn vault(&self) -> PathBuf {
        self.remote.as_ref().map_or_else(|| self.place.repository(), |(address, _)| PathBuf::from(address))
    }

    fn dress(&self, job: Job) -> Job {
        self.environment.iter().fold(job, |job, (name, value)| job.env(name, value))
    }
}

impl Contender for Ours {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn terms(&self) -> String {
        self.terms.clone()
    }

    fn setup(&mut self) -> Result<(), Error> {
        self.place.make()?;
        self.dress(Work::Create { vault: self.vault() }.job()?).run().map(drop)
    }

    fn job(&mut self, phase: Phase) -> Result<Option<Job>, Error> {
        let vault = self.vault();
        let Some(work) = (self.does)(&self.place, &vault, phase)? else { return Ok(None) };
        Ok(Some(self.dress(work.job()?)))
    }

    fn told(&self, said: &str, cost: &mut Cost) -> Result<(), Error> {
        let said = work::said(said)?;
        cost.content_read = said.content_read;
        cost.requests = said.requests;
        Ok(())
    }

    fn output(&self, phase: Phase) -> PathBuf {
        match phase {
            Phase::Restore | Phase::RestoreAgain | Phase::Delta | Phase::Fetch => self.place.restored(),
            Phase::Full | Phase::Unchanged | Phase::Changed(_) | Phase::Archive => {
                self.remote.as_ref().map_or_else(|| self.place.repository(), |(_, objects)| objects.clone())
            }
        }
    }

    fn clean(&mut self) -> Result<(), Error> {
        self.place.remove()
    }
}
