//! A host that only writes, from the command line.

use backup_examples::cli::{Terminals, exit};
use backup_testkit::{Redis, RedisVersion, require_or_skip};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::harness::{PASSPHRASE, Vault, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_host_deposits_and_somebody_with_the_keys_adopts() {
    let server = require_or_skip!(Redis::builder(RedisVersion::Redis72).start().await);
    let mut client = server.connect().await.unwrap();
    client.run("SET row first").await.unwrap();
    let vault = Vault::created().await;
    let path = |name: &str| vault.dir.path().join(name).to_str().unwrap().to_owned();
    let (file, state) = (path("web.host"), path("state"));
    let added = vault.json(&["key", "host", "add", "web", "--out", &file]).await;
    assert_eq!(added["label"], json!("web"));
    assert!(
        vault.run(&["key", "host", "add", "other", "--out", &file]).await.code != 0,
        "a secret is never overwritten"
    );
    let secret = std::fs::read_to_string(&file).unwrap();

    // On the host there is no passphrase, and nothing but the vault is named.
    let variables = [("BACKUP_VAULT".to_owned(), vault.url())];
    let url = server.url();
    let as_host = ["--json", "backup", "redis", "--url", &url, "--host-file", &file, "--host-state", &state];
    let deposit = async || run(&as_host, &variables, Terminals::default(), CancellationToken::new()).await;
    let first = deposit().await;
    assert_eq!((first.code, first.err.as_str()), (0, ""), "{first:?}");
    assert_eq!(vault.json(&["list"]).await, json!([]), "nobody has adopted it");
    client.run("SET row second").await.unwrap();
    let second = deposit().await.json();
    assert_eq!(second["parent"], first.json()["id"]);
    let adopted = vault.json(&["adopt"]).await;
    assert_eq!(adopted["adopted"].as_array().unwrap().len(), 2, "{adopted}");
    assert_eq!(vault.json(&["list"]).await.as_array().unwrap().len(), 2);
    assert_eq!(vault.json(&["verify", "--level", "full"]).await["sound"], json!(true));
    let into = path("restored");
    vault.json(&["restore", "redis", "--into", &into]).await;
    assert!(std::path::Path::new(&into).exists());

    let hosts = vault.json(&["key", "host", "list"]).await;
    assert_eq!((&hosts[0]["label"], &hosts[0]["last"]), (&json!("web"), &second["id"]));
    let shown = vault.run(&["key", "host", "list"]).await;
    assert!(shown.out.contains("web") && !shown.out.contains("BACKUP-HOST"), "{shown:?}");
    // Everything else needs a key.
    let reads = run(&["--service", "shop", "list"], &variables, Terminals::default(), CancellationToken::new()).await;
    assert_eq!(reads.code, 2, "{reads:?}");
    let foreign = vault.run(&["--service", "other", "backup", "redis", "--url", &url, "--host-file", &file]).await;
    assert!(foreign.failed(exit::INVALID_INPUT).contains("shop"), "{foreign:?}");

    assert_eq!(vault.run(&["key", "host", "remove", "web"]).await.code, 0);
    let refused = deposit().await;
    assert_eq!(refused.failed_json(exit::ENVIRONMENT)["kind"], "environment", "{refused:?}");
    let said = format!("{first:?}{second}{adopted}{hosts}{shown:?}{refused:?}");
    let line = secret.lines().find(|line| line.contains("BACKUP-HOST-1")).unwrap();
    let text = line.split('"').nth(3).unwrap();
    assert!(!said.contains(text) && !said.contains(PASSPHRASE));
}
