use super::*;
use crate::env::Env;
use crate::id::ServiceId;
use crate::log::{Fork, LineageRecord, LogEpoch, LogPurpose, Notation};
use crate::position::Lineage;
use crate::snapshot::{Consistency, Snapshot};
use proptest::prelude::*;

pub(super) fn session(n: u8) -> SessionId {
    SessionId::from_bytes([n; 16])
}

pub(super) fn record(n: u8, parent: Option<u8>, reused: &[u8]) -> BackupRecord {
    let now = Env::seeded(0).now();
    let snapshot = Snapshot::new("test", "1", "source", "none", Consistency::PointInTime, (now, now));
    BackupRecord::new(
        BackupId::from_bytes([n; 16]),
        ServiceId::new("svc").unwrap(),
        session(n),
        parent.map(|p| BackupId::from_bytes([p; 16])),
        (now, now),
        Totals::default(),
        ManifestRef { pack: PackId { session: session(n), number: 0 }, segment: 0, digest: [0; 32] },
        reused.iter().map(|s| session(*s)).collect(),
        snapshot,
    )
}

pub(super) fn opened(n: u8) -> Event {
    Event::SessionOpened { session: session(n), at: Env::seeded(0).now(), parent: None, adopted: vec![] }
}

pub(super) fn committed(n: u8) -> Event {
    Event::BackupCommitted { record: Box::new(record(n, None, &[])) }
}

fn closed(n: u8, reason: CloseReason) -> Event {
    Event::SessionClosed { session: session(n), at: Env::seeded(0).now(), reason }
}

fn fold(events: &[Event]) -> Result<Catalog, Rejected> {
    let mut catalog = Catalog::new();
    events.iter().try_for_each(|e| catalog.apply(e))?;
    Ok(catalog)
}

#[test]
fn a_backup_exists_once_its_session_committed() {
    let catalog = fold(&[opened(1), committed(1), opened(2)]).unwrap();
    assert_eq!(catalog.backups().count(), 1);
    assert_eq!(catalog.latest().unwrap().id, BackupId::from_bytes([1; 16]));
    assert!(matches!(catalog.session(session(2)), Some(SessionState::Open { .. })));
}

#[test]
fn a_fenced_session_can_never_commit() {
    let events = [opened(1), closed(1, CloseReason::Fenced), committed(1)];
    assert_eq!(fold(&events), Err(Rejected::SessionEnded { session: session(1), state: "fenced" }));
}

#[test]
fn nothing_is_committed_twice_or_without_having_been_opened() {
    assert_eq!(fold(&[committed(1)]), Err(Rejected::SessionUnknown(session(1))));
    assert_eq!(
        fold(&[opened(1), committed(1), committed(1)]),
        Err(Rejected::SessionEnded { session: session(1), state: "committed" })
    );
    assert_eq!(fold(&[opened(1), opened(1)]), Err(Rejected::SessionExists(session(1))));
}

#[test]
fn a_parent_must_exist_when_it_is_pinned() {
    let parent = BackupId::from_bytes([9; 16]);
    let event =
        Event::SessionOpened { session: session(1), at: Env::seeded(0).now(), parent: Some(parent), adopted: vec![] };
    assert_eq!(fold(&[event]), Err(Rejected::BackupUnknown(parent)));
}

#[test]
fn a_backup_may_reuse_only_known_sessions() {
    let mut catalog = fold(&[opened(1), committed(1), opened(2)]).unwrap();
    let ghost = Event::BackupCommitted { record: Box::new(record(2, Some(1), &[7])) };
    assert!(matches!(catalog.apply(&ghost), Err(Rejected::ReuseUnknown { .. })));
    catalog.apply(&Event::BackupCommitted { record: Box::new(record(2, Some(1), &[1])) }).unwrap();
    assert_eq!(catalog.backups().count(), 2);
}

#[test]
fn a_recovered_backup_makes_what_it_reuses_known_and_harmless() {
    let recovered = |n, reused: &[u8]| Event::BackupRecovered { record: Box::new(record(n, None, reused)) };
    let mut catalog = fold(&[recovered(2, &[1, 7])]).unwrap();
    assert_eq!(catalog.session(session(7)), Some(&SessionState::Closed(CloseReason::Fenced)));
    assert!(catalog.apply(&committed(7)).is_err(), "what was never opened here must not commit");
    // Found later, a session is what it was.
    catalog.apply(&recovered(1, &[])).unwrap();
    assert!(matches!(catalog.session(session(1)), Some(SessionState::Committed(_))));
    assert!(matches!(catalog.apply(&recovered(1, &[9])), Err(Rejected::BackupExists(_))));
    assert_eq!(catalog.session(session(9)), None);
}

fn now() -> Timestamp {
    Env::seeded(0).now()
}

fn lineage(n: u8) -> Lineage {
    Lineage::new(n.to_string())
}

fn log_opened(epoch: u32, purpose: LogPurpose) -> Event {
    Event::LogOpened { epoch: LogEpoch(epoch), purpose, at: now() }
}

