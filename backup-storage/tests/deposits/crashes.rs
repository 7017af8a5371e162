//! Hosts and adopters that die anywhere, over a store that fails.

use backup_core::repository::Repository as _;
use backup_storage::fault::{Crash, DroppedAfter, FaultPlan};

use super::world::{World, content};
use crate::content::Content;

#[tokio::test]
async fn two_adopters_make_one_backup() {
    for seed in 0..40 {
        let world = World::new(seed).await;
        let file = world.add_host("web").await;
        let record = world.deposit(&file, None, &content(1)).await;
        world.faults.set_plan(FaultPlan::quiet().yields(8));
        let (one, two) = (world.open().await, world.open().await);
        let work = world.work();
        let (a, b) = futures::join!(one.adopt_deposits(&work), two.adopt_deposits(&work));
        let adopted: Vec<_> = a.unwrap().adopted.into_iter().chain(b.unwrap().adopted).collect();
        assert!(adopted.len() == 1 && adopted[0].record == record, "seed {seed}: {adopted:?}");
        assert_eq!(world.backups().await, [record.id], "seed {seed}");
        assert_eq!(world.entries().await, 3, "seed {seed}: one entry");
        world.assert_restores(&[(record.id, &content(1))]).await;
        world.guard.assert_clean();
    }
}

/// What is there is whole; the next deposit and the next adoption succeed.
async fn goes_on(world: &World, file: &backup_storage::HostFile, state: &std::path::Path, earlier: &[Content]) {
    world.faults.revive();
    world.faults.set_plan(FaultPlan::quiet());
    world.faults.flush_late().await;
    let last = content(77);
    let record = world.deposit(file, Some(state), &last).await;
    let done = world.adopt().await;
    assert!(done.refused.is_empty() && done.waiting.is_empty(), "{done:?}");
    assert!(world.adopt().await.adopted.is_empty());
    let repository = world.open().await;
    let catalog = repository.catalog().await.unwrap();
    assert!(catalog.backup(record.id).is_some());
    for backup in catalog.backups() {
        let found = crate::content::read(&*repository.open(backup.id).await.unwrap()).await;
        assert!(found == last || earlier.contains(&found), "backup {}", backup.id);
        let folder = world.folder(backup.session).await;
        for file in ["deposit", "answer", "commit"] {
            assert!(folder.iter().any(|name| name.ends_with(file)), "{file} of {}: {folder:?}", backup.id);
        }
    }
    assert_eq!(world.faults().await, []);
    world.guard.assert_clean();
}

#[tokio::test]
async fn whoever_is_dropped_anywhere_leaves_all_or_nothing() {
    let mut completed = 0;
    for polls in (0..400).step_by(3) {
        let world = World::new(polls).await;
        let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
        let contents = [content(1), content(2)];
        world.deposit(&file, Some(state.path()), &contents[0]).await;
        world.faults.set_plan(FaultPlan::quiet().yields(2));
        let all = async {
            world.deposit(&file, Some(state.path()), &contents[1]).await;
            world.adopt().await;
        };
        if DroppedAfter::new(polls, all).await.is_some() {
            completed += 1;
        }
        goes_on(&world, &file, state.path(), &contents).await;
    }
    assert!(completed > 0, "the last ones come to the end");
}

#[tokio::test]
async fn a_store_that_dies_at_any_request_leaves_all_or_nothing() {
    let mut deaths = 0;
    for after in 0..60 {
        let world = World::new(after).await;
        let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
        let contents = [content(1), content(2)];
        world.deposit(&file, Some(state.path()), &contents[0]).await;
        world.faults.crash(Crash { after, lands: after % 2 == 0, hangs: false });
        let deposited = world.try_deposit(&file, Some(state.path()), &contents[1]).await;
        let adopted = world.try_adopt().await;
        deaths += u64::from(deposited.is_err() || adopted.is_err());
        goes_on(&world, &file, state.path(), &contents).await;
    }
    assert!(deaths > 20, "{deaths}");
}

#[tokio::test]
async fn a_store_that_fails_by_chance_loses_nothing() {
    let seeds = std::env::var("BACKUP_FAULT_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    for seed in 0..seeds {
        let world = World::new(1000 + seed).await;
        let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
        let contents: Vec<_> = (0..3).map(content).collect();
        let mut promised = Vec::new();
        world.faults.set_plan(storm(0.02));
        for content in &contents {
            let deposit = world.try_deposit(&file, Some(state.path()), content);
            if let Some(Ok(record)) = DroppedAfter::new(20_000, deposit).await {
                promised.push(record);
            }
            drop(DroppedAfter::new(20_000, world.try_adopt()).await);
        }
        goes_on(&world, &file, state.path(), &contents).await;
        let backups = world.backups().await;
        for record in promised {
            assert!(backups.contains(&record.id), "seed {seed}: what was said to be deposited is a backup");
        }
    }
}

/// Faults after which a request returns at some time.
fn storm(each: f64) -> FaultPlan {
    use backup_storage::fault::Fault;
    let faults = [
        Fault::LostReply,
        Fault::Refused,
        Fault::OwnPutExists,
        Fault::FalseConflict,
        Fault::LandsLate,
        Fault::ShortBody,
        Fault::BrokenBody,
        Fault::BrokenList,
    ];
    faults.into_iter().fold(FaultPlan::quiet().yields(2), |plan, fault| plan.with(fault, each))
}
