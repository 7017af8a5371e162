//! A server whose log was reset by hand: nothing of what it forgot is believed to be there.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use backup_core::engine::LogOptions;
use backup_core::{Goal, RecoveryTarget, run};
use backup_postgres::{Method, Replay};
use backup_testkit::{PgVersion, Postgres, StopMode, require_or_skip, unprivileged};

use crate::harness::{Capture, Tally, Target, Vault, digest, engine, flushed, settings, work};

const VERSION: PgVersion = PgVersion::V15;

/// `pg_resetwal` of the server's version, if there is an installation that has it: builds for embedding leave it out.
fn resetwal(server: &Postgres) -> Option<PathBuf> {
    let packaged = PathBuf::from(format!("/usr/lib/postgresql/{VERSION}/bin"));
    let found = [server.binaries().bin_dir().to_owned(), packaged].into_iter().map(|dir| dir.join("pg_resetwal"));
    let found = found.into_iter().find(|program| program.exists());
    if found.is_none() {
        // Past the capture of the test harness, so that it is seen.
        let _ = writeln!(
            std::io::stderr(),
            "\n*** NOT SHOWN: no pg_resetwal for {VERSION}; name an installation in BACKUP_TESTKIT_POSTGRES_{VERSION}"
        );
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_reset_is_a_hole_and_a_new_backup_a_new_window() {
    let mut server = require_or_skip!(Postgres::builder(VERSION).start().await);
    let Some(program) = resetwal(&server) else { return };
    let client = server.connect("postgres").await.unwrap();
    let vault = Vault::memory();
    Tally::create(&client).await;
    vault.backup(&engine(&server, Method::Local)).await;
    let capture = Capture::start(&vault.0, settings(&server), LogOptions::default());
    Tally::add(&client, 0..20).await;
    let before = flushed(&client).await;
    capture.reaches(1, before).await;
    capture.stop().await;
    drop(client);
    server.stop(StopMode::Fast).await.unwrap();
    let mut reset = Command::new(program);
    let reset = unprivileged().apply(reset.arg("-D").arg(server.data_dir())).output().unwrap();
    assert!(reset.status.success(), "{reset:?}");
    server.start().await.unwrap();

    let client = server.connect("postgres").await.unwrap();
    Tally::add(&client, 100..120).await;
    let capture = Capture::start(&vault.0, settings(&server), LogOptions::default());
    capture.reaches(1, flushed(&client).await).await;
    assert!(capture.found.has("log-hole"), "{:?}", capture.found);
    let restorable = run::windows(vault.0.as_ref(), None, &work()).await.unwrap();
    assert_eq!((restorable.windows.len(), restorable.holes.len()), (1, 1), "{restorable:?}");
    assert!(
        restorable.windows[0].window.to.offset >= before.into() && restorable.holes[0].range.start >= before.into()
    );

    let backup = vault.backup(&engine(&server, Method::Local)).await;
    Tally::add(&client, 120..140).await;
    capture.reaches(1, flushed(&client).await).await;
    capture.stop().await;
    assert_eq!(run::windows(vault.0.as_ref(), None, &work()).await.unwrap().windows.len(), 2);
    // Both sides of the hole; what the log cannot tell was compared.
    assert_eq!(backup.snapshot.fact("changes"), Some("compared"));
    let place = Target::new(VERSION);
    let restored = place.recover(&vault, RecoveryTarget::latest(), Replay::Files).await;
    assert_eq!(digest(&restored).await, digest(&server).await);
    let place = Target::new(VERSION);
    let text = format!("{:X}/{:X}", u64::from(before) >> 32, u64::from(before) & 0xffff_ffff);
    let target = RecoveryTarget::new(Goal::Position(text)).exclusive();
    let restored = place.recover(&vault, target, Replay::Serve).await;
    let rows = Tally::rows(&restored.connect("postgres").await.unwrap()).await;
    assert_eq!(rows.into_iter().map(|(n, _)| n).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
}
