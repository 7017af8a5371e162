use jiff::{SignedDuration, Timestamp};

use super::simulated::{World, id, operator, owner};
use crate::ErrorKind;
use crate::catalog::{RunPurpose, ServiceChange, Stage};
use crate::repository::Vault;
use crate::service::{Done, ForkTarget, NewFork, NewService};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

#[tokio::test]
async fn a_service_without_log_loses_nothing_over_its_whole_life() {
    let world = World::new(1);
    let fleet = world.fleet("one");
    let name = id("cache");
    world.machines.buy(&name, "redis");
    let service = fleet
        .create(&owner(), NewService::new(name.clone(), "redis", "startup", "eu").scheduled(Some(3), Some(30)))
        .await
        .unwrap();
    world.machines.write(&name, world.now(), "a");
    world.pass(&fleet, days(3)).await;
    // Every twelve hours, up to one day; the first one at once.
    let listed = service.backups(&owner()).await.unwrap();
    let begun: Vec<_> = listed.iter().map(|b| b.started_at.strftime("%d %H:%M").to_string()).collect();
    assert_eq!(begun, ["03 03:30", "03 15:30"], "{listed:?}");
    assert!(listed.iter().all(|b| b.user_restorable && !b.kept.is_empty() && b.location == "eu"));
    assert!(listed[0].name.starts_with("cache-20261103T0330"), "{}", listed[0].name);

    world.machines.write(&name, world.now(), "b");
    service.power_off(&owner(), false, &world.work()).await.unwrap();
    assert_eq!(world.machines.read(&name), None);
    let state = world.state(&name).await;
    assert!(state.discarded && matches!(state.stage, Stage::Off { .. }));
    assert_eq!(state.last_made.unwrap().run.purpose, RunPurpose::Final);
    world.pass(&fleet, days(20)).await;
    service.power_on(&owner(), &world.work()).await.unwrap();
    assert_eq!(world.machines.read(&name).as_deref(), Some("ab"));
    assert_eq!(world.state(&name).await.stage, Stage::Running);

    world.machines.write(&name, world.now(), "c");
    world.pass(&fleet, DAY).await;
    world.machines.lose(&name);
    service.replace_node(&operator(), &world.work()).await.unwrap();
    assert_eq!(world.machines.read(&name).as_deref(), Some("abc"));

    service.delete(&owner()).await.unwrap();
    world.pass(&fleet, days(29)).await;
    assert_eq!(world.machines.read(&name), None);
    assert_eq!(
        service.recover(&owner()).await.unwrap_err().kind(),
        ErrorKind::InvalidInput,
        "that is for the operator"
    );
    service.recover(&operator()).await.unwrap();
    service.power_on(&owner(), &world.work()).await.unwrap();
    assert_eq!(world.machines.read(&name).as_deref(), Some("abc"));

    service.delete(&owner()).await.unwrap();
    world.pass(&fleet, days(30) + SignedDuration::from_hours(1)).await;
    assert_eq!(world.vault.services().await.unwrap(), []);
    assert_eq!(fleet.known(), []);
    // Its name can be used again.
    fleet.create(&owner(), NewService::new(name, "redis", "startup", "eu")).await.unwrap();
}

