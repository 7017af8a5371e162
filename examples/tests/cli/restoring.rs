//! Restores into real servers, plans, refusals and damage.

use std::path::Path;

use backup_testkit::pgbench::{ClusterDigest, digest_cluster};
use backup_testkit::{PgVersion, Postgres, StopMode, require_or_skip, scratch_dir, unprivileged};
use serde_json::json;

use crate::harness::{Vault, damage, keys};
use crate::roundtrip::Shop;

async fn digest_of(restored: &Path) -> ClusterDigest {
    unprivileged().own_tree(restored).unwrap();
    let mut server = Postgres::open(PgVersion::V17, restored).await.unwrap();
    let digest = digest_cluster(&server.config("postgres")).await.unwrap();
    server.stop(StopMode::Fast).await.unwrap();
    digest
}

#[tokio::test(flavor = "multi_thread")]
async fn each_backup_is_planned_and_restored() {
    let shop = require_or_skip!(Shop::open(16).await);
    let vault = Vault::created().await;
    let url = shop.url();
    let full = vault.json(&["backup", "postgres", "--url", &url]).await;
    let then = shop.digest().await;
    shop.change().await;
    let incremental = vault.json(&["backup", "postgres", "--url", &url]).await;
    let afterwards = shop.digest().await;
    assert_ne!(then, afterwards);
    drop(shop);

    let scratch = scratch_dir().unwrap();
    let into = scratch.path().join("latest");
    let into = into.to_str().unwrap();

    let plan = vault.json(&["plan", "postgres", "--into", into]).await;
    assert_eq!((&plan["backup"]["id"], &plan["refused"]), (&incremental["id"], &json!(false)));
    assert_eq!(plan["reads"]["bytes"], incremental["data_bytes"]);
    assert!(!Path::new(into).exists(), "a plan writes nothing");

    let restored = vault.json(&["restore", "postgres", "--into", into, "--latest"]).await;
    assert_eq!(
        keys(&restored),
        ["backup", "bytes", "entries", "findings", "into", "removed", "seconds", "written_bytes"]
    );
    assert_eq!(restored["backup"]["id"], incremental["id"]);
    assert_eq!(digest_of(Path::new(into)).await, afterwards);

    // What is there is not written over, and the plan says so before.
    let plan = vault.json(&["plan", "postgres", "--into", into]).await;
    assert_eq!(plan["refused"], json!(true));
    assert_eq!(plan["findings"][0]["severity"], "blocker");
    let refused = vault.run(&["restore", "postgres", "--into", into]).await;
    assert!(refused.failed(10).contains(into), "{refused:?}");

    // Rewriting what differs turns the newer state into the older one.
    let id = full["id"].as_str().unwrap();
    let delta = vault.json(&["restore", "postgres", "--into", into, "--backup", id, "--delta"]).await;
    assert!(delta["written_bytes"].as_u64() < delta["bytes"].as_u64(), "{delta}");
    assert_eq!(digest_of(Path::new(into)).await, then);

    let fresh = scratch.path().join("full");
    let plain = vault.run(&["restore", "postgres", "--into", fresh.to_str().unwrap(), "--backup", id]).await;
    assert!(plain.code == 0 && plain.out.starts_with(&format!("backup\t{id}\n")), "{plain:?}");
    assert_eq!(digest_of(&fresh).await, then);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_named_and_never_restored() {
    let shop = require_or_skip!(Shop::open(16).await);
    let vault = Vault::created().await;
    let url = shop.url();
    let backup = vault.json(&["backup", "postgres", "--url", &url]).await;
    let packs: Vec<_> = vault.objects("packs").into_iter().filter(|p| p.metadata().unwrap().len() > 1 << 20).collect();
    damage(&packs[0]);

    let ran = vault.run(&["--json", "verify", "--level", "full"]).await;
    assert_eq!(ran.failed_json(13)["kind"], "damaged");
    let report = ran.json();
    assert_eq!((&report["sound"], &report["harmed"]), (&json!(false), &json!([backup["id"]])));
    let object = packs[0].strip_prefix(vault.root().join("shop")).unwrap().to_str().unwrap();
    assert_eq!(report["damages"][0]["object"], object);
    let ran = vault.run(&["verify", "--level", "full"]).await;
    assert!(ran.code == 13 && ran.out.contains(object) && ran.err.starts_with("error: "), "{ran:?}");

    let scratch = scratch_dir().unwrap();
    let into = scratch.path().join("data");
    let ran = vault.run(&["restore", "postgres", "--into", into.to_str().unwrap()]).await;
    ran.failed(13);
    assert!(!into.join("global/pg_control").exists(), "what was written does not start");
}
