//! A cluster with the real program: backed up, shown, checked, and restored into one of another size.

use backup_testkit::redis::{Contents, RedisCluster, contents};
use backup_testkit::{RedisVersion, require_or_skip};

use crate::harness::Vault;

/// All that the nodes hold together.
async fn all(cluster: &RedisCluster) -> Contents {
    let mut all = Contents::default();
    for node in cluster.nodes() {
        all.keys.extend(contents(node).await.unwrap().keys);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_goes_into_one_backup_and_comes_out_of_it() {
    let version = RedisVersion::Redis72;
    let source = require_or_skip!(RedisCluster::start(version, 3).await);
    for slot_tag in 0..60 {
        // Whoever does not have the key says so, and one of them has it.
        for node in source.nodes() {
            let _ = node.connect().await.unwrap().run(&format!("SET key:{{{slot_tag}}} value-{slot_tag}")).await;
        }
    }
    let wanted = all(&source).await;
    assert_eq!(wanted.keys.len(), 60);
    let vault = Vault::created().await;
    let url = source.nodes()[2].url();
    let backup = vault.json(&["backup", "redis-cluster", "--url", &url]).await;
    let id = backup["id"].as_str().unwrap();
    assert_eq!(backup["engine"], "redis-cluster");
    let shown = vault.json(&["show", id]).await;
    assert_eq!(shown["group"]["members"].as_array().unwrap().len(), 3);
    assert_eq!(shown["group"]["members"][1]["name"], "slots-05461");
    let text = vault.run(&["show", id]).await.out;
    assert!(text.contains("slots-10922: redis 7.2.4, at ") && text.contains("skew"), "{text}");
    assert_eq!(vault.run(&["verify", "--level", "engine"]).await.code, 0);

    let target = RedisCluster::start(version, 5).await.unwrap();
    let into = target.nodes()[0].url();
    vault.json(&["restore", "redis-cluster", "--into", &into]).await;
    assert_eq!(all(&target).await, wanted);
    let again = vault.run(&["restore", "redis-cluster", "--into", &into]).await;
    assert!(again.err.contains("exists in the target"), "{again:?}");
    vault.json(&["restore", "redis-cluster", "--into", &into, "--replace"]).await;
    assert_eq!(all(&target).await, wanted);

    let renamed = ["--prefix", "key:{1", "--rename", "key:=copy:", "--expiry", "drop"];
    vault.json(&[&["restore", "redis-cluster", "--into", &into][..], &renamed].concat()).await;
    let names = all(&target).await.keys.into_keys().filter(|(_, name)| name.starts_with(b"copy:{1")).count();
    assert_eq!(names, 11, "1 and 10 to 19");

    let dir = vault.dir.path().join("members");
    vault.json(&["restore", "redis-cluster", "--into", dir.to_str().unwrap()]).await;
    assert!(dir.join("slots-00000/dump.rdb").exists());
    // The stream of a cluster is not captured, and whoever asks for it is told.
    let captured = vault.run(&["log", "redis-cluster", "--url", &url]).await;
    assert!(captured.code != 0 && captured.err.contains("no change log"), "{captured:?}");
}
