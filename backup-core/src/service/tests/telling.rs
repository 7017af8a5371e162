//! People are told of everything at least once, whoever dies and whatever does not answer.

use std::time::Duration;

use jiff::SignedDuration;

use super::simulated::{World, id, owner};
use crate::catalog::ServiceChange;
use crate::service::{Done, NewService, Notice};

fn changes(world: &World) -> Vec<ServiceChange> {
    let told = world.told.0.lock();
    let change = |(_, notice): &(_, Notice)| match notice {
        Notice::Changed(audited) => Some(audited.change.clone()),
        _ => None,
    };
    told.iter().filter_map(change).collect()
}

#[tokio::test]
async fn what_could_not_be_told_is_told_later_in_order_and_stops_nothing() {
    let world = World::new(1);
    let fleet = world.fleet("one");
    world.machines.buy(&id("svc"), "redis");
    world.told.fail(true);
    let service = fleet.create(&owner(), NewService::new(id("svc"), "redis", "startup", "eu")).await.unwrap();
    service.change_plan(&owner(), "business").await.unwrap();
    world.clock.advance(Duration::from_secs(120));
    let tick = fleet.tick(&world.work()).await.unwrap();
    let done: Vec<_> = tick.done.iter().flat_map(|(_, done)| done).collect();
    assert!(done.iter().any(|d| matches!(d, Done::Untold { .. })), "it is reported: {done:?}");
    assert!(done.iter().any(|d| matches!(d, Done::Backup { .. })), "and the backup was made: {done:?}");
    assert_eq!(changes(&world), []);
    let attempts = world.told.attempts();
    world.pass(&fleet, SignedDuration::from_hours(2)).await;
    assert!(world.told.attempts() - attempts < 12, "the pauses grow: {}", world.told.attempts() - attempts);
    world.told.fail(false);
    // Another process knows what was not told, and nobody is told twice.
    let other = world.fleet("two");
    world.pass(&other, SignedDuration::from_hours(1)).await;
    world.pass(&fleet, SignedDuration::from_hours(2)).await;
    let told = changes(&world);
    assert!(matches!(&told[..], [ServiceChange::Created { .. }, ServiceChange::PlanChanged { .. }]), "{told:?}");
    let state = world.state(&id("svc")).await;
    assert_eq!(state.untold().count(), 0);
}

#[tokio::test]
async fn a_deadline_that_nobody_could_be_told_of_is_not_met_before_they_were() {
    let world = World::new(2);
    let fleet = world.fleet("one");
    world.machines.buy(&id("svc"), "redis");
    let service = fleet.create(&owner(), NewService::new(id("svc"), "redis", "startup", "eu")).await.unwrap();
    service.power_off(&owner(), false, &world.work()).await.unwrap();
    world.told.fail(true);
    world.pass(&fleet, SignedDuration::from_hours(24 * 200)).await;
    assert!(matches!(world.state(&id("svc")).await.stage, crate::catalog::Stage::Off { .. }));
    world.told.fail(false);
    world.clock.advance(Duration::from_secs(1));
    world.pass(&fleet, SignedDuration::from_hours(24 * 2)).await;
    assert!(matches!(world.state(&id("svc")).await.stage, crate::catalog::Stage::Deleted { .. }));
}
