//! The task that cuts, seals and acknowledges, in order.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use backup_core::Lineage;
use backup_core::log::LineageRecord;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::delivery::{Delivery, Place};
use super::haste::Haste;
use super::queue::Cut;
use super::shared::Shared;
use super::spool::{Kept, Spool};
use crate::error::{Error, Result};
use crate::log::object::{Sealed, Sealer, sheet};
use crate::store::Store;

/// A thread that seals, and what it has sealed.
type Sealing = AbortOnDropHandle<Result<(Sealer, Sealed)>>;

/// The digest of the object before, from the thread that seals it.
type Previous = oneshot::Receiver<[u8; 32]>;

/// Makes durable what a writer was given.
pub(super) struct Sender {
    shared: Arc<Shared>,
    spool: Option<Arc<Spool>>,
    /// Those that are not at work.
    sealers: Vec<Sealer>,
    /// What is being sealed, by the number of the piece, in order. Content is sealed side by side; an object is ended once the one
    /// before it is, whose digest it repeats.
    sealing: VecDeque<(u64, Sealing)>,
    /// What is sealed and not on its way.
    sealed: VecDeque<(u64, Sealed)>,
    /// When the last piece was cut.
    cut: Duration,
    /// Of the last object that was begun.
    previous: Option<Previous>,
    /// Lineages that were described in an object of this writer.
    described: BTreeSet<Lineage>,
    delivery: Delivery,
    /// How many pieces may be on their way.
    most: usize,
    /// Whether pieces wait because sealing takes too long. When they wait for the store, a cheaper level would make that worse.
    behind: bool,
    haste: Haste,
}

impl Sender {
    /// A sender into `spool`, or into `vault` when there is none, of which `most` pieces may be on their way.
    pub(super) fn new(shared: Arc<Shared>, spool: Option<Arc<Spool>>, vault: Store, most: usize) -> Result<Self> {
        let shape = shared.context.shape;
        let workers = shape.workers.clamp(1, most);
        let sealers = (0..workers).map(|_| Sealer::new(&shared.context.keyring, shape.level)).collect::<Result<_>>()?;
        let (place, most) = match &spool {
            // One is written, and the next ones are sealed meanwhile.
            Some(spool) => (Place::Spool(Arc::clone(spool)), workers + 1),
            None => (Place::Vault(vault), most),
        };
        Ok(Self {
            delivery: Delivery::new(Arc::clone(&shared), place),
            shared,
            spool,
            sealers,
            sealing: VecDeque::new(),
            sealed: VecDeque::new(),
            cut: Duration::ZERO,
            previous: None,
            described: BTreeSet::new(),
            most,
            behind: false,
            haste: Haste::default(),
        })
    }

