//! What is taken away beside hosts, and what is not.

use std::time::Duration;

use backup_core::catalog::Refusal;
use backup_core::repository::{ParentChoice, Repository as _};

use crate::content::Content;

use super::world::{World, at_once, content, noise, put};

#[tokio::test]
async fn a_collection_adopts_and_takes_nothing_of_what_is_deposited() {
    let world = World::new(1).await;
    let file = world.add_host("web").await;
    let record = world.deposit(&file, None, &content(1)).await;
    // A session that does not end: dead by the clock that the collection goes by.
    let host = world.host(&file, None).await.unwrap();
    let dead = host.begin(ParentChoice::None, &world.work()).await.unwrap();
    let session = dead.id();
    let big = [("big".to_owned(), noise(7, 9 << 20))].into();
    put(dead.as_ref(), &big).await.unwrap();
    // The first packs are on their way.
    while world.folder(session).await.is_empty() {
        tokio::task::yield_now().await;
    }
    drop(dead);
    let done = world.collect(&at_once()).await;
    assert!(done.findings.is_empty(), "{done:?}");
    assert_eq!(world.backups().await, [record.id], "it was adopted");
    assert!(!world.folder(session).await.is_empty(), "it may be alive");
    world.collect(&at_once().silence(Duration::ZERO)).await;
    assert_eq!(world.folder(session).await, Vec::<String>::new(), "what has no end is an orphan as any");
    world.assert_restores(&[(record.id, &content(1))]).await;
    assert_eq!(world.faults().await, []);
}

#[tokio::test]
async fn the_last_one_of_a_host_is_there_to_build_on_also_when_it_has_expired() {
    let world = World::new(2).await;
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let first = world.deposit(&file, Some(state.path()), &content(1)).await;
    let second = world.deposit(&file, Some(state.path()), &content(2)).await;
    world.adopt_all().await;
    for backup in [first.id, second.id] {
        world.expire(backup).await;
    }
    let options = at_once().dead_percent(1);
    world.collect(&options).await;
    world.collect(&options).await;
    let third = world.deposit(&file, Some(state.path()), &content(3)).await;
    assert_eq!(third.parent, Some(second.id));
    assert!(third.new_bytes < 140_000, "{}", third.new_bytes);
    world.adopt_all().await;
    world.assert_restores(&[(third.id, &content(3))]).await;
    // From now on the second one is as any that has expired: what the third one needs of it is copied.
    let before = world.folder(first.session).await.len();
    world.collect(&options).await;
    assert!(before > 0);
    world.assert_restores(&[(third.id, &content(3))]).await;
    let fourth = world.deposit(&file, Some(state.path()), &content(4)).await;
    assert_eq!(fourth.parent, Some(third.id), "what the last one needs stays where it is");
    world.adopt_all().await;
    world.assert_restores(&[(third.id, &content(3)), (fourth.id, &content(4))]).await;
    assert_eq!(world.faults().await, []);
    // Without the host nothing of it is special.
    world.open().await.remove_host(file.host(), &super::world::by()).await.unwrap();
    world.expire(third.id).await;
    world.collect(&options).await;
    world.collect(&options).await;
    world.assert_restores(&[(fourth.id, &content(4))]).await;
    assert_eq!(world.faults().await, []);
}

#[tokio::test]
async fn what_is_mostly_dead_of_a_deposit_is_copied_as_of_any_backup() {
    let world = World::new(3).await;
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let files = |kept: std::ops::Range<u64>, round: u64| {
        let seed = move |n: u64| if kept.contains(&n) { n } else { 1000 * round + n };
        (0..10).map(|n| (format!("file-{n}"), noise(seed(n), 200 << 10))).collect::<Content>()
    };
    let (one, two, three) = (files(0..10, 1), files(0..2, 2), files(0..2, 3));
    let first = world.deposit(&file, Some(state.path()), &one).await;
    let second = world.deposit(&file, Some(state.path()), &two).await;
    // The host begins anew, so that nothing holds the first one in its place.
    let third = world.deposit(&file, None, &three).await;
    world.adopt_all().await;
    world.expire(first.id).await;
    let done = world.collect(&at_once()).await;
    assert!(done.plan.repacked >= 1, "{done:?}");
    world.collect(&at_once()).await;
    assert!(world.folder(first.session).await.is_empty());
    world.assert_restores(&[(second.id, &two), (third.id, &three)]).await;
    assert_eq!(world.faults().await, []);
    // The second one's manifest still names packs that are elsewhere now: the host finds them gone.
    let fourth = world.deposit(&file, Some(state.path()), &files(0..2, 4)).await;
    assert_eq!(fourth.parent, None);
    world.adopt_all().await;
    world.assert_restores(&[(fourth.id, &files(0..2, 4))]).await;
}

