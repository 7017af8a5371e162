//! The rules of collections, one by one, and together with everything else by chance.

use super::super::*;
use super::*;
use crate::env::Env;
use crate::id::ServiceId;
use crate::log::Notation;
use crate::snapshot::{Consistency, Snapshot};
use proptest::prelude::*;

fn session(n: u8) -> SessionId {
    SessionId::from_bytes([n; 16])
}

fn backup(n: u8) -> BackupId {
    BackupId::from_bytes([n; 16])
}

fn at() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn by() -> Actor {
    Actor::new(Role::Operator, "test")
}

fn opened(n: u8, parent: Option<u8>, adopted: &[u8]) -> Event {
    let adopted = adopted.iter().map(|n| session(*n)).collect();
    Event::SessionOpened { session: session(n), at: at(), parent: parent.map(backup), adopted }
}

fn committed(n: u8, reused: &[u8]) -> Event {
    let now = Env::seeded(0).now();
    let snapshot = Snapshot::new("test", "1", "source", "none", Consistency::PointInTime, (now, now));
    let record = BackupRecord::new(
        backup(n),
        ServiceId::new("svc").unwrap(),
        session(n),
        None,
        (now, now),
        Totals::default(),
        ManifestRef { pack: PackId { session: session(n), number: 0 }, segment: 0, digest: [0; 32] },
        reused.iter().map(|n| session(*n)).collect(),
        snapshot,
    );
    Event::BackupCommitted { record: Box::new(record) }
}

fn closed(n: u8) -> Event {
    Event::SessionClosed { session: session(n), at: at(), reason: CloseReason::Abandoned }
}

fn expired(n: u8) -> Event {
    Event::BackupExpired { backup: backup(n), reason: "old".to_owned(), by: by(), at: at() }
}

fn reinstated(n: u8) -> Event {
    Event::BackupReinstated { backup: backup(n), by: by(), at: at() }
}

/// Condemns the first pack of each of `sessions`, as worked out from `catalog`.
fn condemned(catalog: &Catalog, sessions: &[u8]) -> Event {
    let packs = sessions.iter().map(|n| SessionPacks::new(session(*n), [0], false)).collect();
    let collection =
        Condemned { number: catalog.next_collection(), pins: catalog.pins(), packs, ..Condemned::default() };
    Event::Condemned { collection: Box::new(collection), at: at() }
}

fn begun(number: u64) -> Event {
    Event::SweepBegun { collection: number, at: at() }
}

fn swept(number: u64) -> Event {
    Event::Swept { collection: number, at: at() }
}

fn withdrawn(number: u64) -> Event {
    Event::CollectionWithdrawn { collection: number, by: by(), at: at() }
}

fn fold(events: &[Event]) -> Catalog {
    let mut catalog = Catalog::new();
    events.iter().for_each(|event| catalog.apply(event).unwrap());
    catalog
}

/// What becomes of `event`; a refusal changes nothing.
fn try_apply(catalog: &mut Catalog, event: &Event) -> Result<(), Rejected> {
    let before = catalog.clone();
    let outcome = catalog.apply(event);
    assert!(outcome.is_ok() || *catalog == before, "{event:?}");
    outcome
}

#[test]
fn a_collection_is_condemned_then_swept() {
    let mut catalog = fold(&[opened(1, None, &[]), committed(1, &[]), expired(1)]);
    let event = condemned(&catalog, &[1]);
    try_apply(&mut catalog, &event).unwrap();
    assert_eq!(try_apply(&mut catalog, &event), Err(Rejected::CollectionTaken(1)));
    assert_eq!(try_apply(&mut catalog, &swept(1)), Err(Rejected::SweepNotBegun(1)));
    let again = condemned(&catalog, &[1]);
    assert_eq!(try_apply(&mut catalog, &again), Err(Rejected::PacksCondemned(session(1))));
    try_apply(&mut catalog, &begun(1)).unwrap();
    assert_eq!(try_apply(&mut catalog, &begun(1)), Err(Rejected::CollectionSwept(1)));
    assert_eq!(try_apply(&mut catalog, &withdrawn(1)), Err(Rejected::CollectionSwept(1)));
    try_apply(&mut catalog, &swept(1)).unwrap();
    assert_eq!(try_apply(&mut catalog, &swept(1)), Err(Rejected::CollectionUnknown(1)));
    assert_eq!(catalog.collections().count(), 0);
}

