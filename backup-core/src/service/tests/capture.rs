//! Logs that are followed for as long as their service runs, by one runner at a time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::simulated::{World, id, operator, owner};
use crate::catalog::{RunPurpose, ServiceChange, Stage};
use crate::engine::Work;
use crate::error::Result;
use crate::repository::{Repository, Vault};
use crate::run::tests::lines::lineage;
use crate::service::{Fleet, ManagedService, NewService, Notice};

/// A runner in a task of its own.
struct Runner {
    fleet: Fleet,
    cancel: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Runner {
    fn start(world: &World, name: &str) -> Self {
        let (fleet, cancel) = (world.fleet(name).with_revisit(Duration::from_secs(60)), CancellationToken::new());
        let work = Work::new(world.env.clone()).with_cancel(cancel.clone());
        let running = fleet.clone();
        let task = tokio::spawn(async move { running.run(&work).await });
        Self { fleet, cancel, task }
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Lets time pass, second by second, until `done`.
async fn until(world: &World, what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..3600 {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        if done().await {
            return;
        }
        world.clock.advance(Duration::from_secs(1));
    }
    panic!("{what}: not within an hour");
}

/// How much of the log of `service` is stored.
async fn stored(world: &World, service: &str) -> u64 {
    let repository = world.vault.repository(&id(service)).unwrap();
    repository.log().await.unwrap().ledger().covered(&lineage(1)).end().unwrap_or(0)
}

fn written(world: &World, service: &str) -> u64 {
    world.machines.lines(&id(service)).position().offset
}

async fn holder(world: &World, service: &str) -> Option<String> {
    world.state(&id(service)).await.capture.map(|held| held.runner)
}

async fn bought(world: &World, fleet: &Fleet, kind: &str) -> ManagedService {
    world.machines.buy(&id("svc"), kind);
    fleet.create(&owner(), NewService::new(id("svc"), kind, "startup", "eu")).await.unwrap()
}

#[tokio::test]
async fn a_running_service_is_followed_until_it_is_turned_off_and_again_when_it_is_on() {
    let world = World::new(1);
    let other = world.fleet("other");
    let service = bought(&world, &other, "postgres").await;
    let runner = Runner::start(&world, "one");
    world.machines.write(&id("svc"), world.now(), "first");
    until(&world, "the first line is stored", async || stored(&world, "svc").await == written(&world, "svc")).await;
    assert_eq!(holder(&world, "svc").await.as_deref(), Some("one"));
    let before = world.state(&id("svc")).await;
    until(&world, "it is renewed", async || world.state(&id("svc")).await.capture != before.capture).await;
    world.machines.write(&id("svc"), world.now(), "second");

    // Another process turns it off: it follows the log to its end itself, and the runner lets go.
    service.power_off(&owner(), false, &world.work()).await.unwrap();
    let state = world.state(&id("svc")).await;
    assert_eq!((state.capture.clone(), state.captures), (None, 1));
    until(&world, "the runner has noticed", async || runner.fleet.to_capture().is_empty()).await;
    service.power_on(&owner(), &world.work()).await.unwrap();
    assert!(world.machines.read(&id("svc")).unwrap().contains("second"));
    // What was restored is another source to this engine, so that its log is refused; that it is asked for is what counts here.
    until(&world, "it is followed again", async || world.state(&id("svc")).await.captures > 1).await;
    runner.stop().await;
    let state = world.state(&id("svc")).await;
    assert_eq!((state.capture, state.stage), (None, Stage::Running), "whoever ends in order gives it back");
    assert!(state.trail.iter().all(|a| !matches!(a.change, ServiceChange::CaptureTaken { .. })));
}

#[tokio::test]
async fn a_runner_that_is_dead_is_replaced_when_its_lease_has_ended() {
    let world = World::new(2);
    let (one, two) = (world.fleet("one"), world.fleet("two"));
    let service = bought(&world, &one, "postgres").await;
    let work = world.work();
    {
        let mut dies = Box::pin(service.capture(&work));
        until(&world, "one follows", async || {
            assert!(futures::poll!(&mut dies).is_pending());
            holder(&world, "svc").await.is_some()
        })
        .await;
    }
    world.machines.write(&id("svc"), world.now(), "alone");
    let begun = world.now();
    let takes_over = two.open(&id("svc")).await.unwrap();
    let mut follows = Box::pin(takes_over.capture(&work));
    until(&world, "two follows", async || {
        assert!(futures::poll!(&mut follows).is_pending());
        holder(&world, "svc").await.as_deref() == Some("two")
    })
    .await;
    let waited = world.now().duration_since(begun);
    assert!((SignedDuration::from_secs(290)..SignedDuration::from_secs(310)).contains(&waited), "{waited:?}");
    until(&world, "it is stored", async || {
        assert!(futures::poll!(&mut follows).is_pending());
        stored(&world, "svc").await == written(&world, "svc")
    })
    .await;
}

#[tokio::test]
async fn of_two_runners_only_the_newer_is_acknowledged_also_when_the_older_wakes_up() {
    let world = World::new(3);
    let (one, two) = (world.fleet("one"), world.fleet("two"));
    let older = bought(&world, &one, "postgres").await;
    let newer = two.open(&id("svc")).await.unwrap();
    let work = world.work();
    let mut sleeper = Box::pin(older.capture(&work));
    until(&world, "one follows", async || {
        assert!(futures::poll!(&mut sleeper).is_pending());
        holder(&world, "svc").await.is_some()
    })
    .await;
    let mut follows = Box::pin(newer.capture(&work));
    until(&world, "two has taken over", async || {
        assert!(futures::poll!(&mut follows).is_pending());
        holder(&world, "svc").await.as_deref() == Some("two")
    })
    .await;
    let writers = async || {
        let catalog = world.catalog(&id("svc")).await.unwrap();
        catalog.log().writers().count()
    };
    until(&world, "two writes", async || {
        assert!(futures::poll!(&mut follows).is_pending());
        writers().await == 2
    })
    .await;
    // The older wakes up with something to store that the newer has not seen yet.
    let before = world.machines.lines(&id("svc")).acknowledged();
    world.machines.write(&id("svc"), world.now(), "contested");
    for _ in 0..1000 {
        assert!(futures::poll!(&mut sleeper).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(world.machines.lines(&id("svc")).acknowledged(), before, "a fenced writer acknowledges nothing");
    world.machines.write(&id("svc"), world.now(), "more");
    until(&world, "two has stored it", async || {
        assert!(futures::poll!(&mut follows).is_pending());
        assert!(futures::poll!(&mut sleeper).is_pending());
        stored(&world, "svc").await == written(&world, "svc")
    })
    .await;
    for _ in 0..600 {
        world.clock.advance(Duration::from_secs(1));
        assert!(futures::poll!(&mut follows).is_pending() && futures::poll!(&mut sleeper).is_pending());
        tokio::task::yield_now().await;
    }
    let state = world.state(&id("svc")).await;
    assert_eq!((state.capture.unwrap().runner.as_str(), state.captures), ("two", 2), "the older waits for its turn");
    assert_eq!(writers().await, 2);
}

#[tokio::test]
async fn a_capture_that_fails_is_told_once_and_tried_again() {
    let world = World::new(4);
    let fleet = world.fleet("one");
    let service = bought(&world, &fleet, "postgres").await;
    world.machines.unreachable.store(true, Ordering::SeqCst);
    let work = world.work();
    let mut follows = Box::pin(service.capture(&work));
    for _ in 0..200 {
        assert!(futures::poll!(&mut follows).is_pending());
        world.clock.advance(Duration::from_secs(1));
    }
    let troubles = world.told.0.lock().iter().filter(|(_, n)| matches!(n, Notice::Trouble { .. })).count();
    assert_eq!(troubles, 1, "{:?}", world.told);
    world.machines.unreachable.store(false, Ordering::SeqCst);
    world.machines.write(&id("svc"), world.now(), "x");
    let since = world.now();
    until(&world, "it is followed", async || {
        assert!(futures::poll!(&mut follows).is_pending());
        stored(&world, "svc").await == written(&world, "svc")
    })
    .await;
    assert!(world.now().duration_since(since) <= SignedDuration::from_secs(62));
}

#[tokio::test]
async fn who_has_no_log_is_not_followed_and_ticks_say_who_should_be() {
    let world = World::new(5);
    let fleet = world.fleet("one");
    let service = bought(&world, &fleet, "redis").await;
    let ticked = service.tick(&world.work()).await.unwrap();
    assert!(ticked.capture && service.wants_capture(), "nobody has asked the engine yet");
    service.capture(&world.work()).await.unwrap();
    assert!(!service.wants_capture());
    assert_eq!(world.state(&id("svc")).await.captures, 0, "nothing was written for it");
    service.power_off(&owner(), false, &world.work()).await.unwrap();
    assert!(!service.tick(&world.work()).await.unwrap().capture);
}

#[tokio::test]
async fn what_was_written_before_a_deletion_is_there_when_it_is_called_back() {
    for (kind, backed_up) in [("postgres", true), ("postgres", false), ("redis", true), ("redis", false)] {
        let world = World::new(6);
        let fleet = world.fleet("one");
        let service = bought(&world, &fleet, kind).await;
        if backed_up {
            fleet.tick(&world.work()).await.unwrap();
        }
        world.clock.advance(Duration::from_secs(1));
        world.machines.write(&id("svc"), world.now(), "last-words");
        service.delete(&owner()).await.unwrap();
        assert_eq!(holder(&world, "svc").await, None);
        world.pass(&fleet, SignedDuration::from_mins(5)).await;
        assert_eq!(world.machines.read(&id("svc")), None, "its machines are given up");
        let finals = usize::from(kind == "redis" && backed_up);
        let backups = world.catalog(&id("svc")).await.unwrap().backups().count();
        assert_eq!(backups, 1 + finals, "{kind}: a log that a backup leads to is enough");
        service.recover(&operator()).await.unwrap();
        service.power_on(&owner(), &world.work()).await.unwrap();
        let text = world.machines.read(&id("svc")).unwrap();
        assert!(text.contains("last-words"), "{kind}, {backed_up}: {text}");
    }
}

#[tokio::test]
async fn a_final_backup_of_a_deleted_service_that_failed_is_taken_when_its_machine_is_back() {
    let world = World::new(8);
    let fleet = world.fleet("one");
    let service = bought(&world, &fleet, "redis").await;
    world.machines.write(&id("svc"), world.now(), "last-words");
    world.machines.unreachable.store(true, Ordering::SeqCst);
    service.delete(&owner()).await.unwrap();
    world.pass(&fleet, SignedDuration::from_hours(2)).await;
    world.machines.unreachable.store(false, Ordering::SeqCst);
    world.pass(&fleet, SignedDuration::from_hours(2)).await;
    let state = world.state(&id("svc")).await;
    assert!(state.discarded);
    assert_eq!(state.last_made.unwrap().run.purpose, RunPurpose::Final);
}

#[tokio::test]
async fn a_machine_that_cannot_be_reached_does_not_keep_a_deleted_service_for_ever() {
    let world = World::new(7);
    let fleet = world.fleet("one");
    let service = bought(&world, &fleet, "postgres").await;
    fleet.tick(&world.work()).await.unwrap();
    world.machines.unreachable.store(true, Ordering::SeqCst);
    service.delete(&owner()).await.unwrap();
    world.pass(&fleet, SignedDuration::from_hours(5)).await;
    assert!(!world.state(&id("svc")).await.discarded, "it is tried for some hours");
    world.pass(&fleet, SignedDuration::from_hours(2)).await;
    assert!(world.state(&id("svc")).await.discarded);
    let lost =
        |notice: &Notice| matches!(notice, Notice::Trouble { text } if text.contains("what was written last is lost"));
    assert!(world.told.0.lock().iter().any(|(_, notice)| lost(notice)));
    world.pass(&fleet, SignedDuration::from_hours(24 * 31)).await;
    assert_eq!(world.vault.services().await.unwrap(), []);
}
