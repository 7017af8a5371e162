//! From bytes to packs: where the speed comes from and where the memory is bounded.
//!
//! ```text
//! put_file ─┐  jobs (bounded)   ┌ worker + lane ─┐  finished packs (bounded)   ┌ upload ─┐
//! put_file ─┼──────────────────▶│ worker + lane  ├────────────────────────────▶│ upload  ├─▶ store
//! put_stream┘                   └ …              ┘                             └ …       ┘
//! ```
//! A worker is a thread of its own, never a task of the async runtime. It takes a span of at most 8 MiB of one entry, reads
//! it, hashes its blocks, compares them with the parent's, compresses what is new and seals it straight into the pack of
//! its own [lane], so that workers share no lock on the way. A full pack goes to the uploads; when all of them are busy, the
//! worker waits, then the bounded queue of jobs fills, then the engine's `put` waits: nothing grows with the data.

pub(crate) mod assembly;
pub(crate) mod failure;
pub(crate) mod known;
pub(crate) mod lane;
pub(crate) mod parent;
pub(crate) mod sparse;
pub(crate) mod upload;
pub(crate) mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use backup_core::SessionId;
use backup_core::catalog::PackId;
use backup_core::observe::{Observer, Phase, Progress};
use backup_crypto::{EpochId, HashKey};
use parking_lot::Mutex;

use crate::context::Context;
use crate::deposit::state::Notes;
use crate::error::{Error, Result};
use crate::manifest::{ManifestEntry, ManifestWriter, PackTable};
use crate::pack::FinishedPack;
use failure::Failure;
use known::Known;
use lane::Lane;
use worker::Job;

/// So many entries that need no work go to a worker together: waking it for each takes longer than adding it.
const TAKEN: usize = 256;

/// What all parts of one session's pipeline share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) context: Arc<Context>,
    pub(crate) session: SessionId,
    /// Hashes the blocks of this session.
    pub(crate) hash: HashKey,
    pub(crate) epoch: EpochId,
    /// The packs that the manifest refers to.
    pub(crate) table: PackTable,
    /// Content that interrupted sessions have already stored.
    pub(crate) known: Known,
    /// Where a host that only writes notes its manifest.
    pub(crate) notes: Option<Arc<Notes>>,
    /// The first thing that went wrong.
    pub(crate) failure: Failure,
    pub(crate) observer: Arc<dyn Observer>,
    jobs: async_channel::Sender<Job>,
    packs: async_channel::Sender<FinishedPack>,
    manifest: Mutex<Option<Manifest>>,
    /// Entries whose content is stored already, on their way to the manifest. None when nothing more is taken.
    taken: Mutex<Option<Vec<ManifestEntry>>>,
    next_pack: AtomicU32,
    new_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    /// Allocations of packs that were uploaded, for the next packs.
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// The manifest in the making, and the lane that its parts go through.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) writer: ManifestWriter,
    pub(crate) lane: Lane,
}

/// The receiving ends of a session's queues.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) jobs: async_channel::Receiver<Job>,
    pub(crate) packs: async_channel::Receiver<FinishedPack>,
}

impl Shared {
    /// A pipeline without workers and uploads.
    pub(crate) fn new(
        context: Arc<Context>,
        session: SessionId,
        (known, notes): (Known, Option<Arc<Notes>>),
        observer: Arc<dyn Observer>,
    ) -> Result<(Arc<Self>, Queues)> {
        let epoch = context.keyring.current();
        let hash = context.keyring.hash_key_in(epoch, session)?;
        // Twice the workers: one job in hand and one waiting, so that no worker waits for the async side.
        let (jobs, jobs_out) = async_channel::bounded(context.shape.workers * 2);
        let (packs, packs_out) = async_channel::bounded(1);
        let shared = Arc::new(Self {
            context,
            session,
            hash,
            epoch,
            table: PackTable::default(),
            known,
            notes,
            failure: Failure::default(),
            observer,
            jobs,
            packs,
            manifest: Mutex::new(None),
            taken: Mutex::new(Some(Vec::new())),
            next_pack: AtomicU32::new(0),
            new_bytes: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
            buffers: Mutex::new(Vec::new()),
        });
        let lane = Lane::new(Arc::clone(&shared))?;
        *shared.manifest.lock() = Some(Manifest { writer: ManifestWriter::new(), lane });
        Ok((shared, Queues { jobs: jobs_out, packs: packs_out }))
    }

