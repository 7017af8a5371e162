//! Content that sessions without a backup have already stored.
//!
//! An interrupted backup leaves packs behind. Their footers say what is in them, so the next session refers to that content
//! instead of sending it again.

use std::collections::HashMap;

use backup_core::catalog::PackId;

use crate::pack::{PackIndex, Role};

/// The most rows that are kept: about 64 MiB of memory.
const MOST: usize = 1 << 20;

/// Where a known run of content is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) pack: PackId,
    pub(crate) stored_len: u64,
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    len: u32,
}

/// Content by its id.
#[derive(Debug, Default)]
pub(crate) struct Known {
    places: HashMap<[u8; 16], Place>,
}

impl Known {
    /// Learns what the pack `id` holds. False when there is no more room.
    pub(crate) fn learn(&mut self, id: PackId, index: &PackIndex) -> bool {
        if self.places.len() + index.segments().len() + index.pieces().len() > MOST {
            return false;
        }
        let stored_len = index.object_len();
        for (number, segment) in (0..).zip(index.segments()) {
            if segment.role == Role::Data {
                let place = Place { pack: id, stored_len, segment: number, offset: 0, len: segment.plain_len };
                self.places.insert(segment.id, place);
            }
        }
        for piece in index.pieces() {
            let place = Place { pack: id, stored_len, segment: piece.segment, offset: piece.offset, len: piece.len };
            self.places.insert(piece.id, place);
        }
        true
    }

    /// Where `len` bytes with this content id are, if they are known.
    pub(crate) fn find(&self, id: &[u8; 16], len: usize) -> Option<&Place> {
        self.places.get(id).filter(|place| place.len as usize == len)
    }
}
