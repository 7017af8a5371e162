//! The matrix of the platform, as a table. `matrix.json` beside this file says the same as a document.

use super::{Matrix, Offer, Plan, ServiceKind};
use crate::age::Age;
use crate::profile::{Cadence, Period, Profile, Rights, Tier};

const KAFKA: &str = "topic data is protected by replication, MirrorMaker 2 and sinks; the configuration is backed up";
const M3: &str = "it holds no data of its own";

pub(super) fn matrix() -> Matrix {
    let plans = [Plan::HOBBYIST, Plan::STARTUP, Plan::BUSINESS, Plan::PREMIUM];
    let mut matrix = Matrix::new(plans.clone());
    for (kind, offers) in rows() {
        let offers = plans.iter().zip(offers).map(|(plan, offer)| (plan.clone(), with_drills(plan, offer)));
        matrix.set_row(kind, offers);
    }
    matrix
}

fn rows() -> Vec<(ServiceKind, [Offer; 4])> {
    let window = |days| [disaster_recovery(), Offer::Backups(with_pitr(days))];
    let [none, hobby] = [Offer::NotAvailable, disaster_recovery()];
    let sql = || {
        let [[hobby, startup], [_, business], [_, premium]] = [window(2), window(14), window(30)];
        [hobby, startup, business, premium]
    };
    let nothing = |reason: &str| Offer::NoBackups { reason: reason.to_owned() };
    let m3_stateless = || [none.clone(), none.clone(), nothing(M3), nothing(M3)];
    vec![
        (ServiceKind::KAFKA, [(); 4].map(|()| nothing(KAFKA))),
        (ServiceKind::POSTGRES, sql()),
        (ServiceKind::MYSQL, sql()),
        (ServiceKind::OPENSEARCH, [hobby.clone(), two_tiers(3), two_tiers(14), two_tiers(30)]),
        (ServiceKind::CASSANDRA, [none.clone(), one_days(), one_days(), one_days()]),
        (ServiceKind::REDIS, [hobby, every(12, Age::days(1)), every(12, Age::days(3)), every(12, Age::days(13))]),
        (ServiceKind::FLINK, [none.clone(), every(1, Age::hours(2)), every(1, Age::hours(2)), none.clone()]),
        (ServiceKind::M3DB, [none.clone(), one_days(), every(24, Age::days(6)), every(24, Age::days(13))]),
        (ServiceKind::M3AGGREGATOR, m3_stateless()),
        (ServiceKind::M3COORDINATOR, m3_stateless()),
        (ServiceKind::GRAFANA, [none.clone(), every(1, Age::days(1)), none.clone(), none.clone()]),
        (ServiceKind::CLICKHOUSE, [2, 2, 14, 30].map(|days| every(24, Age::days(days)))),
        (ServiceKind::KAFKA_CONFIG, [(); 4].map(|()| kafka_config())),
    ]
}

/// Whatever is backed up is restored once a month for proof, of those who pay for most once a week.
fn with_drills(plan: &Plan, offer: Offer) -> Offer {
    let hours = if *plan == Plan::PREMIUM { 7 * 24 } else { 30 * 24 };
    match offer {
        Offer::Backups(profile) => Offer::Backups(Profile { drills: Some(Cadence::hours(hours)), ..profile }),
        other => other,
    }
}

/// "One backup, disaster recovery only": the newest one, whoever asked for it, and for the platform alone.
fn disaster_recovery() -> Offer {
    let profile = Profile::starting(Cadence::daily());
    Offer::Backups(Profile { tiers: vec![Tier::newest(Period::Every)], rights: Rights::PLATFORM_ONLY, ..profile })
}

/// "N days and point in time": every backup and every moment of them.
fn with_pitr(days: u16) -> Profile {
    let age = Age::days(days);
    let tiers = vec![Tier::by_age(Period::Every, age)];
    Profile { tiers, pitr: Some(age), ..Profile::starting(Cadence::daily()) }
}

/// "Hourly for 24 hours and daily for N days". Backups are hourly, and each one is kept for 24 hours: a tier by the clock's
/// hours would drop the second of two that began in the same hour because one of them was late.
fn two_tiers(days: u16) -> Offer {
    let tiers = vec![Tier::by_age(Period::Every, Age::days(1)), Tier::by_age(Period::Daily, Age::days(days))];
    Offer::Backups(Profile { tiers, ..Profile::starting(Cadence::hours(1)) })
}

/// "One day's backup": the newest daily one until its successor has committed.
fn one_days() -> Offer {
    Offer::Backups(Profile { tiers: vec![Tier::newest(Period::Daily)], ..Profile::starting(Cadence::daily()) })
}

/// "Every so many hours up to an age".
fn every(hours: u16, age: Age) -> Offer {
    let tiers = vec![Tier::by_age(Period::Every, age)];
    Offer::Backups(Profile { tiers, ..Profile::starting(Cadence::hours(hours)) })
}

/// "Always on, every 3 hours, the latest restored at power-on": there is no choice to make, so users have none.
fn kafka_config() -> Offer {
    let tiers = vec![Tier::newest(Period::Every)];
    let profile = Profile::starting(Cadence::hours(3));
    Offer::Backups(Profile { tiers, rights: Rights::PLATFORM_ONLY, always_on: true, ..profile })
}
