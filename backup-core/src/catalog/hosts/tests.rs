//! The rules of deposits, one by one.

use super::super::*;
use super::*;
use crate::env::Env;
use crate::id::ServiceId;
use crate::snapshot::{Consistency, Snapshot};

fn session(n: u8) -> SessionId {
    SessionId::from_bytes([n; 16])
}

fn backup(n: u8) -> BackupId {
    BackupId::from_bytes([n; 16])
}

fn host(n: u8) -> HostId {
    HostId::from_bytes([n; 16])
}

fn at() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn by() -> Actor {
    Actor::new(Role::Operator, "test")
}

fn keys() -> KeyState {
    let wrap = |recipient: &str| Wrap {
        epoch: 1,
        recipient: recipient.to_owned(),
        name: format!("keys/0001/{recipient}"),
        digest: [0; 32],
    };
    KeyState::begin(1, [(1, Some([1; 16]))], [wrap("anna"), wrap("bert")])
}

fn catalog() -> Catalog {
    Catalog::with_keys(keys())
}

fn changed(change: HostChange) -> Event {
    Event::Hosts { change, by: by(), at: at() }
}

fn added(n: u8, label: &str, epoch: u32) -> Event {
    changed(HostChange::Added { host: host(n), label: label.to_owned(), epoch })
}

fn record(n: u8, reused: &[u8]) -> BackupRecord {
    let now = Env::seeded(0).now();
    BackupRecord::new(
        backup(n),
        ServiceId::new("svc").unwrap(),
        session(n),
        None,
        (now, now),
        Totals::default(),
        ManifestRef { pack: PackId { session: session(n), number: 0 }, segment: 0, digest: [0; 32] },
        reused.iter().map(|n| session(*n)).collect(),
        Snapshot::new("test", "1", "source", "none", Consistency::PointInTime, (now, now)),
    )
}

fn adopted(catalog: &Catalog, n: u8, by: u8, reused: &[u8]) -> Event {
    let deposit = Box::new(Deposit::new(record(n, reused), host(by), vec![n], catalog));
    Event::DepositAdopted { deposit, at: at() }
}

/// Begins epoch `epoch` for those who stay.
fn rotated(catalog: &mut Catalog, epoch: u32, stay: &[&str], removed: &[&str]) {
    let wraps: Vec<_> = stay
        .iter()
        .map(|recipient| Wrap {
            epoch,
            recipient: (*recipient).to_owned(),
            name: format!("keys/{epoch:04}/{recipient}"),
            digest: [0; 32],
        })
        .collect();
    let names = wraps.iter().map(|wrap| wrap.name.clone()).collect();
    let removed = removed.iter().map(|name| (*name).to_owned()).collect();
    for change in [
        KeyChange::Announced { wraps, epoch: Some(epoch) },
        KeyChange::EpochBegun { epoch, fingerprint: [2; 16], wraps: names, removed },
    ] {
        catalog.apply(&Event::Keys { change, by: by(), at: at() }).unwrap();
    }
}

fn refused(catalog: &mut Catalog, event: &Event) -> Rejected {
    let before = catalog.clone();
    let rejected = catalog.apply(event).unwrap_err();
    assert_eq!(*catalog, before, "what is refused changes nothing");
    rejected
}

