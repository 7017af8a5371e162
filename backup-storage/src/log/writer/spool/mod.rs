//! The spool: a folder of this host where pieces of log become durable before they are sent.
//!
//! ```text
//! append ─▶ queue ─▶ seal ─▶ spool ─▶ durable                        one local fsync
//!                              └─▶ put ─▶ put … ─▶ fence check ─▶ removed    in order, when the vault answers
//! ```
//! **What is acknowledged.** A piece is durable as soon as it lies in the [folder], sealed. The next one is written then, and not before: so
//! whatever lies there was acknowledged or may be, and no piece is found whose predecessor never came. Neither the vault nor the
//! journal is asked: a vault that is away for hours costs room on this disk and nothing else. Whether a later writer was opened is
//! asked while pieces are sent, so a fenced writer ends with the conflict as soon as it notices, and what it has acknowledged until
//! then lies in the spool.
//!
//! **What is sent.** Pieces are read back when their turn comes and put in order, a window of them at a time, under the names that
//! they were sealed for: readers of the vault see a log as if there were no spool. A piece leaves the folder when it has landed
//! and a look at the journal afterwards has shown that its writer stands.
//!
//! **What is left.** [`leftovers`] makes true what an earlier writer has acknowledged, before a new one says where the log goes on.
//!
//! **What is bounded.** Of what waits, memory holds some hundred bytes a piece. The folder grows up to its limit; then appending waits,
//! and the source keeps the log. Each waiting piece delays the next one a little, so that commits which each want a piece of their own
//! share pieces once the vault does not keep up.

pub(super) mod courier;
pub(super) mod folder;
pub(super) mod leftovers;
pub(super) mod name;
pub(super) mod view;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use backup_core::Lineage;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::shared::{Patience, Shared};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::fetch::blocking;
use crate::log::name::Piece;
use crate::log::object::Sealed;
use crate::store::Store;
pub(super) use folder::Folder;
use folder::SpoolIdentity;
use name::SpoolName;

/// What a file takes on the disk is a multiple of this, about.
const BLOCK: u64 = 4096;
/// How much later a piece is cut for each one that waits. 10 µs: with a thousand on their way 10 ms, and a vault that is away for a day
/// leaves some hundred thousand files, however often the source commits.
const PACE: Duration = Duration::from_micros(10);

/// A piece that is durable in some place.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) lineage: Lineage,
    pub(super) piece: Piece,
    /// Length of its object in bytes.
    pub(super) len: u64,
    /// The beginning of the object's digest.
    pub(super) check: [u8; 8],
}

impl Kept {
    /// `piece` as it was sealed.
    pub(super) fn of(lineage: Lineage, piece: Piece, sealed: &Sealed) -> Self {
        Self { lineage, piece, len: sealed.bytes.len() as u64, check: check(&sealed.digest) }
    }

    fn room(&self) -> u64 {
        self.len.max(1).next_multiple_of(BLOCK)
    }
}

fn check(digest: &[u8; 32]) -> [u8; 8] {
    let mut check = [0; 8];
    check.copy_from_slice(&digest[..8]);
    check
}

/// The spool of one writer.
#[derive(Debug)]
pub(super) struct Spool {
    folder: Arc<Folder>,
    /// The generation of the journal in which the writer was opened.
    generation: u32,
    /// Bytes that it may hold.
    limit: u64,
    state: Mutex<State>,
    /// Tells the courier that there is something to do.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What is to be sent, in order.
    waiting: VecDeque<Kept>,
    /// Pieces that lie in the folder.
    pieces: u64,
    /// Bytes that they take on the disk, about.
    room: u64,
    /// Bytes of their objects.
    bytes: u64,
    /// Nothing more comes.
    complete: bool,
    /// That it is full was said.
    told: bool,
}

impl Spool {
    pub(super) fn new(folder: Arc<Folder>, generation: u32, limit: u64) -> Self {
        Self { folder, generation, limit, state: Mutex::default(), changed: Notify::new() }
    }

    fn file(&self, lineage: &Lineage, piece: Piece) -> Result<String> {
        SpoolName { generation: self.generation, lineage: lineage.clone(), piece }.file()
    }

    /// Makes `sealed`, which holds `piece`, durable in the folder. Waits while the disk is full.
    ///
    /// # Errors
    /// Environment.
    pub(super) async fn keep(&self, shared: &Shared, kept: &Kept, sealed: Sealed) -> Result<()> {
        let name = self.file(&kept.lineage, kept.piece)?;
        let mut patience = Patience::new("writing to the spool is repeated until there is room on its disk");
        loop {
            let (folder, name, bytes) = (Arc::clone(&self.folder), name.clone(), Bytes::clone(&sealed.bytes));
            let Err(error) = blocking(move || Ok(folder.write(&name, &bytes))).await? else { return Ok(()) };
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let error = self.folder.failed("write to", error);
            if !full || !patience.wait(shared, &error).await {
                return Err(error);
            }
        }
    }

