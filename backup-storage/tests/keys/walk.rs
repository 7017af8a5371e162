//! Any sequence of changes, with processes that die in between.

use backup_core::ErrorKind;
use backup_core::catalog::BackupRecord;
use backup_crypto::RecipientId;
use backup_storage::fault::{Crash, FaultPlan};
use backup_storage::{KeyHolder, Repository};

use super::world::{Person, World, actor, content};
use crate::content::Content;

/// A number from a seed.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    fn below(&mut self, limit: usize) -> usize {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes) as usize % limit
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Backup,
    Log,
    Add(usize),
    Remove(usize),
    Rotate,
    Reseal,
}

/// Whoever can be in or out, and what must be readable.
struct Life {
    world: World,
    people: Vec<Person>,
    /// Whether each of them is in. Nobody knows while a change of theirs has not been completed.
    inside: Vec<bool>,
    backups: Vec<(BackupRecord, Content)>,
    log: u64,
}

impl Life {
    async fn new(seed: u64) -> Self {
        let people = vec![Person::pair(1), Person::pair(2), Person::raw(3), Person::passphrase("correct horse")];
        let world = World::new(seed, &[&people[0], &people[2]]).await;
        Self { world, people, inside: vec![true, false, true, false], backups: Vec::new(), log: 0 }
    }

    /// Who opens it: the first one who is in, but for this one.
    fn opener(&self, but: Option<usize>) -> &Person {
        let fits = |n: &usize| self.inside[*n] && Some(*n) != but;
        &self.people[(0..self.people.len()).find(fits).unwrap()]
    }

    fn given(&self, but: Option<usize>) -> Vec<KeyHolder> {
        let stay = |n: &usize| self.inside[*n] && Some(*n) != but;
        (0..self.people.len()).filter(stay).map(|n| self.people[n].holder()).collect()
    }

    async fn id(&self, by: &Repository, who: usize) -> backup_core::Result<RecipientId> {
        if who < 3 {
            return Ok(self.people[who].id());
        }
        let report = by.keys().await?;
        let pass = report.recipients.iter().find(|known| known.recipient.starts_with("pass-"));
        Ok(pass.map_or("pass-none", |known| known.recipient.as_str()).parse().unwrap())
    }

    async fn make(&self, step: Step) -> backup_core::Result<Option<BackupRecord>> {
        // Whoever is removed cannot complete it.
        let gone = if let Step::Remove(who) = step { Some(who) } else { None };
        let by = self.world.open(self.opener(gone)).await?;
        match step {
            Step::Backup => return Ok(Some(self.world.backup(&by, &content(self.backups.len() as u64)).await?)),
            Step::Log => self.world.log(&by, self.log..self.log + 700).await?,
            Step::Add(who) => drop(self.world.add(&by, &self.people[who]).await?),
            Step::Remove(who) => {
                let id = self.id(&by, who).await?;
                let removed = self.world.remove(&by, &id, &self.given(Some(who))).await;
                // It was removed before the process died.
                match removed {
                    Err(e) if e.kind() == ErrorKind::InvalidInput && e.to_string().contains("not among") => {}
                    other => drop(other?),
                }
            }
            Step::Rotate => drop(self.world.rotate(&by, &self.given(None)).await?),
            Step::Reseal => drop(self.world.reseal(&by, u64::MAX).await?),
        }
        Ok(None)
    }

    fn choose(&self, dice: &mut Dice) -> Option<Step> {
        let who = dice.below(self.people.len());
        let others = self.inside.iter().enumerate().filter(|(n, inside)| **inside && *n != who).count();
        match dice.below(7) {
            0 => Some(Step::Backup),
            1 => Some(Step::Log),
            2 | 3 if self.inside[who] && others > 0 => Some(Step::Remove(who)),
            2 | 3 if !self.inside[who] => Some(Step::Add(who)),
            4 => Some(Step::Rotate),
            5 => Some(Step::Reseal),
            _ => None,
        }
    }

    async fn step(&mut self, step: Step, crash: Option<Crash>) {
        if let Some(crash) = crash {
            self.world.faults.crash(crash);
            tokio::select! {
                done = self.make(step) => drop(done),
                () = self.world.faults.crashed() => {}
            }
            self.world.faults.revive();
        }
        // Whatever the dead process has done, the same again completes it.
        match self.make(step).await.unwrap_or_else(|e| panic!("{step:?}: {e}: {:?}", e.causes())) {
            Some(record) => self.backups.push((record, content(self.backups.len() as u64))),
            None => match step {
                Step::Log => self.log += 700,
                Step::Add(who) => self.inside[who] = true,
                Step::Remove(who) => self.inside[who] = false,
                _ => {}
            },
        }
        for (person, inside) in self.people.iter().zip(&self.inside) {
            assert_eq!(self.world.lets_in(person).await, *inside, "{step:?} {person:?}");
        }
    }

    async fn judge(&self) {
        let by = self.world.open(self.opener(None)).await.unwrap();
        by.rotate_keys(&self.given(None), &actor(), &self.world.work()).await.unwrap();
        for (person, _) in self.people.iter().zip(&self.inside).filter(|(_, inside)| **inside) {
            let opened = self.world.open(person).await.unwrap();
            self.world.assert_restores(&opened, &self.backups, self.log).await;
        }
        let faults = self.world.faults(&by).await;
        assert!(faults.is_empty(), "{faults:?}");
        self.world.guard.assert_clean();
    }
}

#[tokio::test(start_paused = true)]
async fn everything_restores_after_any_sequence_of_changes_and_deaths() {
    for seed in 0..12 {
        let mut dice = Dice::new(seed);
        let mut life = Life::new(seed).await;
        for _ in 0..12 {
            let Some(step) = life.choose(&mut dice) else { continue };
            // A piece of log that is stored twice is an error of the source: only changes of keys and backups are repeated.
            let dies = step != Step::Log && dice.below(2) == 0;
            let crash = Crash { after: dice.below(30) as u64, lands: dice.below(2) == 0, hangs: dice.below(2) == 0 };
            life.step(step, dies.then_some(crash)).await;
        }
        life.judge().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_at_any_request_of_a_change_leaves_what_the_same_change_completes() {
    for step in [Step::Add(1), Step::Add(3), Step::Remove(2), Step::Rotate] {
        for after in 0.. {
            let mut life = Life::new(after).await;
            life.step(Step::Backup, None).await;
            let crash = Crash { after, lands: after % 2 == 0, hangs: true };
            life.world.faults.crash(crash);
            let finished = tokio::select! {
                done = life.make(step) => { done.unwrap(); true }
                () = life.world.faults.crashed() => false,
            };
            life.world.faults.revive();
            life.step(step, None).await;
            life.step(Step::Backup, None).await;
            life.judge().await;
            if finished {
                assert!(after > 8, "{step:?} {after}");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stormy_store_breaks_nothing() {
    for seed in 0..10 {
        let mut dice = Dice::new(seed + 1000);
        let mut life = Life::new(seed).await;
        life.step(Step::Backup, None).await;
        for _ in 0..5 {
            let Some(step) = life.choose(&mut dice).filter(|step| !matches!(step, Step::Log | Step::Backup)) else {
                continue;
            };
            life.world.faults.set_plan(FaultPlan::stormy(0.05));
            let _ = life.make(step).await;
            life.world.faults.set_plan(FaultPlan::quiet());
            life.world.faults.flush_late().await;
            life.step(step, None).await;
        }
        life.judge().await;
    }
}
