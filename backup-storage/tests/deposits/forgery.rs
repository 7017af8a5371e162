//! What somebody puts into the store who is not the host, and what a host that was taken over says.

use backup_core::SessionId;
use backup_core::catalog::{Refusal, SessionState};
use backup_core::repository::{ParentChoice, Repository as _};

use super::world::{World, answer_of, content, deposit_of, put, secret_of};

#[tokio::test]
async fn an_altered_deposit_is_nobodys() {
    let world = World::new(1).await;
    let file = world.add_host("web").await;
    let record = world.deposit(&file, None, &content(1)).await;
    let name = deposit_of(record.session);
    let genuine = world.get(&name).await;
    let entries = world.entries().await;
    for at in (0..genuine.len()).step_by(7).chain(genuine.len() - 32..genuine.len()) {
        let mut altered = genuine.to_vec();
        altered[at] ^= 1;
        world.replace(&name, altered).await;
        let done = world.adopt().await;
        assert!(done.adopted.is_empty() && done.refused.is_empty() && done.waiting.len() == 1, "byte {at}: {done:?}");
    }
    for odd in [&genuine[..0], &genuine[..40], &genuine[..genuine.len() - 1], &[&genuine[..], b"x"].concat()] {
        world.replace(&name, odd.to_vec()).await;
        assert!(world.adopt().await.adopted.is_empty());
    }
    assert_eq!(world.entries().await, entries, "whoever can add objects does not fill the journal");
    world.replace(&name, genuine).await;
    assert_eq!(world.adopt_all().await, std::slice::from_ref(&record));
    world.assert_restores(&[(record.id, &content(1))]).await;
}

#[tokio::test]
async fn a_deposit_is_not_adopted_twice_nor_elsewhere() {
    let world = World::new(2).await;
    let file = world.add_host("web").await;
    let record = world.deposit(&file, None, &content(1)).await;
    let there = SessionId::mint(&world.env);
    for name in world.folder(record.session).await {
        let object = world.get(&name).await;
        world.put(&name.replace(&record.session.to_string(), &there.to_string()), object).await;
    }
    let done = world.adopt().await;
    assert_eq!((done.adopted.len(), done.waiting.len()), (1, 1), "{done:?}");
    assert_eq!(done.waiting[0].session, there);
    // All of it once more, after it was let go and swept.
    let mut copies = Vec::new();
    for name in world.folder(record.session).await {
        copies.push((name.clone(), world.get(&name).await));
    }
    world.expire(record.id).await;
    let newer = world.deposit(&file, None, &content(2)).await;
    world.adopt().await;
    world.collect(&super::world::at_once()).await;
    assert_eq!(world.folder(record.session).await, Vec::<String>::new());
    for (name, object) in copies {
        world.put(&name, object).await;
    }
    assert!(world.adopt().await.adopted.is_empty());
    assert_eq!(world.backups().await, [newer.id]);
}

#[tokio::test]
async fn an_answer_is_the_hosts_own_business_and_nobody_else_gives_it() {
    let world = World::replaceable(3).await;
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let first = world.deposit(&file, Some(state.path()), &content(1)).await;
    let name = answer_of(first.session);
    world.put(&name, b"it was refused".to_vec()).await;
    let second = world.deposit(&file, Some(state.path()), &content(2)).await;
    assert_eq!(second.parent, Some(first.id), "what somebody else says is nothing");
    assert_eq!(world.adopt_all().await.len(), 2);
    assert_eq!(&world.get(&name).await[1..6], b"BKDEP", "and it is replaced");
    // The answer to one deposit is none to another.
    world.replace(&answer_of(second.session), world.get(&name).await).await;
    assert_eq!(world.deposit(&file, Some(state.path()), &content(3)).await.parent, Some(second.id));
}

#[tokio::test]
async fn what_lacks_packs_is_refused_and_the_host_learns_it() {
    let world = World::new(4).await;
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let record = world.deposit(&file, Some(state.path()), &content(1)).await;
    let pack = format!("packs/{}/000000", record.session);
    let object = world.get(&pack).await;
    world.replace(&pack, object.slice(1..)).await;
    let done = world.adopt().await;
    assert_eq!((done.refused.len(), done.refused[0].reason), (1, Refusal::PacksMissing), "{done:?}");
    assert!(done.refused[0].text.contains("bytes"), "{done:?}");
    let catalog = world.open().await.catalog().await.unwrap();
    assert!(matches!(catalog.session(record.session), Some(SessionState::Closed(_))));
    // It is too late for what is right.
    world.replace(&pack, object).await;
    assert!(world.adopt().await.adopted.is_empty());
    let next = world.deposit(&file, Some(state.path()), &content(2)).await;
    assert_eq!(next.parent, None, "the host does not build on it");
    assert_eq!(world.adopt_all().await.len(), 1);
    world.collect(&super::world::at_once()).await;
    assert_eq!(world.folder(record.session).await, Vec::<String>::new(), "what was refused is nobody's");
}

