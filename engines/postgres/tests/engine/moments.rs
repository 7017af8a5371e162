//! Restores to any moment: what comes back is what the log says, to the transaction.

use std::collections::BTreeSet;

use backup_core::engine::LogOptions;
use backup_core::env::Env;
use backup_core::{Goal, RecoveryTarget};
use backup_postgres::{Method, Replay};
use backup_testkit::pgbench::Bank;
use backup_testkit::{PgVersion, Postgres, StopMode, require_or_skip};

use crate::harness::{Capture, Commit, Tally, Target, Vault, commits, engine, flushed, settings};

/// Targets of each kind.
const TARGETS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn any_moment_of_a_busy_13() {
    any_moment(PgVersion::V13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_moment_of_a_busy_15() {
    any_moment(PgVersion::V15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_moment_of_a_busy_17() {
    any_moment(PgVersion::V17).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_moment_of_a_busy_18() {
    any_moment(PgVersion::V18).await;
}

async fn any_moment(version: PgVersion) {
    let keep = if version == PgVersion::V13 { "4096MB" } else { "4GB" };
    let server = require_or_skip!(Postgres::builder(version).setting("wal_keep_size", keep).start().await);
    let client = server.connect("postgres").await.unwrap();
    Tally::create(&client).await;
    let bank = Bank::create(&client, 500).await.unwrap();
    let vault = Vault::memory();
    let capture = Capture::start(&vault.0, settings(&server), LogOptions::default());
    let load = bank.run(&server, "postgres", 2).await.unwrap();
    let first = vault.backup(&engine(&server, Method::Local)).await;
    Tally::add(&client, 0..150).await;
    let second = vault.backup(&engine(&server, Method::Protocol)).await;
    Tally::add(&client, 150..300).await;
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let end = flushed(&client).await;
    capture.reaches(1, end).await;
    capture.stop().await;

    let rows = Tally::rows(&client).await;
    let log = commits(&server, 1);
    let own: BTreeSet<u32> = rows.iter().map(|(_, xid)| *xid).collect();
    // Behind the first backup everything can be reached.
    let start = first.snapshot.stop.as_ref().unwrap().offset;
    let inside: Vec<&Commit> = log.iter().filter(|c| c.start > start && own.contains(&c.xid)).collect();
    assert!(inside.len() > 200, "{}", inside.len());
    assert!(second.snapshot.stop.is_some());
    let random = Env::seeded(u64::from(version.major()));
    let pick = |below: usize| (u64::from_le_bytes(random.random()) % below as u64) as usize;
    let after = first.snapshot.consistent_at();
    for number in 0..TARGETS * 2 {
        let at = inside[pick(inside.len() - 1)];
        let replay = if number % 2 == 0 { Replay::Files } else { Replay::Serve };
        let (target, kept): (RecoveryTarget, BTreeSet<u32>) = if number < TARGETS {
            if at.time <= after {
                continue;
            }
            let target = RecoveryTarget::new(Goal::Time(at.time));
            let first_later = log.iter().find(|c| c.start > start && c.time > at.time).map_or(u64::MAX, |c| c.start);
            (target, log.iter().filter(|c| c.start < first_later).map(|c| c.xid).collect())
        } else {
            let lsn = if number % 3 == 0 { at.end } else { at.start + 1 + pick(2000) as u64 };
            let lsn = lsn.min(u64::from(end));
            let text = format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff);
            let target = RecoveryTarget::new(Goal::Position(text)).exclusive();
            (target, log.iter().filter(|c| c.start < lsn).map(|c| c.xid).collect())
        };
        let expected: Vec<i32> = rows.iter().filter(|(_, xid)| kept.contains(xid)).map(|(n, _)| *n).collect();
        let place = Target::new(version);
        let mut restored = place.recover(&vault, target.clone(), replay).await;
        let client = restored.connect("postgres").await.unwrap();
        let found: Vec<i32> = Tally::rows(&client).await.into_iter().map(|(n, _)| n).collect();
        assert_eq!(found, expected, "{version} {target} {replay:?}");
        Bank::check(&client).await.unwrap_or_else(|e| panic!("{version} {target}: {e}"));
        drop(client);
        restored.stop(StopMode::Immediate).await.unwrap();
    }
}
