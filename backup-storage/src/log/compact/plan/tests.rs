use super::*;
use backup_core::catalog::{Catalog, Event};
use backup_core::log::LineageRecord;
use proptest::prelude::*;

fn lineage() -> Lineage {
    Lineage::new("1")
}

/// Writers 1 (stream, sealed), 2 (compact, sealed) and 3 (stream, open); a fork at 500 and a cut at 300.
fn catalog() -> Catalog {
    let at = Timestamp::UNIX_EPOCH;
    let mut catalog = Catalog::new();
    let record = |name: &str| LineageRecord::new(Lineage::new(name), "s", backup_core::log::Notation::Decimal, at);
    let opened = |epoch, purpose| Event::LogOpened { epoch: LogEpoch(epoch), purpose, at };
    let sealed = |epoch| Event::LogSealed { epoch: LogEpoch(epoch), ends: [(lineage(), u64::MAX)].into(), at };
    for event in [
        Event::LineageAdded { record: Box::new(record("1")) },
        Event::LineageAdded { record: Box::new(record("2").with_fork(lineage(), 500)) },
        opened(1, LogPurpose::Stream),
        sealed(1),
        opened(2, LogPurpose::Compact),
        sealed(2),
        opened(3, LogPurpose::Stream),
        Event::LogGap { lineage: lineage(), start: 300, end: 300, reason: "cut".to_owned(), at },
    ] {
        catalog.apply(&event).unwrap();
    }
    catalog
}

fn stored(pieces: &[(u32, u64, u64)]) -> Stored {
    let listed = (1..).zip(pieces).map(|(sequence, (epoch, start, len))| {
        let piece = Piece { epoch: LogEpoch(*epoch), sequence, start: *start, end: start + len };
        Listed { piece, size: len + 50, spooled: false, at: Timestamp::UNIX_EPOCH }
    });
    Stored { generation: 1, catalog: Arc::new(catalog()), pieces: [(lineage(), listed.collect())].into() }
}

const RULES: Rules = Rules { target: 100, before: Timestamp::MAX };

fn ranges(plan: &Plan) -> Vec<(u64, u64)> {
    plan.merges.iter().map(Merge::range).map(|range| (range.start, range.end)).collect()
}

#[test]
fn neighbours_become_one_up_to_the_size_that_was_asked_for() {
    let pieces: Vec<_> = (0..12).map(|n| (1, n * 20, 20)).collect();
    assert_eq!(ranges(&plan(&stored(&pieces), RULES)), [(0, 100), (100, 200), (200, 240)]);
    // Not over a hole, a cut or a fork, nor with what lies across one.
    let pieces = [0, 20, 50, 70, 260, 280, 300, 320, 440, 460, 490, 510].map(|start| (1, start, 20));
    assert_eq!(ranges(&plan(&stored(&pieces), RULES)), [(0, 40), (50, 90), (260, 300), (300, 340), (440, 480)]);
    // Nor what is large enough.
    assert_eq!(ranges(&plan(&stored(&[(1, 0, 20), (1, 20, 50), (1, 70, 20)]), RULES)), []);
    // Overlapping ones, and what lies in them.
    let plan = plan(&stored(&[(1, 0, 30), (1, 10, 5), (1, 20, 30), (1, 50, 10)]), RULES);
    assert_eq!(ranges(&plan), [(0, 60)]);
    assert_eq!((plan.merges[0].sources.len(), plan.merges[0].replaced.len()), (3, 4));
}