fn log_sealed(epoch: u32, ends: &[(u8, u64)]) -> Event {
    Event::LogSealed { epoch: LogEpoch(epoch), ends: ends_of(ends), at: now() }
}

fn ends_of(ends: &[(u8, u64)]) -> BTreeMap<Lineage, u64> {
    ends.iter().map(|(n, end)| (lineage(*n), *end)).collect()
}

fn lineage_added(n: u8, fork: Option<(u8, u64)>) -> Event {
    let mut record = LineageRecord::new(lineage(n), "source", Notation::HexHalves, now()).with_fact("k", "v");
    record.fork = fork.map(|(parent, offset)| Fork { lineage: lineage(parent), offset });
    Event::LineageAdded { record: Box::new(record) }
}

fn log_gap(n: u8, start: u64, end: u64) -> Event {
    Event::LogGap { lineage: lineage(n), start, end, reason: "lost".to_owned(), at: now() }
}

fn log_damaged(object: &str, n: u8, start: u64, end: u64) -> Event {
    let (object, problem) = (object.to_owned(), "flipped".to_owned());
    Event::LogDamaged { object, lineage: lineage(n), start, end, problem, at: now() }
}

#[test]
fn log_writers_are_numbered_and_of_two_streams_the_later_fences_the_earlier() {
    use LogPurpose::{Compact, Import, Stream};
    let mut catalog = fold(&[log_opened(1, Stream), log_opened(2, Import), log_opened(3, Compact)]).unwrap();
    assert_eq!(catalog.log().fenced_by(LogEpoch(1)), None, "nobody else follows the stream");
    for taken in [0, 1, 3, 5] {
        let rejected = Err(Rejected::LogEpochTaken(LogEpoch(taken)));
        assert_eq!(catalog.apply(&log_opened(taken, Stream)), rejected, "the next number is 4");
    }
    for epoch in [4, 5] {
        assert_eq!(catalog.log().next_epoch(), LogEpoch(epoch));
        catalog.apply(&log_opened(epoch, Stream)).unwrap();
    }
    let fenced = |epoch| catalog.log().fenced_by(LogEpoch(epoch));
    assert_eq!([1, 2, 3, 4, 5, 6].map(fenced), [Some(LogEpoch(4)), None, None, Some(LogEpoch(5)), None, None]);
}

#[test]
fn a_log_writer_is_sealed_once_and_counts_up_to_its_ends() {
    let open = log_opened(1, LogPurpose::Stream);
    assert_eq!(fold(&[log_sealed(1, &[])]), Err(Rejected::LogEpochUnknown(LogEpoch(1))));
    let mut catalog = fold(std::slice::from_ref(&open)).unwrap();
    let counts = |catalog: &Catalog, epoch, n, end| catalog.log().counts(LogEpoch(epoch), &lineage(n), end);
    assert!(counts(&catalog, 1, 1, 99) && counts(&catalog, 1, 2, 99), "what is stored by an open writer counts");
    assert!(!counts(&catalog, 2, 1, 99), "what nobody has opened does not");
    catalog.apply(&log_sealed(1, &[(1, 50)])).unwrap();
    assert_eq!(catalog.apply(&log_sealed(1, &[(1, 60)])), Err(Rejected::LogEpochSealed(LogEpoch(1))));
    assert_eq!([50, 51].map(|end| counts(&catalog, 1, 1, end)), [true, false]);
    assert!(!counts(&catalog, 1, 2, 10), "a lineage that it did not write");
}

#[test]
fn a_lineage_is_known_once_as_what_it_is() {
    let mut catalog = fold(&[lineage_added(1, None), lineage_added(2, Some((1, 40)))]).unwrap();
    assert_eq!(catalog.apply(&lineage_added(2, Some((1, 40)))), Err(Rejected::LineageExists(lineage(2))));
    for other in [lineage_added(2, Some((1, 41))), lineage_added(2, None)] {
        assert_eq!(catalog.apply(&other), Err(Rejected::LineageDiffers(lineage(2))));
    }
    let known: Vec<_> = catalog.log().lineages().iter().map(|record| record.lineage.clone()).collect();
    assert_eq!(known, [lineage(1), lineage(2)]);
}

#[test]
fn gaps_damages_and_expiry_are_of_lineages_that_are_known() {
    let expired = |n, before| Event::LogExpired { lineage: lineage(n), before, at: now() };
    let mut catalog = fold(&[lineage_added(1, None)]).unwrap();
    for unknown in [log_gap(2, 1, 5), log_damaged("o", 2, 1, 5), expired(2, 5)] {
        assert_eq!(catalog.apply(&unknown), Err(Rejected::LineageUnknown(lineage(2))));
    }
    for odd in [log_gap(1, 5, 4), log_damaged("o", 1, 5, 4)] {
        assert_eq!(catalog.apply(&odd), Err(Rejected::NoRange { start: 5, end: 4 }));
    }
    for event in [log_gap(1, 10, 20), log_gap(1, 30, 30), log_damaged("o", 1, 40, 50), expired(1, 9), expired(1, 5)] {
        catalog.apply(&event).unwrap();
    }
    // Found again, a damage is what it was.
    catalog.apply(&log_damaged("o", 1, 40, 60)).unwrap();
    let log = catalog.log();
    assert_eq!((log.gaps().len(), log.breaks(&lineage(1)).into_iter().collect::<Vec<_>>()), (2, vec![30]));
    assert_eq!(log.damages()["o"].range.offsets(), 40..50);
    assert_eq!(log.expired_before(&lineage(1)), 9, "what has expired stays expired");
}