#[tokio::test]
async fn a_service_with_a_log_comes_back_to_its_last_commit_and_forks_to_any_moment() {
    let world = World::new(2);
    let fleet = world.fleet("one");
    let name = id("orders");
    world.machines.buy(&name, "postgres");
    let service = fleet.create(&owner(), NewService::new(name.clone(), "postgres", "startup", "eu")).await.unwrap();
    world.machines.write(&name, world.now(), "one");
    world.pass(&fleet, SignedDuration::from_hours(1)).await;
    world.machines.write(&name, world.now(), "two");
    let between = world.now();
    world.pass(&fleet, SignedDuration::from_mins(10)).await;
    world.machines.write(&name, world.now(), "three");
    service.power_off(&owner(), false, &world.work()).await.unwrap();
    let Some(ServiceChange::PoweredOff { loss }) = world
        .state(&name)
        .await
        .trail
        .iter()
        .rev()
        .map(|a| a.change.clone())
        .find(|c| matches!(c, ServiceChange::PoweredOff { .. }))
    else {
        panic!()
    };
    assert_eq!(loss, None);
    assert_eq!(world.catalog(&name).await.unwrap().backups().count(), 1, "the log is enough");

    let fork = NewFork::new(id("orders-fork")).at(ForkTarget::Time(between));
    let fork = fleet.fork(&owner(), &name, fork, &world.work()).await.unwrap();
    let text = world.machines.read(fork.id()).unwrap();
    assert!(text.contains("two") && !text.contains("three"), "{text}");
    assert!(world.state(fork.id()).await.spec.origin.is_some());
    let catalog = world.catalog(&name).await.unwrap();
    assert!(catalog.backups().all(|b| catalog.holds(b.id).next().is_none()), "the hold ends with the fork");
    assert_eq!(world.machines.read(&name), None, "the source was not asked");

    service.power_on(&owner(), &world.work()).await.unwrap();
    let text = world.machines.read(&name).unwrap();
    assert!(text.contains("three"), "{text}");
}

#[tokio::test]
async fn off_for_too_long_ends_it_after_three_notices_and_toggling_prevents_it() {
    let world = World::new(3);
    let fleet = world.fleet("one");
    let name = id("idle");
    world.machines.buy(&name, "redis");
    let service = fleet.create(&owner(), NewService::new(name.clone(), "redis", "startup", "eu")).await.unwrap();
    world.machines.write(&name, world.now(), "x");
    service.power_off(&owner(), false, &world.work()).await.unwrap();
    world.pass(&fleet, days(160)).await;
    assert_eq!(world.told.deadlines(), ["deletion-in-30d"]);
    service.power_on(&owner(), &world.work()).await.unwrap();
    service.power_off(&owner(), false, &world.work()).await.unwrap();
    world.pass(&fleet, days(179)).await;
    assert_eq!(world.told.deadlines().len(), 1 + 3 - 1, "{:?}", world.told.deadlines());
    world.pass(&fleet, days(2)).await;
    assert_eq!(world.told.deadlines()[1..], ["deletion-in-30d", "deletion-in-7d", "deletion-in-24h"]);
    assert!(matches!(world.state(&name).await.stage, Stage::Deleted { .. }));
    world.pass(&fleet, days(31)).await;
    assert_eq!(world.vault.services().await.unwrap(), []);
}

