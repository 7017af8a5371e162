//! How the changed blocks of a relation's file lie over the file that the parent has. Pure.

use std::collections::VecDeque;

use backup_core::engine::Changes;
use bytes::Bytes;

use crate::basebackup::IncrementHeader;
use crate::page::PAGE_SIZE;

const PAGE: u64 = PAGE_SIZE as u64;
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// A stretch of what is laid over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// So many bytes that the server sends.
    Sent(u64),
    /// So many bytes that are zero.
    Zeros(u64),
}

/// What is laid over the parent's file. It takes what the server sends and gives what a patch wants.
#[derive(Debug)]
pub(super) struct Overlay {
    len: u64,
    changes: Changes,
    parts: VecDeque<Part>,
    received: Bytes,
}

impl Overlay {
    /// An overlay for a file of which the parent has `parent_len` bytes, and of which nothing is left from block `reset` on.
    ///
    /// A block that the server does not send is what the parent has; where that has none, or what it has is gone, the block is
    /// empty: a relation grows by empty blocks without a word. The server does not tell the length of a `map` (of visibility) that
    /// was cut off; what may be missing of it is empty.
    pub(super) fn new(header: &IncrementHeader, parent_len: u64, reset: Option<u32>, map: bool) -> Self {
        let there = parent_len / PAGE;
        let sent = header.blocks.last().map_or(0, |last| u64::from(*last) + 1);
        let told = u64::from(header.truncation);
        let blocks = sent.max(if map { told.min(there) } else { told });
        let empty = there.min(reset.map_or(u64::MAX, u64::from));
        let mut parts: VecDeque<Part> = VecDeque::new();
        let zeros = |parts: &mut VecDeque<Part>, from: u64, to: u64| {
            let from = from.max(empty);
            if from < to {
                parts.push_back(Part::Zeros((to - from) * PAGE));
            }
        };
        let mut at = 0;
        for block in header.blocks.iter().copied().map(u64::from) {
            zeros(&mut parts, at, block);
            match parts.back_mut() {
                Some(Part::Sent(bytes)) => *bytes += PAGE,
                _ => parts.push_back(Part::Sent(PAGE)),
            }
            at = block + 1;
        }
        zeros(&mut parts, at, blocks);
        let ranges = header.blocks.iter().map(|block| u64::from(*block)..u64::from(*block) + 1);
        let ranges = ranges.chain(std::iter::once(empty.min(blocks)..blocks));
        let changes = Changes::new(ranges.map(|range| range.start * PAGE..range.end * PAGE));
        Self { len: blocks * PAGE, changes, parts, received: Bytes::new() }
    }

    /// How long the file is, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// What of it is laid over.
    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Takes what the server has sent. What was taken before must have been given.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.received = bytes;
    }

    /// The next bytes of the patch, as far as they can be known.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let (left, bytes) = match self.parts.front_mut()? {
            Part::Sent(_) if self.received.is_empty() => return None,
            Part::Sent(left) => {
                let len = self.received.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                (left, self.received.split_to(len))
            }
            Part::Zeros(left) => {
                let len = ZEROS.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                (left, Bytes::from_static(&ZEROS[..len]))
            }
        };
        *left -= bytes.len() as u64;
        if *left == 0 {
            self.parts.pop_front();
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the rule of `reconstruct.c`, block by block.
        #[test]
        fn blocks_come_from_where_they_should(
            blocks in prop::collection::btree_set(0_u32..60, 0..20),
            truncation in 0_u32..70,
            parent in 0_u64..60,
            reset in prop::option::of(0_u32..60),
            map: bool,
            piece in 1_usize..40_000,
        ) {
            let blocks: Box<[u32]> = blocks.into_iter().collect();
            let header = IncrementHeader { blocks: blocks.clone(), truncation };
            let mut overlay = Overlay::new(&header, parent * PAGE, reset, map);
            let len = overlay.len() / PAGE;
            let highest = blocks.last().map_or(0, |last| u64::from(*last) + 1);
            let told = if map { u64::from(truncation).min(parent) } else { truncation.into() };
            prop_assert_eq!(len, highest.max(told));
            // What a patch makes of it.
            let sent: Vec<u8> = blocks.iter().flat_map(|block| [*block as u8 + 1; PAGE_SIZE]).collect();
            let (mut body, mut given) = (Vec::new(), sent.chunks(piece));
            loop {
                while let Some(bytes) = overlay.next() {
                    body.extend_from_slice(&bytes);
                }
                let Some(piece) = given.next() else { break };
                overlay.push(Bytes::copy_from_slice(piece));
            }
            let covered: u64 = overlay.changes().ranges().iter().map(|range| range.end - range.start).sum();
            prop_assert_eq!(body.len() as u64, covered);
            const OLD: u8 = 255;
            let mut file = vec![OLD; (parent * PAGE) as usize];
            file.resize(overlay.len() as usize, 254);
            let mut rest = &body[..];
            for range in overlay.changes().ranges() {
                prop_assert!(range.end <= overlay.len());
                let (here, behind) = rest.split_at((range.end - range.start) as usize);
                file[range.start as usize..range.end as usize].copy_from_slice(here);
                rest = behind;
            }
            for (number, block) in (0_u32..).zip(file.chunks(PAGE_SIZE)) {
                let gone = reset.is_some_and(|reset| number >= reset) || u64::from(number) >= parent;
                let expected = match blocks.binary_search(&number) {
                    Ok(_) => number as u8 + 1,
                    Err(_) if gone => 0,
                    Err(_) => OLD,
                };
                prop_assert!(block.iter().all(|byte| *byte == expected), "block {number}");
            }
        }
    }
}
