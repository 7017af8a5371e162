//! A process that dies at every step, and another one that finds what it has left.

use std::future::Future;

use jiff::SignedDuration;

use super::simulated::{World, id, operator, owner};
use crate::catalog::Stage;
use crate::repository::Vault;
use crate::service::{Fleet, ForkTarget, NewFork, NewService};

/// Lets another process run the services for long enough that leases end and everything is finished.
async fn settle(world: &World) -> Fleet {
    let fleet = world.fleet("two");
    world.pass(&fleet, SignedDuration::from_mins(30)).await;
    fleet
}

/// Runs `act` in a world made by `prepare`, with a crash after each number of steps until it gets through, and `check`s what another
/// process makes of the rest. How many crashes there were.
async fn crash_everywhere<P, A, C>(kind: &str, prepare: P, act: A, check: C) -> usize
where
    P: AsyncFn(&World, &Fleet),
    A: AsyncFn(&World, &Fleet),
    C: AsyncFn(&World, bool),
{
    for steps in 0..200 {
        let world = World::new(steps as u64 + 1);
        let fleet = world.fleet("one");
        let name = id("svc");
        world.machines.buy(&name, kind);
        fleet.create(&owner(), NewService::new(name.clone(), kind, "startup", "eu")).await.unwrap();
        world.machines.write(&name, world.now(), "first");
        world.pass(&fleet, SignedDuration::from_mins(2)).await;
        world.machines.write(&name, world.now(), "second");
        prepare(&world, &fleet).await;
        world.machines.crash.arm(steps);
        let finished = {
            let act: std::pin::Pin<Box<dyn Future<Output = ()> + '_>> = Box::pin(act(&world, &fleet));
            tokio::select! {
                () = act => true,
                () = world.machines.crash.happened.notified() => false,
            }
        };
        world.machines.crash.disarm();
        drop(fleet);
        settle(&world).await;
        check(&world, finished).await;
        if finished {
            return steps;
        }
    }
    panic!("it never gets through");
}

async fn nothing(_: &World, _: &Fleet) {}

async fn power_off(world: &World, fleet: &Fleet) {
    let service = fleet.open(&id("svc")).await.unwrap();
    service.power_off(&owner(), false, &world.work()).await.unwrap();
}

/// The service has everything that was ever written, whether it is on or off.
async fn has_all(world: &World) {
    let name = id("svc");
    let state = world.state(&name).await;
    assert!(state.run.is_none());
    let fleet = world.fleet("three");
    let service = fleet.open(&name).await.unwrap();
    match state.stage {
        Stage::Off { .. } => {
            assert!(state.discarded, "its machines are given up");
            service.power_on(&owner(), &world.work()).await.unwrap();
        }
        Stage::Running => {}
        other => panic!("{other}"),
    }
    let text = world.machines.read(&name).unwrap();
    assert!(text.contains("first") && text.contains("second"), "{text}");
}

#[tokio::test]
async fn power_off_without_a_log() {
    let crashes = crash_everywhere("redis", nothing, power_off, async |world, _| has_all(world).await).await;
    assert!(crashes >= 15, "{crashes}");
}

#[tokio::test]
async fn power_off_with_a_log() {
    let crashes = crash_everywhere("postgres", nothing, power_off, async |world, _| has_all(world).await).await;
    assert!(crashes >= 12, "{crashes}");
}

#[tokio::test]
async fn power_on() {
    for kind in ["redis", "postgres"] {
        let on = async |world: &World, fleet: &Fleet| {
            let service = fleet.open(&id("svc")).await.unwrap();
            service.power_on(&owner(), &world.work()).await.unwrap();
        };
        let crashes = crash_everywhere(kind, power_off, on, async |world, _| has_all(world).await).await;
        assert!(crashes >= 8, "{crashes}");
    }
}

#[tokio::test]
async fn delete_recover_and_purge() {
    let delete = async |_: &World, fleet: &Fleet| {
        fleet.open(&id("svc")).await.unwrap().delete(&owner()).await.unwrap();
    };
    crash_everywhere("redis", nothing, delete, async |world, _| {
        if matches!(world.state(&id("svc")).await.stage, Stage::Deleted { .. }) {
            assert_eq!(world.machines.read(&id("svc")), None);
            let fleet = world.fleet("three");
            let service = fleet.open(&id("svc")).await.unwrap();
            service.recover(&operator()).await.unwrap();
            service.power_on(&owner(), &world.work()).await.unwrap();
            // What was written after the last backup went with the machines: it was deleted while it ran.
            assert!(world.machines.read(&id("svc")).unwrap().contains("first"));
        }
    })
    .await;

    let deleted = async |world: &World, fleet: &Fleet| {
        fleet.open(&id("svc")).await.unwrap().delete(&owner()).await.unwrap();
        world.pass(fleet, SignedDuration::from_hours(24 * 30 - 1)).await;
        assert_eq!(world.vault.services().await.unwrap().len(), 1, "it is there until the last hour");
        world.clock.advance(std::time::Duration::from_secs(3600));
    };
    let purge = async |world: &World, fleet: &Fleet| {
        fleet.tick(&world.work()).await.unwrap();
    };
    let crashes = crash_everywhere("redis", deleted, purge, async |world, _| {
        assert_eq!(world.vault.services().await.unwrap(), [], "nothing stays for ever");
    })
    .await;
    assert!(crashes >= 5, "{crashes}");
}

#[tokio::test]
async fn fork() {
    for kind in ["redis", "postgres"] {
        let make = async |world: &World, fleet: &Fleet| {
            let fork = NewFork::new(id("fork")).at(ForkTarget::Latest);
            fleet.fork(&owner(), &id("svc"), fork, &world.work()).await.unwrap();
        };
        let crashes = crash_everywhere(kind, nothing, make, async |world, finished| {
            let fork = world.catalog(&id("fork")).await;
            match fork.as_ref().and_then(|catalog| catalog.service()) {
                Some(service) => {
                    assert_eq!(service.stage, Stage::Running);
                    assert!(world.machines.read(&id("fork")).unwrap().contains("first"));
                }
                None => assert!(!finished),
            }
            // A hold that nobody needs goes by itself.
            let fleet = world.fleet("four");
            world.pass(&fleet, SignedDuration::from_hours(3)).await;
            let source = world.catalog(&id("svc")).await.unwrap();
            assert!(source.backups().all(|b| source.holds(b.id).next().is_none()));
            has_all(world).await;
        })
        .await;
        assert!(crashes >= 10, "{crashes}");
    }
}

#[tokio::test]
async fn a_scheduled_backup() {
    let tick = async |world: &World, fleet: &Fleet| {
        world.clock.advance(std::time::Duration::from_secs(13 * 3600));
        fleet.tick(&world.work()).await.unwrap();
    };
    let crashes = crash_everywhere("redis", nothing, tick, async |world, _| {
        let catalog = world.catalog(&id("svc")).await.unwrap();
        let newest = catalog.latest().unwrap();
        let age = world.now().duration_since(newest.ended_at);
        assert!(age < SignedDuration::from_hours(1), "the slot is served: {age:?}");
        assert!(catalog.service().unwrap().run.is_none());
        let open = catalog.sessions().filter(|(_, s)| matches!(s, crate::catalog::SessionState::Open { .. }));
        assert_eq!(open.count(), 0, "what the dead process has left open is fenced");
        has_all(world).await;
    })
    .await;
    assert!(crashes >= 8, "{crashes}");
}
