//! The log on the command line: captured, shown, restored to a moment, and what damage does to it.

use std::time::Duration;

use backup_examples::cli::{Terminals, exit};
use backup_testkit::{Postgres, StopMode, require_or_skip, scratch_dir, unprivileged};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::harness::{Vault, damage};
use crate::roundtrip::Shop;

/// Waits until `windows` says that the log is stored up to `position`.
async fn stored(vault: &Vault, position: u64) {
    let at = |window: &Value| window["to"]["offset"].as_u64();
    for _ in 0..600 {
        let windows = vault.json(&["windows"]).await;
        if windows["windows"].as_array().unwrap().iter().filter_map(at).any(|at| at >= position) {
            return;
        }
        tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>()).await.unwrap_err();
    }
    panic!("the log is not stored up to {position:X}");
}

async fn text(server: &Postgres, sql: &str) -> String {
    let client = server.connect("postgres").await.unwrap();
    client.query_one(&format!("select ({sql})::text"), &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_captured_until_interrupted_and_restored_to_a_moment() {
    let shop = require_or_skip!(Shop::open(8).await);
    let vault = Vault::created().await;
    let url = shop.url();
    let nothing = vault.json(&["windows"]).await;
    assert_eq!(nothing, json!({"windows": [], "holes": []}));

    let cancel = CancellationToken::new();
    let spool = vault.dir.path().join("spool");
    let folder = spool.display().to_string();
    let arguments = ["--json", "log", "postgres", "--url", &url, "--flush-after", "100ms", "--spool", &folder];
    let capture = vault.run_on(&arguments, Terminals::default(), cancel.clone());
    let work = async {
        let backup = vault.json(&["backup", "postgres", "--url", &url]).await;
        let client = shop.server.connect("postgres").await.unwrap();
        client.batch_execute("create table counted as select generate_series(1, 10) as i").await.unwrap();
        let before = text(&shop.server, "pg_create_restore_point('before the mistake')").await;
        client.batch_execute("delete from counted where i > 3").await.unwrap();
        let end = u64::from(shop.server.current_lsn().await.unwrap());
        stored(&vault, end).await;
        cancel.cancel();
        (backup, before)
    };
    let (captured, (backup, before)) = tokio::join!(capture, work);
    assert_eq!(captured.code, exit::DONE, "{captured:?}");
    assert!(captured.json()["durable"]["offset"].as_u64().is_some(), "{captured:?}");
    let mut left: Vec<_> = std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["identity", "lock"], "everything was sent");

    let windows = vault.json(&["windows"]).await;
    let window = &windows["windows"][0];
    assert_eq!((&window["backups"], &windows["holes"]), (&json!([backup["id"]]), &json!([])));
    assert_eq!((&window["from"]["text"], &window["orphaned"]), (&backup["position"], &json!(false)));
    let people = vault.run(&["windows"]).await;
    assert!(people.code == 0 && people.out.contains(backup["position"].as_str().unwrap()), "{people:?}");

    // As files, for whoever recovers in another way.
    let archive = vault.dir.path().join("archive");
    let folder = archive.display().to_string();
    let exported = vault.json(&["export", "postgres", "--dir", &folder]).await;
    let count = |name: &str| exported[name].as_u64().unwrap();
    let files = std::fs::read_dir(&archive).unwrap().count() as u64;
    assert!(files > 0 && count("segments") + count("partial") == files && count("bytes") > 0, "{exported}");
    let again = vault.run(&["export", "postgres", "--dir", &folder]).await;
    assert!(again.failed(exit::INVALID_INPUT).contains("is not empty"), "{again:?}");
    let typo = vault.run(&["export", "postgres", "--dir", &folder, "--from", "0-3000028"]).await;
    assert!(typo.code != exit::DONE && typo.err.contains("0-3000028"), "{typo:?}");

    let scratch = scratch_dir().unwrap();
    for (number, (target, expected)) in [
        (vec!["--name", "before the mistake"], "10"),
        (vec!["--position", &before, "--exclusive"], "10"),
        (vec!["--latest"], "3"),
    ]
    .into_iter()
    .enumerate()
    {
        let into = scratch.path().join(number.to_string());
        std::fs::create_dir(&into).unwrap();
        unprivileged().own(&into).unwrap();
        let path = into.display().to_string();
        let plan = vault.json(&[&["plan", "postgres", "--into", &path], &target[..]].concat()).await;
        assert_eq!((&plan["refused"], &plan["backup"]["id"]), (&json!(false), &backup["id"]));
        assert!(plan["log"]["bytes"].as_u64() > Some(0), "{plan}");
        vault.json(&[&["restore", "postgres", "--into", &path], &target[..]].concat()).await;
        let mut restored = Postgres::open(shop.server.version(), &into).await.unwrap();
        restored.wait_writable(Duration::from_secs(60)).await.unwrap();
        assert_eq!(text(&restored, "select count(*) from counted").await, expected, "{target:?}");
        restored.stop(StopMode::Immediate).await.unwrap();
    }
    let nowhere = vault.run(&["plan", "postgres", "--into", "/nonexistent/x", "--name", "never"]).await;
    assert!(nowhere.failed(exit::INVALID_INPUT).contains(backup["position"].as_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_damaged_piece_is_a_hole_with_two_sides() {
    let shop = require_or_skip!(Shop::open(8).await);
    let vault = Vault::created().await;
    let url = shop.url();
    let cancel = CancellationToken::new();
    let arguments = ["log", "postgres", "--url", &url, "--flush-after", "50ms"];
    let capture = vault.run_on(&arguments, Terminals::default(), cancel.clone());
    let work = async {
        let backup = vault.json(&["backup", "postgres", "--url", &url]).await;
        let client = shop.server.connect("postgres").await.unwrap();
        client.batch_execute("create table counted (i int)").await.unwrap();
        for number in 0..6 {
            client.execute("insert into counted values ($1)", &[&number]).await.unwrap();
            stored(&vault, u64::from(shop.server.current_lsn().await.unwrap())).await;
        }
        cancel.cancel();
        backup
    };
    let (captured, backup) = tokio::join!(capture, work);
    assert_eq!(captured.code, exit::DONE, "{captured:?}");
    let whole = vault.json(&["windows"]).await;
    let end = whole["windows"][0]["to"]["text"].as_str().unwrap().to_owned();

    // The last piece is damaged: what is stored says so only when it is read.
    let pieces = vault.objects("log/");
    assert!(pieces.len() > 5, "{pieces:?}");
    // Every piece has its range in its name; those of an idle log are empty.
    let range = |path: &std::path::Path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let parts: Vec<_> = name.split('-').map(str::to_owned).collect();
        (u64::from_str_radix(&parts[1], 16).unwrap(), u64::from_str_radix(&parts[2], 16).unwrap())
    };
    let mut full: Vec<_> = pieces.iter().filter(|path| range(path).0 < range(path).1).collect();
    full.sort_by_key(|path| range(path));
    let last = full[full.len() - 1];
    damage(last);
    let report = vault.run(&["--json", "verify", "--level", "full"]).await;
    assert_eq!(report.code, exit::DAMAGED, "{report:?}");
    // It is still wrong at the next look, and harms the backup whose log it was.
    let again = vault.run(&["--json", "verify", "--level", "full"]).await;
    assert_eq!(again.code, exit::DAMAGED, "{again:?}");
    for report in [&report, &again] {
        let damages = report.json()["damages"].clone();
        assert_eq!(
            (damages.as_array().unwrap().len(), &damages[0]["backups"]),
            (1, &json!([backup["id"]])),
            "{damages}"
        );
    }
    let windows = vault.json(&["windows"]).await;
    assert_eq!(windows["windows"][0]["to"]["offset"], json!(range(last).0), "{windows}");

    // One in the middle is lost: that shows at once.
    let middle = full[full.len() - 3];
    let (start, stop) = range(middle);
    std::fs::remove_file(middle).unwrap();
    let windows = vault.json(&["windows"]).await;
    let hole = &windows["holes"][0];
    assert_eq!((&hole["from"]["offset"], &hole["to"]["offset"]), (&json!(start), &json!(stop)), "{windows}");
    let refused = vault.run(&["plan", "postgres", "--into", "/nonexistent/x", "--position", &end]).await;
    let line = refused.failed(exit::INVALID_INPUT);
    for side in [&hole["from"]["text"], &hole["to"]["text"]] {
        assert!(line.contains(side.as_str().unwrap()), "{line}");
    }
    let side = hole["from"]["text"].as_str().unwrap();
    let plan = vault.json(&["plan", "postgres", "--into", "/nonexistent/x", "--position", side, "--exclusive"]).await;
    assert_eq!(plan["refused"], json!(false), "{plan}");
    // Behind it a new backup begins a new window.
    let later = vault.json(&["backup", "postgres", "--url", &url]).await;
    let plan = vault.json(&["plan", "postgres", "--into", "/nonexistent/x"]).await;
    assert_eq!(plan["backup"]["id"], later["id"]);
}

#[tokio::test]
async fn orders_about_the_log_that_make_no_sense() {
    let vault = Vault::created().await;
    for wrong in [
        &["log"][..],
        &["log", "postgres", "--flush-after", "soon"],
        &["log", "postgres", "--sync", "--flush-after", "1s"],
        &["log", "postgres", "--slot", "x", "--no-slot"],
        &["log", "postgres", "--spool", "/x", "--import", "/y"],
        &["log", "postgres", "--spool-limit", "1GiB"],
        &["log", "postgres", "--spool", "/x", "--spool-limit", "much"],
        &["plan", "postgres", "--into", "/x", "--time", "yesterday"],
        &["plan", "postgres", "--into", "/x", "--name", "a", "--position", "0/1"],
    ] {
        assert_eq!(vault.run(wrong).await.code, exit::USAGE, "{wrong:?}");
    }
    let nowhere = ["log", "postgres", "--url", "host=127.0.0.1 port=1 user=x", "--no-slot"];
    assert_eq!(vault.run(&nowhere).await.code, exit::UNAVAILABLE);
    let absent = vault.run(&["log", "postgres", "--import", "/nonexistent/archive"]).await;
    assert!(absent.failed(exit::ENVIRONMENT).contains("/nonexistent/archive"));
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_says_what_it_did() {
    let vault = Vault::created().await;
    let done = vault.json(&["compact", "--least-age", "0s", "--most-bytes", "1000000"]).await;
    assert_eq!((&done["objects_before"], &done["deleted"], &done["findings"]), (&json!(0), &json!(0), &json!([])));
    let people = vault.run(&["compact"]).await;
    assert!(people.code == 0 && people.out.contains("objects after"), "{people:?}");
}
