//! The real process: signals, exit status, and what it leaves behind.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use backup_testkit::{require_or_skip, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::harness::{PASSPHRASE, SERVICE, Vault};
use crate::roundtrip::Shop;

/// The example that cargo builds beside the tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: build it with `cargo build --example {name}`", path.display());
    path
}

pub(crate) fn backupctl(vault: &Vault, args: &[&str]) -> Command {
    let mut command = Command::new(example("backupctl"));
    command
        .args(args)
        .env("BACKUP_VAULT", vault.url())
        .env("BACKUP_SERVICE", SERVICE)
        .env("BACKUP_PASSPHRASE", PASSPHRASE)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Waits for the end of a child that should end soon.
pub(crate) fn ended(mut child: Child) -> Output {
    let status = wait::until(Duration::from_secs(60), || child.try_wait().unwrap());
    if status.is_none() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(status.is_some(), "it did not end: {output:?}");
    output
}

#[tokio::test]
async fn a_signal_ends_a_backup_that_waits_for_its_server() {
    let vault = Vault::created().await;
    for (signal, json) in [(Signal::INT, false), (Signal::TERM, true)] {
        // A server that takes the connection and then says nothing.
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("host=127.0.0.1 port={port} user=u dbname=d sslmode=disable");
        let mut args = vec!["backup", "postgres", "--url", &url];
        if json {
            args.push("--json");
        }
        let child = backupctl(&vault, &args).spawn().unwrap();
        let (mut connection, _) = listener.accept().unwrap();
        let mut greeting = [0; 8];
        connection.read_exact(&mut greeting).unwrap();
        send(&child, signal);
        let output = ended(child);
        assert_eq!((output.status.code(), output.status.signal()), (Some(15), None), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        if json {
            let error: serde_json::Value = serde_json::from_str(&said).unwrap();
            assert_eq!(error["error"]["kind"], "cancelled");
        } else {
            assert_eq!(said, "error: cancelled by the caller\n");
        }
    }
    assert_eq!(vault.json(&["list"]).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_in_the_midst_of_a_backup_leaves_nothing_visible() {
    let shop = require_or_skip!(Shop::open(200).await);
    let vault = Vault::created().await;
    let url = shop.url();
    let child = backupctl(&vault, &["backup", "postgres", "--url", &url]).spawn().unwrap();
    let stored = || {
        let packs = vault.objects("packs").into_iter();
        packs.filter_map(|pack| pack.metadata().ok()).any(|pack| pack.len() > 1 << 20).then_some(())
    };
    wait::until(Duration::from_secs(120), stored).expect("something is stored");
    send(&child, Signal::TERM);
    let output = ended(child);
    assert_eq!(output.status.code(), Some(15), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");

    assert_eq!(vault.json(&["list"]).await, json!([]), "nothing is visible");
    let report = vault.json(&["verify", "--level", "full"]).await;
    assert_eq!(report["sound"], json!(true), "what was stored is known garbage: {report}");
    let next = vault.json(&["backup", "postgres", "--url", &url]).await;
    assert_eq!(vault.json(&["list"]).await, json!([next]));
}

#[cfg(feature = "aws")]
#[tokio::test]
async fn a_cloud_that_does_not_answer_is_12() {
    let vault = Vault::absent();
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let output = backupctl(&vault, &["--vault", "s3://bucket/prefix", "--json", "list"])
        .env("AWS_ENDPOINT", format!("http://127.0.0.1:{port}"))
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "hunter2")
        .env("AWS_REGION", "eu-west-1")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(12), 0), "{said}");
    let error: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(error["error"]["kind"], "unavailable");
    assert!(!said.contains("hunter2"));
}

#[tokio::test]
async fn a_reader_that_goes_is_no_failure() {
    let vault = Vault::created().await;
    let mut child = backupctl(&vault, &["verify"]).spawn().unwrap();
    drop(child.stdout.take());
    let output = ended(child);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_tells_its_story_to_the_end() {
    require_or_skip!(backup_testkit::PgBinaries::get(backup_testkit::PgVersion::V17));
    let scratch = backup_testkit::scratch_dir().unwrap();
    let output = tokio::task::spawn_blocking({
        let temporary = scratch.path().to_owned();
        move || Command::new(example("quickstart")).args(["--size", "16"]).env("TMPDIR", temporary).output().unwrap()
    })
    .await
    .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told.matches("equals that of the source").count(), 2, "{told}");
    assert!(told.contains("Side by side"), "{told}");
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
    assert!(left.is_empty(), "nothing stays: {left:?}");
}
