//! Targets become places in the stream.

use std::time::Duration;

use backup_core::engine::RestoreLog;
use backup_core::{Goal, RecoveryTarget};
use backup_redis::engine::facts;
use backup_redis::stream::{Stop, stop};
use backup_testkit::redis::contents;
use backup_testkit::{Redis, RedisVersion, require_or_skip, wait};
use jiff::{SignedDuration, Timestamp};

use crate::harness::{Capture, Vault, engine, fact, position, replay, settings, work};

/// So late a moment is told at most.
const LATE: Duration = Duration::from_millis(150);

#[tokio::test(flavor = "multi_thread")]
async fn times_and_positions_are_found_between_changes() {
    let server = require_or_skip!(Redis::builder(RedisVersion::Redis74).start().await);
    let vault = Vault::memory();
    let backup = vault.backup(&engine(&server)).await;
    let capture = Capture::start(&vault, settings(&server));
    let mut client = server.connect().await.unwrap();
    client.run("SET number 0").await.unwrap();
    capture.reaches(&position(&server).await).await;
    // After each change the moment and the place.
    let mut steps = Vec::new();
    for number in 1..=12_u32 {
        let transaction =
            format!("MULTI\nSET number {number}\nSELECT {}\nSADD numbers {number}\nSELECT 0\nEXEC", number % 3);
        let commands: Vec<Vec<&str>> = transaction.lines().map(|line| line.split(' ').collect()).collect();
        client.send(&commands).await.unwrap();
        let here = position(&server).await;
        capture.reaches(&here).await;
        let at: Timestamp = work().env().now();
        steps.push((number, here.offset, at));
        // Changes that are further apart than moments are, and than a busy machine takes for a round trip: so late a moment may be told.
        let pause = wait::Stopwatch::start();
        wait::until_async(Duration::from_secs(5), || (pause.elapsed() > 2 * LATE).then_some(())).await;
    }
    capture.stop().await;

    let log = RestoreLog::new(vault.log().await, vault.path(&backup).await);
    let database = fact(&backup, facts::STREAM_DATABASE).parse().ok();
    let find = async |target: RecoveryTarget| -> Stop { stop(&log, &target, database).await.unwrap() };
    let at_position = |offset: u64| RecoveryTarget::new(Goal::Position(offset.to_string()));
    for pair in steps.windows(2) {
        let [(number, offset, at), (_, next, _)] = pair else { unreachable!() };
        let places = [
            at_position(*offset),
            at_position(*offset + 1),
            at_position(*next - 1),
            at_position(*next).exclusive(),
            RecoveryTarget::new(Goal::Time(*at + SignedDuration::try_from(LATE).unwrap())),
        ];
        for target in places {
            // Signs of life may stand between changes: they change nothing.
            let found = find(target.clone()).await;
            assert!(found.offset >= *offset && found.offset < *next, "{target}: {found:?} {steps:?}");
            let stream = vault.stream(&backup, found.offset).await;
            let (_home, restored) = vault.server(&backup, &server).await;
            replay(&restored, 0, &stream).await;
            let mut client = restored.connect().await.unwrap();
            assert_eq!(client.run("GET number").await.unwrap().text(), number.to_string(), "{target}");
        }
    }
    let latest = find(RecoveryTarget::latest()).await;
    assert_eq!(latest.offset, vault.path(&backup).await.end().1);
    let (_home, restored) = vault.server(&backup, &server).await;
    replay(&restored, 0, &vault.stream(&backup, latest.offset).await).await;
    assert_eq!(contents(&restored).await.unwrap(), contents(&server).await.unwrap());
    assert_eq!(find(RecoveryTarget::backup(backup.id)).await.offset, backup.snapshot.stop.clone().unwrap().offset);
    assert_eq!(find(RecoveryTarget::new(Goal::Time(Timestamp::MAX))).await, latest);
    let named = RecoveryTarget::new(Goal::Named("x".to_owned()));
    assert!(stop(&log, &named, None).await.is_err());
    let beyond = at_position(u64::MAX);
    assert!(stop(&log, &beyond, None).await.is_err());
}
