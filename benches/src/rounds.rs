//! Contenders in turn.
//!
//! A round takes every contender through the same phases: all of them do the first, then all of them the next. Rounds are repeated,
//! so the order of measurements is A B C, A B C, and what the machine does meanwhile meets each of them. The first round warms
//! caches and is not counted. What the last one left to be written is on the disk before the next one begins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::figures::Figures;
use crate::measure::{Cost, Job, measure};
use crate::peers::Missing;
use crate::yardstick;

/// A step of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    /// Everything into an empty repository.
    Full,
    /// Into an empty directory, from a repository with that backup alone.
    Restore,
    /// Nothing has changed since.
    Unchanged,
    /// So many hundredths of the pages, or of the files, have changed since.
    Changed(u8),
    /// Into an empty directory, after the backups before.
    RestoreAgain,
    /// Into the restored directory, of which a few files were changed.
    Delta,
    /// Log into the repository.
    Archive,
    /// Log out of it.
    Fetch,
}

impl Phase {
    pub(crate) fn title(self) -> String {
        match self {
            Self::Full => "first backup".to_owned(),
            Self::Restore => "restore".to_owned(),
            Self::Unchanged => "backup, nothing changed".to_owned(),
            Self::Changed(percent) => format!("backup, {percent} % changed"),
            Self::RestoreAgain => "restore of the last of several backups".to_owned(),
            Self::Delta => "restore over a directory of which a few files were changed".to_owned(),
            Self::Archive => "log into the repository".to_owned(),
            Self::Fetch => "log out of the repository".to_owned(),
        }
    }

    /// For names of files.
    pub(crate) fn slug(self) -> String {
        match self {
            Self::Full => "full".to_owned(),
            Self::Restore => "restore".to_owned(),
            Self::Unchanged => "unchanged".to_owned(),
            Self::Changed(percent) => format!("changed-{percent}"),
            Self::RestoreAgain => "restore-again".to_owned(),
            Self::Delta => "delta".to_owned(),
            Self::Archive => "archive".to_owned(),
            Self::Fetch => "fetch".to_owned(),
        }
    }
}

/// Someone who does the work in its own way.
pub(crate) trait Contender {
    /// As tables call it.
    fn name(&self) -> String;

    /// Its version, and how it compresses, encrypts and makes durable.
    fn terms(&self) -> String;

    /// Makes an empty repository. Not measured.
    fn setup(&mut self) -> Result<(), Error>;

    /// What does `phase`; none when it has no such thing.
    fn job(&mut self, phase: Phase) -> Result<Option<Job>, Error>;

    /// What its job has said that no measurement shows.
    fn told(&self, _said: &str, _cost: &mut Cost) -> Result<(), Error> {
        Ok(())
    }

    /// The directory or file whose growth is what `phase` has stored.
    fn output(&self, phase: Phase) -> PathBuf;

    /// Removes everything that the round has left.
    fn clean(&mut self) -> Result<(), Error>;
}

struct Entrant {
    contender: Box<dyn Contender>,
    /// What it has done in this round.
    done: BTreeSet<Phase>,
    costs: BTreeMap<Phase, Vec<Cost>>,
}

/// The contenders of a scenario, with what they have cost so far.
pub(crate) struct Field {
    entrants: Vec<Entrant>,
    pub(crate) missing: Vec<Missing>,
    server: Option<u32>,
}

impl Field {
    /// Nobody yet; `server` is the main process of the database server that they talk to.
    pub(crate) fn new(server: Option<u32>) -> Self {
        Self { entrants: vec![], missing: vec![], server }
    }

    pub(crate) fn enter(&mut self, contender: Box<dyn Contender>) {
        self.entrants.push(Entrant { contender, done: BTreeSet::new(), costs: BTreeMap::new() });
    }

    pub(crate) fn enter_if_had(&mut self, contender: Result<Box<dyn Contender>, Missing>) {
        match contender {
            Ok(contender) => self.enter(contender),
            Err(missing) => self.leave_out(missing.name, &missing.reason),
        }
    }

    /// Puts `contender` in the place of the one of that name, whose figures it goes on with.
    pub(crate) fn seat(&mut self, contender: Box<dyn Contender>) {
        match self.entrants.iter_mut().find(|entrant| entrant.contender.name() == contender.name()) {
            Some(entrant) => entrant.contender = contender,
            None => self.enter(contender),
        }
    }

