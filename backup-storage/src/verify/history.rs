//! The journal, entry by entry, also behind a break.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::catalog::{BackupRecord, Catalog, Event, KeyState, SessionState};
use backup_core::repository::VerifyReport;
use backup_core::{BackupId, SessionId};
use backup_crypto::ObjectKind;
use futures::stream::{self, StreamExt};

use super::findings::{Findings, describe};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Fold, Genesis, Journal, Place, foreign, keys};
use crate::{envelope, layout};

/// How many entries are fetched at the same time.
const AHEAD: usize = 16;

/// What the newest generation of the journal says, as far as it can be read.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) generation: u32,
    pub(super) genesis: Option<Genesis>,
    /// What entries tell together, as far as they fit.
    pub(super) catalog: Arc<Catalog>,
    /// Every backup of which an entry tells and that has not expired.
    pub(super) records: BTreeMap<BackupId, BackupRecord>,
    /// Sessions that may still commit, and those whose content they want to reuse.
    pub(super) open: BTreeSet<SessionId>,
    /// The repository's keys, as far as it tells.
    pub(super) keys: KeyState,
    /// Digests of the entries that could be fetched.
    digests: BTreeMap<u64, [u8; 32]>,
    /// Which entry tells of which backup.
    told: Vec<(u64, BackupId)>,
    /// What is wrong with which entry.
    broken: BTreeMap<u64, String>,
    /// What lies at places of entries, is none, and has no entry behind it yet.
    foreign: BTreeSet<u64>,
}

impl History {
    /// Reads the newest generation.
    ///
    /// # Errors
    /// When the store cannot be reached, or an entry was written by a newer version.
    pub(super) async fn read(context: &Context, journal: &Journal<Catalog>, report: &mut VerifyReport) -> Result<Self> {
        let mut history = Self::default();
        let Some((generation, numbers)) = journal.listing().await?.pop_last() else {
            history.generation = 1;
            history.broken.insert(1, "the repository has no catalog".to_owned());
            return Ok(history);
        };
        history.generation = generation;
        let last = numbers.last().copied().unwrap_or(0);
        let mut present = numbers.into_iter().peekable();
        for number in 1..=last {
            if present.next_if_eq(&number).is_none() {
                history.broken.insert(number, "it is missing".to_owned());
            }
        }
        let numbers = (1..=last).filter(|n| !history.broken.contains_key(n)).collect::<Vec<_>>();
        let mut entries = stream::iter(numbers)
            .map(|number| async move {
                let name = layout::entry(generation, number)?;
                Ok::<_, Error>((number, context.store.get(&name).await, name))
            })
            .buffered(AHEAD)
            .boxed();
        let mut catalog = Catalog::new();
        while let Some(next) = entries.next().await {
            let (number, object, name) = next?;
            report.objects += 1;
            let object = match object {
                Ok(object) => object,
                Err(e) if e.kind() == ErrorKind::Damaged => {
                    history.broken.insert(number, describe(e));
                    continue;
                }
                Err(e) => return Err(e),
            };
            report.read_bytes += object.len() as u64;
            history.digests.insert(number, *blake3::hash(&object).as_bytes());
            // Keys of epochs that have begun since the repository was opened.
            keys::look(&context.keyring, catalog.keys()).await?;
            if number > 1
                && history.broken.is_empty()
                && foreign::is_foreign(&context.keyring, Some(catalog.keys()), &name, &object)
            {
                history.foreign.insert(number);
                continue;
            }
            // What opens but is not understood is not damage: a newer version wrote it, and nothing can be said.
            if let Err(e) = envelope::open(&context.keyring, ObjectKind::Journal, &name, &object) {
                history.broken.insert(number, describe(e));
                continue;
            }
            let entry = match journal.open(&name, &object) {
                Ok(entry) => entry,
                Err(e) if e.kind() == ErrorKind::Damaged => {
                    history.broken.insert(number, describe(e));
                    continue;
                }
                Err(e) => return Err(e),
            };
            let before = number - 1;
            let known = if before == 0 { Some(&[0; 32]) } else { history.digests.get(&before) };
            if known.is_some_and(|digest| *digest != entry.previous) && !history.broken.contains_key(&before) {
                match history.foreign.remove(&before) {
                    true => history.broken.insert(before, "it is not the entry that the next one follows".to_owned()),
                    false => {
                        history.broken.insert(number, format!("it does not follow entry {before} as it is stored"))
                    }
                };
            }
            // Who wrote this one has met those before it and has passed them over: they are nobody's damage.
            report.garbage_objects += std::mem::take(&mut history.foreign).len() as u64;
            if number == 1 {
                if let Some(genesis) = &entry.genesis {
                    catalog = <Catalog as Fold>::begin(genesis, keys::epoch_of(&name, &object)?);
                }
                history.begin(context, entry.genesis);
            }
            for event in &entry.events {
                if let Err(rejected) = catalog.apply(event)
                    && history.broken.is_empty()
                {
                    history.broken.insert(number, format!("it does not fit what came before: {rejected}"));
                }
                let record = match event {
                    Event::BackupCommitted { record } | Event::BackupRecovered { record } => &**record,
                    Event::DepositAdopted { deposit, .. } => &deposit.record,
                    _ => continue,
                };
                history.told.push((number, record.id));
                history.records.insert(record.id, record.clone());
            }
            keys::note_sessions::<Catalog>(&context.keyring, &entry.events);
        }
        history.keys = catalog.keys().clone();
        // What has expired is nobody's to restore, and may be gone.
        history.catalog = Arc::new(catalog);
        let catalog = &history.catalog;
        for (backup, _) in catalog.expired() {
            history.records.remove(&backup);
        }
        for (session, state) in catalog.sessions() {
            if let SessionState::Open { adopted, .. } = state {
                history.open.insert(session);
                history.open.extend(adopted);
            }
        }
        Ok(history)
    }

