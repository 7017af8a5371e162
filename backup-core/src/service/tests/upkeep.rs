//! Everything that is stored is read in turn, a part a day, and damage is told.

use std::time::Duration;

use jiff::SignedDuration;

use super::simulated::{World, id, owner};
use crate::repository::{Damage, VerifyLevel};
use crate::service::{Done, NewService, Notice};

#[tokio::test]
async fn a_part_of_what_is_stored_is_read_each_day() {
    let world = World::new(1);
    let one = world.fleet("one");
    world.machines.buy(&id("svc"), "redis");
    one.create(&owner(), NewService::new(id("svc"), "redis", "startup", "eu")).await.unwrap();
    world.pass(&one, SignedDuration::from_hours(24 * 5)).await;
    let verified = world.machines.crash.verified.lock().clone();
    assert!((4..=6).contains(&verified.len()), "{verified:?}");
    let apart = |pair: &[(jiff::Timestamp, VerifyLevel)]| pair[1].0.duration_since(pair[0].0).as_hours();
    assert!(verified.windows(2).all(|pair| apart(pair) >= 24), "{verified:?}");
    assert!(verified.iter().all(|(_, level)| matches!(level, VerifyLevel::Budget(bytes) if *bytes >= 64 << 20)));
}

#[tokio::test]
async fn damage_is_told_and_stops_nothing() {
    let world = World::new(2);
    let fleet = world.fleet("one");
    world.machines.buy(&id("svc"), "redis");
    fleet.create(&owner(), NewService::new(id("svc"), "redis", "startup", "eu")).await.unwrap();
    world.pass(&fleet, SignedDuration::from_hours(30)).await;
    let backup = world.catalog(&id("svc")).await.unwrap().backups().next().unwrap().id;
    *world.machines.crash.damage.lock() = Some(Damage::new("packs/x/000000", "it is missing", vec![backup]));
    let mut damaged = Vec::new();
    for _ in 0..48 {
        world.clock.advance(Duration::from_secs(3600));
        let tick = fleet.tick(&world.work()).await.unwrap();
        assert_eq!(tick.failed, []);
        let found = |done: &Done| matches!(done, Done::Damaged { harmed, objects: 1 } if *harmed == [backup]);
        let all = tick.done.iter().flat_map(|(service, done)| done.iter().map(move |done| (service, done)));
        damaged.extend(all.filter(|(_, done)| found(done)).map(|(service, _)| service.clone()));
    }
    assert_eq!(damaged, [id("svc"), id("svc")], "once a day");
    assert!(world.catalog(&id("svc")).await.unwrap().latest().unwrap().id != backup, "backups go on");
    let told = world.told.0.lock();
    let texts = told.iter().filter_map(|(_, notice)| match notice {
        Notice::Trouble { text } => Some(text.as_str()),
        _ => None,
    });
    assert_eq!(texts.filter(|text| text.contains("packs/x/000000: it is missing")).count(), 2);
}