#[test]
fn words_go_to_what_they_are_about() {
    let of = |pieces: &[(u32, u64, u64)]| {
        let plan = plan(&stored(pieces), RULES);
        let merges: Vec<_> =
            plan.merges.iter().map(|m| ((m.range().start, m.range().end), m.sources.len(), m.replaced.len())).collect();
        (merges, plan.spares.len())
    };
    // The last word of a place is read, the others only go.
    assert_eq!(of(&[(1, 0, 1), (1, 1, 0), (1, 1, 0), (1, 1, 0)]), (vec![((0, 1), 2, 4)], 0));
    // To what lies before it, without that to what comes.
    assert_eq!(of(&[(1, 0, 60), (1, 60, 0), (1, 60, 1), (1, 61, 0)]), (vec![((60, 61), 3, 3)], 0));
    // The end of a way that branches off is not known of what goes on.
    assert_eq!(of(&[(1, 440, 60), (1, 500, 0), (1, 500, 0), (1, 500, 10)]), (vec![], 1));
    assert_eq!(of(&[(1, 500, 0), (1, 500, 10), (1, 510, 10)]), (vec![((500, 520), 2, 2)], 0));
}

#[test]
fn the_last_objects_of_an_open_writer_are_left() {
    let pieces: Vec<_> = (0..40).map(|n| (3, n, 1)).collect();
    assert_eq!(ranges(&plan(&stored(&pieces), RULES)), [(0, 24)]);
}

#[test]
fn a_large_piece_is_not_read_again_for_every_small_one() {
    assert_eq!(ranges(&plan(&stored(&[(2, 0, 40), (1, 40, 10), (1, 50, 10)]), RULES)), [(40, 60)]);
    assert_eq!(ranges(&plan(&stored(&[(2, 0, 40), (1, 40, 20), (1, 60, 20)]), RULES)), [(0, 80)]);
    // And the words about places in it stay with it.
    assert_eq!(ranges(&plan(&stored(&[(1, 0, 40), (1, 7, 0), (1, 30, 0), (1, 40, 3)]), RULES)), []);
}

#[test]
fn what_was_compacted_and_not_deleted_is_spare() {
    let plan = plan(&stored(&[(1, 0, 20), (1, 20, 20), (1, 40, 20), (2, 0, 60), (1, 60, 20), (1, 80, 20)]), RULES);
    assert_eq!(ranges(&plan), [(60, 100)]);
    assert_eq!(plan.spares.iter().map(|spare| spare.listed.piece.start).collect::<Vec<_>>(), [0, 20, 40]);
    assert!(plan.spares.iter().all(|spare| spare.by.piece.epoch == LogEpoch(2)));
}

proptest! {
    #[test]
    fn nothing_that_is_planned_loses_a_byte_and_it_comes_to_an_end(
        pieces in prop::collection::vec((1_u32..4, 0_u64..600, 0_u64..40), 0..60),
        target in 1_u64..300,
    ) {
        let rules = Rules { target, ..RULES };
        let mut stored = stored(&pieces);
        let before = stored.ledger();
        let mut sequence = 1000;
        let mut rounds = 0;
        loop {
            let Plan { merges, spares } = plan(&stored, rules);
            if merges.is_empty() && spares.iter().all(|spare| spare.listed.piece.is_empty()) {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < 20);
            let all = stored.pieces.get_mut(&lineage()).unwrap();
            let count = all.len();
            for merge in &merges {
                let range = merge.range();
                prop_assert!(merge.sources.len() > 1 && range.end - range.start <= target.max(1));
                prop_assert!(!range.contains(&300) || range.start == 300, "{range:?} has a cut in it");
                prop_assert!(!range.contains(&500) || range.start == 500, "{range:?} has a fork in it");
                // The sources are without a hole.
                let mut reached = range.start;
                for source in &merge.sources {
                    prop_assert!(source.piece.start <= reached);
                    reached = reached.max(source.piece.end);
                    prop_assert!(merge.replaced.contains(&source.piece));
                }
                sequence += 1;
                let piece = Piece { epoch: LogEpoch(2), sequence, start: range.start, end: range.end };
                all.push(Listed { piece, size: 0, spooled: false, at: Timestamp::UNIX_EPOCH });
            }
            let gone: Vec<_> = merges.iter().flat_map(|m| m.replaced.clone())
                .chain(spares.iter().map(|spare| spare.listed.piece)).collect();
            all.retain(|listed| !gone.contains(&listed.piece));
            prop_assert!(all.len() < count);
            prop_assert_eq!(&stored.ledger(), &before);
        }
    }
}