    /// Runs until the writer is being closed and everything is durable.
    ///
    /// # Errors
    /// What ends the writer.
    pub(super) async fn run(&mut self) -> Result<()> {
        loop {
            let wait = self.begin();
            if self.delivery.is_empty() && wait.is_none() && self.shared.is_closing() {
                return Ok(());
            }
            let shared = Arc::clone(&self.shared);
            let wait = wait.filter(|_| self.can_seal() && self.sealing.is_empty());
            tokio::select! {
                sealed = finished(&mut self.sealing) => {
                    let (sequence, sealed) = sealed?;
                    self.take_sealed(sequence, sealed);
                }
                arrived = self.delivery.arrived() => self.acknowledge(arrived?),
                () = shared.wake.notified() => {}
                () = shared.context.env.clock().sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }

    fn can_seal(&self) -> bool {
        !self.sealers.is_empty() && self.delivery.len() < self.most
    }

    /// Starts what can be started. How long the next piece can wait, if there is one.
    fn begin(&mut self) -> Option<Duration> {
        let now = self.shared.now();
        // While much waits to be sent, pieces are made larger.
        let pause = match &self.spool {
            Some(spool) => (self.cut + spool.pace()).saturating_sub(now),
            None => Duration::ZERO,
        };
        let shared = Arc::clone(&self.shared);
        let mut waiting = shared.queue.lock();
        if waiting.closing {
            waiting.queue.flush();
        } else if !pause.is_zero() && !waiting.queue.is_whole() {
            return waiting.queue.wait(now).map(|wait| wait.max(pause));
        }
        // What is not whole yet grows while something is being sealed.
        while self.can_seal() && (self.sealing.is_empty() || waiting.queue.is_whole()) {
            let Some(cut) = waiting.queue.take(now) else { break };
            self.cut = now;
            self.begin_seal(cut);
        }
        self.behind = waiting.queue.is_whole() && self.sealers.is_empty() && self.delivery.len() < self.most;
        waiting.queue.wait(now)
    }

    fn begin_seal(&mut self, cut: Cut) {
        let Some(mut sealer) = self.sealers.pop() else { return };
        let Cut { lineage, piece, content, index } = cut;
        self.delivery.expect(lineage.clone(), piece);
        let record = self.describe(&lineage);
        let purpose = self.shared.purpose;
        self.haste.step(self.behind);
        let (level, haste) = (self.haste.level(self.shared.context.shape.level), self.haste.is_any());
        let (tell, digest) = oneshot::channel();
        let previous = self.previous.replace(digest);
        let buffer = self.shared.spare();
        let sealing = tokio::task::spawn_blocking(move || {
            sealer.set_level(level, haste)?;
            let draft = sealer.draft(piece.name(&lineage)?, &content, buffer)?;
            // Begun before this one, so it has a thread.
            let previous = previous.map(oneshot::Receiver::blocking_recv).transpose().map_err(|_| broken())?;
            let sheet = sheet(&lineage, &piece, (purpose, record), previous, index);
            let sealed = sealer.finish(draft, &sheet)?;
            // Nobody waits for the last one.
            let _ = tell.send(sealed.digest);
            Ok((sealer, sealed))
        });
        self.sealing.push_back((piece.sequence, AbortOnDropHandle::new(sealing)));
    }

    /// What the next object says of its lineage: everything, in the first one.
    fn describe(&mut self, lineage: &Lineage) -> Option<LineageRecord> {
        let first = self.described.insert(lineage.clone());
        first.then(|| self.shared.known.lock().record(lineage).cloned()).flatten()
    }

    fn take_sealed(&mut self, sequence: u64, (sealer, sealed): (Sealer, Sealed)) {
        self.sealers.push(sealer);
        self.sealed.push_back((sequence, sealed));
        self.send();
    }

    /// Sends what is sealed; into a spool one after the other.
    fn send(&mut self) {
        while self.spool.is_none() || !self.delivery.is_busy() {
            let Some((sequence, sealed)) = self.sealed.pop_front() else { return };
            self.delivery.send(sequence, std::future::ready(Ok(sealed)));
        }
    }

    fn acknowledge(&mut self, arrived: Vec<Kept>) {
        let pieces: Vec<_> = arrived.iter().map(|kept| (kept.lineage.clone(), kept.piece)).collect();
        if let Some(spool) = &self.spool {
            spool.push(arrived);
        }
        self.shared.acknowledge(&pieces);
        self.send();
    }
}

/// The first piece that is being sealed, when it is done. Never returns while nothing is.
async fn finished(sealing: &mut VecDeque<(u64, Sealing)>) -> Result<(u64, (Sealer, Sealed))> {
    let Some((sequence, handle)) = sealing.front_mut() else { return futures::future::pending().await };
    let outcome = handle.await;
    let sequence = *sequence;
    sealing.pop_front();
    Ok((sequence, outcome.map_err(|e| Error::internal("sealing a piece of log panicked").with_source(e))??))
}

/// The object before has failed, which is told first.
fn broken() -> Error {
    Error::internal("the piece of log before could not be sealed")
}
