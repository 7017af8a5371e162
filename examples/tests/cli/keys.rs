//! Who can open a repository, from the command line.

use backup_examples::cli::exit;
use serde_json::json;

use crate::harness::{PASSPHRASE, Vault};

#[tokio::test(flavor = "multi_thread")]
async fn recipients_come_and_go_and_the_last_one_stays() {
    let vault = Vault::created().await;
    let path = |name: &str| vault.dir.path().join(name).to_str().unwrap().to_owned();
    let (pair, spare) = (path("pair"), path("spare"));
    let generated = vault.json(&["key", "generate", &pair]).await;
    let secret = std::fs::read_to_string(&pair).unwrap();
    assert!(secret.starts_with("BACKUP-SECRET-1"));
    assert!(vault.run(&["key", "generate", &pair]).await.code != 0, "a secret is never overwritten");
    let (public, name) = (generated["public"].as_str().unwrap(), generated["recipient"].as_str().unwrap());
    let refused = vault.run(&["--key-file", &pair, "list"]).await;
    assert!(refused.failed(exit::INVALID_INPUT).contains("x25519"), "{refused:?}");
    let added = vault.json(&["key", "add", "--public", public, "--label", "offline"]).await;
    assert_eq!((&added["recipient"], &added["epoch"], &added["stored"]), (&json!(name), &json!(1), &json!(1)));
    assert_eq!(vault.run(&["--key-file", &pair, "list"]).await.code, 0);

    std::fs::write(&spare, "spare words\n").unwrap();
    vault.json(&["key", "add", "--file", &spare]).await;
    let refused = vault.run(&["key", "rotate"]).await;
    assert!(refused.failed(exit::INVALID_INPUT).contains("pass-"), "who is missing is named: {refused:?}");
    assert_eq!(vault.json(&["key", "rotate", "--with", &spare]).await["epoch"], json!(2));
    let shown = vault.run(&["key", "list"]).await;
    assert!(shown.out.contains("offline") && shown.out.contains("1, 2") && shown.out.contains("epoch 2"), "{shown:?}");
    let everything = format!("{shown:?}{generated}{added}");
    assert!(
        !everything.contains(PASSPHRASE) && !everything.contains("spare words") && !everything.contains(secret.trim())
    );

    let removed = vault.run(&["key", "remove", name, "--with", &spare]).await;
    assert!(removed.code == 0 && removed.err.contains("kept an older key"), "{removed:?}");
    vault.run(&["--key-file", &pair, "list"]).await.failed(exit::INVALID_INPUT);
    let unknown = vault.run(&["key", "remove", "x25519-0000000000000000"]).await;
    assert!(unknown.failed(exit::INVALID_INPUT).contains("not among"), "{unknown:?}");
    let left = vault.json(&["key", "list"]).await;
    assert_eq!((left["recipients"].as_array().unwrap().len(), &left["current"]), (2, &json!(3)));
    assert_eq!(vault.json(&["verify", "--level", "full"]).await["sound"], json!(true));
}
