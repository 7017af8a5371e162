//! Having the disk work while packs are decoded.
//!
//! Left to itself the system keeps what is written in memory until the pass at the end asks for all of it, and processor and
//! disk wait for each other. So large files are written out as they grow. This makes nothing durable by itself: the pass at the
//! end does. But it is where a disk reports that it failed, and a failure is reported to one of those who ask, once.

use std::fs::File;
use std::sync::Arc;

use parking_lot::Mutex;

use super::hands::Hands;
use super::plan::Target;
use super::tree::Tree;
use crate::error::{Error, Result};

/// After so many bytes a growing file is written out.
const STRIDE: u64 = 32 << 20;
/// Complete files of at least this size are written out; for smaller ones the pass at the end is cheaper.
const LARGE: u64 = 4 << 20;
/// Files that wait to be written out. Beyond them the disk is the slower part and needs no encouragement.
const WAITING: usize = 16;

/// Writes files out, one at a time.
#[derive(Debug)]
pub(super) struct Flusher {
    queue: Queue,
    failure: Arc<Mutex<Option<Error>>>,
    ended: tokio::sync::oneshot::Receiver<()>,
}

/// Closed when it is dropped, so that nobody waits for more.
#[derive(Debug)]
struct Queue(async_channel::Sender<(Arc<File>, String)>);

impl Drop for Queue {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What offers files to a [`Flusher`].
#[derive(Debug, Clone)]
pub(super) struct Offers(async_channel::Sender<(Arc<File>, String)>);

impl Flusher {
    pub(super) fn start(hands: &Hands) -> Self {
        let (files, waiting) = async_channel::bounded::<(Arc<File>, String)>(WAITING);
        let failure = Arc::new(Mutex::new(None));
        let (end, ended) = tokio::sync::oneshot::channel();
        let first = Arc::clone(&failure);
        hands.aside(move |stop| {
            while let Ok((file, path)) = waiting.recv_blocking() {
                if stop.check().is_err() {
                    break;
                }
                if let Err(error) = file.sync_data() {
                    let failed = Error::environment(format!("{path}: {error}")).with_source(error);
                    first.lock().get_or_insert(failed);
                }
            }
            // Whoever waits has gone when the extraction was dropped.
            let _ = end.send(());
        });
        Self { queue: Queue(files), failure, ended }
    }

    pub(super) fn offers(&self) -> Offers {
        Offers(self.queue.0.clone())
    }

    /// Waits for what was offered.
    pub(super) async fn finish(self) -> Result<()> {
        drop(self.queue);
        self.ended.await.map_err(|e| Error::internal("writing files out panicked").with_source(e))?;
        let failure = self.failure.lock().take();
        failure.map_or(Ok(()), Err)
    }
}

impl Offers {
    /// `len` bytes of `target` were written into `file`.
    pub(super) fn wrote(&self, target: &Target, file: &Arc<File>, len: u64, complete: bool, tree: &Tree) {
        let before = target.written.fetch_add(len, std::sync::atomic::Ordering::Relaxed);
        let grown = before / STRIDE != (before + len) / STRIDE;
        if grown || (complete && target.len >= LARGE) {
            let path = tree.places.path(&target.place).display().to_string();
            // No room: the disk is busy as it is.
            let _ = self.0.try_send((Arc::clone(file), path));
        }
    }
}