#[test]
fn only_hosts_that_were_added_and_not_removed_deposit() {
    let mut catalog = catalog();
    let event = adopted(&catalog, 10, 1, &[]);
    assert_eq!(refused(&mut catalog, &event), Rejected::HostUnknown(host(1)));
    catalog.apply(&added(1, "web", 1)).unwrap();
    assert_eq!(refused(&mut catalog, &added(2, "web", 1)), Rejected::HostExists("web".to_owned()));
    assert_eq!(refused(&mut catalog, &added(1, "other", 1)), Rejected::HostExists("web".to_owned()));
    catalog.apply(&event).unwrap();
    assert_eq!(catalog.session(session(10)), Some(&SessionState::Committed(backup(10))));
    assert_eq!((catalog.depositor(session(10)), catalog.backup(backup(10)).is_some()), (Some(host(1)), true));
    assert_eq!(catalog.host(host(1)).unwrap().last, Some((session(10), backup(10))));
    assert_eq!(refused(&mut catalog, &event), Rejected::SessionExists(session(10)));

    assert_eq!(catalog.untrusted_hosts().count(), 0);
    catalog.apply(&changed(HostChange::Removed { host: host(1) })).unwrap();
    assert_eq!(catalog.untrusted_hosts().collect::<Vec<_>>(), [(host(1), 1, Refusal::HostRemoved)]);
    let event = adopted(&catalog, 11, 1, &[]);
    assert_eq!(refused(&mut catalog, &event), Rejected::HostRemoved(host(1)));
    assert_eq!(refused(&mut catalog, &added(1, "web", 1)), Rejected::HostRemoved(host(1)));
    catalog.apply(&added(2, "web", 1)).unwrap();
    assert!(catalog.backup(backup(10)).is_some(), "what was adopted stays");
}

#[test]
fn a_removal_of_a_recipient_makes_files_outdated_and_a_rotation_does_not() {
    let mut catalog = catalog();
    catalog.apply(&added(1, "web", 1)).unwrap();
    rotated(&mut catalog, 2, &["anna", "bert"], &[]);
    let event = adopted(&catalog, 10, 1, &[]);
    catalog.apply(&event).unwrap();
    rotated(&mut catalog, 3, &["anna"], &["bert"]);
    let event = adopted(&catalog, 11, 1, &[]);
    assert_eq!(refused(&mut catalog, &event), Rejected::HostOutdated(host(1)));
    assert_eq!(catalog.untrusted_hosts().collect::<Vec<_>>(), [(host(1), 1, Refusal::HostOutdated)]);
    assert_eq!(refused(&mut catalog, &added(2, "new", 2)), Rejected::HostOutdated(host(2)));
    catalog.apply(&added(2, "new", 3)).unwrap();
    let event = adopted(&catalog, 11, 2, &[]);
    catalog.apply(&event).unwrap();
    // What a rebuild has forgotten counts as removed.
    assert_eq!(KeyState::begin(3, [(1, None), (3, None)], []).since_removal(), 3);
}

#[test]
fn a_deposit_reuses_what_the_same_host_has_deposited() {
    let mut catalog = catalog();
    catalog.apply(&added(1, "web", 1)).unwrap();
    catalog.apply(&added(2, "db", 1)).unwrap();
    for (n, by) in [(10, 1), (11, 2)] {
        let event = adopted(&catalog, n, by, &[]);
        catalog.apply(&event).unwrap();
    }
    let opened = Event::SessionOpened { session: session(12), at: at(), parent: None, adopted: Vec::new() };
    catalog.apply(&opened).unwrap();
    catalog.apply(&Event::BackupCommitted { record: Box::new(record(12, &[])) }).unwrap();
    for foreign in [11, 12, 99] {
        let event = adopted(&catalog, 20, 1, &[10, foreign]);
        let unknown = Rejected::ReuseUnknown { backup: backup(20), session: session(foreign) };
        assert_eq!(refused(&mut catalog, &event), unknown);
    }
    let event = adopted(&catalog, 20, 1, &[10]);
    catalog.apply(&event).unwrap();
    // Somebody with the keys may build on anything.
    let opened = Event::SessionOpened { session: session(21), at: at(), parent: Some(backup(20)), adopted: Vec::new() };
    catalog.apply(&opened).unwrap();
    catalog.apply(&Event::BackupCommitted { record: Box::new(record(21, &[10, 20])) }).unwrap();
}