fn any_log_event() -> impl Strategy<Value = Event> {
    let (n, offset) = (0..3u8, 0..50u64);
    let range = (n.clone(), offset.clone(), offset.clone());
    let purpose = prop_oneof![Just(LogPurpose::Stream), Just(LogPurpose::Import), Just(LogPurpose::Compact)];
    prop_oneof![
        (1..5u32, purpose).prop_map(|(epoch, purpose)| log_opened(epoch, purpose)),
        (1..5u32, n.clone(), offset.clone()).prop_map(|(epoch, n, end)| log_sealed(epoch, &[(n, end)])),
        (n.clone(), prop::option::of((n.clone(), offset.clone()))).prop_map(|(n, fork)| lineage_added(n, fork)),
        range.clone().prop_map(|(n, start, end)| log_gap(n, start, end)),
        range.prop_map(|(n, start, end)| log_damaged(&format!("log/{n}/{start}"), n, start, end)),
        (n, offset).prop_map(|(n, before)| Event::LogExpired { lineage: lineage(n), before, at: now() }),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let n = 0..4u8;
    prop_oneof![
        n.clone().prop_map(opened),
        n.clone().prop_map(committed),
        n.clone().prop_map(|n| closed(n, CloseReason::Abandoned)),
        n.clone().prop_map(|n| closed(n, CloseReason::Fenced)),
        (n.clone(), n).prop_map(|(a, b)| Event::BackupRecovered { record: Box::new(record(a, None, &[b])) }),
        any_log_event(),
    ]
}

proptest! {
    #[test]
    fn a_rejected_event_changes_nothing(events in prop::collection::vec(any_event(), 0..30)) {
        let mut catalog = Catalog::new();
        for event in &events {
            let before = catalog.clone();
            if catalog.apply(event).is_err() {
                prop_assert_eq!(&catalog, &before);
            }
        }
        for backup in catalog.backups() {
            prop_assert_eq!(catalog.session(backup.session), Some(&SessionState::Committed(backup.id)));
        }
        let numbers: Vec<_> = catalog.log().writers().map(|(epoch, _)| epoch.0).collect();
        prop_assert_eq!(&numbers, &(1..=numbers.len() as u32).collect::<Vec<_>>());
    }

    #[test]
    fn events_come_back_from_their_bytes(event in any_event()) {
        let bytes = minicbor::to_vec(&event).unwrap();
        prop_assert_eq!(minicbor::decode::<Event>(&bytes).unwrap(), event);
    }
}

fn actor() -> Actor {
    Actor::new(Role::Operator, "o")
}

fn expired(n: u8) -> Event {
    let reason = "older than 2 days".to_owned();
    Event::BackupExpired { backup: BackupId::from_bytes([n; 16]), reason, by: actor(), at: Timestamp::UNIX_EPOCH }
}

fn held(n: u8, hold: &str) -> Event {
    Event::HoldPlaced {
        backup: BackupId::from_bytes([n; 16]),
        hold: hold.to_owned(),
        reason: "evidence".to_owned(),
        by: actor(),
        at: Timestamp::UNIX_EPOCH,
        log: false,
    }
}

fn released(n: u8, hold: &str) -> Event {
    Event::HoldReleased {
        backup: BackupId::from_bytes([n; 16]),
        hold: hold.to_owned(),
        by: actor(),
        at: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn a_backup_expires_once_and_only_when_nobody_holds_it() {
    let id = BackupId::from_bytes([1; 16]);
    let two = [opened(1), committed(1), held(1, "a"), held(1, "b"), released(1, "a")];
    let mut catalog = fold(&two).unwrap();
    let before = catalog.clone();
    assert_eq!(catalog.apply(&expired(1)), Err(Rejected::BackupHeld { backup: id, hold: "b".to_owned() }));
    let unknown = Rejected::HoldUnknown { backup: id, hold: "a".to_owned() };
    assert_eq!(catalog.apply(&released(1, "a")), Err(unknown));
    assert_eq!(catalog, before);
    catalog.apply(&released(1, "b")).unwrap();
    catalog.apply(&expired(1)).unwrap();
    assert!(catalog.backup(id).is_none() && catalog.latest().is_none());
    assert_eq!(catalog.expired().map(|(id, _)| id).collect::<Vec<_>>(), [id]);
    // It can be neither expired again, nor held, nor be anybody's parent, and the reason is told.
    for event in [expired(1), held(1, "c")] {
        let refusal = catalog.apply(&event).unwrap_err();
        assert!(matches!(refusal, Rejected::BackupExpired { .. }) && refusal.to_string().contains("2 days"));
    }
    assert_eq!(catalog.apply(&held(2, "c")), Err(Rejected::BackupUnknown(BackupId::from_bytes([2; 16]))));
}
