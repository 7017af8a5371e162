//! What was sealed with an earlier key, sealed anew.

use backup_core::catalog::BackupRecord;
use backup_core::repository::{ParentChoice, Repository as _};
use backup_storage::fault::Crash;

use super::world::{Person, World, content, put};
use crate::content::Content;

/// The epochs of packs, without what else lies beside them.
async fn packs(world: &World) -> Vec<u32> {
    let objects = world.epochs_in("packs").await.into_iter();
    let packs = objects.filter(|(name, _)| name.rsplit('/').next().unwrap().parse::<u32>().is_ok());
    packs.map(|(_, epoch)| epoch).collect()
}

/// Three backups by a key that somebody has kept who was removed, and one by the next.
async fn removed(seed: u64) -> (World, Person, Vec<(BackupRecord, Content)>) {
    let (anna, bert) = (Person::pair(1), Person::raw(2));
    let world = World::new(seed, &[&anna, &bert]).await;
    let by = world.open(&anna).await.unwrap();
    let mut all = Vec::new();
    for round in 1..4 {
        all.push((world.backup(&by, &content(round)).await.unwrap(), content(round)));
    }
    world.remove(&by, &bert.id(), &[]).await.unwrap();
    all.push((world.backup(&by, &content(4)).await.unwrap(), content(4)));
    (world, anna, all)
}

#[tokio::test]
async fn nothing_that_was_backed_up_stays_under_the_earlier_key() {
    let (world, anna, mut all) = removed(31).await;
    let by = world.open(&anna).await.unwrap();
    assert!(packs(&world).await.contains(&1));
    let plain = world.reseal(&by, 0).await.unwrap();
    assert_eq!((plain.plan.resealed, plain.plan.outdated, plain.condemned), (0, 0, None), "only when it is asked for");
    let done = world.reseal(&by, u64::MAX).await.unwrap();
    assert!(done.plan.resealed >= 3 && done.plan.outdated == 0, "{done:?}");
    assert!(packs(&world).await.iter().all(|epoch| *epoch == 2), "{:?}", packs(&world).await);
    let again = world.reseal(&by, u64::MAX).await.unwrap();
    assert_eq!((again.plan.resealed, again.condemned), (0, None));
    // It is all there, and the next backup still builds on it.
    assert!(world.faults(&by).await.is_empty());
    let next = world.backup(&by, &content(5)).await.unwrap();
    assert!(next.new_bytes < 140_000, "{}", next.new_bytes);
    all.push((next, content(5)));
    world.assert_restores(&world.open(&anna).await.unwrap(), &all, 0).await;
    // Also when the catalog has to be built from nothing but packs.
    for name in world.names("catalog").await.into_iter().chain(world.names("checkpoints").await) {
        world.delete(&name).await;
    }
    let by = world.open(&anna).await.unwrap();
    let rebuilt = by.rebuild_catalog(&world.work()).await.unwrap();
    assert_eq!((rebuilt.backups.len(), rebuilt.skipped.len()), (5, 0), "{:?}", rebuilt.skipped);
    world.assert_restores(&world.open(&anna).await.unwrap(), &all, 0).await;
    world.guard.assert_clean();
}

#[tokio::test]
async fn it_goes_in_as_many_steps_as_one_likes() {
    let (world, anna, all) = removed(32).await;
    let by = world.open(&anna).await.unwrap();
    let before = packs(&world).await.iter().filter(|epoch| **epoch == 1).count() as u64;
    let mut left = before;
    while left > 0 {
        // Too little for one pack: then it is one.
        let done = world.reseal(&by, 1).await.unwrap();
        left -= 1;
        assert_eq!((done.plan.resealed, done.plan.outdated), (1, left), "{done:?}");
        world.assert_restores(&by, &all, 0).await;
    }
    assert!(packs(&world).await.iter().all(|epoch| *epoch == 2));
    assert!(world.faults(&by).await.is_empty());
}

#[tokio::test]
async fn what_a_backup_under_way_builds_on_stays_as_it_is() {
    let (world, anna, mut all) = removed(33).await;
    let by = world.open(&anna).await.unwrap();
    let session = by.begin(ParentChoice::Newest, &world.work()).await.unwrap();
    let meanwhile = world.open(&anna).await.unwrap();
    let done = world.reseal(&meanwhile, u64::MAX).await.unwrap();
    put(&*session, &content(5)).await.unwrap();
    let record = session.commit(world.snapshot().await).await.unwrap();
    all.push((record, content(5)));
    world.assert_restores(&world.open(&anna).await.unwrap(), &all, 0).await;
    assert!(world.faults(&by).await.is_empty(), "{done:?}");
    world.reseal(&by, u64::MAX).await.unwrap();
    assert!(packs(&world).await.iter().all(|epoch| *epoch == 2));
    world.assert_restores(&by, &all, 0).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_dies_on_the_way_loses_nothing() {
    for after in 0.. {
        let (world, anna, all) = removed(after).await;
        let by = world.open(&anna).await.unwrap();
        world.faults.crash(Crash { after, lands: after % 2 == 0, hangs: true });
        let finished = tokio::select! {
            done = world.reseal(&by, u64::MAX) => { done.unwrap(); true }
            () = world.faults.crashed() => false,
        };
        world.faults.revive();
        let by = world.open(&anna).await.unwrap();
        world.assert_restores(&by, &all, 0).await;
        world.reseal(&by, u64::MAX).await.unwrap();
        world.assert_restores(&by, &all, 0).await;
        assert!(world.faults(&by).await.is_empty(), "{after}");
        world.guard.assert_clean();
        if finished {
            assert!(after > 20, "{after}");
            break;
        }
    }
}
