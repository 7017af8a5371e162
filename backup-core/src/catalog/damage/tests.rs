use super::super::tests::{committed, opened, record, session};
use super::super::{Actor, Event, PackMove, Role};
use super::*;
use crate::env::Env;

fn now() -> Timestamp {
    Env::seeded(0).now()
}

fn pack(n: u8, number: u32) -> PackId {
    PackId { session: session(n), number }
}

fn backup(n: u8) -> BackupId {
    BackupId::from_bytes([n; 16])
}

fn damaged(n: u8, problem: &str, backups: &[u8]) -> Event {
    let backups = backups.iter().map(|n| backup(*n)).collect();
    Event::PacksDamaged {
        packs: vec![PackDamage { pack: pack(n, 0), problem: problem.to_owned(), backups }],
        at: now(),
    }
}

fn mended(n: u8) -> Event {
    Event::Mended { packs: vec![pack(n, 0)], log: vec![], by: Actor::new(Role::Platform, "test"), at: now() }
}

fn child(n: u8, reused: &[u8]) -> Event {
    Event::BackupCommitted { record: Box::new(record(n, None, reused)) }
}

fn begun(n: u8, parent: Option<u8>, adopted: &[u8]) -> Event {
    let adopted = adopted.iter().map(|n| session(*n)).collect();
    Event::SessionOpened { session: session(n), at: now(), parent: parent.map(backup), adopted }
}

fn fold(events: &[Event]) -> Result<Catalog, Rejected> {
    let mut catalog = Catalog::new();
    events.iter().try_for_each(|event| catalog.apply(event))?;
    Ok(catalog)
}

#[test]
fn a_harmed_backup_is_no_parent_until_it_is_mended() {
    let mut catalog = fold(&[opened(1), committed(1), opened(2), committed(2)]).unwrap();
    assert_eq!(catalog.latest_sound().unwrap().id, backup(2));
    catalog.apply(&damaged(2, "flipped", &[2])).unwrap();
    assert!(!catalog.is_sound(backup(2)) && catalog.is_sound(backup(1)));
    assert_eq!(catalog.latest_sound().unwrap().id, backup(1));
    let refused = Rejected::BackupDamaged { backup: backup(2), problem: "flipped".to_owned() };
    assert_eq!(catalog.apply(&begun(3, Some(2), &[])), Err(refused));
    catalog.apply(&begun(3, Some(1), &[])).unwrap();
    catalog.apply(&mended(2)).unwrap();
    assert!(catalog.is_sound(backup(2)));
    catalog.apply(&begun(4, Some(2), &[])).unwrap();
}

#[test]
fn who_was_at_it_when_damage_was_reported_does_not_commit_what_it_hit() {
    let catalog =
        fold(&[opened(1), committed(1), begun(2, Some(1), &[]), begun(3, None, &[]), damaged(1, "gone", &[1])]);
    let mut catalog = catalog.unwrap();
    assert_eq!(catalog.apply(&child(2, &[1])), Err(Rejected::ReuseDamaged { backup: backup(2), session: session(1) }));
    catalog.apply(&child(3, &[])).unwrap();
    // Who begins afterwards has been told. What is sound of that session it may use.
    catalog.apply(&begun(4, Some(3), &[])).unwrap();
    catalog.apply(&child(4, &[1])).unwrap();
    // The same again is no news, other damage is.
    catalog.apply(&begun(5, Some(4), &[])).unwrap();
    catalog.apply(&damaged(1, "gone", &[1])).unwrap();
    let mut other = catalog.clone();
    catalog.apply(&child(5, &[1])).unwrap();
    other.apply(&damaged(1, "worse", &[1])).unwrap();
    assert!(other.apply(&child(5, &[1])).is_err());
}

#[test]
fn damage_of_a_copy_hits_what_was_copied() {
    let moved = PackMove { from: pack(1, 0), to: pack(9, 0), base: 0, count: 1 };
    let recovered = Event::PacksRecovered { session: session(9), moves: vec![moved] };
    let mut catalog = fold(&[opened(1), committed(1), recovered, begun(2, Some(1), &[])]).unwrap();
    catalog.apply(&damaged(9, "gone", &[1])).unwrap();
    assert!(matches!(catalog.apply(&child(2, &[1])), Err(Rejected::ReuseDamaged { .. })));
}

#[test]
fn a_damaged_session_is_not_adopted() {
    let mut catalog = fold(&[opened(1), opened(2), damaged(1, "gone", &[])]).unwrap();
    assert_eq!(catalog.apply(&begun(3, None, &[1])), Err(Rejected::SessionDamaged(session(1))));
    catalog.apply(&begun(3, None, &[2])).unwrap();
}

#[test]
fn damage_of_what_is_gone_is_forgotten() {
    let mut catalog = fold(&[opened(1), committed(1), damaged(1, "gone", &[1])]).unwrap();
    catalog.damage.forget(&[SessionPacks::new(session(1), [1, 2], false), SessionPacks::new(session(2), [0], true)]);
    assert!(!catalog.is_sound(backup(1)));
    catalog.damage.forget(&[SessionPacks::new(session(1), [0], false)]);
    assert!(catalog.is_sound(backup(1)));
}

#[test]
fn everything_was_read_since_the_last_pass_that_is_through_began() {
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let part = |began: i64, pass: i64, through: Option<VerifyPlace>| {
        let mut verification = Verification::new("budget", at(began), at(began + 1));
        verification.pass = Some(VerifyPass { began: at(pass), through });
        Event::Verified { verification: Box::new(verification) }
    };
    let mut catalog = fold(&[part(10, 10, Some(VerifyPlace::Pack(pack(1, 0))))]).unwrap();
    assert_eq!(catalog.read_since(), None);
    catalog.apply(&part(20, 10, None)).unwrap();
    assert_eq!(catalog.read_since(), Some(at(10)));
    catalog.apply(&part(30, 30, Some(VerifyPlace::Log { epoch: LogEpoch(1), sequence: 3 }))).unwrap();
    assert_eq!((catalog.read_since(), catalog.verify_pass().unwrap().began), (Some(at(10)), at(30)));
    assert_eq!(catalog.verifications().map(|v| v.began).collect::<Vec<_>>(), [at(30)]);
    assert!(VerifyPlace::Pack(pack(255, u32::MAX)) < VerifyPlace::Log { epoch: LogEpoch(0), sequence: 0 });
}
