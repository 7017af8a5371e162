//! A cluster comes back: into one of the same size or another, into a single server, as files of its members.

use backup_core::ErrorKind;
use backup_core::entry::{EntryPath, Selector};
use backup_redis::RestoreSettings;
use backup_redis::restore::Way;
use backup_testkit::redis::RedisCluster as Servers;
use backup_testkit::{Redis, RedisVersion, redis_versions_under_test, require_or_skip, scratch_dir};

use crate::harness::{Vault, all_of, assert_same, client, engine, fill, members, run};

/// The oldest and the newest of both kinds, each with another change of size, and into servers of another version.
const WAYS: [(RedisVersion, u16, RedisVersion, u16); 3] = [
    (RedisVersion::Redis62, 3, RedisVersion::Redis62, 3),
    (RedisVersion::Redis82, 3, RedisVersion::Redis82, 5),
    (RedisVersion::Valkey91, 5, RedisVersion::Valkey91, 3),
];

async fn there_and_back((version, from, into, to): (RedisVersion, u16, RedisVersion, u16)) {
    let (source, target) = tokio::join!(Servers::start(version, from), Servers::start(into, to));
    let source = require_or_skip!(source);
    let target = require_or_skip!(target);
    fill(&source, 300).await;
    let vault = Vault::memory();
    let backup = vault.backup(&engine(&source)).await;
    let wanted = all_of(source.nodes()).await;
    assert_eq!(wanted.keys.len(), 300);
    assert_eq!(backup.snapshot.fact("keys"), Some("300"));
    assert_eq!(members(&backup).len(), usize::from(from));

    let way = RestoreSettings::replay(client(&target.nodes()[1]));
    vault.restore(&backup, way.clone()).await.unwrap();
    assert_same(&all_of(target.nodes()).await, &wanted);
    for node in target.nodes().iter().filter(|node| node.version().since_7()) {
        assert_eq!(run(&mut node.connect().await.unwrap(), "FCALL hello 0").await, "hello");
    }
    // Nothing is replaced unasked, and asked for it all is: the function, too.
    let error = vault.restore(&backup, way.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    let Way::Replay(replay) = way.way else { unreachable!() };
    vault.restore(&backup, RestoreSettings::new(Way::Replay(replay.replace(true)))).await.unwrap();
    assert_same(&all_of(target.nodes()).await, &wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_come_back_with_any_number_of_nodes() {
    for way in WAYS.into_iter().filter(|way| redis_versions_under_test().contains(&way.0)) {
        there_and_back(way).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_back_as_files_and_into_one_server() {
    let version = RedisVersion::Redis72;
    let source = require_or_skip!(Servers::start(version, 3).await);
    fill(&source, 120).await;
    source.nodes()[1].connect().await.unwrap().run("ACL SETUSER bob on >secret ~* +@all").await.unwrap();
    let vault = Vault::memory();
    let backup = vault.backup(&engine(&source)).await;
    let wanted = all_of(source.nodes()).await;

    let home = scratch_dir().unwrap();
    let dir = home.path().join("members");
    let restored = vault.restore(&backup, RestoreSettings::files(&dir)).await.unwrap();
    assert!(
        restored
            .findings
            .iter()
            .any(|finding| finding.code == "member-slots" && finding.message.contains("5461-10921"))
    );
    let names = ["slots-00000", "slots-05461", "slots-10922"];
    let mut there: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    there.sort();
    assert_eq!(there, names);
    // As nodes of a cluster they find out by themselves which slots their keys are in.
    let mut nodes = Vec::new();
    for name in names {
        let node = Redis::builder(version).cluster_mode().data_dir(dir.join(name)).start().await.unwrap();
        nodes.push(node);
    }
    let same = Servers::of_nodes(nodes).await.unwrap();
    assert_same(&all_of(same.nodes()).await, &wanted);
    assert!(std::fs::read_to_string(dir.join(names[1]).join("users.acl")).unwrap().contains("bob"));
    assert!(!std::fs::read_to_string(dir.join(names[0]).join("users.acl")).unwrap().contains("bob"));
    let error = vault.restore(&backup, RestoreSettings::files(&dir)).await.unwrap_err();
    assert!(error.to_string().contains("data-directory-in-use"), "{error}");

    // One member alone.
    let one = home.path().join("one");
    let chosen = Selector::within([EntryPath::new(names[1]).unwrap()]);
    vault.restore_some(&backup, RestoreSettings::files(&one), chosen).await.unwrap();
    assert_eq!(std::fs::read_dir(&one).unwrap().count(), 1);
    let part = Selector::within([EntryPath::new("slots-05461/dump.rdb").unwrap()]);
    let error = vault.restore_some(&backup, RestoreSettings::files(home.path().join("part")), part).await.unwrap_err();
    assert!(error.to_string().contains("selection"), "{error}");

    // All of them in one server that is no cluster, with the users of one member.
    let single = Redis::builder(version).start().await.unwrap();
    let restored = vault.restore(&backup, RestoreSettings::replay(client(&single)).users(true)).await.unwrap();
    assert!(restored.findings.iter().any(|finding| finding.code == "users-differ"), "{:?}", restored.findings);
    assert_same(&all_of([&single]).await, &wanted);
}
