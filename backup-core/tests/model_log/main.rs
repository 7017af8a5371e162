//! A model checker over the writers of a log, and over those who merge, let go and delete it, on the fold that everything in production goes through.
//!
//! Every order of their steps is explored: objects land late or never, also after their writer has died or was fenced; a listing sees what is there from its
//! beginning to its end, and of the rest whatever is worse. Whatever the order, what a source was told to be stored, and is kept, counts in
//! the ledger, and a new writer goes on no earlier than that. Each rule
//! of the protocol is also taken away once, and then a loss is found.
//!
//! One lineage of a few bytes. The source forgets what is acknowledged, and goes on where a new writer's ledger ends.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod state;
mod steps;
mod world;

use stateright::{Checker, HasDiscoveries, Model};
use world::{Rule, World};

/// Threads of the checker.
const THREADS: usize = 2;

fn explore(world: World) -> (usize, Option<String>) {
    let (seen, is_whole) = (world.seen(), world.is_whole());
    let checker = world.checker().threads(THREADS);
    let checker = if is_whole { checker } else { checker.finish_when(HasDiscoveries::AnyFailures) };
    let checker = checker.spawn_bfs().join();
    let always = [
        "no acknowledged log is missing",
        "nobody begins behind what was acknowledged",
        "no log is let go that a kept backup leads to",
    ];
    let loss = always
        .into_iter()
        .find_map(|name| checker.discovery(name).map(|path| format!("{name}: {:#?}", path.into_actions())));
    if loss.is_none() {
        // The model can do what it is about.
        for name in seen {
            assert!(checker.discovery(name).is_some(), "{name}");
        }
    }
    (checker.unique_state_count(), loss)
}

#[test]
fn nothing_is_missing_whoever_writes() {
    let (states, loss) = explore(World::writing());
    println!("three writers: {states} states");
    assert_eq!(loss, None);
    assert!(states > 10_000, "{states}");
}

#[test]
fn nothing_is_missing_while_pieces_are_merged() {
    let (states, loss) = explore(World::merging());
    println!("three writers, and somebody who merges: {states} states");
    assert_eq!(loss, None);
}

#[test]
fn nothing_is_missing_while_log_is_let_go() {
    let (states, loss) = explore(World::letting_go());
    println!("two writers, an operator and a collector: {states} states");
    assert_eq!(loss, None);
}

fn is_needed(rule: Rule) {
    let (states, loss) = explore(World::without(rule));
    println!("without {rule:?}: a loss after {states} states");
    assert!(loss.is_some(), "nothing is lost without {rule:?}");
}

#[test]
fn every_rule_of_writing_and_letting_go_is_needed() {
    Rule::ALL.into_iter().filter(|rule| !rule.is_of_merging()).for_each(is_needed);
}

#[test]
fn every_rule_of_merging_is_needed() {
    Rule::ALL.into_iter().filter(|rule| rule.is_of_merging()).for_each(is_needed);
}