    /// Queues a job.
    ///
    /// # Errors
    /// The session's failure, when it has one or has ended.
    pub(crate) async fn submit(&self, job: Job) -> Result<()> {
        self.failure.check()?;
        self.jobs.send(job).await.map_err(|_| self.ended())
    }

    /// Why nothing more is taken.
    pub(crate) fn ended(&self) -> Error {
        self.failure
            .check()
            .err()
            .unwrap_or_else(|| Error::invalid("the session has ended: nothing more can be put into it"))
    }

    /// Lets nothing more in. What was queued is still worked on.
    pub(crate) fn close_jobs(&self) {
        self.jobs.close();
    }

    /// Ends the uploads once everything that was queued is stored.
    pub(crate) fn close_packs(&self) {
        self.packs.close();
    }

    /// Adds a complete entry to the manifest.
    pub(crate) fn add_entry(&self, entry: &ManifestEntry) -> Result<()> {
        let mut manifest = self.manifest.lock();
        let Manifest { writer, lane } = manifest.as_mut().ok_or_else(|| self.ended())?;
        writer.add(entry, lane)
    }

    /// Adds an entry whose content is stored already, at the latest when the session is committed.
    ///
    /// Whoever is dropped here leaves it among those to be added, with all others.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub(crate) async fn take(&self, entry: ManifestEntry) -> Result<()> {
        self.failure.check()?;
        let waiting = {
            let mut taken = self.taken.lock();
            let taken = taken.as_mut().ok_or_else(|| self.ended())?;
            taken.push(entry);
            taken.len()
        };
        // Everyone waits who finds too many, so that there are never more than that and one of each caller.
        if waiting < TAKEN { Ok(()) } else { self.submit(Job::Taken).await }
    }

    /// Adds what was taken.
    pub(crate) fn add_taken(&self) -> Result<()> {
        let entries = self.taken.lock().as_mut().map(std::mem::take).unwrap_or_default();
        entries.iter().try_for_each(|entry| self.add_entry(entry))
    }

    /// Adds what was taken and takes no more.
    pub(crate) fn end_taken(&self) -> Result<()> {
        let entries = self.taken.lock().take().unwrap_or_default();
        entries.iter().try_for_each(|entry| self.add_entry(entry))
    }

    /// Takes the manifest out, to finish it. Later entries are refused.
    pub(crate) fn take_manifest(&self) -> Result<Manifest> {
        self.manifest.lock().take().ok_or_else(|| self.ended())
    }

    fn next_pack(&self) -> PackId {
        PackId { session: self.session, number: self.next_pack.fetch_add(1, Ordering::Relaxed) }
    }

    /// How many packs there are so far.
    pub(crate) fn packs(&self) -> u32 {
        self.next_pack.load(Ordering::Relaxed)
    }

    /// Hands a full pack to the uploads; waits while all of them are busy. Only for worker threads.
    fn send_pack(&self, id: PackId, pack: FinishedPack) -> Result<()> {
        self.table.set_len(id, pack.object.len() as u64);
        self.packs.send_blocking(pack).map_err(|_| self.ended())
    }

    fn buffer(&self) -> Vec<u8> {
        let pooled = self.buffers.lock().pop();
        // The last segment may go over the size at which a pack is closed, and a footer follows.
        pooled.unwrap_or_else(|| Vec::with_capacity(self.context.shape.pack_size + (2 << 20)))
    }

    fn recycle(&self, buffer: Vec<u8>) {
        if buffer.capacity() >= self.context.shape.pack_size {
            self.buffers.lock().push(buffer);
        }
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.observer.on(&Progress::Advanced { phase: Phase::Read, by: bytes as u64 });
    }

    fn count_new(&self, bytes: u64) {
        self.new_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn count_stored(&self, bytes: u64) {
        self.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of plaintext that were stored anew so far.
    pub(crate) fn new_bytes(&self) -> u64 {
        self.new_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of objects that were stored so far.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }
}
