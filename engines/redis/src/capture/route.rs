//! Where a node's stream continues what is stored. Pure.

use backup_core::LogPosition;
use backup_core::log::{Ledger, LogRange};

use super::lineage::{lineage_of, position_of};
use crate::client::StreamPosition;
use crate::node::NodeFacts;

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// The node can send what comes behind this position. Something may have been lost before it.
    From { at: StreamPosition, lost: Option<Lost> },
    /// The node went on by itself from a place before the end of what is stored, and can send everything behind that.
    Fork { at: StreamPosition },
    /// The node cannot send what comes behind what is stored: it has to be asked where it can begin.
    Begin { lost: Option<Lost> },
    /// The node is on a history that the deployment has left, or has less of it than is stored: another node is the one to ask, or this
    /// one later.
    Behind { stored: StreamPosition },
}

/// What is stored, when it cannot be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) stored: StreamPosition,
}

/// Where the stream of `node` continues what is stored. `backup` is where the newest backup ends.
pub(super) fn route(ledger: &Ledger, backup: Option<&LogPosition>, node: &NodeFacts) -> Route {
    let backup = backup.map(position_of);
    let Some(stored) = stored(ledger) else {
        return match backup.filter(|at| node.continues(at)) {
            Some(at) => Route::From { at, lost: None },
            None => Route::Begin { lost: None },
        };
    };
    if is_left(ledger, &stored, node) {
        return Route::Behind { stored };
    }
    if node.continues(&stored) {
        return Route::From { at: stored, lost: None };
    }
    if stored.id == node.position.id && stored.offset > node.position.offset {
        return Route::Behind { stored };
    }
    // A server that came back from its last snapshot goes on from there: what it wrote behind it is lost to it, not to us.
    if let Some(fork) = node.before.as_ref().filter(|before| node.continues(before))
        && holds(ledger, fork)
    {
        return Route::Fork { at: StreamPosition::new(node.position.id.clone(), fork.offset) };
    }
    let lost = Some(Lost { stored: stored.clone() });
    let newer = |at: &StreamPosition| at.id != stored.id || at.offset > stored.offset;
    match backup.filter(|at| newer(at) && node.continues(at)) {
        Some(at) => Route::From { at, lost },
        None => Route::Begin { lost },
    }
}

/// The end of what is stored of the history that the source follows; of its parent, where nothing of itself is.
pub(super) fn stored(ledger: &Ledger) -> Option<StreamPosition> {
    let mut lineage = ledger.trunk()?.clone();
    loop {
        if let Some(last) = ledger.covered(&lineage).as_slice().last() {
            return Some(StreamPosition::new(lineage.as_str(), last.end));
        }
        lineage = ledger.lineage(&lineage)?.fork.as_ref()?.lineage.clone();
    }
}

/// Whether what is stored of a history touches `at`.
fn holds(ledger: &Ledger, at: &StreamPosition) -> bool {
    let covered = ledger.covered(&lineage_of(&at.id));
    covered.as_slice().iter().any(|range| (range.start..=range.end).contains(&at.offset))
}

/// Whether what is stored went on from the present history of `node` with another one: a primary that has been replaced.
fn is_left(ledger: &Ledger, stored: &StreamPosition, node: &NodeFacts) -> bool {
    let mine = lineage_of(&node.position.id);
    if node.position.id == stored.id {
        return false;
    }
    ledger.ancestry(&lineage_of(&stored.id)).iter().any(|part| part.lineage == mine)
}

