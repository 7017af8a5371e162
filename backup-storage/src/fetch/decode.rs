//! Work for the processor, off the async runtime.

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::pack::Scratch;

/// Runs `work` on a thread where it may take its time.
///
/// # Errors
/// Those of `work`; a panic in it is internal.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .map_err(|e| Error::internal("a blocking task panicked").with_source(e))?
}

/// Decoding buffers that are not in use, so that none is allocated per segment.
#[derive(Debug, Default)]
pub(crate) struct Scratches(Mutex<Vec<Scratch>>);

/// How many idle buffers are kept, of about 1 MiB each.
const IDLE: usize = 8;

impl Scratches {
    /// A buffer that nobody else uses.
    pub(crate) fn take(&self) -> Result<Scratch> {
        let idle = self.0.lock().pop();
        idle.map_or_else(Scratch::new, Ok)
    }

    /// Gives a buffer back.
    pub(crate) fn give(&self, scratch: Scratch) {
        let mut idle = self.0.lock();
        if idle.len() < IDLE {
            idle.push(scratch);
        }
    }
}
