use super::*;
use crate::env::Env;
use crate::id::ServiceId;
use crate::snapshot::{Consistency, Snapshot};
use proptest::prelude::*;

fn session(n: u8) -> SessionId {
    SessionId::from_bytes([n; 16])
}

fn record(n: u8, parent: Option<u8>, reused: &[u8]) -> BackupRecord {
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

fn opened(n: u8) -> Event {
    Event::SessionOpened { session: session(n), at: Env::seeded(0).now(), parent: None, adopted: vec![] }
}

fn committed(n: u8) -> Event {
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

fn any_event() -> impl Strategy<Value = Event> {
    let n = 0..4u8;
    prop_oneof![
        n.clone().prop_map(opened),
        n.clone().prop_map(committed),
        n.clone().prop_map(|n| closed(n, CloseReason::Abandoned)),
        n.clone().prop_map(|n| closed(n, CloseReason::Fenced)),
        (n.clone(), n).prop_map(|(a, b)| Event::BackupRecovered { record: Box::new(record(a, None, &[b])) }),
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
    }

    #[test]
    fn events_come_back_from_their_bytes(event in any_event()) {
        let bytes = minicbor::to_vec(&event).unwrap();
        prop_assert_eq!(minicbor::decode::<Event>(&bytes).unwrap(), event);
    }
}
