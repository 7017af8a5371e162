//! The catalog is lost and built again.

use std::time::Duration;

use backup_core::ErrorKind;

use super::world::{World, at_once, by, content};

async fn rebuild(world: &World) -> backup_storage::Rebuilt {
    for name in world.names("catalog").await {
        world.delete(&name).await;
        world.guard.excuse(&name);
    }
    world.open().await.rebuild_catalog(&world.work()).await.unwrap()
}

#[tokio::test]
async fn what_was_adopted_is_found_again_and_what_was_not_waits() {
    let world = World::new(1).await;
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let stolen = world.add_host("stolen").await;
    let first = world.deposit(&file, Some(state.path()), &content(1)).await;
    let second = world.deposit(&file, Some(state.path()), &content(2)).await;
    world.adopt_all().await;
    let thief = world.begin(&stolen, None, &content(9)).await.unwrap();
    world.open().await.remove_host(stolen.host(), &by()).await.unwrap();
    let rubbish = world.end(thief).await;
    let waiting = world.deposit(&file, Some(state.path()), &content(3)).await;

    let found = rebuild(&world).await;
    let backups: Vec<_> = found.backups.iter().map(|backup| (backup.record.id, backup.witnessed)).collect();
    assert_eq!(backups, [(first.id, true), (second.id, true)], "{found:?}");
    assert_eq!(found.skipped.len(), 2, "{found:?}");
    assert!(found.skipped.iter().all(|skipped| skipped.reason.contains("nobody has adopted it")));
    assert_eq!(found.backups[1].record, second);
    world.assert_restores(&[(first.id, &content(1)), (second.id, &content(2))]).await;
    assert_eq!(world.faults().await, []);

    // Hosts are forgotten; what they deposited stays, whatever is collected.
    let done = world.adopt().await;
    assert_eq!((done.adopted.len(), done.waiting.len()), (0, 2), "{done:?}");
    world.collect(&at_once().silence(Duration::ZERO)).await;
    let repository = world.open().await;
    assert!(repository.hosts().await.unwrap().is_empty());
    repository.add_host_again(&file, &by()).await.unwrap();
    assert_eq!(repository.add_host_again(&file, &by()).await.unwrap_err().kind(), ErrorKind::Conflict);
    let done = world.adopt().await;
    assert_eq!(done.adopted.iter().map(|adopted| adopted.record.id).collect::<Vec<_>>(), [waiting.id], "{done:?}");
    assert_eq!(done.waiting[0].session, rubbish.session);
    let all = [(first.id, &content(1)), (second.id, &content(2)), (waiting.id, &content(3))];
    world.assert_restores(&all).await;
    let next = world.deposit(&file, Some(state.path()), &content(4)).await;
    assert_eq!(next.parent, Some(waiting.id), "the host has noticed nothing");
    world.adopt_all_but(rubbish.session).await;
    world.assert_restores(&[(next.id, &content(4))]).await;

    // Once more, by the entries of the second generation.
    let found = rebuild(&world).await;
    assert_eq!(found.backups.len(), 4, "{found:?}");
    world.assert_restores(&all).await;
    assert_eq!(world.faults().await, []);
}

#[tokio::test]
async fn a_deposit_that_is_destroyed_is_lost_to_a_rebuild_alone() {
    let world = World::new(2).await;
    let file = world.add_host("web").await;
    let record = world.deposit(&file, None, &content(1)).await;
    world.adopt_all().await;
    let name = super::world::deposit_of(record.session);
    let mut object = world.get(&name).await.to_vec();
    object[100] ^= 1;
    world.replace(&name, object).await;
    world.assert_restores(&[(record.id, &content(1))]).await;
    let faults = world.faults().await;
    assert_eq!((faults.len(), &faults[0].0), (1, &name), "{faults:?}");
    let found = rebuild(&world).await;
    assert!(found.backups.is_empty() && found.skipped.iter().any(|skipped| skipped.object == name), "{found:?}");
}

#[tokio::test]
async fn a_checkpoint_knows_the_keys_of_sessions() {
    let world = World::new(3).await;
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let mut all = Vec::new();
    for round in 0..3 {
        all.push((world.deposit(&file, Some(state.path()), &content(round)).await.id, content(round)));
    }
    world.adopt_all().await;
    world.open().await.checkpoint_catalog().await.unwrap();
    let expected: Vec<_> = all.iter().map(|(backup, content)| (*backup, content)).collect();
    world.assert_restores(&expected).await;
    // Nobody reads the entries before it.
    let entries = world.names("catalog").await;
    for name in &entries[1..entries.len() - 1] {
        world.delete(name).await;
        world.guard.excuse(name);
    }
    world.assert_restores(&expected).await;
}

#[tokio::test]
async fn a_witness_that_somebody_has_planted_is_replaced() {
    let world = World::replaceable(4).await;
    let file = world.add_host("web").await;
    let record = world.deposit(&file, None, &content(1)).await;
    let name = format!("packs/{}/commit", record.session);
    world.put(&name, b"it was committed".to_vec()).await;
    world.adopt_all().await;
    assert_eq!(world.faults().await, []);
    let found = rebuild(&world).await;
    assert!(found.backups.len() == 1 && found.backups[0].witnessed, "{found:?}");
    world.assert_restores(&[(record.id, &content(1))]).await;
}
