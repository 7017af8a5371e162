//! What is read of a file of which it is known what may have changed, and what is taken of a patch. Pure.

use std::ops::Range;

use backup_core::engine::Changes;

use super::parent::ParentContent;
use crate::pack::BLOCK;

/// A block that would consist of more runs than this is read and stored as a whole, so that content does not fall to pieces
/// over many backups.
const MOST_PIECES: usize = 8;
/// So is one of which more than this has changed.
const MOST_PATCHED: u64 = BLOCK as u64 / 4;

/// What is done with a part of the file. Parts begin at a block and end at one, or at the end of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is what the parent has.
    Keep(Range<u64>),
    /// It is read and compared with the parent.
    Read(Range<u64>),
    /// One block: parts of it are read, the others are what the parent has.
    Patch(Range<u64>, Vec<Range<u64>>),
}

impl Step {
    /// Bytes that are read.
    pub(crate) fn reads(&self) -> u64 {
        match self {
            Self::Keep(_) => 0,
            Self::Read(range) => range.end - range.start,
            Self::Patch(_, parts) => parts.iter().map(|part| part.end - part.start).sum(),
        }
    }
}

/// What is done with a file of `len` bytes, in order.
pub(crate) fn plan(changes: &Changes, len: u64, parent: &ParentContent) -> Vec<Step> {
    const SIZE: u64 = BLOCK as u64;
    // What is behind the parent's end was never seen, and a block that ends elsewhere has another hash.
    let reach = if parent.len() == len { len } else { parent.len().min(len) / SIZE * SIZE };
    let mut steps: Vec<Step> = Vec::new();
    let mut ranges = changes.ranges();
    let mut at = 0;
    while at < len {
        let block = at..(at + SIZE).min(len);
        at = block.end;
        let passed = ranges.partition_point(|range| range.end <= block.start);
        ranges = &ranges[passed..];
        let met = ranges.iter().take_while(|range| range.start < block.end);
        let parts: Vec<_> = met.map(|range| range.start.max(block.start)..range.end.min(block.end)).collect();
        let step = if block.end > reach {
            Step::Read(block)
        } else if parts.is_empty() {
            Step::Keep(block)
        } else {
            let patched: u64 = parts.iter().map(|part| part.end - part.start).sum();
            let pieces = parent.pieces(&block) + 2 * parts.len();
            if patched > MOST_PATCHED || pieces > MOST_PIECES { Step::Read(block) } else { Step::Patch(block, parts) }
        };
        match (steps.last_mut(), step) {
            (Some(Step::Keep(last)), Step::Keep(next)) | (Some(Step::Read(last)), Step::Read(next)) => {
                last.end = next.end;
            }
            (_, step) => steps.push(step),
        }
    }
    steps
}

/// What is done with an entry of `len` bytes of which nothing but `changes` can be had, in order. All that lies behind the end of
/// the parent's entry must be in them.
pub(crate) fn plan_patch(changes: &Changes, len: u64, parent_len: u64) -> Vec<Step> {
    const SIZE: u64 = BLOCK as u64;
    let mut steps: Vec<Step> = Vec::new();
    let mut ranges = changes.ranges();
    for start in (0..len).step_by(BLOCK) {
        let block = start..(start + SIZE).min(len);
        let passed = ranges.partition_point(|range| range.end <= block.start);
        ranges = &ranges[passed..];
        let met = ranges.iter().take_while(|range| range.start < block.end);
        let parts: Vec<_> = met.map(|range| range.start.max(block.start)..range.end.min(block.end)).collect();
        // Of a block that ends elsewhere than the parent's the hash is another one.
        let same_end = block.end - block.start == SIZE && block.end <= parent_len || len == parent_len;
        let step = match &parts[..] {
            [] if same_end => Step::Keep(block),
            [part] if *part == block => Step::Read(block),
            _ => Step::Patch(block, parts),
        };
        match (steps.last_mut(), step) {
            (Some(Step::Keep(last)), Step::Keep(next)) | (Some(Step::Read(last)), Step::Read(next)) => {
                last.end = next.end;
            }
            (_, step) => steps.push(step),
        }
    }
    steps
}

/// What of the parent's content stays, in order.
pub(crate) fn kept(steps: &[Step]) -> Vec<Range<u64>> {
    let kept = |step: &Step| match step {
        Step::Keep(range) => Some(range.clone()),
        _ => None,
    };
    steps.iter().filter_map(kept).collect()
}

