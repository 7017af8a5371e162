//! Nothing is destroyed while somebody reads it, and nothing stays for ever because somebody once did.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::oneshot;

use super::simulated::{World, id, operator, owner};
use crate::ErrorKind;
use crate::catalog::{Event, Stage};
use crate::repository::Vault;
use crate::run::while_reading;
use crate::service::{Fleet, NewService};

async fn deleted(world: &World) -> Fleet {
    let fleet = world.fleet("one");
    world.machines.buy(&id("svc"), "redis");
    let service = fleet.create(&owner(), NewService::new(id("svc"), "redis", "startup", "eu")).await.unwrap();
    world.pass(&fleet, SignedDuration::from_mins(5)).await;
    service.delete(&owner()).await.unwrap();
    world.pass(&fleet, SignedDuration::from_hours(24 * 30 - 1)).await;
    fleet
}

#[tokio::test]
async fn a_purge_waits_for_a_restore() {
    let world = World::new(1);
    let fleet = deleted(&world).await;
    let repository = world.vault.repository(&id("svc")).unwrap();
    let (finish, finished) = oneshot::channel();
    let work = world.work();
    let mut restore = Box::pin(while_reading(&repository, "restore", &work, async {
        finished.await.unwrap();
        Ok(7)
    }));
    assert!(futures::poll!(&mut restore).is_pending());
    // Hours after the grace has ended: the reader gives signs of life, minute by minute.
    for _ in 0..180 {
        world.clock.advance(Duration::from_secs(60));
        assert!(futures::poll!(&mut restore).is_pending());
        assert_eq!(fleet.tick(&world.work()).await.unwrap().failed, []);
    }
    assert!(matches!(world.state(&id("svc")).await.stage, Stage::Deleted { .. }));
    finish.send(()).unwrap();
    assert_eq!(restore.await.unwrap(), 7);
    assert!(world.state(&id("svc")).await.readers.is_empty());
    world.pass(&fleet, SignedDuration::from_hours(2)).await;
    assert_eq!(world.vault.services().await.unwrap(), []);
}

#[tokio::test]
async fn a_reader_that_died_keeps_it_for_a_quarter_of_an_hour() {
    let world = World::new(2);
    let fleet = deleted(&world).await;
    world.clock.advance(Duration::from_secs(3600));
    let repository = world.vault.repository(&id("svc")).unwrap();
    {
        let work = world.work();
        let dies = std::future::pending::<crate::Result<()>>();
        let mut dies = Box::pin(while_reading(&repository, "restore", &work, dies));
        assert!(futures::poll!(&mut dies).is_pending());
    }
    world.pass(&fleet, SignedDuration::from_mins(14)).await;
    assert_eq!(world.vault.services().await.unwrap().len(), 1);
    world.pass(&fleet, SignedDuration::from_mins(3)).await;
    assert_eq!(world.vault.services().await.unwrap(), []);
}

#[tokio::test]
async fn nothing_is_read_of_what_is_being_destroyed() {
    let world = World::new(3);
    let fleet = deleted(&world).await;
    world.clock.advance(Duration::from_secs(3600));
    // The runner dies right after it has committed that the purge begins.
    world.machines.crash.arm(3);
    let work = world.work();
    tokio::select! {
        _ = fleet.tick(&work) => panic!("it was to die"),
        () = world.machines.crash.happened.notified() => {}
    }
    world.machines.crash.disarm();
    if matches!(world.state(&id("svc")).await.stage, Stage::Deleted { .. }) {
        panic!("the purge has not begun: the number of steps has changed");
    }
    let repository = world.vault.repository(&id("svc")).unwrap();
    let refused = while_reading(&repository, "restore", &work, async { Ok(()) }).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
}

#[tokio::test]
async fn a_hold_of_a_fork_that_was_never_made_does_not_keep_a_deleted_service() {
    let world = World::new(4);
    let fleet = deleted(&world).await;
    let catalog = world.catalog(&id("svc")).await.unwrap();
    let (backup, at) = (catalog.latest().unwrap().id, world.now());
    let (hold, reason) = ("fork:nobody".to_owned(), "service nobody is being forked from it".to_owned());
    let placed = Event::HoldPlaced { backup, hold, reason, by: operator(), at, log: false };
    let repository = fleet.open(&id("svc")).await.unwrap();
    repository.repository().decide(&mut |_| Ok(vec![placed.clone()])).await.unwrap();
    world.pass(&fleet, SignedDuration::from_hours(4)).await;
    assert_eq!(world.vault.services().await.unwrap(), []);
}