    /// Whether it can be read from the first entry to the last.
    pub(super) fn is_whole(&self) -> bool {
        self.broken.is_empty() && self.genesis.is_some()
    }

    fn begin(&mut self, context: &Context, genesis: Option<Genesis>) {
        match genesis {
            Some(genesis) if &genesis.repository != context.keyring.repository().as_bytes() => {
                self.broken.insert(1, "it belongs to another repository".to_owned());
            }
            Some(genesis) => self.genesis = Some(genesis),
            None => {
                self.broken.insert(1, "it does not begin a catalog".to_owned());
            }
        }
    }

    /// Compares what a witness saw with the journal.
    pub(super) fn confirm(&mut self, backup: BackupId, place: Place) {
        // A backup of an earlier generation was carried over by a rebuild, or deliberately not.
        if place.generation < self.generation {
            return;
        }
        if place.generation > self.generation {
            self.broken.entry(u64::MAX).or_insert_with(|| {
                format!("generation {} is missing, although backup {backup} was committed in it", place.generation)
            });
            self.told.push((u64::MAX, backup));
            return;
        }
        match self.digests.get(&place.number) {
            Some(digest) if *digest == place.digest => {}
            Some(_) => {
                let problem = format!("it is not the entry that made backup {backup}");
                self.broken.entry(place.number).or_insert(problem);
            }
            None => {
                let problem = format!("it is missing, although it made backup {backup}");
                self.broken.entry(place.number).or_insert(problem);
            }
        }
        self.told.push((place.number, backup));
    }

    /// Adds what is wrong with the journal. An entry that is not what was written puts everything behind it in doubt.
    pub(super) fn report(&self, findings: &mut Findings) -> Result<()> {
        for (number, problem) in &self.broken {
            let object = match number {
                &u64::MAX => layout::CATALOG.to_owned(),
                number => layout::entry(self.generation, *number)?.to_string(),
            };
            let harmed = self.told.iter().filter(|(told, _)| told >= number).map(|(_, backup)| *backup);
            findings.add(object, problem.clone(), harmed);
        }
        for number in &self.foreign {
            let problem = "it is no entry: somebody has put it there, or it was one and its header is destroyed";
            findings.add(layout::entry(self.generation, *number)?.to_string(), problem, []);
        }
        Ok(())
    }
}