#[test]
fn what_was_looked_at_before_a_collection_or_a_report_is_looked_at_again() {
    let mut catalog = catalog();
    catalog.apply(&added(1, "web", 1)).unwrap();
    let event = adopted(&catalog, 10, 1, &[]);
    catalog.apply(&event).unwrap();
    let stale = adopted(&catalog, 11, 1, &[10]);
    let mut condemned = Condemned::default();
    (condemned.number, condemned.pins) = (1, catalog.pins());
    let condemned = Event::Condemned { collection: Box::new(condemned), at: at() };
    catalog.clone().apply(&condemned).unwrap();
    let mut collected = catalog.clone();
    collected.apply(&condemned).unwrap();
    assert_eq!(refused(&mut collected, &stale), Rejected::DepositStale(session(11)));
    // The other way round the collection is what has to be worked out again.
    let mut first = catalog.clone();
    first.apply(&stale).unwrap();
    assert_eq!(refused(&mut first, &condemned), Rejected::CollectionStale(1));

    let pack = PackId { session: session(10), number: 0 };
    let damage = PackDamage { pack, problem: "torn".to_owned(), backups: vec![backup(10)] };
    catalog.apply(&Event::PacksDamaged { packs: vec![damage], at: at() }).unwrap();
    assert_eq!(refused(&mut catalog, &stale), Rejected::DepositStale(session(11)));
}

#[test]
fn the_last_one_of_each_host_is_pinned() {
    let mut catalog = catalog();
    catalog.apply(&added(1, "web", 1)).unwrap();
    for n in [10, 12, 11] {
        let event = adopted(&catalog, n, 1, &[]);
        catalog.apply(&event).unwrap();
    }
    assert_eq!(catalog.pinned().collect::<Vec<_>>(), [backup(12)], "the newest, in whichever order they were adopted");
    let expired = Event::BackupExpired { backup: backup(12), reason: "old".to_owned(), by: by(), at: at() };
    catalog.apply(&expired).unwrap();
    assert_eq!(catalog.pinned().collect::<Vec<_>>(), [backup(12)]);
    let mut again = record(12, &[]);
    again.session = session(30);
    let deposit = Box::new(Deposit::new(again, host(1), Vec::new(), &catalog));
    let stolen = Event::DepositAdopted { deposit, at: at() };
    assert_eq!(refused(&mut catalog, &stolen), Rejected::BackupExists(backup(12)), "nobody's record is replaced");
    catalog.apply(&changed(HostChange::Removed { host: host(1) })).unwrap();
    assert_eq!(catalog.pinned().count(), 0);
}

#[test]
fn what_was_refused_or_condemned_is_never_adopted() {
    let mut catalog = catalog();
    catalog.apply(&added(1, "web", 1)).unwrap();
    let refusal =
        |n| Event::DepositRefused { session: session(n), host: host(1), reason: Refusal::BadManifest, at: at() };
    catalog.apply(&refusal(10)).unwrap();
    let event = adopted(&catalog, 10, 1, &[]);
    assert_eq!(refused(&mut catalog, &event), Rejected::SessionExists(session(10)));
    let mut condemned = Condemned::default();
    (condemned.number, condemned.pins) = (1, catalog.pins());
    condemned.packs = vec![SessionPacks::new(session(11), [0], true)];
    catalog.apply(&Event::Condemned { collection: Box::new(condemned), at: at() }).unwrap();
    let event = adopted(&catalog, 11, 1, &[]);
    assert_eq!(refused(&mut catalog, &event), Rejected::SessionExists(session(11)));
    assert_eq!(refused(&mut catalog, &refusal(11)), Rejected::SessionExists(session(11)));
}

#[test]
fn a_host_that_is_added_again_goes_on_where_a_rebuild_has_found_it() {
    let mut catalog = catalog();
    for n in [10, 11] {
        let recovered = Event::DepositRecovered { session: session(n), host: host(1), key: vec![n] };
        catalog.apply(&recovered).unwrap();
    }
    catalog.apply(&Event::BackupRecovered { record: Box::new(record(10, &[])) }).unwrap();
    let pins = catalog.pins();
    catalog.apply(&added(1, "web", 1)).unwrap();
    assert_eq!(catalog.host(host(1)).unwrap().last, Some((session(10), backup(10))));
    assert!(catalog.pins() > pins, "what it builds on was not pinned when others looked");
    let event = adopted(&catalog, 12, 1, &[10]);
    catalog.apply(&event).unwrap();
}
