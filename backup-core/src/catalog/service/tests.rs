use super::*;
use crate::catalog::{Catalog, Event};
use crate::id::ServiceId;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn by() -> Actor {
    Actor::new(Role::Platform, "test")
}

fn event(second: i64, lease: Option<u64>, change: ServiceChange) -> Event {
    Event::Service { change, lease, by: by(), at: at(second) }
}

fn created() -> Event {
    event(0, None, ServiceChange::Created { spec: Box::new(ServiceSpec::new("postgres", "startup", "eu", "eu")) })
}

fn taken(second: i64, lease: u64, until: i64) -> Event {
    event(second, None, ServiceChange::LeaseTaken { lease, runner: format!("runner {lease}"), until: at(until) })
}

fn fold(events: &[Event]) -> Result<Catalog, Rejected> {
    let mut catalog = Catalog::new();
    for event in events {
        let stored = minicbor::decode(&minicbor::to_vec(event).unwrap()).unwrap();
        assert_eq!(&stored, event);
        catalog.apply(&stored)?;
    }
    Ok(catalog)
}

fn refused(events: &[Event]) -> ServiceRejected {
    match fold(events) {
        Err(Rejected::Service(rejected)) => rejected,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_happens_to_a_service_that_nobody_created_and_it_is_created_once() {
    assert_eq!(refused(&[event(1, None, ServiceChange::Recovered)]), ServiceRejected::NotCreated);
    assert_eq!(refused(&[created(), created()]), ServiceRejected::AlreadyCreated);
}

#[test]
fn a_lease_is_held_until_it_ends_and_then_its_runner_can_do_nothing() {
    let run = ServiceChange::RunStarted { purpose: RunPurpose::Scheduled, due: at(0) };
    assert!(matches!(
        refused(&[created(), taken(1, 1, 60), taken(59, 2, 120)]),
        ServiceRejected::LeaseHeld { until, .. } if until == at(60)
    ));
    assert_eq!(refused(&[created(), taken(1, 1, 60), taken(60, 1, 120)]), ServiceRejected::LeaseTaken(1));
    let overtaken = [created(), taken(1, 1, 60), taken(60, 2, 120), event(61, Some(1), run.clone())];
    assert_eq!(refused(&overtaken), ServiceRejected::LeaseLost(1));
    let renewed = [
        created(),
        taken(1, 1, 60),
        event(50, Some(1), ServiceChange::LeaseRenewed { until: at(110) }),
        taken(100, 2, 200),
    ];
    assert!(matches!(refused(&renewed), ServiceRejected::LeaseHeld { until, .. } if until == at(110)));
    let released = [created(), taken(1, 1, 60), event(2, Some(1), ServiceChange::LeaseReleased), taken(3, 2, 60)];
    let catalog = fold(&released).unwrap();
    assert_eq!(catalog.service().unwrap().lease.as_ref().unwrap().number, 2);
    let late = [&released[..], &[event(4, Some(1), run)]].concat();
    assert_eq!(refused(&late), ServiceRejected::LeaseLost(1));
}

#[test]
fn one_backup_at_a_time_and_failures_are_counted() {
    let started = |s| event(s, None, ServiceChange::RunStarted { purpose: RunPurpose::Scheduled, due: at(s - 1) });
    let failed = |s| event(s, None, ServiceChange::RunEnded { backup: None, problem: Some("no server".to_owned()) });
    let id = BackupId::from_bytes([1; 16]);
    let made = |s| event(s, None, ServiceChange::RunEnded { backup: Some(id), problem: None });
    assert_eq!(refused(&[created(), started(5), started(6)]), ServiceRejected::RunUnderWay(at(5)));
    assert_eq!(refused(&[created(), made(5)]), ServiceRejected::NoRun);
    let catalog = fold(&[created(), started(5), failed(6), started(7), failed(8)]).unwrap();
    assert_eq!((catalog.service().unwrap().failures, catalog.service().unwrap().last_made.clone()), (2, None));
    let catalog = fold(&[created(), started(5), failed(6), started(7), made(8)]).unwrap();
    let service = catalog.service().unwrap();
    let made = service.last_made.as_ref().unwrap();
    assert_eq!((service.failures, made.run.due, made.run.started, made.ended), (0, at(6), at(7), at(8)));
    assert_eq!((made.backup, service.last_run.as_ref()), (Some(id), Some(made)));
}

#[test]
fn a_life_goes_through_its_stages_in_order() {
    let change = |s, change| event(s, None, change);
    let life = [
        created(),
        change(1, ServiceChange::PowerOffBegun { accept_data_loss: false }),
        change(2, ServiceChange::PoweredOff { loss: None }),
        change(3, ServiceChange::NoticeSent { notice: "off for long".to_owned() }),
        change(4, ServiceChange::RestoreBegun { purpose: RestorePurpose::PowerOn }),
        change(5, ServiceChange::Restored { backup: Some(BackupId::from_bytes([1; 16])) }),
        change(6, ServiceChange::Deleted { reason: None }),
        change(7, ServiceChange::Recovered),
        change(8, ServiceChange::Deleted { reason: None }),
        change(9, ServiceChange::PurgeBegun),
    ];
    let stages = [
        Stage::Running,
        Stage::PoweringOff { accept_data_loss: false },
        Stage::Off { since: at(2) },
        Stage::Off { since: at(2) },
        Stage::Restoring { purpose: RestorePurpose::PowerOn, off_since: Some(at(2)) },
        Stage::Running,
        Stage::Deleted { since: at(6) },
        Stage::Off { since: at(7) },
        Stage::Deleted { since: at(8) },
        Stage::Purging { since: at(9) },
    ];
    for (n, stage) in (1..).zip(stages) {
        let catalog = fold(&life[..n]).unwrap();
        let service = catalog.service().unwrap();
        assert_eq!(service.stage, stage);
        assert_eq!(service.trail.len(), n);
        assert_eq!(service.notices.len(), usize::from(n == 4), "a notice is about its stage");
        // No step fits twice, nor any of those that come later or came before but for what the next line does.
        for (m, other) in life.iter().enumerate().skip(1) {
            let fits = fold(&[&life[..n], std::slice::from_ref(other)].concat()).is_ok();
            let running = matches!(stage, Stage::Running);
            let expected = match m {
                1 => running,
                2 => matches!(stage, Stage::PoweringOff { .. }),
                3 => true,
                4 => matches!(stage, Stage::Off { .. }),
                5 => matches!(stage, Stage::Restoring { .. }),
                6 | 8 => running || matches!(stage, Stage::Off { .. } | Stage::Restoring { .. }),
                _ => matches!(stage, Stage::Deleted { .. }),
            };
            assert_eq!(fits, expected, "{other:?} of a service that is {stage}");
        }
    }
}

#[test]
fn a_fork_is_restored_before_it_runs() {
    let origin = Origin {
        service: ServiceId::new("source").unwrap(),
        location: "eu".to_owned(),
        backup: BackupId::from_bytes([3; 16]),
        time: Some(at(-5)),
        latest: false,
    };
    let spec = ServiceSpec::new("postgres", "startup", "eu", "eu").with_origin(origin);
    let fork = event(0, None, ServiceChange::Created { spec: Box::new(spec) });
    let catalog = fold(std::slice::from_ref(&fork)).unwrap();
    let forking = Stage::Restoring { purpose: RestorePurpose::Fork, off_since: None };
    assert_eq!(catalog.service().unwrap().stage, forking);
    let run = event(1, None, ServiceChange::RunStarted { purpose: RunPurpose::Scheduled, due: at(0) });
    assert!(matches!(refused(&[fork, run]), ServiceRejected::WrongStage { .. }));
}

#[test]
fn nothing_is_added_to_a_service_that_is_being_purged() {
    let ending = [
        created(),
        event(1, None, ServiceChange::Deleted { reason: None }),
        event(2, None, ServiceChange::PurgeBegun),
        Event::SessionOpened {
            session: crate::SessionId::from_bytes([1; 16]),
            at: at(3),
            parent: None,
            adopted: Vec::new(),
        },
    ];
    assert_eq!(fold(&ending), Err(Rejected::Purging));
}
