use std::ops::Range;

use backup_policy::{Age, Cadence, Period, Profile, Tier};
use jiff::{SignedDuration, Timestamp};

use super::lines::lineage;
use crate::catalog::{Actor, BackupRecord, Catalog, Event, ManifestRef, PackId, Role, Totals};
use crate::id::{BackupId, ServiceId, SessionId};
use crate::log::{Ledger, LineageRecord, LogRange, Notation};
use crate::position::LogPosition;
use crate::run::expiring;
use crate::snapshot::{Consistency, Snapshot};

const GIB: u64 = 1 << 30;

fn day(days: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * days)
}

fn id(day: u8) -> BackupId {
    BackupId::from_bytes([day; 16])
}

/// A service with a backup each day, at so many times 10 GiB of the log of lineage 1.
fn daily(days: Range<u8>) -> (Catalog, Ledger) {
    let mut catalog = Catalog::new();
    let record = LineageRecord::new(lineage(1), "source", Notation::Decimal, day(0));
    catalog.apply(&Event::LineageAdded { record: Box::new(record) }).unwrap();
    let end = u64::from(days.end) * 10 * GIB;
    for number in days {
        let (session, at) = (SessionId::from_bytes([number; 16]), day(i64::from(number)));
        let offset = u64::from(number) * 10 * GIB;
        let place = LogPosition::new(lineage(1), offset, offset.to_string());
        let snapshot = Snapshot::new("lines", "1", "source", "none", Consistency::PointInTime, (at, at))
            .with_positions(place.clone(), place);
        let manifest = ManifestRef { pack: PackId { session, number: 0 }, segment: 0, digest: [0; 32] };
        let service = ServiceId::new("svc").unwrap();
        let totals = Totals::default();
        let record =
            BackupRecord::new(id(number), service, session, None, (at, at), totals, manifest, vec![], snapshot);
        catalog.apply(&Event::SessionOpened { session, at, parent: None, adopted: vec![] }).unwrap();
        catalog.apply(&Event::BackupCommitted { record: Box::new(record) }).unwrap();
    }
    let ledger = Ledger::new(catalog.log(), [LogRange::new(lineage(1), 0..end)]);
    (catalog, ledger)
}

/// What goes at the end of `now`, and before which offset of the log.
fn gone(catalog: &Catalog, ledger: &Ledger, now: i64) -> (Vec<BackupId>, Option<u64>) {
    let profile = Profile::builder(Cadence::daily()).tier(Tier::by_age(Period::Daily, Age::from_days(2).unwrap()));
    let profile = profile.pitr(Age::from_days(2).unwrap()).build().unwrap();
    let by = Actor::new(Role::Platform, "runner");
    let (_, expired) = expiring(&profile, catalog, Some(ledger), &by, day(now));
    (expired.backups, expired.log.first().map(|(_, before)| *before))
}

#[test]
fn a_hold_keeps_the_log_behind_its_backup_only_when_it_says_so() {
    let (catalog, ledger) = daily(1..10);
    let all = (1..7).map(id).collect();
    assert_eq!(gone(&catalog, &ledger, 9), (all, Some(69 * GIB)));
    let held = |log| {
        let mut held = catalog.clone();
        let (hold, reason, by) = ("fork:b".to_owned(), "b".to_owned(), Actor::new(Role::Owner, "kim"));
        held.apply(&Event::HoldPlaced { backup: id(4), hold, reason, by, at: day(5), log }).unwrap();
        held
    };
    let others: Vec<_> = [1, 2, 3, 5, 6].map(id).to_vec();
    assert_eq!(gone(&held(false), &ledger, 9), (others.clone(), Some(69 * GIB)));
    // From the held backup on every moment can be restored, with the part of the log that a restore may begin to read before it.
    assert_eq!(gone(&held(true), &ledger, 9), (others, Some(39 * GIB)));
    assert_eq!(gone(&held(true), &ledger, 3), (vec![], Some(9 * GIB)), "there is older log than the oldest backup");
}
