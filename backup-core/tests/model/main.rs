//! A model checker over writers, collectors, an operator and crashes, on the fold that everything in production goes through.
//!
//! Every order of their steps is explored. Whatever it is, a backup that has not expired never refers to a pack that is gone. Each rule of the
//! protocol is also taken away once, and then a loss is found: so the rules are needed, and the model would see a loss.
//!
//! A session stores one pack, which bears its number. What a backup needs is kept beside the catalog, as the truth that no actor sees.
#![allow(clippy::unwrap_used)]

mod world;

use stateright::{Checker, Model};
use world::{Rule, World};

/// Threads of the checker.
const THREADS: usize = 2;

fn explore(world: World) -> (usize, Option<String>) {
    let checker = world.checker().threads(THREADS).spawn_bfs().join();
    let loss = checker.discovery("nothing that is kept is gone").map(|path| format!("{:#?}", path.into_actions()));
    if loss.is_none() {
        // The model can do what it is about.
        for name in ["something is swept", "a backup is built on another one", "a zombie is refused"] {
            assert!(checker.discovery(name).is_some(), "{name}");
        }
    }
    (checker.unique_state_count(), loss)
}

#[test]
fn nothing_is_lost_in_any_order() {
    let (states, loss) = explore(World::new(3, 1));
    println!("{states} states");
    assert_eq!(loss, None);
    assert!(states > 100_000, "{states}");
}

#[test]
fn nothing_is_lost_by_two_who_collect() {
    let (states, loss) = explore(World::new(1, 2));
    println!("{states} states");
    assert_eq!(loss, None);
}

#[test]
fn every_rule_is_needed() {
    for rule in Rule::ALL {
        let (states, loss) = explore(World::without(rule));
        println!("without {rule:?}: a loss after {states} states");
        assert!(loss.is_some(), "nothing is lost without {rule:?}");
    }
}
