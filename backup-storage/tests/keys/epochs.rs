//! What is written across epochs.

use backup_core::engine::{BackupSinkExt, Changes, LogOptions, Patch};
use backup_core::entry::{ContentIdentity, EntryMeta, EntryPath};
use backup_core::log::{LineageRecord, LogRange, Notation};
use backup_core::repository::{ParentChoice, Repository as _};
use backup_storage::{CompactLog, Repository};
use bytes::Bytes;
use futures::{StreamExt, stream};

use super::world::{Person, World, content, lineage, log_bytes, service};

fn file(path: &str) -> EntryMeta {
    EntryMeta::file(EntryPath::new(path).unwrap())
}

#[tokio::test]
async fn an_increment_stores_what_changed_also_after_a_new_key() {
    let anna = Person::pair(1);
    let world = World::new(11, &[&anna]).await;
    let by = world.open(&anna).await.unwrap();
    let mut all = vec![(world.backup(&by, &content(1)).await.unwrap(), content(1))];
    for round in 2..5 {
        world.rotate(&by, &[]).await.unwrap();
        let record = world.backup(&by, &content(round)).await.unwrap();
        // One block of the table, and the entry that is another one each time.
        assert!(record.new_bytes < 140_000, "{}", record.new_bytes);
        all.push((record, content(round)));
    }
    assert!(world.faults(&by).await.is_empty());
    world.assert_restores(&world.open(&anna).await.unwrap(), &all, 0).await;
}

#[tokio::test]
async fn a_patch_after_a_new_key_is_what_was_patched() {
    let anna = Person::pair(1);
    let world = World::new(12, &[&anna]).await;
    let by = world.open(&anna).await.unwrap();
    let first = content(1);
    let mut all = vec![(world.backup(&by, &first).await.unwrap(), first.clone())];
    let mut table = first["table"].clone();
    for round in 0..4_u8 {
        // In every second round the key is the one of the parent.
        if round % 2 == 0 {
            world.rotate(&by, &[]).await.unwrap();
        }
        let at = 40_000 + 70_000 * usize::from(round);
        table[at..at + 100].fill(round + 1);
        let session = by.begin(ParentChoice::Newest, &world.work()).await.unwrap();
        let range = at as u64..(at + 100) as u64;
        let changes = Changes::new([range.clone()]);
        let changes = if round == 3 { changes.verified() } else { changes };
        let body = if round == 3 { table.clone() } else { table[at..at + 100].to_vec() };
        let patch = Patch::new(file("table"), table.len() as u64, changes);
        let stored = session.sink().put_patch(patch, stream::iter([Ok(Bytes::from(body))]).boxed()).await.unwrap();
        assert_eq!(stored.unexpected, 0, "round {round}");
        let record = session.commit(world.snapshot().await).await.unwrap();
        if round < 3 {
            assert!(record.new_bytes <= 100, "round {round}: {}", record.new_bytes);
        }
        all.push((record, [("table".to_owned(), table.clone())].into()));
    }
    // And what is taken whole, without reading it.
    world.rotate(&by, &[]).await.unwrap();
    let session = by.begin(ParentChoice::Newest, &world.work()).await.unwrap();
    let patch = Patch::new(file("table"), table.len() as u64, Changes::new([]));
    session.sink().put_patch(patch, stream::empty().boxed()).await.unwrap();
    let record = session.commit(world.snapshot().await).await.unwrap();
    assert_eq!(record.new_bytes, 0);
    all.push((record, [("table".to_owned(), table)].into()));
    assert!(world.faults(&by).await.is_empty());
    world.assert_restores(&world.open(&anna).await.unwrap(), &all, 0).await;
}

#[tokio::test]
async fn content_is_reused_by_its_identity_whatever_the_epoch() {
    let anna = Person::pair(1);
    let world = World::new(13, &[&anna]).await;
    let by = world.open(&anna).await.unwrap();
    let bytes = content(1)["table"].clone();
    let meta = |path: &str| file(path).with_identity(ContentIdentity::new("part-7").unwrap());
    let session = by.begin(ParentChoice::None, &world.work()).await.unwrap();
    session.sink().put_bytes(meta("a"), bytes.clone().into()).await.unwrap();
    session.commit(world.snapshot().await).await.unwrap();
    for path in ["b", "c"] {
        world.rotate(&by, &[]).await.unwrap();
        let session = by.begin(ParentChoice::Newest, &world.work()).await.unwrap();
        assert!(session.sink().reuse(meta(path)).await.unwrap().is_some());
        let record = session.commit(world.snapshot().await).await.unwrap();
        assert_eq!(record.new_bytes, 0);
        let expected = [(record, [(path.to_owned(), bytes.clone())].into())];
        world.assert_restores(&world.open(&anna).await.unwrap(), &expected, 0).await;
    }
    assert!(world.faults(&by).await.is_empty());
}