/// What is missing between what is stored and `next`. One that is empty says that nothing is known of what lies between.
pub(super) fn missing(lost: &Lost, next: &StreamPosition, node: &NodeFacts) -> Vec<LogRange> {
    let Lost { stored } = lost;
    let range = |id: &str, start, end| LogRange::new(lineage_of(id), start..end);
    if stored.id == next.id && stored.offset < next.offset {
        return vec![range(&stored.id, stored.offset, next.offset)];
    }
    let fork = node.before.as_ref().filter(|_| next.id == node.position.id);
    let end = fork.filter(|fork| fork.id == stored.id).map_or(stored.offset, |fork| fork.offset);
    let mut missing = vec![range(&stored.id, stored.offset, end)];
    // What the node wrote before `next` is missing, too, though perhaps it left another part of what is stored than its end.
    missing.extend(fork.map(|fork| range(&next.id, fork.offset, next.offset)).filter(|range| !range.is_empty()));
    missing.retain(|range| !range.is_empty() || fork.is_none_or(|fork| fork.id != stored.id));
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::catalog::{Catalog, Event};
    use backup_core::log::{LineageRecord, Notation};
    use jiff::Timestamp;

    use crate::node::Info;

    fn id(letter: char) -> String {
        letter.to_string().repeat(40)
    }

    fn at(letter: char, offset: u64) -> StreamPosition {
        StreamPosition::new(id(letter), offset)
    }

    fn ledger(lines: &[(char, Option<(char, u64)>)], stored: &[(char, u64, u64)]) -> Ledger {
        let mut catalog = Catalog::new();
        for (name, fork) in lines {
            let mut record = LineageRecord::new(lineage_of(&id(*name)), "s", Notation::Decimal, Timestamp::UNIX_EPOCH);
            if let Some((parent, at)) = fork {
                record = record.with_fork(lineage_of(&id(*parent)), *at);
            }
            catalog.apply(&Event::LineageAdded { record: Box::new(record) }).unwrap();
        }
        let ranges = stored.iter().map(|(name, start, end)| LogRange::new(lineage_of(&id(*name)), *start..*end));
        Ledger::new(catalog.log(), ranges)
    }

    /// A primary with its history, the one before, and the first byte that it keeps.
    fn node(own: (char, u64), before: Option<(char, u64)>, keeps: u64) -> NodeFacts {
        let mut text =
            format!("redis_version:7.2.4\nrole:master\nmaster_replid:{}\nmaster_repl_offset:{}\n", id(own.0), own.1);
        if let Some((letter, offset)) = before {
            text += &format!("master_replid2:{}\nsecond_repl_offset:{}\n", id(letter), offset + 1);
        }
        text += &format!("repl_backlog_active:1\nrepl_backlog_first_byte_offset:{}\n", keeps + 1);
        NodeFacts::of(&Info::parse(&text)).unwrap()
    }

    fn backup(at: &StreamPosition) -> LogPosition {
        LogPosition::new(lineage_of(&at.id), at.offset, at.offset.to_string())
    }

    #[test]
    fn what_is_stored_is_continued_also_over_a_failover() {
        let stored = ledger(&[('a', None)], &[('a', 100, 500)]);
        let from = |at| Route::From { at, lost: None };
        assert_eq!(route(&stored, None, &node(('a', 900), None, 400)), from(at('a', 500)));
        assert_eq!(route(&stored, None, &node(('a', 500), None, 500)), from(at('a', 500)));
        assert_eq!(route(&stored, None, &node(('b', 900), Some(('a', 700)), 400)), from(at('a', 500)));
        // Nothing of the new history is stored yet.
        let forked = ledger(&[('a', None), ('b', Some(('a', 500)))], &[('a', 100, 500)]);
        assert_eq!(route(&forked, None, &node(('b', 900), Some(('a', 500)), 400)), from(at('a', 500)));
    }

    #[test]
    fn a_server_that_was_put_back_goes_on_from_there() {
        let stored = ledger(&[('a', None)], &[('a', 100, 500)]);
        let node = node(('b', 450), Some(('a', 300)), 300);
        assert_eq!(route(&stored, None, &node), Route::Fork { at: at('b', 300) });
        // A replica that had nothing but the snapshot when it was promoted.
        let fresh = ledger(&[('a', None)], &[('a', 0, 500)]);
        let promoted = self::node(('b', 450), Some(('a', 0)), 0);
        assert_eq!(route(&fresh, None, &promoted), Route::Fork { at: at('b', 0) });
    }

    #[test]
    fn a_server_that_was_put_back_twice_goes_on_from_the_same_place() {
        let lines = [('a', None), ('b', Some(('a', 300)))];
        let stored = ledger(&lines, &[('a', 100, 300), ('b', 300, 500)]);
        assert_eq!(route(&stored, None, &node(('c', 450), Some(('a', 300)), 300)), Route::Fork { at: at('c', 300) });
        // When it keeps too little for that, the beginning of what it wrote is missing.
        let late = node(('c', 450), Some(('a', 300)), 400);
        let lost = Lost { stored: at('b', 500) };
        assert_eq!(route(&stored, None, &late), Route::Begin { lost: Some(lost.clone()) });
        let range = |letter, start, end| LogRange::new(lineage_of(&id(letter)), start..end);
        assert_eq!(missing(&lost, &at('c', 450), &late), [range('b', 500, 500), range('c', 300, 450)]);
        // A place that is not stored is none to go on from.
        let stored = ledger(&lines, &[('a', 100, 200), ('b', 300, 500)]);
        let node = node(('c', 450), Some(('a', 300)), 300);
        assert_eq!(route(&stored, None, &node), Route::Begin { lost: Some(lost) });
    }

    #[test]
    fn what_is_no_longer_kept_is_lost() {
        let stored = ledger(&[('a', None)], &[('a', 100, 500)]);
        let lost = Lost { stored: at('a', 500) };
        let same = node(('a', 900), None, 700);
        assert_eq!(route(&stored, None, &same), Route::Begin { lost: Some(lost.clone()) });
        let newer = backup(&at('a', 800));
        assert_eq!(route(&stored, Some(&newer), &same), Route::From { at: at('a', 800), lost: Some(lost.clone()) });
        let older = backup(&at('a', 400));
        assert_eq!(route(&stored, Some(&older), &same), Route::Begin { lost: Some(lost.clone()) });
        assert_eq!(missing(&lost, &at('a', 800), &same), [LogRange::new(lineage_of(&id('a')), 500..800)]);

        let after = node(('b', 900), Some(('a', 700)), 800);
        let parts = [LogRange::new(lineage_of(&id('a')), 500..700), LogRange::new(lineage_of(&id('b')), 700..850)];
        assert_eq!(missing(&lost, &at('b', 850), &after), parts);
        let stranger = node(('c', 900), None, 0);
        assert_eq!(route(&stored, None, &stranger), Route::Begin { lost: Some(lost.clone()) });
        assert_eq!(missing(&lost, &at('c', 900), &stranger), [LogRange::new(lineage_of(&id('a')), 500..500)]);
    }

    #[test]
    fn nodes_that_are_behind_are_not_asked() {
        let stored = ledger(&[('a', None), ('b', Some(('a', 500)))], &[('a', 100, 500), ('b', 500, 600)]);
        let behind = Route::Behind { stored: at('b', 600) };
        assert_eq!(route(&stored, None, &node(('a', 900), None, 0)), behind, "it was replaced");
        assert_eq!(route(&stored, None, &node(('b', 550), None, 0)), behind, "it has less");
    }

    #[test]
    fn without_a_log_the_backup_is_continued() {
        let nothing = ledger(&[], &[]);
        let end = backup(&at('a', 500));
        assert_eq!(
            route(&nothing, Some(&end), &node(('a', 900), None, 400)),
            Route::From { at: at('a', 500), lost: None }
        );
        assert_eq!(route(&nothing, Some(&end), &node(('a', 900), None, 600)), Route::Begin { lost: None });
        assert_eq!(route(&nothing, None, &node(('a', 900), None, 600)), Route::Begin { lost: None });
    }
}
