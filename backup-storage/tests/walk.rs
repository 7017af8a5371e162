//! Everybody at the same time, by seed: writers, collectors, an operator, copies to one or two further regions, over stores that reorder, lose replies and
//! stall. Some die in the middle, some come back after days, and each has a clock of its own, up to a day wrong.
//!
//! Whatever happens: what was committed and has not expired is whole, byte for byte, in the middle and at the end, in the first region and, after a last
//! copy, in each further one; and at the end nothing is left that nobody needs.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "walk/actors.rs"]
mod actors;
#[path = "walk/check.rs"]
mod check;
mod content;
mod dated;
#[path = "walk/world.rs"]
mod world;

use world::{Choices, World};

/// Seeds; more by `BACKUP_WALK_SEEDS`, from `BACKUP_WALK_FIRST` on; one by `BACKUP_WALK_SEED`.
fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("BACKUP_WALK_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = number("BACKUP_WALK_FIRST").unwrap_or(0);
            (first..first + number("BACKUP_WALK_SEEDS").unwrap_or(500)).collect()
        }
    }
}

/// What came of one seed.
#[derive(Debug, Default, Clone, Copy)]
struct Outcome {
    /// Backups that are left.
    kept: usize,
    /// Whether packs were copied.
    moved: bool,
    /// Commits of sessions that were continued after days, and of those refused.
    zombies: (usize, usize),
    /// Runs of replication that were done, and that were not.
    copies: (usize, usize),
    /// Tasks that were dropped in the middle.
    dropped: usize,
}

async fn live(seed: u64) -> Outcome {
    let world = World::new(seed).await;
    let mut choices = Choices(seed);
    actors::first(&world, &mut choices).await;
    world.storm();
    let mut own = || Choices(choices.below(u64::MAX));
    let (a, b, c, d, e, f, g, h, i) = (own(), own(), own(), own(), own(), own(), own(), own(), own());
    tokio::join!(
        actors::writer(&world, 1, a),
        actors::writer(&world, 2, b),
        actors::zombie(&world, 3, c),
        actors::collector(&world, d),
        actors::collector(&world, e),
        actors::operator(&world, f),
        actors::courier(&world, 0, g),
        actors::courier(&world, 1, h),
        actors::time(&world, i),
    );
    world.calm().await;
    check::first_region(&world).await;
    check::nothing_unneeded(&world).await;
    check::further_regions(&world).await;
    world.outcome().await
}

/// Lives every `of`th seed from `first` on.
fn live_all(first: u64, of: u64) {
    let seeds: Vec<_> = seeds().into_iter().filter(|seed| seed % of == first).collect();
    let mut all = Vec::new();
    for seed in &seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        all.push(runtime.block_on(live(*seed)));
    }
    let sum = |of: &dyn Fn(&Outcome) -> usize| all.iter().map(of).sum::<usize>();
    let (kept, moved, dropped) = (sum(&|o| o.kept), sum(&|o| usize::from(o.moved)), sum(&|o| o.dropped));
    let (late, refused) = (sum(&|o| o.zombies.0), sum(&|o| o.zombies.1));
    let (copied, failed) = (sum(&|o| o.copies.0), sum(&|o| o.copies.1));
    println!(
        "{} seeds: {kept} backups kept, packs copied in {moved}, {late} sessions continued after days and {refused} of them refused, \
         {copied} copies to regions done and {failed} not, {dropped} tasks dropped",
        seeds.len()
    );
    // The walk is worth its name: all of it happens.
    let often = |n: usize| n > seeds.len() / 10;
    let all_of_it = [kept, moved, late.saturating_sub(refused), refused, copied, dropped].into_iter().all(often);
    assert!(seeds.len() < 100 || (all_of_it && failed > 0), "something happens too seldom");
}

#[test]
fn nothing_is_lost_while_everybody_works() {
    live_all(0, 2);
}

#[test]
fn nothing_is_lost_while_everybody_works_and_others_test() {
    live_all(1, 2);
}
