//! Judging pages that are read while the server writes them.
//!
//! Source: `verify_page_checksum` and `read_file_data_into_buffer` in `basebackup.c`. A page that was never filled has no
//! checksum. A page changed since the backup began (its LSN is at or after the start) may be torn and will be restored
//! from a full-page image in the log. Any other page with a wrong checksum may still have been read in the middle of a
//! write, so it is read once more; only if it is wrong again it is corrupt.

use super::checksum::{PAGE_SIZE, checksum};
use crate::lsn::Lsn;

/// What a page is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The checksum is right.
    Good,
    /// Never filled (`pd_upper` is 0): there is nothing to judge.
    New,
    /// Changed since the backup began: recovery will replace it.
    Changed,
    /// The checksum is wrong. On the first reading this means: read it again.
    Wrong {
        /// What the page's bytes give.
        computed: u16,
        /// What stands in its header.
        stored: u16,
    },
}

/// A page that is corrupt at its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageFault {
    /// The block number within the relation.
    pub block: u32,
    /// What the page's bytes give.
    pub computed: u16,
    /// What stands in its header.
    pub stored: u16,
}

/// The rule for one backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageCheck {
    /// The backup's start position. [`Lsn`]`(u64::MAX)` judges every page, for files at rest.
    pub start_lsn: Lsn,
}

impl PageCheck {
    /// Judges one page.
    #[must_use]
    pub fn page(self, page: &[u8; PAGE_SIZE], block: u32) -> Verdict {
        if page[14..16] == [0, 0] {
            return Verdict::New;
        }
        // Two halves, the high one first, each little-endian.
        let half = |at: usize| u64::from(u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]));
        if Lsn(half(0) << 32 | half(4)) >= self.start_lsn {
            return Verdict::Changed;
        }
        let (computed, stored) = (checksum(page, block), u16::from_le_bytes([page[8], page[9]]));
        if computed == stored { Verdict::Good } else { Verdict::Wrong { computed, stored } }
    }

    /// Judges all whole pages of `pages`, the first of which is block `first`. `reread` is asked for a page that looks
    /// wrong: it fills in the block's bytes as they are then, or says that the file has become shorter (recovery will
    /// truncate it too, so the page does not matter).
    ///
    /// `pages` keeps what was read first unless the second reading was better, in which case it takes that.
    ///
    /// # Errors
    /// Whatever `reread` fails with.
    pub fn pages<E>(
        self,
        pages: &mut [u8],
        first: u32,
        mut reread: impl FnMut(u32, &mut [u8; PAGE_SIZE]) -> Result<bool, E>,
        mut fault: impl FnMut(PageFault),
    ) -> Result<(), E> {
        let (whole, _) = pages.as_chunks_mut::<PAGE_SIZE>();
        for (block, page) in (first..).zip(whole) {
            let Verdict::Wrong { .. } = self.page(page, block) else { continue };
            let mut again = Box::new([0; PAGE_SIZE]);
            if !reread(block, &mut again)? {
                return Ok(());
            }
            match self.page(&again, block) {
                Verdict::Wrong { computed, stored } => fault(PageFault { block, computed, stored }),
                _ => *page = *again,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn page(lsn: u64, block: u32) -> [u8; PAGE_SIZE] {
        let mut page = [3; PAGE_SIZE];
        page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
        let sum = checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    #[test]
    fn the_servers_rule() {
        let check = PageCheck { start_lsn: Lsn(0x1_0000_1000) };
        assert_eq!(check.page(&page(0x1_0000_0fff, 9), 9), Verdict::Good);
        assert!(matches!(check.page(&page(0x1_0000_0fff, 9), 8), Verdict::Wrong { .. }));
        assert_eq!(check.page(&page(0x1_0000_1000, 9), 8), Verdict::Changed);
        assert_eq!(check.page(&[0; PAGE_SIZE], 0), Verdict::New);
    }

    #[test]
    fn a_wrong_page_is_read_once_more() {
        let check = PageCheck { start_lsn: Lsn(100) };
        let good = [page(1, 4), page(1, 5), page(1, 6)].concat();
        let run = |again: Option<[u8; PAGE_SIZE]>| {
            let mut pages = good.clone();
            pages[PAGE_SIZE + 77] ^= 1;
            let mut faults = Vec::new();
            let mut asked = Vec::new();
            check
                .pages(
                    &mut pages,
                    4,
                    |block, page| {
                        asked.push(block);
                        if let Some(again) = again {
                            *page = again;
                        }
                        Ok::<_, Infallible>(again.is_some())
                    },
                    |fault| faults.push(fault.block),
                )
                .unwrap();
            assert_eq!(asked, [5]);
            (pages == good, faults)
        };
        assert_eq!(run(Some(page(1, 5))), (true, vec![]));
        assert_eq!(run(Some(page(1, 6))), (false, vec![5]));
        assert_eq!(run(None), (false, vec![]));
    }
}