#[test]
fn nothing_is_condemned_by_a_state_before_something_was_pinned() {
    let mut catalog = fold(&[opened(1, None, &[]), committed(1, &[])]);
    let then = catalog.clone();
    try_apply(&mut catalog, &opened(2, Some(1), &[])).unwrap();
    try_apply(&mut catalog, &expired(1)).unwrap();
    let event = condemned(&then, &[1]);
    assert_eq!(try_apply(&mut catalog, &event), Err(Rejected::CollectionStale(1)));
    // What has been committed or has ended since makes nothing needed.
    let mut catalog = fold(&[opened(1, None, &[]), committed(1, &[]), opened(2, Some(1), &[]), expired(1)]);
    let then = catalog.clone();
    try_apply(&mut catalog, &closed(2)).unwrap();
    let event = condemned(&then, &[1]);
    try_apply(&mut catalog, &event).unwrap();
}

#[test]
fn nobody_builds_on_what_was_condemned() {
    let mut catalog = fold(&[opened(1, None, &[]), closed(1)]);
    let event = condemned(&catalog, &[1]);
    try_apply(&mut catalog, &event).unwrap();
    for end in [begun(1), swept(1)] {
        let adopting = opened(2, None, &[1]);
        assert_eq!(try_apply(&mut catalog, &adopting), Err(Rejected::SessionCollected(session(1))));
        try_apply(&mut catalog, &end).unwrap();
    }
    let adopting = opened(2, None, &[1]);
    assert_eq!(try_apply(&mut catalog, &adopting), Err(Rejected::SessionCollected(session(1))));
}

#[test]
fn a_session_that_goes_on_cannot_be_condemned_and_an_unknown_one_can_never_begin() {
    let mut catalog = fold(&[opened(1, None, &[])]);
    let event = condemned(&catalog, &[1]);
    assert_eq!(try_apply(&mut catalog, &event), Err(Rejected::SessionOpen(session(1))));
    let event = condemned(&catalog, &[9]);
    try_apply(&mut catalog, &event).unwrap();
    assert_eq!(try_apply(&mut catalog, &opened(9, None, &[])), Err(Rejected::SessionExists(session(9))));
}

#[test]
fn an_expired_backup_can_be_had_again_until_it_is_taken() {
    let mut catalog = fold(&[opened(1, None, &[]), committed(1, &[]), expired(1)]);
    assert_eq!(try_apply(&mut catalog, &reinstated(2)), Err(Rejected::BackupNotExpired(backup(2))));
    try_apply(&mut catalog, &reinstated(1)).unwrap();
    assert!(catalog.backup(backup(1)).is_some());
    try_apply(&mut catalog, &expired(1)).unwrap();
    let event = condemned(&catalog, &[1]);
    try_apply(&mut catalog, &event).unwrap();
    let refused = Err(Rejected::BackupCondemned { backup: backup(1), collection: 1 });
    assert_eq!(try_apply(&mut catalog, &reinstated(1)), refused);
    try_apply(&mut catalog, &withdrawn(1)).unwrap();
    try_apply(&mut catalog, &reinstated(1)).unwrap();
    try_apply(&mut catalog, &expired(1)).unwrap();
    let event = condemned(&catalog, &[1]);
    for event in [event, begun(2)] {
        try_apply(&mut catalog, &event).unwrap();
    }
    assert_eq!(try_apply(&mut catalog, &reinstated(1)), Err(Rejected::BackupSwept(backup(1))));
}

