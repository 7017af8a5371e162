//! Buffers that are used again.
//!
//! Large buffers that come from the system each time are mapped, zeroed and given back, which can be a tenth of what storing their content costs. And
//! an allocator keeps what each thread has freed for that thread: where one thread after the other reads a pack of many megabytes, memory would grow with
//! the number of threads and not with what is in use.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

/// Buffers that nobody uses at the moment.
#[derive(Debug)]
pub struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
    kept: usize,
    largest: usize,
}

impl Pool {
    /// A pool that keeps at most `kept` buffers, none of them larger than `largest` bytes.
    #[must_use]
    pub fn new(kept: usize, largest: usize) -> Self {
        Self { free: Mutex::default(), kept, largest }
    }

    /// An empty buffer with room for `len` bytes.
    #[must_use]
    pub fn take(&self, len: usize) -> Vec<u8> {
        let mut free = self.free.lock();
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
        let mut free = self.free.lock();
        if free.len() < self.kept && buffer.capacity() <= self.largest {
            free.push(buffer);
        }
    }

    /// The content of `buffer`, which comes back when nobody refers to it any more.
    #[must_use]
    pub fn lend(self: &Arc<Self>, buffer: Vec<u8>) -> Bytes {
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

    const KEPT: usize = 6;

    #[test]
    fn a_buffer_comes_back_with_its_last_reader() {
        let pool = Arc::new(Pool::new(KEPT, 1 << 20));
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
        let pool = Arc::new(Pool::new(KEPT, 1 << 20));
        for size in 1..=KEPT + 3 {
            drop(pool.lend(Vec::with_capacity(size * 100)));
        }
        assert_eq!(pool.free.lock().len(), KEPT);
        assert_eq!(pool.take(250).capacity(), 300);
        assert!(pool.take(100_000).capacity() >= 100_000);
        let before = pool.free.lock().len();
        drop(pool.lend(Vec::with_capacity((1 << 20) + 1)));
        assert_eq!(pool.free.lock().len(), before, "larger ones are not");
    }
}