#[tokio::test]
async fn a_host_cannot_make_others_backups_its_own() {
    let world = World::new(5).await;
    let (web, db) = (world.add_host("web").await, world.add_host("db").await);
    let (state, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    world.deposit(&web, Some(state.path()), &content(1)).await;
    // A folder that was made to fit: the parent is another host's, in the name of this one.
    let theirs = world.deposit(&db, Some(other.path()), &content(2)).await;
    world.adopt_all().await;
    let forged = forged_state(&web, &db, other.path());
    let host = world.host(&web, Some(forged.path())).await.unwrap();
    let session = host.begin(ParentChoice::Newest, &world.work()).await.unwrap();
    assert_eq!(session.parent().map(|parent| parent.id), Some(theirs.id), "the host believes what it remembers");
    // Its own hashes are others, so only what is taken as a whole would be reused: an entry that is patched in no place.
    let patch = backup_core::engine::Patch::new(
        backup_core::entry::EntryMeta::file(backup_core::entry::EntryPath::new("table").unwrap()),
        600_000,
        backup_core::engine::Changes::new(std::iter::empty::<std::ops::Range<u64>>()),
    );
    let sink = session.sink();
    sink.put_patch(patch, Box::pin(futures::stream::empty())).await.unwrap();
    drop(sink);
    let record = session.commit(world.snapshot().await).await.unwrap();
    assert_eq!(record.reused, [theirs.session]);
    let done = world.adopt().await;
    assert_eq!((done.adopted.len(), done.refused[0].reason), (0, Refusal::ParentGone), "{done:?}");
}

/// The folder of one host, signed by another.
fn forged_state(
    web: &backup_storage::HostFile,
    db: &backup_storage::HostFile,
    theirs: &std::path::Path,
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(theirs).unwrap() {
        let entry = entry.unwrap();
        let mut bytes = std::fs::read(entry.path()).unwrap();
        if entry.file_name() == "last" {
            let (said, tag) = bytes.split_last_chunk::<32>().unwrap();
            assert!(secret_of(db).verify("host-state/last", said, tag));
            let tag = secret_of(web).tag("host-state/last", said);
            bytes = [said, &tag].concat();
        }
        std::fs::write(dir.path().join(entry.file_name()), bytes).unwrap();
    }
    dir
}

#[tokio::test]
async fn a_host_from_the_future_waits() {
    let world = World::new(6).await;
    let file = world.add_host("web").await;
    let ahead = backup_core::env::Env::seeded(77);
    ahead.clock().sleep(std::time::Duration::from_secs(3 * 24 * 3600)).await;
    let settings = super::world::settings();
    let host = backup_storage::DepositRepository::open(&world.store, file, None, &settings, ahead).await.unwrap();
    let session = host.begin(ParentChoice::Newest, &world.work()).await.unwrap();
    put(session.as_ref(), &content(1)).await.unwrap();
    let record = session.commit(world.snapshot().await).await.unwrap();
    let done = world.adopt().await;
    assert!(done.adopted.is_empty() && done.waiting[0].text.contains("ahead"), "{done:?}");
    let options = super::world::at_once().silence(std::time::Duration::ZERO);
    world.collect(&options).await;
    world.env.clock().sleep(std::time::Duration::from_secs(3 * 24 * 3600)).await;
    assert_eq!(world.adopt_all().await.len(), 1, "nothing of it was taken away");
    world.assert_restores(&[(record.id, &content(1))]).await;
}

#[tokio::test]
async fn whatever_a_host_says_is_checked() {
    let (mut adopted, mut refused, mut waiting) = (0, 0, 0);
    let len = {
        let world = World::new(7).await;
        let file = world.add_host("web").await;
        let record = world.deposit(&file, None, &content(1)).await;
        world.get(&deposit_of(record.session)).await.len()
    };
    for (at, bit) in (0..len - 32).flat_map(|at| [(at, 0), (at, 5)]).step_by(5) {
        let world = World::new(7).await;
        let file = world.add_host("web").await;
        let record = world.deposit(&file, None, &content(1)).await;
        let name = deposit_of(record.session);
        let mut said = world.get(&name).await.to_vec();
        said.truncate(len - 32);
        said[at] ^= 1 << bit;
        let tag = secret_of(&file).tag(&name, &said);
        world.replace(&name, [said, tag.to_vec()].concat()).await;
        let done = world.adopt().await;
        adopted += done.adopted.len();
        refused += done.refused.len();
        waiting += done.waiting.len();
        for backup in world.backups().await {
            world.assert_restores(&[(backup, &content(1))]).await;
        }
    }
    // What does not change what it says of the backup does no harm: times.
    assert!(refused > 20 && waiting > 10 && adopted < 30, "{adopted} adopted, {refused} refused, {waiting} waiting");
}