#[tokio::test]
async fn a_log_writer_that_stays_open_seals_in_the_new_epoch_once_it_knows() {
    let anna = Person::pair(1);
    let world = World::new(14, &[&anna]).await;
    let (by, other) = (world.open(&anna).await.unwrap(), world.open(&anna).await.unwrap());
    let sink = by.open_log(LogOptions::default(), &world.work()).await.unwrap();
    sink.declare(LineageRecord::new(lineage(), "source", Notation::Decimal, world.env.now())).await.unwrap();
    for (round, start) in (0..).zip((0..6_000_u64).step_by(1_000)) {
        if round == 3 {
            world.rotate(&other, &[]).await.unwrap();
        }
        let range = start..start + 1_000;
        sink.append(LogRange::new(lineage(), range.clone()), log_bytes(range.clone()), &[]).await.unwrap();
        let mut known = sink.durable();
        while known.as_ref().is_none_or(|position| position.offset < range.end) {
            known = sink.advanced(known.as_ref()).await.unwrap();
        }
    }
    sink.close().await.unwrap();
    let epochs: Vec<_> = world.epochs_in("log").await.into_values().collect();
    assert!(epochs.is_sorted() && epochs[..3] == [1, 1, 1] && epochs.last() == Some(&2), "{epochs:?}");
    let reader = world.open(&anna).await.unwrap();
    world.assert_restores(&reader, &[], 6_000).await;
    reader.compact_log(&CompactLog::default(), &world.work()).await.unwrap();
    world.assert_restores(&world.open(&anna).await.unwrap(), &[], 6_000).await;
    assert!(world.faults(&reader).await.is_empty());
}

#[tokio::test]
async fn the_keys_of_a_large_repository_are_changed_by_moving_next_to_nothing() {
    let people: Vec<_> = (1..10).map(Person::pair).collect();
    let world = World::new(15, &people.iter().collect::<Vec<_>>()).await;
    let by = world.open(&people[0]).await.unwrap();
    let large = [("large".to_owned(), vec![0; 1])].into_iter().chain((0..6_u64).map(|n| {
        let mut bytes = vec![0; 2 << 20];
        blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
        (format!("file-{n}"), bytes)
    }));
    world.backup(&by, &large.collect()).await.unwrap();
    let moved = || {
        let metrics = world.store.metrics();
        (metrics.create.bytes, metrics.get.bytes)
    };
    let before = moved();
    assert!(before.0 > 12 << 20);
    let fresh = world.open(&people[0]).await.unwrap();
    for _ in 0..5 {
        world.rotate(&fresh, &[]).await.unwrap();
    }
    world.add(&fresh, &Person::raw(50)).await.unwrap();
    let after = moved();
    assert!(after.0 - before.0 < 100_000 && after.1 - before.1 < 900_000, "{before:?} {after:?}");
}

#[tokio::test]
async fn a_lost_catalog_is_built_again_in_the_epoch_that_was_the_present_one() {
    for person in [Person::pair(1), Person::raw(1), Person::passphrase("correct horse")] {
        let bert = Person::pair(2);
        let world = World::new(16, &[&person]).await;
        let by = world.open(&person).await.unwrap();
        let mut all = vec![(world.backup(&by, &content(1)).await.unwrap(), content(1))];
        world.add(&by, &bert).await.unwrap();
        let given = [person.holder()];
        world.remove(&by, &bert.id(), &given).await.unwrap();
        all.push((world.backup(&by, &content(2)).await.unwrap(), content(2)));
        world.log(&by, 0..5_000).await.unwrap();
        world.rotate(&by, &given).await.unwrap();
        all.push((world.backup(&by, &content(3)).await.unwrap(), content(3)));
        // What a planted key would have done.
        for name in world.names("catalog").await {
            world.delete(&name).await;
        }
        let (settings, env, work) = (World::settings(), world.env.clone(), world.work());
        let identity = std::sync::Arc::clone(&person.identity);
        let salvage = Repository::salvage(&world.store, service(), identity, &settings, env, &work);
        let (rebuilt, found) = salvage.await.unwrap();
        assert!(found.backups.len() == 3 && found.skipped.is_empty(), "{:?}", found.skipped);
        assert_eq!(rebuilt.keys().await.unwrap().current, 3);
        let opened = world.open(&person).await.unwrap();
        world.assert_restores(&opened, &all, 5_000).await;
        world.rotate(&opened, &given).await.unwrap();
        all.push((world.backup(&opened, &content(4)).await.unwrap(), content(4)));
        world.assert_restores(&world.open(&person).await.unwrap(), &all, 5_000).await;
        let faults = world.faults(&opened).await;
        assert!(faults.is_empty(), "{faults:?}");
        assert!(!world.lets_in(&bert).await);
    }
}
