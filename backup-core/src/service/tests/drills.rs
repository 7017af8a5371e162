//! Drills are done as often as the plan says, one at a time, beside everything else, and people hear of those that fail.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::simulated::{Page, World, id, loose_page, operator, owner};
use crate::catalog::{DrillCheck, DrillOutcome, DrillRecord};
use crate::engine::{
    BackupEngine, DrillEngine, EngineDescriptor, Examined, Reached, RestoreContext, ScratchInstance, Work,
};
use crate::error::{Error, ErrorKind, Result};
use crate::run::DrillTarget;
use crate::scratch::{Scratch, ScratchRoot};
use crate::service::{Done, DrillPlace, Fleet, NewService, Notice};
use crate::snapshot::Consistency;

/// What the drills of a test do.
#[derive(Debug, Default)]
struct Wishes {
    /// What is found.
    damaged: AtomicBool,
    /// There is no server.
    missing: AtomicBool,
    /// An instance is looked at until this is told.
    held: AtomicBool,
    go_on: Notify,
    /// How many instances are there.
    alive: AtomicUsize,
}

/// Proves pages.
#[derive(Debug)]
struct Prover {
    descriptor: EngineDescriptor,
    wishes: Arc<Wishes>,
}

impl fmt::Display for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("page")
    }
}

