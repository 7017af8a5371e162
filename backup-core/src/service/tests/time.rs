//! Clocks that jump, runners that sleep, and two at once.

use std::time::Duration;

use futures::StreamExt;
use jiff::SignedDuration;

use super::simulated::{World, id, owner};
use crate::service::{Done, NewService};

/// When backups began that were made while `act` happened, in hours since the start.
async fn begun(world: &World, name: &str) -> Vec<i64> {
    let state = world.state(&id(name)).await;
    let started = state.trail.iter().filter(|a| matches!(a.change, crate::catalog::ServiceChange::RunStarted { .. }));
    started.map(|a| (a.at.as_second() - super::simulated::START) / 3600).collect()
}

async fn daily(world: &World) -> crate::service::Fleet {
    let fleet = world.fleet("one");
    world.machines.buy(&id("svc"), "clickhouse");
    let new = NewService::new(id("svc"), "clickhouse", "premium", "eu").scheduled(Some(4), Some(0));
    fleet.create(&owner(), new).await.unwrap();
    fleet
}

#[tokio::test]
async fn a_runner_that_slept_for_three_days_makes_one_backup_and_goes_on() {
    let world = World::new(1);
    let fleet = daily(&world).await;
    world.pass(&fleet, SignedDuration::from_hours(48)).await;
    world.clock.advance(Duration::from_secs(72 * 3600 + 7200));
    for _ in 0..3 {
        fleet.tick(&world.work()).await.unwrap();
    }
    world.pass(&fleet, SignedDuration::from_hours(48)).await;
    assert_eq!(begun(&world, "svc").await, [0, 4, 28, 122, 124, 148]);
}

#[tokio::test]
async fn a_wall_clock_that_jumps_loses_no_backup_and_doubles_none() {
    let world = World::new(2);
    let fleet = daily(&world).await;
    world.pass(&fleet, SignedDuration::from_hours(48)).await;
    let before = begun(&world, "svc").await.len();
    world.clock.jump(SignedDuration::from_hours(24));
    for _ in 0..5 {
        fleet.tick(&world.work()).await.unwrap();
    }
    let forward = begun(&world, "svc").await.len() - before;
    assert!(forward <= 1, "{forward}");
    world.clock.jump(SignedDuration::from_hours(-24));
    for _ in 0..5 {
        fleet.tick(&world.work()).await.unwrap();
    }
    assert_eq!(begun(&world, "svc").await.len() - before, forward, "the same moment again makes nothing");
    world.pass(&fleet, SignedDuration::from_hours(24 * 5)).await;
    let made = begun(&world, "svc").await.len() - before - forward;
    assert!((4..=6).contains(&made), "{made} in five days: {:?}", begun(&world, "svc").await);
}

#[tokio::test]
async fn two_runners_share_the_work_and_never_do_it_twice() {
    let world = World::new(3);
    let (one, two) = (world.fleet("one"), world.fleet("two"));
    let names: Vec<_> = (0..40).map(|n| format!("svc-{n}")).collect();
    for name in &names {
        world.machines.buy(&id(name), "grafana");
        one.create(&owner(), NewService::new(id(name), "grafana", "startup", "eu")).await.unwrap();
    }
    let end = world.now().checked_add(SignedDuration::from_hours(50)).unwrap();
    while world.now() < end {
        let work = world.work();
        let ticks = futures::stream::iter([&one, &two, &one]).map(|fleet| fleet.tick(&work)).buffer_unordered(3);
        for tick in ticks.collect::<Vec<_>>().await {
            let tick = tick.unwrap();
            assert_eq!(tick.failed, []);
            assert!(tick.lateness() <= SignedDuration::from_mins(10), "{:?}", tick.lateness());
        }
        world.clock.advance(Duration::from_secs(300));
    }
    for name in &names {
        let hours = begun(&world, name).await;
        let state = world.state(&id(name)).await;
        // The first one at once, then one in each hour.
        assert!((50..=51).contains(&hours.len()), "{name}: {hours:?}");
        assert_eq!(state.failures, 0);
        assert!(state.run.is_none() && state.lease.is_none());
    }
}

#[tokio::test]
async fn a_runner_that_lost_its_lease_commits_nothing() {
    let world = World::new(4);
    let (one, two) = (world.fleet("one"), world.fleet("two"));
    world.machines.buy(&id("svc"), "redis");
    let service = one.create(&owner(), NewService::new(id("svc"), "redis", "startup", "eu")).await.unwrap();
    // The first runner is stopped for longer than its lease in the middle of a backup.
    world.machines.crash.arm(6);
    let work = world.work();
    let mut stopped = Box::pin(service.tick(&work));
    tokio::select! {
        _ = &mut stopped => panic!("it was to stop"),
        () = world.machines.crash.happened.notified() => {}
    }
    world.machines.crash.disarm();
    assert!(world.state(&id("svc")).await.run.is_some());
    let other = two.open(&id("svc")).await.unwrap();
    let busy = other.tick(&work).await.unwrap();
    assert_eq!((busy.done.len(), busy.busy.unwrap().runner.as_str()), (0, "one"));
    // Its own renewals stop with it.
    drop(stopped);
    world.clock.advance(Duration::from_secs(301));
    // A backup that has cost a runner its life counts as failed, so that it does not cost every runner its life at once.
    let ticked = other.tick(&work).await.unwrap();
    assert_eq!((ticked.done.len(), world.state(&id("svc")).await.failures), (0, 1));
    world.clock.advance(Duration::from_secs(301));
    let ticked = other.tick(&work).await.unwrap();
    assert!(ticked.done.iter().any(|done| matches!(done, Done::Backup { .. })), "{ticked:?}");
    let catalog = world.catalog(&id("svc")).await.unwrap();
    assert_eq!(catalog.backups().count(), 1);
}