#[tokio::test]
async fn what_was_condemned_under_a_session_is_not_built_on() {
    let world = World::new(4).await;
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let first = world.deposit(&file, Some(state.path()), &content(1)).await;
    world.adopt_all().await;
    // While this one is under way, another takes the place of its parent, which is let go and taken away.
    let host = world.host(&file, Some(state.path())).await.unwrap();
    let session = host.begin(ParentChoice::Newest, &world.work()).await.unwrap();
    assert_eq!(session.parent().map(|parent| parent.id), Some(first.id));
    let newer = world.deposit(&file, None, &content(2)).await;
    world.adopt_all().await;
    world.expire(first.id).await;
    world.collect(&at_once()).await;
    assert!(world.folder(first.session).await.is_empty());
    put(session.as_ref(), &content(3)).await.unwrap();
    let late = session.commit(world.snapshot().await).await.unwrap();
    assert_eq!(late.reused, [first.session]);
    let done = world.adopt().await;
    assert_eq!((done.adopted.len(), done.refused[0].reason), (0, Refusal::ParentGone), "{done:?}");
    let next = world.deposit(&file, Some(state.path()), &content(4)).await;
    assert_eq!(next.parent, None, "the host was told, and stores everything");
    world.adopt_all().await;
    world.assert_restores(&[(newer.id, &content(2)), (next.id, &content(4))]).await;
}

#[tokio::test]
async fn what_is_only_condemned_is_not_built_on_either() {
    let world = World::new(5).await;
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let first = world.deposit(&file, Some(state.path()), &content(1)).await;
    let newer = world.deposit(&file, None, &content(2)).await;
    world.adopt_all().await;
    world.expire(first.id).await;
    // Condemned, and there for a day.
    let options = backup_core::repository::CollectOptions::default();
    assert!(world.collect(&options).await.condemned.is_some());
    // The folder remembers the first one: the second was deposited without it.
    let late = world.deposit(&file, Some(state.path()), &content(3)).await;
    assert_eq!(late.parent, Some(first.id), "its packs are there by their names");
    let done = world.adopt().await;
    assert_eq!((done.adopted.len(), done.refused[0].reason), (0, Refusal::ParentGone), "{done:?}");
    world.assert_restores(&[(newer.id, &content(2))]).await;
}

#[tokio::test]
async fn deposits_adopters_and_collections_at_once_by_chance() {
    for seed in 0..12 {
        let world = World::new(100 + seed).await;
        world.faults.set_plan(backup_storage::fault::FaultPlan::quiet().yields(6));
        let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
        let mut kept = Vec::new();
        for round in 0..4_u64 {
            let content = content(seed * 10 + round);
            let record = world.deposit(&file, Some(state.path()), &content).await;
            kept.push((record.id, content));
            let (one, two) = (world.open().await, world.open().await);
            let work = world.work();
            let options = at_once().dead_percent(20);
            let (a, b, c) = futures::join!(one.adopt_deposits(&work), two.adopt_deposits(&work), async {
                let third = world.open().await;
                third.collect(&options, &work).await
            });
            let adopted = a.unwrap().adopted.len() + b.unwrap().adopted.len();
            assert!(adopted <= 1, "seed {seed}: it is made a backup once");
            c.unwrap();
            if round % 2 == 1 {
                world.expire(kept.remove(0).0).await;
            }
        }
        let expected: Vec<_> = kept.iter().map(|(backup, content)| (*backup, content)).collect();
        world.assert_restores(&expected).await;
        assert_eq!(world.faults().await, [], "seed {seed}");
        world.guard.assert_clean();
    }
}