#[tokio::test]
async fn what_a_plan_does_not_give_is_refused_with_what_it_gives() {
    let world = World::new(4);
    let fleet = world.fleet("one");
    let new = |kind: &str, plan: &str| NewService::new(id("svc"), kind, plan, "eu");
    let refused = async |new: NewService| {
        let error = fleet.create(&owner(), new).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        error.to_string()
    };
    assert!(refused(new("cassandra", "hobbyist")).await.contains("available are startup, business, premium"));
    assert!(refused(new("kafka", "business")).await.contains("MirrorMaker"));
    assert!(refused(new("m3aggregator", "business")).await.contains("no data of its own"));
    assert!(refused(new("oracle", "business")).await.contains("known are"));
    assert!(refused(new("redis", "gold")).await.contains("startup"));
    assert!(refused(new("redis", "startup").scheduled(Some(24), None)).await.contains("23"));
    assert!(refused(new("redis", "startup").scheduled(None, Some(-1))).await.contains("59"));
    let mut nowhere = new("redis", "startup");
    nowhere.region = "mars".to_owned();
    assert!(refused(nowhere).await.contains("eu"));
    assert_eq!(world.vault.services().await.unwrap(), [], "nothing is left of what was refused");

    // One backup, for disaster recovery only.
    world.machines.buy(&id("svc"), "redis");
    let service = fleet.create(&owner(), new("redis", "hobbyist")).await.unwrap();
    world.machines.write(&id("svc"), world.now(), "x");
    world.pass(&fleet, days(3)).await;
    let listed = service.backups(&owner()).await.unwrap();
    assert_eq!((listed.len(), listed[0].user_restorable), (1, false));
    let fork = |target| NewFork::new(id("fork")).at(target);
    let error = fleet.fork(&owner(), &id("svc"), fork(ForkTarget::Latest), &world.work()).await.unwrap_err();
    assert!(error.to_string().contains("disaster recovery only"), "{error}");
    world.machines.lose(&id("svc"));
    service.replace_node(&operator(), &world.work()).await.unwrap();
    assert_eq!(world.machines.read(&id("svc")).as_deref(), Some("x"));

    service.change_plan(&owner(), "business").await.unwrap();
    let moment = ForkTarget::Time(world.now());
    let error = fleet.fork(&owner(), &id("svc"), fork(moment), &world.work()).await.unwrap_err();
    assert!(error.to_string().contains("no point-in-time recovery"), "{error}");
    let gone = listed[0].id;
    world.pass(&fleet, days(10)).await;
    let error = fleet.fork(&owner(), &id("svc"), fork(ForkTarget::Backup(gone)), &world.work()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("expired"), "{error}");
    service.suspend(&owner(), Some("redis_persistence is off")).await.unwrap();
    let before = service.backups(&owner()).await.unwrap().len();
    world.pass(&fleet, days(2)).await;
    assert!(service.backups(&owner()).await.unwrap().len() < before, "no new ones, and the old ones age");
    let error = fleet.fork(&owner(), &id("svc"), fork(ForkTarget::Latest), &world.work()).await.unwrap_err();
    assert!(error.to_string().contains("redis_persistence"), "{error}");
    let error = service.back_up(&owner(), &world.work()).await.unwrap_err();
    assert!(error.to_string().contains("redis_persistence"), "{error}");
    // Powering off would lose what is there.
    let error = service.power_off(&owner(), false, &world.work()).await.unwrap_err();
    assert!(error.to_string().contains("stays on"), "{error}");
    assert_eq!(world.machines.read(&id("svc")).as_deref(), Some("x"));
    service.power_off(&owner(), true, &world.work()).await.unwrap();
    let state = world.state(&id("svc")).await;
    let lost = state.trail.iter().find(|a| matches!(&a.change, ServiceChange::PoweredOff { loss: Some(_) }));
    assert!(lost.is_some());
}

