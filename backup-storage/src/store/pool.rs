//! Buffers for large reads, used again.
//!
//! A restore reads a pack of many megabytes from one thread after the other. An allocator keeps what each of them has freed for that
//! thread, so memory would grow with the number of threads and not with what is in use.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

/// Reads below this size are left to the allocator.
pub(super) const LARGE: u64 = 1 << 20;
/// So many buffers are kept: what a restore has in flight with the usual settings.
const KEPT: usize = 6;
/// Larger buffers are not kept.
const LARGEST: usize = 40 << 20;

/// Buffers that nobody uses at the moment.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    /// An empty buffer with room for `len` bytes.
    pub(super) fn take(&self, len: usize) -> Vec<u8> {
        let mut free = self.0.lock();
        // The smallest that will do, else any, which then grows.
        let fits = (0..free.len()).filter(|at| free[*at].capacity() >= len).min_by_key(|at| free[*at].capacity());
        let at = fits.or_else(|| free.len().checked_sub(1));
        let mut buffer = at.map(|at| free.swap_remove(at)).unwrap_or_default();
        drop(free);
        buffer.clear();
        if buffer.capacity() < len {
            // Not grown in place: what it held is of no use.
            buffer = Vec::with_capacity(len);
        }
        buffer
    }

    fn give(&self, buffer: Vec<u8>) {
        let mut free = self.0.lock();
        if free.len() < KEPT && buffer.capacity() <= LARGEST {
            free.push(buffer);
        }
    }

    /// The content of `buffer`, which comes back when nobody refers to it any more.
    pub(super) fn lend(self: &Arc<Self>, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, pool: Arc::downgrade(self) })
    }
}

/// A buffer that is being read.
#[derive(Debug)]
struct Lent {
    buffer: Vec<u8>,
    pool: Weak<Pool>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.give(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_last_reader() {
        let pool = Arc::new(Pool::default());
        let mut buffer = pool.take(3000);
        buffer.extend_from_slice(b"content");
        let (place, capacity) = (buffer.as_ptr(), buffer.capacity());
        let bytes = pool.lend(buffer);
        let part = bytes.slice(3..);
        drop(bytes);
        let other = pool.take(10);
        assert_ne!(other.as_ptr(), place, "it is still read");
        assert_eq!(&part[..], b"tent");
        drop(part);
        let again = pool.take(2000);
        assert_eq!((again.as_ptr(), again.capacity(), again.len()), (place, capacity, 0));
        let bytes = pool.lend(vec![1; 10]);
        drop(pool);
        assert_eq!(bytes.len(), 10, "readers outlive the pool");
    }

    #[test]
    fn few_buffers_are_kept_and_the_fitting_one_is_taken() {
        let pool = Arc::new(Pool::default());
        for size in 1..=KEPT + 3 {
            drop(pool.lend(Vec::with_capacity(size * 100)));
        }
        assert_eq!(pool.0.lock().len(), KEPT);
        assert_eq!(pool.take(250).capacity(), 300);
        assert!(pool.take(100_000).capacity() >= 100_000);
    }
}
