//! Keys that change beside hosts that have none.

use std::sync::Arc;

use backup_core::ErrorKind;
use backup_core::catalog::Refusal;
use backup_core::repository::{ParentChoice, Repository as _};
use backup_storage::{AddRecipient, KeyHolder};

use super::world::{World, answer_of, by, content, pair, put, raw};
use crate::content::read;

#[tokio::test]
async fn a_rotation_changes_nothing_for_hosts() {
    let world = World::new(1).await;
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let first = world.deposit(&file, Some(state.path()), &content(1)).await;
    let repository = world.open().await;
    repository.rotate_keys(&[], &by(), &world.work()).await.unwrap();
    // Deposited before, adopted behind; then deposited behind.
    assert_eq!(world.adopt_all().await, std::slice::from_ref(&first));
    let second = world.deposit(&file, Some(state.path()), &content(2)).await;
    assert_eq!(second.parent, Some(first.id));
    world.adopt_all().await;
    repository.rotate_keys(&[], &by(), &world.work()).await.unwrap();
    // A host of a later epoch beside it.
    let later = world.add_host("db").await;
    let third = world.deposit(&later, None, &content(3)).await;
    world.adopt_all().await;
    let all = [(first.id, &content(1)), (second.id, &content(2)), (third.id, &content(3))];
    world.assert_restores(&all).await;
    // Whoever becomes a recipient later opens what was deposited before, and adopts what waits.
    let waiting = world.deposit(&file, Some(state.path()), &content(4)).await;
    let (recipient, identity) = pair(9);
    let holder = KeyHolder::Recipient(recipient);
    repository.add_recipient(&holder, &AddRecipient::default(), &by(), &world.work()).await.unwrap();
    let new = world.open_as(&Arc::new(identity)).await.unwrap();
    assert_eq!(new.adopt_deposits(&world.work()).await.unwrap().adopted.len(), 1);
    for (backup, content) in all.into_iter().chain([(waiting.id, &content(4))]) {
        assert_eq!(&read(&*new.open(backup).await.unwrap()).await, content);
    }
    assert_eq!(world.faults().await, []);
}

