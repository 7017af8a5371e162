//! `pg_receivewal` takes the log from the WAL server as from a primary.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use backup_postgres::Lsn;
use backup_postgres::walsender::WalFeed;
use backup_testkit::{PgBinaries, or_skip, versions_under_test};

use crate::harness::{two_timelines, wait_for};

/// It resumes on the first timeline and goes on over the promotion up to the end.
#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_tool_gets_the_same_segments() {
    for version in versions_under_test() {
        let binaries = tokio::task::spawn_blocking(move || PgBinaries::get(version)).await.unwrap();
        let Some(binaries) = or_skip(binaries) else { return };
        let program = binaries.bin_dir().join("pg_receivewal");
        if !program.exists() {
            // Past the capture of the test harness, so that it is seen.
            let _ = writeln!(
                std::io::stderr(),
                "\n*** NOT SHOWN for {version}: its build has no pg_receivewal; name an installation in \
                 BACKUP_TESTKIT_POSTGRES_{version}"
            );
            continue;
        }
        let Some(archive) = two_timelines(version).await else { return };
        let wal = archive.serve().await;
        let end = archive.feed().await.end().await.unwrap().position;
        let target = tempfile::tempdir().unwrap();
        let first = segments(archive.path()).remove(0);
        std::fs::copy(archive.path().join(&first), target.path().join(&first)).unwrap();

        // It stops when it has come beyond the position that it is told.
        let before = Lsn(end.0 - 1);
        let mut command = Command::new(program);
        command.arg("--directory").arg(target.path()).arg("--dbname").arg(wal.conninfo());
        command.args(["--no-loop", "--no-password", "--synchronous", "--verbose"]).arg(format!("--endpos={before}"));
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.contains("switched to timeline 2"), "{version}: {said}");

        // The last segment of each timeline is filled as far as it was sent.
        let received = segments(target.path());
        assert!(received.iter().any(|name| name.starts_with("00000002")), "{version}: {received:?}");
        for name in received {
            let ours = std::fs::read(archive.path().join(&name)).unwrap();
            let theirs = std::fs::read(target.path().join(&name)).unwrap();
            assert!(theirs == ours, "{version}: {name} differs: {said}");
        }
        let history = "00000002.history";
        assert_eq!(
            std::fs::read(target.path().join(history)).unwrap(),
            std::fs::read(archive.path().join(history)).unwrap()
        );
        let partial: Vec<_> = names(target.path()).into_iter().filter(|name| name.ends_with(".partial")).collect();
        let newest = partial.iter().find(|name| name.starts_with("00000002")).unwrap_or_else(|| panic!("{partial:?}"));
        let length = (end.0 % (1 << 20)) as usize;
        let theirs = std::fs::read(target.path().join(newest)).unwrap();
        let ours = std::fs::read(archive.path().join(newest.trim_end_matches(".partial"))).unwrap();
        assert!(theirs[..length] == ours[..length], "{version}: {newest}");
        wait_for(&wal, |progress| {
            progress.replicas.iter().any(|r| r.name == "pg_receivewal" && r.flushed > Lsn::INVALID)
        })
        .await;
        assert!(wal.progress().borrow().applied() == Lsn::INVALID && wal.failure().is_none(), "{version}");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn segments(dir: &Path) -> Vec<String> {
    names(dir).into_iter().filter(|name| name.len() == 24).collect()
}