#[derive(Debug)]
struct Instance {
    page: Page,
    text: Arc<Mutex<String>>,
    wishes: Arc<Wishes>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.wishes.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl DrillEngine for Prover {
    fn descriptor(&self) -> &EngineDescriptor {
        &self.descriptor
    }

    async fn prepare(&self, _: &mut Scratch, _: &Work) -> Result<Box<dyn ScratchInstance>> {
        let text = Arc::<Mutex<String>>::default();
        assert_eq!(self.wishes.alive.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
        Ok(Box::new(Instance { page: loose_page(Arc::clone(&text)), text, wishes: Arc::clone(&self.wishes) }))
    }
}

#[async_trait]
impl ScratchInstance for Instance {
    fn engine(&self) -> &dyn BackupEngine {
        &self.page
    }

    async fn make_ready(&mut self, _: &mut Scratch, _: &RestoreContext) -> Result<String> {
        match self.wishes.missing.load(Ordering::SeqCst) {
            true => Err(Error::environment("there is no printer")),
            false => Ok("page 1".to_owned()),
        }
    }

    async fn start(&mut self, _: &mut Scratch, _: &RestoreContext) -> Result<()> {
        Ok(())
    }

    async fn reach(&mut self, cx: &RestoreContext) -> Result<Reached> {
        Ok(Reached::new(None, Some(cx.source().record().ended_at)))
    }

    async fn examine(&mut self, _: &Scratch, _: &RestoreContext) -> Result<Examined> {
        if self.wishes.held.load(Ordering::SeqCst) {
            self.wishes.go_on.notified().await;
        }
        let mut examined = Examined::default();
        examined.checks.push(DrillCheck::passed("letters").counted("letters", self.text.lock().len() as u64));
        if self.wishes.damaged.load(Ordering::SeqCst) {
            examined.wrong(DrillOutcome::Damaged, "a letter is missing");
        }
        Ok(examined)
    }
}

/// A platform with a place for drills, and a service that runs since a moment.
struct Site {
    world: World,
    fleet: Fleet,
    wishes: Arc<Wishes>,
    dir: tempfile::TempDir,
}

impl Site {
    async fn open(seed: u64, plan: &str) -> Self {
        let (world, wishes, dir) = (World::new(seed), Arc::<Wishes>::default(), tempfile::tempdir().unwrap());
        let fleet = world.fleet("one");
        world.machines.buy(&id("svc"), "redis");
        fleet.create(&owner(), NewService::new(id("svc"), "redis", plan, "eu")).await.unwrap();
        let site = Self { world, fleet, wishes, dir };
        *site.world.machines.drills.lock() = Some(site.place());
        site
    }

    fn place(&self) -> DrillPlace {
        let descriptor = EngineDescriptor::new("page", "Page", Consistency::PointInTime, "nothing");
        let prover = Prover { descriptor, wishes: Arc::clone(&self.wishes) };
        DrillPlace::new(Arc::new(prover), ScratchRoot::new(self.dir.path()))
    }

    /// Lets hours pass, and does what is due in each of them. Returns the drills.
    async fn pass(&self, fleet: &Fleet, hours: i64) -> Vec<DrillRecord> {
        let mut drilled = Vec::new();
        for _ in 0..hours {
            self.world.clock.advance(Duration::from_secs(3600));
            let mut done = fleet.tick(&self.world.work()).await.unwrap().done;
            while fleet.drill(&self.world.work()).await.unwrap() {}
            done.extend(fleet.drilled().done);
            drilled.extend(done.into_iter().flat_map(|(_, done)| done).filter_map(|done| match done {
                Done::Drilled { record } => Some(*record),
                _ => None,
            }));
        }
        drilled
    }

    fn failed(&self) -> usize {
        let told = self.world.told.0.lock();
        told.iter().filter(|(_, notice)| matches!(notice, Notice::DrillFailed { .. })).count()
    }
}

#[tokio::test]
async fn every_week_something_is_proven_where_there_is_a_place() {
    let site = Site::open(1, "premium").await;
    let drilled = site.pass(&site.fleet, 24 * 28).await;
    assert_eq!(drilled.len(), 4, "{drilled:?}");
    assert!(drilled.iter().all(|record| record.has_passed() && record.target.ends_with(", drawn")), "{drilled:?}");
    let gaps = drilled.windows(2).map(|pair| pair[1].began.duration_since(pair[0].began));
    assert!(gaps.into_iter().all(|gap| gap == SignedDuration::from_hours(24 * 7)), "{drilled:?}");
    let backups: std::collections::BTreeSet<_> = drilled.iter().map(|record| record.backup).collect();
    assert!(backups.len() > 1, "not always the same: {backups:?}");
    let status = site.fleet.open(&id("svc")).await.unwrap().status().await.unwrap().drills;
    let last = drilled.last().unwrap();
    assert_eq!((status.last_proven, status.proven_backup), (Some(last.ended), Some(last.backup)));
    assert!(status.next.is_some_and(|next| next > site.world.now()), "{status:?}");
    assert_eq!(std::fs::read_dir(site.dir.path()).unwrap().count(), 0);

    *site.world.machines.drills.lock() = None;
    assert_eq!(site.pass(&site.fleet, 24 * 8).await, [], "a host without a place leaves it to others");
    let elsewhere = site.world.fleet("two");
    *site.world.machines.drills.lock() = Some(site.place());
    assert_eq!(site.pass(&elsewhere, 12).await.len(), 1, "what was missed is caught up once");
}

#[tokio::test]
async fn a_drill_that_fails_is_told_and_tried_again_the_next_day() {
    let site = Site::open(2, "premium").await;
    let proven = site.pass(&site.fleet, 24 * 7).await;
    assert_eq!((proven.len(), site.failed()), (1, 0));
    site.wishes.damaged.store(true, Ordering::SeqCst);
    let failed = site.pass(&site.fleet, 24 * 7).await;
    assert!(failed.len() <= 7 && !failed.is_empty(), "{}", failed.len());
    assert_eq!(site.failed(), failed.len());
    assert!(failed.iter().all(|record| record.outcome == DrillOutcome::Damaged), "{failed:?}");
    site.wishes.damaged.store(false, Ordering::SeqCst);
    let again = site.pass(&site.fleet, 24).await;
    assert_eq!(again.len(), 1, "{again:?}");
    // One that cannot begin is no drill, and is told once.
    site.wishes.missing.store(true, Ordering::SeqCst);
    assert_eq!(site.pass(&site.fleet, 24 * 9).await, []);
    let troubles = {
        let told = site.world.told.0.lock();
        let about = |notice: &Notice| matches!(notice, Notice::Trouble { text } if text.contains("no printer"));
        told.iter().filter(|(_, notice)| about(notice)).count()
    };
    assert_eq!(troubles, 1);
    site.wishes.missing.store(false, Ordering::SeqCst);
    assert_eq!(site.pass(&site.fleet, 24 * 2).await.len(), 1);
}

#[tokio::test]
async fn a_drill_holds_up_no_backup_and_is_done_by_one_runner() {
    let site = Site::open(3, "premium").await;
    site.world.pass(&site.fleet, SignedDuration::from_hours(24 * 7)).await;
    site.wishes.held.store(true, Ordering::SeqCst);
    let (work, other) = (site.world.work(), site.world.fleet("two"));
    let drilling = site.fleet.drill(&work);
    let meanwhile = async {
        while site.world.catalog(&id("svc")).await.unwrap().drills().under_way(site.world.now()).is_none() {
            tokio::task::yield_now().await;
        }
        let before = site.world.catalog(&id("svc")).await.unwrap().backups().last().map(|backup| backup.id);
        // Longer than a word is believed, if it were not renewed.
        for minute in 1..=60 * 13 {
            site.world.clock.advance(Duration::from_secs(60));
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            if minute % 60 == 0 {
                other.tick(&work).await.unwrap();
                assert!(!other.drill(&work).await.unwrap(), "somebody else is at it");
            }
        }
        let catalog = site.world.catalog(&id("svc")).await.unwrap();
        assert!(catalog.drills().under_way(site.world.now()).is_some_and(|drill| drill.by.name == "one"));
        assert_ne!(catalog.backups().last().map(|backup| backup.id), before, "a backup was due and was made");
        let refused = other.open(&id("svc")).await.unwrap().drill(&operator(), DrillTarget::Random, &work).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
        let asked = other.open(&id("svc")).await.unwrap().drill(&owner(), DrillTarget::Random, &work).await;
        assert_eq!(asked.unwrap_err().kind(), ErrorKind::InvalidInput, "not for the owner");
        site.wishes.held.store(false, Ordering::SeqCst);
        site.wishes.go_on.notify_one();
    };
    let (drilled, ()) = tokio::join!(drilling, meanwhile);
    assert!(drilled.unwrap());
    assert_eq!(site.fleet.drilled().done.len(), 1);
    // Asked for, it is done at any time; what is cancelled is given up at once.
    let service = other.open(&id("svc")).await.unwrap();
    let cancel = tokio_util::sync::CancellationToken::new();
    site.wishes.held.store(true, Ordering::SeqCst);
    let given_up = work.clone().with_cancel(cancel.clone());
    let actor = operator();
    let asked = service.drill(&actor, DrillTarget::Random, &given_up);
    let stop = async {
        while site.wishes.alive.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (cancelled, ()) = tokio::join!(asked, stop);
    assert_eq!(cancelled.unwrap_err().kind(), ErrorKind::Cancelled);
    site.wishes.held.store(false, Ordering::SeqCst);
    let record = service.drill(&operator(), DrillTarget::Random, &work).await.unwrap();
    assert_eq!((record.has_passed(), record.by), (true, operator()));
}