    /// Takes over pieces that were [kept](Self::keep), the next ones in order.
    pub(super) fn push(&self, kept: Vec<Kept>) {
        let mut state = self.state.lock();
        for kept in kept {
            state.pieces += 1;
            state.room += kept.room();
            state.bytes += kept.len;
            state.waiting.push_back(kept);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Says that nothing more comes.
    pub(super) fn complete(&self) {
        self.state.lock().complete = true;
        self.changed.notify_one();
    }

    fn is_complete(&self) -> bool {
        let state = self.state.lock();
        state.complete && state.waiting.is_empty()
    }

    /// The next piece, if its object has at most `most` bytes.
    fn take(&self, most: u64) -> Option<Kept> {
        let mut state = self.state.lock();
        if state.waiting.front()?.len > most {
            return None;
        }
        state.waiting.pop_front()
    }

    /// Reads a piece back.
    ///
    /// # Errors
    /// Damaged, when it is not what was written.
    async fn read(&self, kept: &Kept) -> Result<Sealed> {
        let (folder, file) = (Arc::clone(&self.folder), self.file(&kept.lineage, kept.piece)?);
        let (name, check) = (kept.piece.name(&kept.lineage)?, kept.check);
        let range = kept.piece.range(&kept.lineage);
        blocking(move || {
            let bytes = folder.read(&file).map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => {
                    Error::damaged(format!("file {file} with {range} was removed")).with_source(e)
                }
                _ => folder.failed("read", e),
            })?;
            let digest = *blake3::hash(&bytes).as_bytes();
            if self::check(&digest) != check {
                let path = folder.dir().join(file);
                return Err(Error::damaged(format!("file {} with {range} is not what was written", path.display())));
            }
            Ok(Sealed { name, bytes: bytes.into(), digest })
        })
        .await
    }

    /// Removes pieces that are in the vault.
    ///
    /// # Errors
    /// Environment.
    async fn remove(&self, sent: Vec<Kept>) -> Result<()> {
        let files: Result<Vec<_>> = sent.iter().map(|kept| self.file(&kept.lineage, kept.piece)).collect();
        let (folder, files) = (Arc::clone(&self.folder), files?);
        blocking(move || {
            let mut files = files.iter();
            files.try_for_each(|file| folder.remove(file)).map_err(|e| folder.failed("remove from", e))
        })
        .await?;
        let mut state = self.state.lock();
        state.pieces -= sent.len() as u64;
        state.room -= sent.iter().map(Kept::room).sum::<u64>();
        state.bytes -= sent.iter().map(|kept| kept.len).sum::<u64>();
        // At the limit it is full again with the next piece.
        state.told &= state.room > self.limit / 2;
        Ok(())
    }

    /// Whether `held` bytes and `len` more, which are on their way here, go beyond the limit. One piece goes alone.
    pub(super) fn is_full(&self, held: u64, len: u64) -> bool {
        let mut state = self.state.lock();
        let before = state.room.saturating_add(held);
        let full = before > 0 && before.saturating_add(len) > self.limit;
        if full && !state.told {
            state.told = true;
            let dir = self.folder.dir().display();
            tracing::warn!(%dir, bytes = state.bytes, limit = self.limit, "the spool is full: the source keeps its log");
        }
        full
    }

    /// How long the next piece is to come after the one before.
    pub(super) fn pace(&self) -> Duration {
        PACE.saturating_mul(u32::try_from(self.state.lock().pieces).unwrap_or(u32::MAX))
    }

    /// `error`, which ends the writer, with what stays here.
    pub(super) fn explain(&self, error: Error) -> Error {
        let (bytes, pieces) = {
            let state = self.state.lock();
            (state.bytes, state.pieces)
        };
        if pieces == 0 {
            return error;
        }
        let dir = self.folder.dir().display();
        let left = format!(
            "{error}; {bytes} bytes of log in {pieces} pieces stay in spool {dir}, and the next writer that uses it sends them"
        );
        Error::new(error.kind(), left).with_source(error)
    }

    /// Reads what lies here.
    pub(super) fn store(&self, context: &Context) -> Store {
        view::store(Arc::clone(&self.folder), self.generation, context.env.clone())
    }

    /// Lets the next writer use the folder.
    pub(super) fn release(&self) {
        self.folder.release();
    }
}

/// Holds the folder for a writer that lives, or is being opened.
#[derive(Debug)]
pub(super) struct Hold(Arc<Folder>);

impl Hold {
    /// Takes the spool in `dir` for the repository of `context`.
    ///
    /// # Cancel safety
    /// When the future is dropped, nobody holds the folder: it is locked here, and not on a thread that would go on.
    ///
    /// # Errors
    /// As [`Folder::lock`] and [`Folder::prepare`].
    pub(super) async fn take(context: &Context, dir: &std::path::Path) -> Result<Self> {
        let repository = context.keyring.repository().to_string();
        let identity = SpoolIdentity { format: 1, repository, service: context.service.to_string() };
        let hold = Self(Arc::new(Folder::lock(dir)?));
        let folder = Arc::clone(&hold.0);
        blocking(move || folder.prepare(&identity)).await?;
        Ok(hold)
    }

    pub(super) fn folder(&self) -> &Arc<Folder> {
        &self.0
    }
}

impl Drop for Hold {
    /// Threads that are at work for a writer that was dropped may take their time. They add nothing after this.
    fn drop(&mut self) {
        self.0.release();
    }
}

#[cfg(test)]
mod tests;