    /// The same for one that may be missing; `name` is what it would be called.
    pub(crate) fn seat_if_had(&mut self, name: &str, make: impl FnOnce() -> Result<Box<dyn Contender>, Missing>) {
        // Who is out stays out.
        if self.missing.iter().any(|missing| missing.name == name) {
            return;
        }
        match make() {
            Ok(contender) => self.seat(contender),
            Err(missing) => self.leave_out(missing.name, &missing.reason),
        }
    }

    #[expect(clippy::print_stderr, reason = "a program that reports to its terminal")]
    pub(crate) fn leave_out(&mut self, name: String, reason: &str) {
        eprintln!("{name} is left out: {reason}");
        // Where it failed stands at the beginning, the rest of a long output helps nobody in a table.
        let reason = reason.lines().take(4).collect::<Vec<_>>().join(" ").replace('|', "/");
        self.missing.push(Missing { name, reason });
    }

    /// Empty repositories for everyone.
    pub(crate) fn setup(&mut self) -> Result<(), Error> {
        self.each(|entrant| {
            entrant.done.clear();
            entrant.contender.setup()
        })
    }

    /// Everyone does `phase` of a dataset of `bytes`. Counted unless it is the round that warms up.
    pub(crate) fn turn(&mut self, phase: Phase, bytes: u64, counted: bool) -> Result<(), Error> {
        let server = self.server;
        self.each(|Entrant { contender, done, costs }| {
            let Some(job) = contender.job(phase)? else { return Ok(()) };
            let output = contender.output(phase);
            let before = yardstick::size_if_there(&output)?;
            rustix::fs::sync();
            let (mut cost, said) = measure(&job, server)?;
            cost.bytes = bytes;
            cost.stored = yardstick::size_if_there(&output)?.saturating_sub(before);
            contender.told(&said, &mut cost)?;
            done.insert(phase);
            if counted {
                costs.entry(phase).or_default().push(cost);
            }
            Ok(())
        })
    }

    pub(crate) fn clean(&mut self) -> Result<(), Error> {
        self.each(|entrant| entrant.contender.clean())
    }

    /// Someone who fails is out, and the tables say why; only the first, which is ours, must not.
    fn each(&mut self, mut step: impl FnMut(&mut Entrant) -> Result<(), Error>) -> Result<(), Error> {
        let mut failed = vec![];
        for (index, entrant) in self.entrants.iter_mut().enumerate() {
            match step(entrant) {
                Ok(()) => {}
                Err(error) if index == 0 => return Err(error),
                Err(error) => failed.push((index, error)),
            }
        }
        for (index, error) in failed.into_iter().rev() {
            let mut entrant = self.entrants.remove(index);
            // What it has left may be in any state.
            let cleaned = entrant.contender.clean();
            let also = cleaned.err().map(|e| format!("; and to clean up after it failed: {e}")).unwrap_or_default();
            self.leave_out(entrant.contender.name(), &format!("{error}{also}"));
        }
        Ok(())
    }

    /// What `phase` has cost everyone who has done it.
    pub(crate) fn figures(&self, phase: Phase) -> Vec<Figures> {
        let entrants = self.entrants.iter();
        let done = entrants.filter_map(|e| Some(Figures::of(&e.contender.name(), e.costs.get(&phase)?)));
        done.collect()
    }

    /// Names and terms of everyone.
    pub(crate) fn terms(&self) -> Vec<(String, String)> {
        self.entrants.iter().map(|e| (e.contender.name(), e.contender.terms())).collect()
    }

    /// Where those who have done `phase` in this round have written to.
    pub(crate) fn outputs(&self, phase: Phase) -> Vec<PathBuf> {
        self.entrants.iter().filter(|e| e.done.contains(&phase)).map(|e| e.contender.output(phase)).collect()
    }

    /// Looks at what everyone who has done `phase` in this round has left; who fails is out.
    pub(crate) fn check(&mut self, phase: Phase, look: impl Fn(&Path) -> Result<(), Error>) -> Result<(), Error> {
        self.each(
            |Entrant { contender, done, .. }| {
                if done.contains(&phase) { look(&contender.output(phase)) } else { Ok(()) }
            },
        )
    }
}
