//! What a host builds on.

use std::os::unix::fs::PermissionsExt;

use backup_core::catalog::BackupKind;
use backup_core::entry::{ContentIdentity, EntryMeta, EntryPath};
use backup_core::repository::{ParentChoice, Repository as _};
use backup_core::{BackupSinkExt, ErrorKind};

use super::world::{World, content, deposit_of, noise, put, words};

#[tokio::test]
async fn deposits_become_backups_and_the_next_ones_store_what_has_changed() {
    let world = World::of(1, vec![words("correct horse")]).await;
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let state = state.path().join("state");
    let first = world.deposit(&file, Some(&state), &content(1)).await;
    assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(world.backups().await.is_empty(), "nobody has adopted it");
    // Before anybody has looked at the first one, too.
    let second = world.deposit(&file, Some(&state), &content(2)).await;
    assert_eq!((second.kind, second.parent), (BackupKind::Incremental, Some(first.id)));
    assert!(second.new_bytes < 140_000, "one block and a small file: {}", second.new_bytes);
    assert_eq!(world.adopt_all().await, [first.clone(), second.clone()], "somebody with a passphrase can");
    assert!(world.adopt_all().await.is_empty(), "once");
    let third = world.deposit(&file, Some(&state), &content(3)).await;
    assert_eq!(third.parent, Some(second.id));
    assert!(third.new_bytes < 140_000, "{}", third.new_bytes);
    assert_eq!(world.adopt_all().await.len(), 1);
    let (one, two, three) = (content(1), content(2), content(3));
    world.assert_restores(&[(first.id, &one), (second.id, &two), (third.id, &three)]).await;
    assert_eq!(world.faults().await, []);
    let hosts = world.open().await.hosts().await.unwrap();
    assert_eq!((hosts.len(), hosts[0].label.as_str(), hosts[0].last), (1, "web", Some(third.id)));
    assert!(!hosts[0].outdated);
    let parts = std::fs::read_dir(&state).unwrap().count();
    assert_eq!(parts, 2, "what is remembered of earlier ones is gone");
    world.guard.assert_clean();
}

#[tokio::test]
async fn block_hashes_are_carried_over_as_long_as_somebody_needs_them() {
    let world = World::new(2).await;
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    // So large that its block hashes lie in a segment of their own.
    let large = noise(9, 10 << 20);
    let meta = || {
        let path = EntryPath::new("large").unwrap();
        EntryMeta::file(path).with_identity(ContentIdentity::new(b"large".to_vec()).unwrap())
    };
    let mut last = None;
    for round in 0..3 {
        let host = world.host(&file, Some(state.path())).await.unwrap();
        let session = host.begin(ParentChoice::Newest, &world.work()).await.unwrap();
        let sink = session.sink();
        match round {
            0 => drop(sink.put_bytes(meta(), large.clone().into()).await.unwrap()),
            _ => assert!(sink.reuse(meta()).await.unwrap().is_some(), "round {round}"),
        }
        drop(sink);
        last = Some(session.commit(world.snapshot().await).await.unwrap());
        assert_eq!(world.adopt_all().await.len(), 1);
    }
    let mut changed = large.clone();
    changed[5 << 20] ^= 1;
    let content = [("large".to_owned(), changed)].into();
    let record = world.deposit(&file, Some(state.path()), &content).await;
    assert_eq!(record.parent, last.map(|last| last.id));
    assert_eq!(record.new_bytes, 128 << 10, "one block, by hashes that the first one has stored");
    world.adopt_all().await;
    world.assert_restores(&[(record.id, &content)]).await;
}

