//! Without root: the server's own account backs up and restores, and does not write what belongs to others.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use backup_core::ErrorKind;
use backup_postgres::{Method, PostgresEngine, PostgresSettings};
use backup_testkit::{PgVersion, Postgres, require_or_skip, scratch_dir, unprivileged, wait};

use crate::harness::{Target, digest, digest_of};
use crate::storage::{create, on_disk, open};

/// Runs as the server's account when the other test has started it as that, and does nothing otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn child_without_privileges() {
    let Ok(order) = std::env::var("UNPRIVILEGED") else { return };
    let parts: Vec<&str> = order.split('\n').collect();
    let [vault, url, data, foreign] = parts[..] else { panic!("{order:?}") };
    assert_eq!(rustix::process::geteuid().as_raw(), unprivileged().uid);
    let vault = open(&on_disk(Path::new(vault))).await;
    let source = PostgresEngine::new(PostgresSettings::default().url(url)).unwrap();
    let record = vault.backup(&source).await;
    assert_eq!(record.snapshot.method, Method::Local.to_string());

    let refused = PostgresEngine::new(PostgresSettings::default().data_dir(foreign)).unwrap();
    let plan = vault.plan(&refused, &record).await.unwrap();
    assert!(plan.blockers().any(|f| f.code == "wrong-owner"), "{:?}", plan.findings);
    assert_eq!(vault.restore(&refused, &record).await.unwrap_err().kind(), ErrorKind::Environment);

    let target = PostgresEngine::new(PostgresSettings::default().data_dir(data)).unwrap();
    let restored = vault.restore(&target, &record).await.unwrap();
    assert!(restored.findings.iter().all(|f| f.code != "owned-by-root"), "{:?}", restored.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_account_needs_no_root() {
    let server = require_or_skip!(Postgres::builder(PgVersion::V17).start().await);
    let client = server.connect("postgres").await.unwrap();
    client.batch_execute("create table t as select generate_series(1, 1000)").await.unwrap();
    let home = scratch_dir().unwrap();
    let disk = home.path().join("vault");
    std::fs::create_dir(&disk).unwrap();
    create(&on_disk(&disk)).await;
    unprivileged().own_tree(&disk).unwrap();
    let target = Target::new(PgVersion::V17);
    let foreign = if unprivileged().drops_root() { tempfile::tempdir().unwrap().keep() } else { "/proc/1/task".into() };

    // The build's folder may be closed to that account.
    let program = home.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let order = format!(
        "{}\n{}\n{}\n{}",
        disk.display(),
        server.unix_conn_string("postgres"),
        target.data().display(),
        foreign.display()
    );
    let mut child = Command::new(program);
    child.args(["--exact", "unprivileged::child_without_privileges", "--nocapture"]).env("UNPRIVILEGED", order);
    unprivileged().apply(&mut child).current_dir("/");
    // Another test that starts a server in this moment has the copy open for writing until its child is the server.
    let ended = wait::until(Duration::from_secs(30), || match child.output() {
        Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => None,
        ended => Some(ended.unwrap()),
    });
    let ended = ended.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(digest_of(&target).await, digest(&server).await);
    if unprivileged().drops_root() {
        assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 0);
        std::fs::remove_dir(&foreign).unwrap();
    }
}
