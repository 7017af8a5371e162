//! Thirty days with somebody who may add objects, and neither overwrite nor delete any.
//!
//! Honest hosts make a backup each day with credentials that may only add; an operator with rights of his own expires by a plan and collects. Each day the
//! other one acts by seed: first without a key, then with the repository's key and every entry, time and backup that it can forge. Each day every
//! honest backup of the last 14 days is restored, byte for byte.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod dated;
#[path = "append_only/intruder.rs"]
mod intruder;
#[path = "append_only/month.rs"]
mod month;
#[path = "append_only/traitor.rs"]
mod traitor;

use month::{Month, Side};

/// Seeds; more by `BACKUP_APPEND_ONLY_SEEDS`, one by `BACKUP_APPEND_ONLY_SEED`.
fn seeds(usual: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("BACKUP_APPEND_ONLY_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("BACKUP_APPEND_ONLY_SEEDS").unwrap_or(usual)).collect(),
    }
}

async fn live(side: Side, seed: u64) -> Month {
    let mut month = Month::begin(side, seed).await;
    for _ in 0..30 {
        month.day().await;
    }
    month.end().await;
    month
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_days_with_an_intruder_without_a_key() {
    for seed in seeds(4) {
        let month = live(Side::Outside, seed).await;
        println!("seed {seed}: {month}");
        assert_eq!(month.rebuilt, 0, "seed {seed}: the catalog was always readable");
        assert!(month.planted > 100, "seed {seed}: {month}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_days_with_somebody_who_has_the_key() {
    let mut rebuilt = 0;
    for seed in seeds(4) {
        let month = live(Side::Inside, seed).await;
        println!("seed {seed}: {month}");
        rebuilt += month.rebuilt;
    }
    assert!(rebuilt > 0, "no attack did anything");
}

/// What the days above would be without what protects: the attack is a real one.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_collects_without_protection_deletes_what_was_expired_by_forged_entries() {
    for protected in [false, true] {
        let mut month = Month::begin(Side::Inside, 77).await;
        for _ in 0..3 {
            month.quiet_day().await;
        }
        month.takeover().await;
        let lost = month.collect_and_rebuild(protected).await;
        assert_eq!(lost == 0, protected, "{lost} backups are lost");
    }
}
