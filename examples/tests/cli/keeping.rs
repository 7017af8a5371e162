//! What is kept, why, and letting go of the rest.

use backup_examples::cli::exit;
use backup_testkit::{PgVersion, Postgres, require_or_skip};
use serde_json::json;

use crate::harness::{Vault, damage};

/// The largest pack of the newest session, and its bytes.
fn newest_pack(packs: &std::path::Path) -> (std::path::PathBuf, Vec<u8>) {
    let files =
        |dir: &std::path::Path| -> Vec<_> { dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect() };
    let session = files(packs).into_iter().max().unwrap();
    let pack = files(&session).into_iter().max_by_key(|file| file.metadata().unwrap().len()).unwrap();
    let bytes = std::fs::read(&pack).unwrap();
    (pack, bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_why_and_lets_go_only_when_told_and_never_of_what_is_held() {
    let server = require_or_skip!(Postgres::builder(PgVersion::V17).start().await);
    let url = server.conn_string("postgres");
    let vault = Vault::created().await;
    let nothing = vault.run(&["expire", "--plan-name", "hobbyist"]).await;
    assert!(nothing.failed(exit::INVALID_INPUT).contains("--kind"), "{nothing:?}");
    let mut ids = Vec::new();
    for _ in 0..3 {
        let backup = vault.json(&["backup", "postgres", "--url", &url]).await;
        ids.push(backup["id"].as_str().unwrap().to_owned());
    }
    let unmanaged = vault.run(&["expire"]).await;
    assert!(unmanaged.failed(exit::INVALID_INPUT).contains("--plan-name"), "{unmanaged:?}");
    let typo = vault.run(&["expire", "--plan-name", "hobyist"]).await;
    assert!(typo.failed(exit::INVALID_INPUT).contains("hobbyist, startup"), "{typo:?}");

    let verdicts = |document: &serde_json::Value| -> Vec<bool> {
        document["backups"].as_array().unwrap().iter().map(|b| b["keep"].as_bool().unwrap()).collect()
    };
    let planned = vault.json(&["expire", "--plan-name", "hobbyist"]).await;
    assert_eq!((verdicts(&planned), &planned["executed"]), (vec![false, false, true], &json!(false)));
    assert!(planned["backups"][2]["reasons"][0].as_str().unwrap().contains("newest"), "{planned}");
    assert_eq!(vault.json(&["list"]).await.as_array().unwrap().len(), 3, "a plan changes nothing");

    let held = vault.json(&["hold", "add", &ids[0], "--name", "case-7", "--reason", "evidence"]).await;
    assert_eq!(held, json!({ "backup": ids[0], "holds": ["case-7"] }));
    let done = vault.run(&["expire", "--plan-name", "hobbyist", "--execute"]).await;
    assert!(done.code == 0 && done.out.contains("on hold") && done.out.contains("1 backups were let go"), "{done:?}");
    let left: Vec<_> =
        vault.json(&["list"]).await.as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(left, [ids[0].clone(), ids[2].clone()]);
    let gone = vault.run(&["show", &ids[1]]).await;
    assert!(gone.failed(exit::INVALID_INPUT).contains("was expired at"), "{gone:?}");

    let unknown = vault.run(&["hold", "remove", &ids[0]]).await;
    assert!(unknown.failed(exit::INVALID_INPUT).contains("\"manual\""), "{unknown:?}");
    let absent = vault.run(&["hold", "add", &ids[1]]).await;
    assert!(absent.failed(exit::INVALID_INPUT).contains("was expired"), "{absent:?}");
    vault.json(&["hold", "remove", &ids[0], "--name", "case-7"]).await;
    let done = vault.json(&["expire", "--plan-name", "hobbyist", "--execute"]).await;
    assert_eq!(done["expired"]["backups"], json!([ids[0]]));
    // What is left is restored as ever, and verified.
    assert_eq!(vault.json(&["verify", "--level", "full"]).await["sound"], json!(true));
    vault.json(&["plan", "postgres", "--into", vault.dir.path().join("target").to_str().unwrap()]).await;

    // What was let go is condemned, can be had again, and is gone once it is deleted.
    let planned = vault.json(&["collect", "--dry-run"]).await;
    assert!(planned["packs"].as_u64().unwrap() > 0 && planned["due"] == json!([]), "{planned}");
    let condemned = vault.run(&["collect"]).await;
    assert!(condemned.code == 0 && condemned.out.contains("collection 1 was condemned"), "{condemned:?}");
    let again = vault.json(&["reinstate", &ids[0]]).await;
    assert_eq!(again["id"], json!(ids[0]));
    let kept = vault.run(&["reinstate", &ids[0]]).await;
    assert!(kept.failed(exit::INVALID_INPUT).contains("has not expired"), "{kept:?}");
    assert_eq!(vault.json(&["verify", "--level", "full"]).await["backups"], json!(2));
    vault.json(&["expire", "--plan-name", "hobbyist", "--execute"]).await;
    let deleted = vault.json(&["collect", "--grace", "0s"]).await;
    assert!(deleted["deleted"].as_u64().unwrap() > 0, "{deleted}");
    let gone = vault.run(&["reinstate", &ids[0]]).await;
    assert!(gone.failed(exit::INVALID_INPUT).contains("taken away"), "{gone:?}");
    let sound = vault.json(&["verify", "--level", "full"]).await;
    assert_eq!((&sound["sound"], &sound["garbage_objects"]), (&json!(true), &json!(0)), "{sound}");

    // A second region has the same, and says what it lacks.
    let other = format!("file://{}", vault.dir.path().join("region-2").display());
    let absent = vault.run(&["replicate", "--to", &other, "--status"]).await;
    assert!(absent.failed(exit::INVALID_INPUT).contains("does not exist"), "{absent:?}");
    let copied = vault.json(&["replicate", "--to", &other]).await;
    assert_eq!((&copied["region"]["newest"], &copied["region"]["missing"]), (&json!(ids[2]), &json!([])), "{copied}");
    let status = vault.json(&["replicate", "--to", &other, "--status"]).await;
    assert_eq!(status["entries_behind"], json!(0));
    assert_eq!(vault.json(&["--vault", &other, "verify", "--level", "full"]).await["sound"], json!(true));
    // Nothing is written to it before it is promoted, so it goes on following.
    let refused = vault.run(&["--vault", &other, "hold", "add", &ids[2]]).await;
    assert!(refused.failed(exit::INVALID_INPUT).contains("promoted"), "{refused:?}");
    assert_eq!(vault.json(&["replicate", "--to", &other]).await["region"]["entries_behind"], json!(0));

    // What is lost is told to everybody, and comes back from there.
    let packs = vault.dir.path().join("vault/shop/packs");
    let (lost, bytes) = newest_pack(&packs);
    std::fs::remove_file(&lost).unwrap();
    let damaged = vault.run(&["verify"]).await;
    assert!(damaged.code == exit::DAMAGED && damaged.err.contains("1 backups are harmed"), "{damaged:?}");
    assert_eq!(vault.json(&["list"]).await[0]["damaged"], json!(true));
    let full = vault.json(&["backup", "postgres", "--url", &url]).await;
    assert_eq!((&full["kind"], &full["parent"]), (&json!("full"), &json!(null)), "nothing builds on it");
    let mended = vault.json(&["repair", "--from", &other]).await;
    assert_eq!(mended["mended"].as_array().unwrap().len(), 1, "{mended}");
    assert_eq!(std::fs::read(&lost).unwrap(), bytes);
    let read = vault.json(&["verify", "--budget", "1GiB"]).await;
    assert!(read["sound"] == json!(true) && read["read_since"].is_string(), "{read}");
    assert_eq!(vault.json(&["list"]).await[0]["damaged"], json!(null));
    let said = vault.run(&["gc"]).await;
    assert!(said.code == 0 && said.out.contains("--execute does it"), "{said:?}");
    vault.json(&["gc", "--execute"]).await;
    // A backup may wait until it is there.
    let waited = vault.json(&["backup", "postgres", "--url", &url, "--region", &other]).await;
    assert_eq!(waited["regions"]["held"], json!([other]), "{waited}");
    assert_eq!(vault.json(&["replicate", "--to", &other, "--status"]).await["newest"], waited["id"]);
    let mistyped = format!("{other}x");
    let refused = vault.run(&["backup", "postgres", "--url", &url, "--region", &mistyped]).await;
    assert!(refused.failed(exit::INVALID_INPUT).contains("replicate --to"), "{refused:?}");
    let many = vault.run(&["backup", "postgres", "--url", &url, "--region", &other, "--quorum", "2"]).await;
    assert!(many.failed(exit::INVALID_INPUT).contains("2 of 1"), "{many:?}");
    vault.json(&["--vault", &other, "replicate", "--promote"]).await;
    vault.json(&["--vault", &other, "hold", "add", &ids[2]]).await;
    let apart = vault.run(&["replicate", "--to", &other]).await;
    assert!(apart.failed(exit::CONFLICT).contains("different ways"), "{apart:?}");

    // One's own plan, in a document; what is wrong in it is named.
    let file = vault.dir.path().join("plans.json");
    let write = |cadence: &str| {
        let profile = json!({ "backups": { "cadence": cadence, "tiers": [{ "period": "every", "age": "1d" }], "users_may": [] } });
        let document = json!({ "plans": ["gold"], "services": { "postgres": { "gold": profile } } });
        std::fs::write(&file, document.to_string()).unwrap();
    };
    write("daily");
    let path = file.to_str().unwrap();
    let own = vault.json(&["expire", "--profiles", path, "--plan-name", "gold"]).await;
    assert_eq!(verdicts(&own), [true, true, true]);
    write("every 5h");
    let wrong = vault.run(&["expire", "--profiles", path, "--plan-name", "gold"]).await;
    assert!(wrong.failed(exit::INVALID_INPUT).contains("services.postgres.gold"), "{wrong:?}");

    // The catalog is lost, and so is what is kept of it: packs know what it knew.
    let before = vault.json(&["list"]).await;
    for object in [vault.objects("catalog"), vault.objects("checkpoints")].concat() {
        damage(&object);
    }
    vault.run(&["list"]).await.failed(exit::DAMAGED);
    let rebuilt = vault.json(&["rebuild"]).await;
    assert_eq!(rebuilt["backups"].as_array().unwrap().len(), before.as_array().unwrap().len(), "{rebuilt}");
    let ids = |list: &serde_json::Value| -> Vec<serde_json::Value> {
        list.as_array().unwrap().iter().map(|backup| backup["id"].clone()).collect()
    };
    assert_eq!(ids(&vault.json(&["list"]).await), ids(&before));
    assert_eq!(vault.json(&["verify", "--level", "full"]).await["sound"], json!(true));
}
