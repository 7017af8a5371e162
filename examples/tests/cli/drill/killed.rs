//! Drills that do not come to their end: by a signal that asks, and by one that does not.

use std::path::PathBuf;
use std::time::Duration;

use backup_testkit::{PgVersion, Postgres, require_or_skip, wait};
use rustix::process::Signal;

use super::Range;
use crate::process::{backupctl, ended, send};

/// The server that a drill has started, once it accepts connections or is about to.
fn started(range: &Range) -> (u32, PathBuf) {
    let found = wait::until(Duration::from_secs(120), || {
        let dir = range.left().into_iter().find(|name| name.starts_with("drill-"))?;
        let dir = range.scratch.path().join(dir);
        let text = std::fs::read_to_string(dir.join("data/postmaster.pid")).ok()?;
        Some((text.lines().next()?.trim().parse().ok()?, dir))
    });
    found.expect("a drill has started a server")
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_drill_that_is_ended_stays() {
    let server = require_or_skip!(Postgres::builder(PgVersion::V17).start().await);
    let client = server.connect("postgres").await.unwrap();
    client.batch_execute("create table t as select generate_series(1, 300000) as i").await.unwrap();
    let range = Range::open().await;
    let url = server.conn_string("postgres");
    range.vault.json(&["backup", "postgres", "--url", &url]).await;
    let bin_dir = format!("--bin-dir={}", server.binaries().bin_dir().display());
    let objects = range.vault.objects("");
    let args = range.args("postgres", &[&bin_dir]);
    let args: Vec<_> = args.iter().map(String::as_str).collect();

    // Asked to end, it puts everything in order itself.
    let child = backupctl(&range.vault, &args).spawn().unwrap();
    let (pid, _) = started(&range);
    send(&child, Signal::TERM);
    let output = ended(child);
    assert_eq!(output.status.code(), Some(15), "{output:?}");
    assert_eq!((range.left(), is_alive(pid)), (Vec::new(), false));

    // Killed, it leaves what the next one ends and removes.
    let mut child = backupctl(&range.vault, &args).spawn().unwrap();
    let (pid, dir) = started(&range);
    send(&child, Signal::KILL);
    child.wait().unwrap();
    assert!(is_alive(pid) && dir.exists(), "the server knows of nothing");
    assert_eq!(range.vault.objects(""), objects, "and nothing was written down");
    let precious = range.scratch.path().join("drill-of-somebody-else");
    std::fs::create_dir(&precious).unwrap();

    let args = range.args("postgres", &[&bin_dir, "--json"]);
    let next = range.vault.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(next.code, 0, "{next:?}");
    assert!(!is_alive(pid) && !dir.exists());
    assert_eq!(range.left(), ["drill-of-somebody-else"]);
}