/// The steps that read, in portions of about `most` bytes each; at least one portion, so that whoever waits for the last one
/// hears of it.
pub(crate) fn portions(steps: Vec<Step>, most: u64) -> Vec<Vec<Step>> {
    let (mut portions, mut portion, mut weight) = (Vec::new(), Vec::new(), 0);
    for step in steps {
        let pieces = match step {
            Step::Keep(_) => continue,
            Step::Read(range) => (range.start..range.end)
                .step_by(usize::try_from(most).unwrap_or(usize::MAX))
                .map(|start| Step::Read(start..(start + most).min(range.end)))
                .collect(),
            patch @ Step::Patch(..) => vec![patch],
        };
        for piece in pieces {
            let reads = piece.reads();
            if weight > 0 && weight + reads > most {
                portions.push(std::mem::take(&mut portion));
                weight = 0;
            }
            weight += reads;
            portion.push(piece);
        }
    }
    portions.push(portion);
    portions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Extent;
    use proptest::prelude::*;

    const SIZE: u64 = BLOCK as u64;

    /// Content of which block `n` consists of `n % 4 + 1` runs.
    fn parent(len: u64) -> ParentContent {
        let mut extents = Vec::new();
        for block in 0..len.div_ceil(SIZE) {
            let size = (len - block * SIZE).min(SIZE);
            let runs = (block % 4 + 1).min(size);
            for run in 0..runs {
                let part = if run == runs - 1 { size - (runs - 1) * (size / runs) } else { size / runs };
                extents.push(Extent::stored(part, (extents.len() % 2) as u32, 2 * extents.len() as u32, 0));
            }
        }
        ParentContent::new(len, extents, vec![[1; 16]; len.div_ceil(SIZE) as usize], None)
    }

    fn range(step: &Step) -> &Range<u64> {
        match step {
            Step::Keep(range) | Step::Read(range) | Step::Patch(range, _) => range,
        }
    }

    proptest! {
        #[test]
        fn everything_that_may_have_changed_is_read(
            len in 0..20 * SIZE,
            former in prop_oneof![0..20 * SIZE, Just(u64::MAX)],
            ranges in prop::collection::vec((0..20 * SIZE, 0..3 * SIZE), 0..8),
            pages in prop::collection::vec(0..20 * SIZE / 8192, 0..30),
            most in 1..4_u64,
        ) {
            let former = if former == u64::MAX { len } else { former };
            let pages = pages.into_iter().map(|page| page * 8192..(page + 1) * 8192);
            let changes = Changes::new(ranges.into_iter().map(|(start, len)| start..start + len).chain(pages));
            let parent = parent(former);
            let steps = plan(&changes, len, &parent);
            // In order, without a hole, up to the end.
            let mut at = 0;
            for step in &steps {
                prop_assert_eq!(range(step).start, at);
                prop_assert!(at % SIZE == 0);
                at = range(step).end;
            }
            prop_assert_eq!(at, len);
            let read = |at: u64| steps.iter().any(|step| match step {
                Step::Keep(_) => false,
                Step::Read(range) => range.contains(&at),
                Step::Patch(_, parts) => parts.iter().any(|part| part.contains(&at)),
            });
            let edges = changes.ranges().iter().flat_map(|range| [range.start, range.end - 1]);
            for at in edges.chain([former, len.saturating_sub(1)]).filter(|at| *at < len) {
                prop_assert!(read(at) || (!changes.meets(&(at..at + 1)) && at < former), "byte {at} is not read");
            }
            // What is kept is known as a whole.
            for step in &steps {
                match step {
                    Step::Keep(range) => prop_assert!(!changes.meets(range) && range.end <= former),
                    Step::Patch(block, parts) => {
                        prop_assert!(block.end - block.start <= SIZE && block.end <= former);
                        prop_assert!(parent.pieces(block) + 2 * parts.len() <= MOST_PIECES);
                    }
                    Step::Read(_) => {}
                }
            }
            let reads: u64 = steps.iter().map(Step::reads).sum();
            let portions = portions(steps, most * SIZE);
            prop_assert!(!portions.is_empty());
            prop_assert_eq!(portions.iter().flatten().map(Step::reads).sum::<u64>(), reads);
            for portion in &portions {
                prop_assert!(portion.iter().map(Step::reads).sum::<u64>() <= most * SIZE);
            }
        }

        #[test]
        fn a_patch_takes_just_what_it_brings(
            len in 0..20 * SIZE,
            former in prop_oneof![0..20 * SIZE, Just(u64::MAX)],
            ranges in prop::collection::vec((0..20 * SIZE, 0..3 * SIZE), 0..8),
            pages in prop::collection::vec(0..20 * SIZE / 8192, 0..30),
        ) {
            let former = if former == u64::MAX { len } else { former };
            let pages = pages.into_iter().map(|page| page * 8192..(page + 1) * 8192);
            let ranges = ranges.into_iter().map(|(start, size)| start..start + size).chain(pages);
            let ranges = ranges.chain(std::iter::once(former.min(len)..len));
            let changes = Changes::new(ranges.map(|range| range.start.min(len)..range.end.min(len)));
            let steps = plan_patch(&changes, len, former);
            let mut at = 0;
            let mut taken = Vec::new();
            for step in &steps {
                prop_assert_eq!(range(step).start, at);
                prop_assert!(at % SIZE == 0);
                at = range(step).end;
                match step {
                    Step::Keep(range) => prop_assert!(range.end <= former && (range.end % SIZE == 0 || len == former)),
                    Step::Read(range) => taken.push(range.clone()),
                    Step::Patch(block, parts) => {
                        prop_assert!(block.end - block.start <= SIZE);
                        taken.extend(parts.iter().cloned());
                    }
                }
            }
            prop_assert_eq!(at, len);
            let taken = Changes::new(taken);
            prop_assert_eq!(taken.ranges(), changes.ranges());
            let portions = portions(steps, 4 * SIZE);
            let reads = portions.iter().map(|portion| portion.iter().map(Step::reads).sum::<u64>());
            prop_assert!(reads.clone().all(|reads| reads <= 4 * SIZE));
            prop_assert_eq!(reads.sum::<u64>(), changes.ranges().iter().map(|range| range.end - range.start).sum::<u64>());
        }

        #[test]
        fn a_slice_from_the_middle_is_the_same(len in 1..20 * SIZE, a: prop::sample::Index, b: prop::sample::Index) {
            let parent = parent(len);
            let (a, b) = (a.index(len as usize + 1) as u64, b.index(len as usize + 1) as u64);
            let range = a.min(b)..a.max(b);
            let extents: Vec<_> = parent.slice(0..len).unwrap();
            prop_assert_eq!(parent.slice(range.clone()).unwrap(), crate::manifest::slice(&extents, range).unwrap());
        }
    }
}