#[tokio::test]
async fn a_host_that_remembers_nothing_stores_everything() {
    let world = World::new(3).await;
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let full = world.deposit(&file, None, &content(0)).await;
    assert_eq!(world.deposit(&file, None, &content(0)).await.parent, None, "without a folder");
    let other = world.add_host("db").await;
    let mut rounds = 1;
    let files = |dir: &std::path::Path| {
        let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    type Harm = fn(&std::path::Path);
    let harms: [(&str, Harm); 5] = [
        ("flipped", |file| {
            let mut bytes = std::fs::read(file).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(file, bytes).unwrap();
        }),
        ("cut off", |file| {
            let bytes = std::fs::read(file).unwrap();
            std::fs::write(file, &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("emptied", |file| std::fs::write(file, []).unwrap()),
        ("prolonged", |file| {
            let bytes = std::fs::read(file).unwrap();
            std::fs::write(file, [&bytes[..], &[0; 40]].concat()).unwrap();
        }),
        ("removed", |file| std::fs::remove_file(file).unwrap()),
    ];
    for which in 0..2 {
        for (how, harm) in harms {
            world.deposit(&file, Some(state.path()), &content(rounds)).await;
            let sound = world.deposit(&file, Some(state.path()), &content(rounds + 1)).await;
            assert!(sound.parent.is_some() && sound.new_bytes < 140_000, "{sound:?}");
            harm(&files(state.path())[which]);
            let record = world.deposit(&file, Some(state.path()), &content(rounds + 2)).await;
            assert_eq!((record.parent, record.new_bytes), (None, full.new_bytes), "file {which} {how}");
            rounds += 3;
        }
    }
    // Another host's folder is of no use either.
    assert_eq!(world.deposit(&other, Some(state.path()), &content(0)).await.parent, None);
    let adopted = world.adopt_all().await;
    assert_eq!(adopted.len() as u64, rounds + 2);
    let newest = content(rounds - 1);
    world.assert_restores(&[(adopted[adopted.len() - 2].id, &newest)]).await;
}

#[tokio::test]
async fn packs_that_are_gone_are_not_built_on() {
    let world = World::new(4).await;
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let first = world.deposit(&file, Some(state.path()), &content(1)).await;
    let pack = world.folder(first.session).await.into_iter().find(|name| name.ends_with("/000000")).unwrap();
    world.delete(&pack).await;
    let second = world.deposit(&file, Some(state.path()), &content(2)).await;
    assert_eq!(second.parent, None);
    let done = world.adopt().await;
    assert_eq!((done.adopted.len(), done.refused.len()), (1, 1), "{done:?}");
    world.assert_restores(&[(second.id, &content(2))]).await;
}

#[tokio::test]
async fn everything_that_reads_is_refused_by_its_type() {
    use backup_core::engine::LogOptions;
    use backup_core::repository::{CollectOptions, VerifyLevel};
    use backup_storage::OnlyWrites;
    let world = World::new(5).await;
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let record = world.deposit(&file, Some(state.path()), &content(1)).await;
    world.adopt_all().await;
    let host = world.host(&file, Some(state.path())).await.unwrap();
    let work = world.work();
    let errors = [
        host.open(record.id).await.map(drop).unwrap_err(),
        host.verify(VerifyLevel::Catalog, &work).await.map(drop).unwrap_err(),
        host.collect(&CollectOptions::default(), &work).await.map(drop).unwrap_err(),
        host.plan_collection(&CollectOptions::default(), &work).await.map(drop).unwrap_err(),
        host.open_log(LogOptions::default(), &work).await.map(drop).unwrap_err(),
        host.log().await.map(drop).unwrap_err(),
        host.decide(&mut |_| Ok(Vec::new())).await.map(drop).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<OnlyWrites>());
        assert!(source.is_some() && error.to_string().contains("only writes"), "{error:?}");
    }
    let catalog = host.catalog().await.unwrap();
    assert_eq!(catalog.backups().map(|backup| backup.id).collect::<Vec<_>>(), [record.id], "what it can build on");
    let session = host.begin(ParentChoice::Backup(record.id), &work).await.unwrap();
    assert_eq!(session.parent().map(|parent| parent.id), Some(record.id));
    assert!(session.parent_source().is_none());
    let unknown = backup_core::BackupId::mint(&world.env);
    let refused = host.begin(ParentChoice::Backup(unknown), &work).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn whoever_has_keys_and_hosts_write_side_by_side() {
    let world = World::new(6).await;
    let (file, state) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let deposited = world.deposit(&file, Some(state.path()), &content(1)).await;
    world.adopt_all().await;
    // On top of what was deposited, by somebody who cannot tell whose hashes these are.
    let repository = world.open().await;
    let unasked = repository.begin(ParentChoice::Newest, &world.work()).await.unwrap();
    assert_eq!(unasked.parent(), None, "the host may have been taken over");
    unasked.abort().await.unwrap();
    let session = repository.begin(ParentChoice::Backup(deposited.id), &world.work()).await.unwrap();
    assert_eq!(session.parent().map(|parent| parent.id), Some(deposited.id));
    put(session.as_ref(), &content(2)).await.unwrap();
    let own = session.commit(world.snapshot().await).await.unwrap();
    assert!(world.get(&deposit_of(deposited.session)).await.len() > 300);
    let next = world.deposit(&file, Some(state.path()), &content(3)).await;
    assert_eq!(next.parent, Some(deposited.id));
    world.adopt_all().await;
    let (one, two, three) = (content(1), content(2), content(3));
    world.assert_restores(&[(deposited.id, &one), (own.id, &two), (next.id, &three)]).await;
    assert_eq!(world.faults().await, []);
}
