//! Every failure has one clear line, one JSON form and the exit code that says what to do.

use std::net::TcpListener;

use backup_examples::cli::Terminals;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::harness::{PASSPHRASE, SERVICE, Vault, damage, keys, run};

const NO_SUCH_BACKUP: &str = "01arz3ndektsv4rrffq69g5fav";

#[tokio::test]
async fn an_empty_repository_lists_nothing_and_is_sound() {
    let vault = Vault::absent();
    let created = vault.json(&["init"]).await;
    assert_eq!(keys(&created), ["repository", "service", "suite", "vault"]);
    assert_eq!((&created["service"], &created["vault"]), (&json!(SERVICE), &json!(vault.url())));

    assert_eq!(vault.json(&["list"]).await, json!([]));
    for level in ["catalog", "objects", "sample", "full", "engine"] {
        let report = vault.json(&["verify", "--level", level]).await;
        assert_eq!((&report["level"], &report["sound"], &report["backups"]), (&json!(level), &json!(true), &json!(0)));
    }
    assert_eq!(vault.run(&["list"]).await.out, "");
}

#[tokio::test]
async fn creating_twice_is_a_conflict() {
    let vault = Vault::created().await;
    assert!(vault.run(&["init"]).await.failed(14).contains(SERVICE));
    assert_eq!(vault.run(&["--json", "init"]).await.failed_json(14)["kind"], "conflict");
    assert_eq!(vault.run(&["list"]).await.code, 0, "it is as it was");
}

#[tokio::test]
async fn wrong_requests_are_10() {
    let vault = Vault::created().await;
    let wrong = vault.secret_file("wrong\n");
    let wrong = wrong.to_str().unwrap();
    let beside = format!("{}-typo", vault.url());
    for (args, word) in [
        (&["--service", "nobody", "list"][..], "nobody"),
        (&["--service", "No Body", "list"], "No Body"),
        (&["--vault", "nonsense", "list"], "nonsense"),
        (&["--vault", "ftp://host/x", "list"], "ftp"),
        (&["--vault", "file://relative/x", "list"], "absolute"),
        (&["--vault", &beside, "list"], "does not exist"),
        (&["--passphrase-file", wrong, "list"], "passphrase"),
        (&["show", NO_SUCH_BACKUP], NO_SUCH_BACKUP),
        (&["show", "nonsense"], "nonsense"),
        (&["restore", "postgres", "--into", "/x", "--backup", NO_SUCH_BACKUP], NO_SUCH_BACKUP),
        (&["restore", "postgres", "--into", "/x", "--backup", "nonsense"], "nonsense"),
        (&["restore", "postgres", "--into", "/x"], "no postgres backup"),
        // A server was meant; a folder would be made of it.
        (&["restore", "redis", "--into", "redis:/127.0.0.1:6379"], "redis:/127.0.0.1:6379"),
        (&["restore", "redis", "--into", "127.0.0.1:6379"], "redis://host:port"),
        (&["plan", "postgres", "--into", "/x", "--time", "2026-01-01T00:00:00Z"], "time"),
        (&["plan", "postgres", "--into", "/x", "--position", "0/1", "--exclusive"], "position"),
        (&["plan", "postgres", "--into", "/x", "--name", "before"], "before"),
        (&["plan", "postgres", "--into", "/x", "--only", "../up"], "../up"),
    ] {
        let line = vault.run(args).await;
        assert!(line.failed(10).contains(word), "{args:?} says nothing of {word}: {line:?}");
        let error = vault.run(&[&["--json"], args].concat()).await.failed_json(10);
        assert_eq!(error["kind"], "invalid_input", "{args:?}");
    }
    assert!(!vault.dir.path().join("vault-typo").exists(), "a mistyped vault is not created");
}

#[tokio::test]
async fn a_place_that_cannot_be_had_is_11() {
    let vault = Vault::absent();
    let file = vault.secret_file("a file, not a directory");
    let url = format!("file://{}/below", file.display());
    assert!(vault.run(&["--vault", &url, "init"]).await.failed(11).contains("below"));
    let missing = vault.dir.path().join("missing");
    let missing = missing.to_str().unwrap();
    assert!(vault.run(&["--passphrase-file", missing, "init"]).await.failed(11).contains(missing));
    assert_eq!(vault.run(&["--json", "--vault", &url, "init"]).await.failed_json(11)["kind"], "environment");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_12() {
    let vault = Vault::created().await;
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let url = format!("host=127.0.0.1 port={port} user=nobody sslmode=disable");
    let args = ["backup", "postgres", "--url", &url];
    assert!(vault.run(&args).await.failed(12).contains(&port.to_string()));
    assert_eq!(vault.run(&[&["--json"], &args[..]].concat()).await.failed_json(12)["kind"], "unavailable");
}

#[tokio::test]
async fn a_damaged_catalog_is_13_and_never_shown() {
    let vault = Vault::created().await;
    for object in vault.objects("catalog") {
        damage(&object);
    }
    assert!(vault.run(&["list"]).await.failed(13).contains("catalog"));
    assert_eq!(vault.run(&["--json", "list"]).await.failed_json(13)["kind"], "damaged");

    let ran = vault.run(&["--json", "verify"]).await;
    assert_eq!(ran.failed_json(13)["kind"], "damaged");

    let rebuilt = vault.json(&["rebuild"]).await;
    assert_eq!((&rebuilt["generation"], &rebuilt["backups"]), (&serde_json::json!(2), &serde_json::json!([])));
    assert_eq!(vault.json(&["list"]).await, serde_json::json!([]));
    assert!(vault.run(&["rebuild"]).await.failed(10).contains("--force"), "it can be read");
}

#[tokio::test]
async fn a_damaged_description_is_13() {
    let vault = Vault::created().await;
    std::fs::remove_file(vault.root().join(SERVICE).join("repository")).unwrap();
    vault.run(&["list"]).await.failed(13);
}

#[tokio::test]
async fn a_cancelled_run_is_15() {
    let vault = Vault::created().await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let ran = vault.run_on(&["list"], Terminals::default(), cancel.clone()).await;
    ran.failed(15);
    let ran = vault.run_on(&["--json", "list"], Terminals::default(), cancel).await;
    assert_eq!(ran.failed_json(15)["kind"], "cancelled");
}

#[tokio::test]
async fn secrets_are_never_said() {
    let vault = Vault::created().await;
    let variables = [
        ("BACKUP_VAULT".to_owned(), vault.url()),
        ("BACKUP_SERVICE".to_owned(), SERVICE.to_owned()),
        ("BACKUP_PASSPHRASE".to_owned(), PASSPHRASE.to_owned()),
    ];
    for args in [
        &["list"][..],
        &["show", "x"],
        &["backup", "postgres", "--url", "host=127.0.0.1 port=1 user=u password=hunter2 sslmode=disable"],
        &["backup", "postgres", "--url", "postgres://u:hunter2@127.0.0.1:1/db?sslmode=disable"],
        &["--vault", "ftp://u:hunter2@host/x", "list"],
    ] {
        let ran = run(args, &variables, Terminals::default(), CancellationToken::new()).await;
        for secret in [PASSPHRASE, "hunter2"] {
            assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "{args:?}: {ran:?}");
        }
    }
}