#[tokio::test]
async fn hosts_need_other_files_after_a_recipient_was_removed() {
    let world = World::of(2, vec![raw(1), raw(2)]).await;
    let (leaver, leaver_id) = (raw(2).1, raw(2).0.stable_id().unwrap());
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let before = world.deposit(&file, Some(state.path()), &content(1)).await;
    let repository = world.open().await;
    // What he knows stays open in his hands.
    let kept = world.open_as(&Arc::new(leaver)).await.unwrap();
    kept.catalog().await.unwrap();
    let under_way = world.begin(&file, Some(state.path()), &content(2)).await.unwrap();
    let given = [KeyHolder::Recipient(raw(1).0)];
    repository.remove_recipient(&leaver_id, &given, &by(), &world.work()).await.unwrap();
    assert_eq!(world.backups().await, [before.id], "what was there is adopted first");
    assert!(repository.hosts().await.unwrap()[0].outdated);

    // He knows the secret of the host: what comes from it could be his.
    let late = world.end(under_way).await;
    let done = world.adopt().await;
    assert_eq!((done.adopted.len(), done.refused[0].reason), (0, Refusal::HostOutdated), "{done:?}");
    assert!(!world.get(&answer_of(late.session)).await.is_empty());
    let packs = world.names("packs").await.len();
    for state in [Some(state.path()), None] {
        let refused = world.try_deposit(&file, state, &content(3)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Environment);
        assert!(refused.to_string().contains("another file"), "{refused}");
    }
    assert_eq!(world.names("packs").await.len(), packs, "nothing was stored that he could open");
    // A notice that was lost is given again; one by somebody else is nothing.
    let notice = format!("hosts/{}", file.host());
    world.replace(&notice, b"go on".to_vec()).await;
    world.begin(&file, None, &content(3)).await.unwrap();
    world.delete(&notice).await;
    world.adopt().await;
    assert!(world.begin(&file, None, &content(3)).await.is_err());
    repository.remove_host(file.host(), &by()).await.unwrap();
    let renewed = world.add_host("web").await;
    let next = world.deposit(&renewed, Some(state.path()), &content(4)).await;
    assert_eq!(next.parent, None, "it hashes by another secret");
    world.adopt_all().await;
    world.assert_restores(&[(before.id, &content(1)), (next.id, &content(4))]).await;
    // Nothing of it opens with what he has kept, in the state of the catalog that he knows or in any other.
    assert!(kept.open(next.id).await.is_err());
    assert_eq!(kept.catalog().await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_key_that_is_rotated_while_a_deposit_is_looked_at_seals_it() {
    for seed in 0..20 {
        let world = World::new(300 + seed).await;
        let file = world.add_host("web").await;
        let record = world.deposit(&file, None, &content(1)).await;
        world.faults.set_plan(backup_storage::fault::FaultPlan::quiet().yields(8));
        let (one, two) = (world.open().await, world.open().await);
        let work = world.work();
        let actor = by();
        let (adopted, rotated) = futures::join!(one.adopt_deposits(&work), two.rotate_keys(&[], &actor, &work));
        assert_eq!((adopted.unwrap().adopted.len(), rotated.unwrap().epoch), (1, 2), "seed {seed}");
        world.assert_restores(&[(record.id, &content(1))]).await;
    }
}

#[tokio::test]
async fn a_file_of_another_repository_is_told_and_nothing_is_written() {
    let (world, other) = (World::new(4).await, World::new(5).await);
    let foreign = other.add_host("web").await;
    let entries = world.names("").await;
    let refused = world.host(&foreign, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let again = world.open().await.add_host_again(&foreign, &by()).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::InvalidInput);
    assert_eq!(world.names("").await, entries);
    // Two hosts do not share a name, and a name is one.
    world.add_host("web").await;
    let repository = world.open().await;
    assert_eq!(repository.add_host("web", &by()).await.unwrap_err().kind(), ErrorKind::Conflict);
    for odd in ["", " web", "a\nb", &"x".repeat(65)] {
        assert_eq!(repository.add_host(odd, &by()).await.unwrap_err().kind(), ErrorKind::InvalidInput, "{odd:?}");
    }
}

#[tokio::test]
async fn a_region_is_not_written_to_and_has_what_was_adopted() {
    use backup_core::repository::VerifyLevel;
    let world = World::new(6).await;
    let there = backup_storage::store::Store::memory();
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let first = world.deposit(&file, Some(state.path()), &content(1)).await;
    let repository = world.open().await;
    repository.replicate(&there, &world.work()).await.unwrap();
    world.adopt_all().await;
    let second = world.deposit(&file, Some(state.path()), &content(2)).await;
    repository.replicate(&there, &world.work()).await.unwrap();
    let settings = super::world::settings();
    let service = super::world::service();
    let opened =
        backup_storage::Repository::open(&there, service, raw(1).1, &settings, world.env.clone()).await.unwrap();
    assert_eq!(read(&*opened.open(first.id).await.unwrap()).await, content(1));
    assert!(opened.open(second.id).await.is_err(), "what nobody has adopted is in one place only");
    let region = backup_storage::DepositRepository::open(&there, file, None, &settings, world.env.clone());
    let begun = region.await.unwrap().begin(ParentChoice::None, &world.work()).await;
    assert!(begun.unwrap_err().to_string().contains("region"));

    // What is lost here comes back from there.
    for lost in ["deposit", "000000"] {
        world.delete(&format!("packs/{}/{lost}", first.session)).await;
    }
    world.guard.excuse(&first.session.to_string());
    assert_eq!(world.faults().await.len(), 2);
    let done = repository.repair(&there, VerifyLevel::Full, &world.work()).await.unwrap();
    assert!(done.left.is_empty(), "{done:?}");
    assert_eq!(world.faults().await, []);
    world.adopt_all().await;
    world.assert_restores(&[(first.id, &content(1)), (second.id, &content(2))]).await;
    // A session of somebody with keys is as before.
    let session = repository.begin(ParentChoice::Newest, &world.work()).await.unwrap();
    put(session.as_ref(), &content(3)).await.unwrap();
    session.commit(world.snapshot().await).await.unwrap();
}