#[test]
fn what_a_session_builds_on_can_be_had_again_although_others_are_swept() {
    let mut catalog = fold(&[
        opened(1, None, &[]),
        committed(1, &[]),
        opened(2, None, &[]),
        committed(2, &[]),
        opened(3, Some(1), &[]),
        expired(1),
        expired(2),
    ]);
    let event = condemned(&catalog, &[2]);
    for event in [event, begun(1), swept(1)] {
        try_apply(&mut catalog, &event).unwrap();
    }
    assert_eq!(try_apply(&mut catalog, &reinstated(2)), Err(Rejected::BackupSwept(backup(2))));
    try_apply(&mut catalog, &reinstated(1)).unwrap();
}

#[test]
fn copies_are_found_through_copies() {
    let pack = |n: u8, number| PackId { session: session(n), number };
    let moved = |from, to, base| PackMove { from, to, base, count: 4 };
    let mut catalog = fold(&[opened(1, None, &[]), committed(1, &[]), expired(1), opened(2, None, &[])]);
    let copy = |catalog: &Catalog, by: u8, moves: Vec<PackMove>| {
        let (number, pins) = (catalog.next_collection(), catalog.pins());
        let collection = Condemned { number, pins, session: Some(session(by)), moves, ..Condemned::default() };
        Event::Condemned { collection: Box::new(collection), at: at() }
    };
    let first = copy(&catalog, 2, vec![moved(pack(1, 0), pack(2, 0), 0), moved(pack(1, 1), pack(2, 0), 4)]);
    try_apply(&mut catalog, &first).unwrap();
    assert_eq!(catalog.locate(pack(1, 1)), Some(moved(pack(1, 1), pack(2, 0), 4)));
    assert_eq!(catalog.session(session(2)), Some(&SessionState::Closed(CloseReason::Repacked)));
    try_apply(&mut catalog, &opened(3, None, &[])).unwrap();
    let second = copy(&catalog, 3, vec![moved(pack(2, 0), pack(3, 0), 10)]);
    try_apply(&mut catalog, &second).unwrap();
    assert_eq!(catalog.locate(pack(1, 1)).map(|found| (found.to, found.base)), Some((pack(3, 0), 14)));
    assert_eq!(try_apply(&mut catalog, &withdrawn(1)), Err(Rejected::CollectionFollowed(1)));
    try_apply(&mut catalog, &withdrawn(2)).unwrap();
    assert_eq!(catalog.locate(pack(1, 1)).map(|found| (found.to, found.base)), Some((pack(2, 0), 4)));
    assert_eq!(catalog.locate(pack(9, 0)), None);
    // Somebody else's session ends with what it copied, or not at all.
    let foreign = copy(&catalog, 3, Vec::new());
    assert!(try_apply(&mut catalog, &foreign).is_err());
}

#[test]
fn log_is_condemned_only_where_it_has_expired() {
    let mut catalog = Catalog::new();
    let lineage = Lineage::new("1");
    let condemn = |catalog: &Catalog, before| {
        let log = [(lineage.clone(), before)].into();
        let (number, pins) = (catalog.next_collection(), catalog.pins());
        Event::Condemned { collection: Box::new(Condemned { number, pins, log, ..Condemned::default() }), at: at() }
    };
    let event = condemn(&catalog, 5);
    assert_eq!(try_apply(&mut catalog, &event), Err(Rejected::LineageUnknown(lineage.clone())));
    let record = crate::log::LineageRecord::new(lineage.clone(), "source", Notation::Decimal, at());
    catalog.apply(&Event::LineageAdded { record: Box::new(record) }).unwrap();
    catalog.apply(&Event::LogExpired { lineage: lineage.clone(), before: 4, at: at() }).unwrap();
    assert!(matches!(try_apply(&mut catalog, &event), Err(Rejected::LogKept { before: 5, .. })));
    let event = condemn(&catalog, 4);
    try_apply(&mut catalog, &event).unwrap();
}

proptest! {
    #[test]
    fn numbers_become_ranges_and_come_back(numbers in proptest::collection::btree_set(0..40_u32, 0..30)) {
        let packs = SessionPacks::new(session(1), numbers.iter().copied(), false);
        let back: Vec<_> = packs.packs().map(|pack| pack.number).collect();
        prop_assert_eq!(back, numbers.into_iter().collect::<Vec<_>>());
        prop_assert!(packs.numbers.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
    }
}
