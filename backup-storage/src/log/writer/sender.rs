//! The task that cuts, seals and acknowledges, in order.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use backup_core::Lineage;
use backup_core::log::LineageRecord;
use tokio_util::task::AbortOnDropHandle;

use super::delivery::{Delivery, Place};
use super::queue::Cut;
use super::shared::Shared;
use super::spool::{Kept, Spool};
use crate::error::{Error, Result};
use crate::log::object::{Sealed, Sealer, sheet};
use crate::store::Store;

/// How many pieces are sealed and written into a spool at a time: one is written, and the next one is sealed meanwhile.
const SPOOLED: usize = 2;

/// The thread that seals, and what it has sealed.
type Sealing = AbortOnDropHandle<Result<(Sealer, Sealed)>>;

/// Makes durable what a writer was given.
pub(super) struct Sender {
    shared: Arc<Shared>,
    spool: Option<Arc<Spool>>,
    /// None while it is at work.
    sealer: Option<Sealer>,
    sealing: Option<Sealing>,
    /// The number of the last piece.
    sequence: u64,
    /// What is sealed and not on its way.
    sealed: VecDeque<(u64, Sealed)>,
    /// When it was cut.
    cut: Duration,
    /// Digest of the last sealed object.
    previous: Option<[u8; 32]>,
    /// Lineages that were described in an object of this writer.
    described: BTreeSet<Lineage>,
    delivery: Delivery,
    /// How many pieces may be on their way.
    most: usize,
}

impl Sender {
    /// A sender into `spool`, or into `vault` when there is none, of which `most` pieces may be on their way.
    pub(super) fn new(shared: Arc<Shared>, spool: Option<Arc<Spool>>, vault: Store, most: usize) -> Result<Self> {
        let sealer = Sealer::new(&shared.context.keyring, shared.context.shape.level)?;
        let (place, most) = match &spool {
            Some(spool) => (Place::Spool(Arc::clone(spool)), SPOOLED),
            None => (Place::Vault(vault), most),
        };
        Ok(Self {
            delivery: Delivery::new(Arc::clone(&shared), place),
            shared,
            spool,
            sealer: Some(sealer),
            sealing: None,
            sequence: 0,
            sealed: VecDeque::new(),
            cut: Duration::ZERO,
            previous: None,
            described: BTreeSet::new(),
            most,
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
            let wait = wait.filter(|_| self.can_seal());
            tokio::select! {
                sealed = finished(&mut self.sealing) => self.take_sealed(sealed?),
                arrived = self.delivery.arrived() => self.acknowledge(arrived?),
                () = shared.wake.notified() => {}
                () = shared.context.env.clock().sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }

    fn can_seal(&self) -> bool {
        self.sealer.is_some() && self.delivery.len() < self.most
    }

    /// Starts what can be started. How long the next piece can wait, if there is one.
    fn begin(&mut self) -> Option<Duration> {
        let now = self.shared.now();
        // While much waits to be sent, pieces are made larger.
        let pause = match &self.spool {
            Some(spool) => (self.cut + spool.pace()).saturating_sub(now),
            None => Duration::ZERO,
        };
        let mut waiting = self.shared.queue.lock();
        if waiting.closing {
            waiting.queue.flush();
        } else if !pause.is_zero() && !waiting.queue.is_whole() {
            return waiting.queue.wait(now).map(|wait| wait.max(pause));
        }
        if self.can_seal()
            && let Some(cut) = waiting.queue.take(now)
        {
            let wait = waiting.queue.wait(now);
            drop(waiting);
            self.cut = now;
            self.begin_seal(cut);
            return wait;
        }
        waiting.queue.wait(now)
    }

    fn begin_seal(&mut self, cut: Cut) {
        let Some(mut sealer) = self.sealer.take() else { return };
        let Cut { lineage, piece, content, index } = cut;
        self.sequence = piece.sequence;
        self.delivery.expect(lineage.clone(), piece);
        let record = self.describe(&lineage);
        let (purpose, previous) = (self.shared.purpose, self.previous);
        self.sealing = Some(AbortOnDropHandle::new(tokio::task::spawn_blocking(move || {
            let name = piece.name(&lineage)?;
            let sheet = sheet(&lineage, &piece, (purpose, record), previous, index);
            let sealed = sealer.seal(name, &content, &sheet)?;
            Ok((sealer, sealed))
        })));
    }

    /// What the next object says of its lineage: everything, in the first one.
    fn describe(&mut self, lineage: &Lineage) -> Option<LineageRecord> {
        let first = self.described.insert(lineage.clone());
        first.then(|| self.shared.known.lock().record(lineage).cloned()).flatten()
    }

    fn take_sealed(&mut self, (sealer, sealed): (Sealer, Sealed)) {
        self.sealer = Some(sealer);
        self.previous = Some(sealed.digest);
        self.sealed.push_back((self.sequence, sealed));
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

/// What is being sealed, when it is done. Never returns while nothing is.
async fn finished(sealing: &mut Option<Sealing>) -> Result<(Sealer, Sealed)> {
    let Some(handle) = sealing else { return futures::future::pending().await };
    let outcome = handle.await;
    *sealing = None;
    outcome.map_err(|e| Error::internal("sealing a piece of log panicked").with_source(e))?
}