#[tokio::test]
async fn a_service_without_backup_is_powered_off_only_with_its_owners_word() {
    let world = World::new(5);
    let fleet = world.fleet("one");
    let name = id("fresh");
    world.machines.buy(&name, "redis");
    let service = fleet.create(&owner(), NewService::new(name.clone(), "redis", "startup", "eu")).await.unwrap();
    world.machines.unreachable.store(true, std::sync::atomic::Ordering::SeqCst);
    let error = service.power_off(&owner(), false, &world.work()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
    assert_eq!(world.state(&name).await.stage, Stage::Running);
    service.power_off(&owner(), true, &world.work()).await.unwrap();
    world.machines.unreachable.store(false, std::sync::atomic::Ordering::SeqCst);
    service.power_on(&owner(), &world.work()).await.unwrap();
    assert_eq!(world.machines.read(&name).as_deref(), Some(""), "it begins anew");
}

#[tokio::test]
async fn what_was_stored_by_other_means_is_adopted() {
    let world = World::new(9);
    let fleet = world.fleet("one");
    let name = id("found");
    world.machines.buy(&name, "redis");
    let new = || NewService::new(name.clone(), "redis", "startup", "eu");
    world.vault.create(&name).await.unwrap();
    let service = fleet.create(&owner(), new()).await.unwrap();
    service.back_up(&owner(), &world.work()).await.unwrap();
    assert_eq!(
        fleet.adopt(&operator(), new()).await.unwrap_err().kind(),
        ErrorKind::Conflict,
        "it is under management"
    );

    // A repository that somebody has filled without a fleet.
    let other = id("other");
    let repository = world.vault.create(&other).await.unwrap();
    world.machines.buy(&other, "redis");
    world.machines.write(&other, world.now(), "old");
    let engine = world.machines.engine(&other).await;
    crate::run::backup(&*repository, &*engine, crate::run::BackupOptions::default(), &world.work()).await.unwrap();
    let new = || NewService::new(other.clone(), "redis", "startup", "eu");
    assert_eq!(fleet.create(&owner(), new()).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(fleet.adopt(&owner(), new()).await.unwrap_err().kind(), ErrorKind::InvalidInput, "not for the owner");
    let service = fleet.adopt(&operator(), new()).await.unwrap();
    world.machines.lose(&other);
    service.replace_node(&operator(), &world.work()).await.unwrap();
    assert_eq!(world.machines.read(&other).as_deref(), Some("old"));
}

#[tokio::test]
async fn holds_keep_backups_and_postpone_a_purge() {
    let world = World::new(6);
    let fleet = world.fleet("one");
    let name = id("evidence");
    world.machines.buy(&name, "redis");
    let service = fleet.create(&owner(), NewService::new(name.clone(), "redis", "startup", "eu")).await.unwrap();
    world.pass(&fleet, SignedDuration::from_mins(1)).await;
    let first = service.backups(&owner()).await.unwrap()[0].id;
    assert!(service.hold(&owner(), first, "case-7", "asked by the court").await.is_err());
    service.hold(&operator(), first, "case-7", "asked by the court").await.unwrap();
    world.pass(&fleet, days(5)).await;
    let listed = service.backups(&owner()).await.unwrap();
    let held = listed.iter().find(|b| b.id == first).unwrap();
    assert!(held.kept.iter().any(|kept| kept.reason == "on hold") && held.expires_at.is_none());
    service.delete(&owner()).await.unwrap();
    world.pass(&fleet, days(60)).await;
    assert!(world.catalog(&name).await.unwrap().backup(first).is_some());
    service.release(&operator(), first, "case-7").await.unwrap();
    world.pass(&fleet, SignedDuration::from_hours(2)).await;
    assert_eq!(world.vault.services().await.unwrap(), []);
}

#[tokio::test]
async fn moving_leaves_the_backups_where_they_are_and_regions_without_storage_use_their_neighbours() {
    let world = World::new(7);
    let fleet = world.fleet("one");
    let mut new = NewService::new(id("far"), "redis", "startup", "moon");
    new.backup_hour = Some(5);
    world.machines.buy(&id("far"), "redis");
    let service = fleet.create(&owner(), new).await.unwrap();
    service.move_to(&owner(), "mars").await.unwrap();
    let spec = world.state(&id("far")).await.spec;
    assert_eq!((spec.home.as_str(), spec.location.as_str(), spec.zone.as_str()), ("moon", "eu", "mars"));
    let audit = service.audit(&owner(), Timestamp::MIN, Timestamp::MAX).await.unwrap();
    assert_eq!(audit.iter().map(|a| a.by.name.as_str()).collect::<Vec<_>>(), ["kim", "kim"]);
}

#[tokio::test]
async fn backups_that_fail_are_tried_again_with_growing_pauses_and_told() {
    let world = World::new(8);
    let fleet = world.fleet("one");
    let name = id("flaky");
    let service = fleet.create(&owner(), NewService::new(name.clone(), "redis", "startup", "eu")).await.unwrap();
    let mut attempts = Vec::new();
    let begun = world.now();
    while world.now().duration_since(begun) < SignedDuration::from_hours(3) {
        let tick = fleet.tick(&world.work()).await.unwrap();
        if tick.done.iter().flat_map(|(_, done)| done).any(|done| matches!(done, Done::BackupFailed { .. })) {
            attempts.push(world.now().duration_since(begun).as_mins());
        }
        world.clock.advance(std::time::Duration::from_secs(60));
    }
    assert_eq!(attempts, [0, 5, 15, 35, 75, 135], "five minutes, doubling up to an hour");
    assert_eq!(service.status().await.unwrap().failures, 6);
    world.machines.buy(&name, "redis");
    world.pass(&fleet, SignedDuration::from_hours(2)).await;
    let status = service.status().await.unwrap();
    assert_eq!((status.failures, status.backups), (0, 1));
}
