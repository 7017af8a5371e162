//! What a backup of a cluster says of itself, and which nodes it is read from.

use backup_core::entry::{EntryPath, Selector};
use backup_core::run;
use backup_core::{BackupSourceExt as _, Consistency, LogPosition};
use backup_redis::RedisCluster;
use backup_redis::node::Prefer;
use backup_testkit::redis::RedisCluster as Servers;
use backup_testkit::{Redis, RedisVersion, require_or_skip};
use futures::TryStreamExt as _;
use jiff::Timestamp;

use crate::harness::{Vault, engine, fill, members, run as run_line, settings, work};

async fn position(node: &Redis) -> LogPosition {
    let field = async |name| node.info("replication", name).await.unwrap().unwrap();
    let (id, offset) = (field("master_replid").await, field("master_repl_offset").await);
    LogPosition::new(backup_core::Lineage::new(id), offset.parse().unwrap(), "")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_tells_of_every_member() {
    let servers = require_or_skip!(Servers::start(RedisVersion::Valkey81, 3).await);
    fill(&servers, 60).await;
    let begun = work().env().now();
    let vault = Vault::memory();
    let backup = vault.backup(&engine(&servers)).await;
    let ended = work().env().now();
    let snapshot = &backup.snapshot;
    assert_eq!((snapshot.engine.as_str(), snapshot.version.as_str()), ("redis-cluster", "valkey 8.1.8"));
    assert_eq!((snapshot.consistency, snapshot.stop.as_ref()), (Consistency::PerPart, None));
    let names: Vec<_> = members(&backup).iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["slots-00000", "slots-05461", "slots-10922"]);
    let slots: Vec<_> = members(&backup).iter().map(|member| member.fact("slots").unwrap()).collect();
    assert_eq!(slots, ["0-5460", "5461-10921", "10922-16383"]);
    let mut taken = Vec::new();
    for (member, node) in members(&backup).iter().zip(servers.nodes()) {
        assert_eq!(member.source, node.cluster_id().await.unwrap());
        assert_eq!(member.fact("role"), Some("primary"));
        // Nobody writes, so the stream stands where it stood.
        let there = position(node).await;
        let stop = member.stop.as_ref().unwrap();
        assert_eq!((&stop.lineage, stop.offset), (&there.lineage, there.offset));
        let at = Timestamp::from_microsecond(member.taken_at.unwrap()).unwrap();
        let by_theirs = Timestamp::from_microsecond(member.stopped_at.unwrap()).unwrap();
        for moment in [at, by_theirs] {
            assert!(begun <= moment && moment <= ended, "{begun} {moment} {ended}");
        }
        assert!(member.started_at <= at && at <= member.ended_at);
        taken.push(member.taken_at.unwrap());
    }
    let skew = taken.iter().max().unwrap() - taken.iter().min().unwrap();
    assert_eq!(snapshot.group.as_ref().unwrap().skew, Some(skew as u64));

    // One after the other they are the same, only further apart.
    let slowly = engine(&servers).parallel(std::num::NonZeroUsize::MIN);
    let one_by_one = vault.backup(&slowly).await;
    assert_eq!(one_by_one.snapshot.fact("keys"), Some("60"));
    let ends: Vec<_> = members(&one_by_one).iter().map(|member| (member.started_at, member.ended_at)).collect();
    assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ends:?}");

    let source = vault.0.open(backup.id).await.unwrap();
    let text = source.read_small(&EntryPath::new("records/cluster-nodes").unwrap(), 1 << 20).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&text).lines().count(), 3);
    let entries: Vec<_> = source.entries(Selector::all()).try_collect().await.unwrap();
    for name in names {
        for file in ["dump.rdb", "records/acl", "records/config.json", "records/functions", "records/info"] {
            let path = format!("{name}/{file}");
            assert!(entries.iter().any(|entry| entry.meta.path.as_str() == Some(&path)), "{path}");
        }
    }
    let report = run::check(vault.0.as_ref(), &engine(&servers), backup.id, &work()).await.unwrap();
    assert!(report.is_sound() && report.entries == entries.len() as u64, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_read_where_they_are_in_sync() {
    let servers = require_or_skip!(Servers::start(RedisVersion::Redis82, 2).await);
    fill(&servers, 60).await;
    let replica = servers.replica_of(0).await.unwrap();
    servers.nodes()[0].wait_for_replica(&replica).await.unwrap();
    let vault = Vault::memory();
    let cluster = RedisCluster::new(settings(&servers).prefer(Prefer::Replica)).unwrap();
    let backup = vault.backup(&cluster).await;
    let facts = |fact| members(&backup).iter().map(|member| member.fact(fact)).collect::<Vec<_>>();
    assert_eq!(facts("role"), [Some("replica"), Some("primary")]);
    assert_eq!(facts("lag_bytes"), [Some("0"), None]);
    // A member is the shard, whoever is asked for it.
    assert_eq!(members(&backup)[0].source, servers.nodes()[0].cluster_id().await.unwrap());
    assert_eq!(facts("slots"), [Some("0-8191"), Some("8192-16383")]);
    assert_eq!(backup.snapshot.fact("keys"), Some("60"));
    let findings = &members(&backup)[1].findings;
    assert!(findings.iter().any(|finding| finding.code == "no-replica"), "{findings:?}");

    // One that hangs is passed over.
    let mut replica = replica;
    replica.kill9().await;
    let backup = vault.backup(&cluster).await;
    let facts = |fact| members(&backup).iter().map(|member| member.fact(fact)).collect::<Vec<_>>();
    assert_eq!(facts("role"), [Some("primary"), Some("primary")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_wrong_member_are_found() {
    let servers = require_or_skip!(Servers::start(RedisVersion::Redis72, 2).await);
    fill(&servers, 20).await;
    // A node takes a key of a slot that comes to it; when it comes no more, the key stays.
    let slot = backup_redis::rdb::slot_of(b"stray");
    let [first, second] = servers.nodes() else { unreachable!() };
    let (owner, other) = if slot < 8192 { (first, second) } else { (second, first) };
    let mut client = other.connect().await.unwrap();
    let from = owner.cluster_id().await.unwrap();
    for line in [&format!("CLUSTER SETSLOT {slot} IMPORTING {from}"), "ASKING", "SET stray x"] {
        run_line(&mut client, line).await;
    }
    run_line(&mut client, &format!("CLUSTER SETSLOT {slot} STABLE")).await;
    let vault = Vault::memory();
    let backup = vault.backup(&engine(&servers)).await;
    let report = run::check(vault.0.as_ref(), &engine(&servers), backup.id, &work()).await.unwrap();
    let found: Vec<_> = report.findings.iter().filter(|finding| finding.code == "foreign-keys").collect();
    assert!(
        matches!(found.as_slice(), [found] if found.message.contains("1 keys") && found.message.contains("stray")),
        "{found:?}"
    );
}
