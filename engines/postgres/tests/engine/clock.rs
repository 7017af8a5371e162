//! A server whose clock goes back: a moment is the moment that its log had reached, as the server itself takes it.

use backup_core::engine::LogOptions;
use backup_core::{Goal, RecoveryTarget};
use backup_postgres::{Method, Replay};
use backup_testkit::{PgVersion, Postgres, ServerClock, StopMode, require_or_skip};
use jiff::{SignedDuration, Timestamp};

use crate::harness::{Capture, Commit, Tally, Target, Vault, commits, engine, flushed, settings};

const VERSION: PgVersion = PgVersion::V17;
const HOUR: i64 = 3600;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_while_the_clock_was_behind_comes_with_what_was_committed_before() {
    let clock = require_or_skip!(ServerClock::new());
    let server = require_or_skip!(Postgres::builder(VERSION).clock(&clock).start().await);
    let client = server.connect("postgres").await.unwrap();
    let vault = Vault::memory();
    Tally::create(&client).await;
    let capture = Capture::start(&vault.0, settings(&server), LogOptions::default());
    vault.backup(&engine(&server, Method::Local)).await;
    Tally::add(&client, 0..5).await;
    clock.set(HOUR).unwrap();
    Tally::add(&client, 5..10).await;
    clock.set(-HOUR).unwrap();
    Tally::add(&client, 10..15).await;
    clock.set(0).unwrap();
    Tally::add(&client, 15..20).await;
    clock.set(2 * HOUR).unwrap();
    Tally::add(&client, 20..25).await;
    let end = flushed(&client).await;
    capture.reaches(1, end).await;
    capture.stop().await;

    let rows = Tally::rows(&client).await;
    let log = commits(&server, 1);
    let time = |n: usize| log.iter().find(|commit: &&Commit| commit.xid == rows[n].1).unwrap().time;
    // The clock did what it was told.
    assert!(time(5) > time(4) + SignedDuration::from_mins(55) && time(10) < time(4) - SignedDuration::from_mins(55));
    assert!(time(15) > time(4) && time(15) < time(5) && time(20) > time(5));

    let micro = SignedDuration::from_micros(1);
    let cases: [(Timestamp, i32); 6] = [
        // Of the first rows: nothing of the time before them exists, though some claim to be of it.
        (time(4), 5),
        (time(5) - micro, 5),
        (time(5), 6),
        // With the last one before the clock went back come all that were committed behind it.
        (time(9) - micro, 9),
        (time(9), 20),
        (time(22), 23),
    ];
    for (number, (at, kept)) in cases.into_iter().enumerate() {
        let replay = if number % 2 == 0 { Replay::Files } else { Replay::Serve };
        let place = Target::new(VERSION);
        let mut restored = place.recover(&vault, RecoveryTarget::new(Goal::Time(at)), replay).await;
        let client = restored.connect("postgres").await.unwrap();
        let found: Vec<i32> = Tally::rows(&client).await.into_iter().map(|(n, _)| n).collect();
        assert_eq!(found, (0..kept).collect::<Vec<_>>(), "{at} {replay:?}");
        drop(client);
        restored.stop(StopMode::Immediate).await.unwrap();
    }
}
