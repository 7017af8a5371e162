//! Bytes that come in pieces of any size and are read in others.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// What has been pushed and not yet been read.
#[derive(Default)]
pub(super) struct Input {
    front: Bytes,
    rest: VecDeque<Bytes>,
    pub(super) len: usize,
}

impl Input {
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        if self.front.is_empty() {
            self.front = bytes;
        } else if !bytes.is_empty() {
            self.rest.push_back(bytes);
        }
    }

    /// The next `N` bytes, left where they are.
    #[inline]
    pub(super) fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        if let Some(bytes) = self.front.first_chunk() {
            return Some(*bytes);
        }
        if self.len < N {
            return None;
        }
        let mut bytes = [0; N];
        let next = self.front.iter().chain(self.rest.iter().flatten());
        bytes.iter_mut().zip(next).for_each(|(to, from)| *to = *from);
        Some(bytes)
    }

    /// The next `count` bytes, which must be there: without copying where they lie in one piece.
    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Bytes {
        if self.front.len() >= count {
            let bytes = self.front.split_to(count);
            self.len -= count;
            self.refill();
            return bytes;
        }
        let mut bytes = BytesMut::with_capacity(count);
        self.take_into(count, &mut bytes);
        bytes.freeze()
    }

    pub(super) fn take_into(&mut self, count: usize, into: &mut BytesMut) {
        self.pass(count, |bytes| into.extend_from_slice(bytes));
    }

    /// Drops the next `count` bytes behind a look at each piece of them.
    pub(super) fn pass(&mut self, mut count: usize, mut look: impl FnMut(&[u8])) {
        while count > 0 && self.len > 0 {
            let piece = count.min(self.front.len());
            look(&self.front[..piece]);
            self.skip(piece);
            count -= piece;
        }
    }

    #[inline]
    pub(super) fn skip(&mut self, mut count: usize) {
        while count > 0 && self.len > 0 {
            let piece = count.min(self.front.len());
            self.front.advance(piece);
            self.len -= piece;
            count -= piece;
            self.refill();
        }
    }

    #[inline]
    fn refill(&mut self) {
        if self.front.is_empty() {
            self.front = self.rest.pop_front().unwrap_or_default();
        }
    }
}
