//! Backups of a real PostgreSQL, as scripts and people see them.

use backup_examples::cli::Terminals;
use backup_testkit::pgbench::{ChangeShape, ClusterDigest, Dataset, digest_cluster};
use backup_testkit::{PgVersion, Postgres, require_or_skip};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::harness::{SERVICE, Vault, keys};

/// The keys of a backup in JSON. Exactly these: scripts rely on them.
const BACKUP: [&str; 12] = [
    "data_bytes",
    "ended_at",
    "engine",
    "entries",
    "id",
    "kind",
    "new_bytes",
    "parent",
    "position",
    "service",
    "started_at",
    "stored_bytes",
];

/// A shop's database and its dataset.
pub(crate) struct Shop {
    pub(crate) server: Postgres,
    dataset: Dataset,
}

impl Shop {
    pub(crate) async fn open(mebibytes: u64) -> backup_testkit::Result<Self> {
        let server = Postgres::builder(PgVersion::V17).start().await?;
        let dataset = Dataset::realistic(mebibytes << 20, 3);
        dataset.load(&server, "postgres").await?;
        Ok(Self { server, dataset })
    }

    pub(crate) fn url(&self) -> String {
        self.server.conn_string("postgres")
    }

    pub(crate) async fn change(&self) {
        let client = self.server.connect("postgres").await.unwrap();
        self.dataset.change_fraction(&client, 0.01, ChangeShape::Clustered, 1).await.unwrap();
    }

    pub(crate) async fn digest(&self) -> ClusterDigest {
        digest_cluster(&self.server.config("postgres")).await.unwrap()
    }
}

#[track_caller]
fn assert_is_backup(backup: &Value) {
    assert_eq!(keys(backup), BACKUP);
    assert_eq!((&backup["service"], &backup["engine"]), (&json!(SERVICE), &json!("postgres")));
    for number in ["data_bytes", "new_bytes", "stored_bytes", "entries"] {
        assert!(backup[number].as_u64().is_some_and(|n| n > 0), "{number} of {backup}");
    }
    for time in ["started_at", "ended_at"] {
        let text = backup[time].as_str().unwrap();
        assert!(text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok(), "{time} of {backup}");
    }
    let position = backup["position"].as_str().unwrap();
    assert!(
        position
            .split_once('/')
            .is_some_and(|(high, low)| [high, low].iter().all(|p| u32::from_str_radix(p, 16).is_ok()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_told_to_scripts_and_people() {
    let shop = require_or_skip!(Shop::open(16).await);
    let vault = Vault::created().await;
    let url = shop.url();

    let full = vault.json(&["backup", "postgres", "--url", &url]).await;
    assert_is_backup(&full);
    assert_eq!((&full["kind"], &full["parent"]), (&json!("full"), &Value::Null));
    assert!(full["data_bytes"].as_u64() > Some(16 << 20), "{full}");

    shop.change().await;
    let incremental = vault.json(&["backup", "postgres", "--url", &url]).await;
    assert_is_backup(&incremental);
    assert_eq!((&incremental["kind"], &incremental["parent"]), (&json!("incremental"), &full["id"]));
    assert!(incremental["new_bytes"].as_u64() < full["new_bytes"].as_u64(), "{incremental}");

    let anew = vault.json(&["backup", "postgres", "--url", &url, "--full", "--method", "protocol"]).await;
    assert_eq!((&anew["kind"], &anew["parent"]), (&json!("full"), &Value::Null));

    assert_eq!(vault.json(&["list"]).await, json!([full, incremental, anew]));
    for backup in [&full, &incremental, &anew] {
        let id = backup["id"].as_str().unwrap();
        let shown = vault.json(&["show", id]).await;
        for key in BACKUP {
            assert_eq!(shown[key], backup[key], "{key}");
        }
        let entries = shown["entry_list"].as_array().unwrap();
        assert_eq!(Some(entries.len() as u64), backup["entries"].as_u64());
        assert!(entries.iter().any(|e| e["path"] == "global/pg_control" && e["len"] == 8192), "{entries:?}");
        assert!(shown["version"].as_str().unwrap().starts_with("17"), "{}", shown["version"]);
        assert_eq!(shown["method"], if backup == &anew { "protocol" } else { "local" });
    }

    for level in ["objects", "engine"] {
        let report = vault.json(&["verify", "--level", level]).await;
        assert_eq!((&report["sound"], &report["backups"], &report["damages"]), (&json!(true), &json!(3), &json!([])));
    }
    for_people(&vault, &full).await;
}

/// The same, without JSON.
async fn for_people(vault: &Vault, full: &Value) {
    let id = full["id"].as_str().unwrap();
    let plain = vault.run(&["list"]).await;
    let first: Vec<_> = plain.out.lines().next().unwrap().split('\t').collect();
    assert_eq!((first.len(), first[0], first[2]), (9, id, "full"));
    assert_eq!(first[4], full["data_bytes"].to_string(), "exact numbers where nobody looks");

    let terminal = Terminals { stdout: true, stderr: true };
    let pretty = vault.run_on(&["list"], terminal, CancellationToken::new()).await;
    let lines: Vec<_> = pretty.out.lines().collect();
    assert!(lines.len() == 5 && lines[0].starts_with("backup") && lines[2].starts_with(id), "{}", pretty.out);
    assert!(lines[2].contains("MB"), "sizes that people read: {}", lines[2]);

    let shown = vault.run(&["show", id]).await;
    assert!(shown.code == 0 && shown.out.contains("global/pg_control\tfile\t8192"), "{}", shown.out);
}
