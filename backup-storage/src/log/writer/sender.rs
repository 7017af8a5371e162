//! The task that seals, stores and acknowledges, in order.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use backup_core::Lineage;
use backup_core::catalog::Event;
use backup_core::log::LineageRecord;
use tokio::task::JoinSet;

use super::queue::Cut;
use super::shared::{Over, Patience, Shared};
use crate::error::{Error, Result};
use crate::log::name::Piece;
use crate::log::object::{Sealed, Sealer, sheet};
use crate::store::{Created, Store};

/// Sends what a writer was given.
pub(super) struct Sender {
    shared: Arc<Shared>,
    /// Where a piece becomes durable.
    place: Store,
    /// None while it is at work.
    sealer: Option<Sealer>,
    /// Digest of the last sealed object.
    previous: Option<[u8; 32]>,
    /// Lineages that were described in an object of this writer.
    described: BTreeSet<Lineage>,
    /// What is on its way, in order.
    pending: VecDeque<Pending>,
    /// How many may be.
    most: usize,
    /// How many of the first pending ones a look at the journal is under way for.
    checking: Option<usize>,
    tasks: JoinSet<Done>,
}

#[derive(Debug)]
struct Pending {
    lineage: Lineage,
    piece: Piece,
    landed: bool,
}

/// Something that a task has done.
enum Done {
    Sealed(Result<(Sealer, Sealed)>),
    Landed(u64, Result<()>),
    Checked(Result<()>),
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, place: Store, most: usize) -> Result<Self> {
        let sealer = Sealer::new(&shared.context.keyring, shared.context.shape.level)?;
        Ok(Self {
            shared,
            place,
            sealer: Some(sealer),
            previous: None,
            described: BTreeSet::new(),
            pending: VecDeque::new(),
            most,
            checking: None,
            tasks: JoinSet::new(),
        })
    }

    /// Runs until the writer is closed or cannot go on.
    pub(super) async fn run(mut self) {
        let over = match self.drive().await {
            Ok(()) => Over::Closed,
            Err(error) => {
                tracing::debug!(%error, epoch = %self.shared.epoch, "a log writer has ended");
                self.shared.failure.set(error);
                Over::Failed
            }
        };
        self.shared.end(over);
    }

    async fn drive(&mut self) -> Result<()> {
        loop {
            let wait = self.begin();
            if self.pending.is_empty() && wait.is_none() && self.shared.is_closing() {
                return self.seal_epoch().await;
            }
            let shared = Arc::clone(&self.shared);
            let wait = wait.filter(|_| self.can_seal());
            tokio::select! {
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    let done = done.map_err(|e| Error::internal("a task of a log writer panicked").with_source(e))?;
                    self.finish(done)?;
                }
                () = shared.wake.notified() => {}
                () = shared.context.env.clock().sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }

    fn can_seal(&self) -> bool {
        self.sealer.is_some() && self.pending.len() < self.most
    }

    /// Starts what can be started. How long the next piece can wait, if there is one.
    fn begin(&mut self) -> Option<std::time::Duration> {
        self.begin_check();
        let now = self.shared.now();
        let mut waiting = self.shared.queue.lock();
        if waiting.closing {
            waiting.queue.flush();
        }
        if self.can_seal()
            && let Some(cut) = waiting.queue.take(now)
        {
            let wait = waiting.queue.wait(now);
            drop(waiting);
            self.begin_seal(cut);
            return wait;
        }
        waiting.queue.wait(now)
    }

    fn begin_seal(&mut self, cut: Cut) {
        let Some(mut sealer) = self.sealer.take() else { return };
        let Cut { lineage, piece, content, index } = cut;
        self.pending.push_back(Pending { lineage: lineage.clone(), piece, landed: false });
        let record = self.describe(&lineage);
        let (purpose, previous) = (self.shared.purpose, self.previous);
        self.tasks.spawn_blocking(move || {
            let seal = || {
                let name = piece.name(&lineage)?;
                let sheet = sheet(&lineage, &piece, (purpose, record), previous, index);
                sealer.seal(name, &content, &sheet)
            };
            let sealed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(seal));
            let sealed = sealed.unwrap_or_else(|_| Err(Error::internal("sealing a piece of log panicked")));
            Done::Sealed(sealed.map(|sealed| (sealer, sealed)))
        });
    }

    /// What the next object says of its lineage: everything, in the first one.
    fn describe(&mut self, lineage: &Lineage) -> Option<LineageRecord> {
        let first = self.described.insert(lineage.clone());
        first.then(|| self.shared.known.lock().record(lineage).cloned()).flatten()
    }

    fn begin_put(&mut self, sequence: u64, sealed: Sealed) {
        let (shared, place) = (Arc::clone(&self.shared), self.place.clone());
        self.tasks.spawn(async move {
            let Sealed { name, bytes, .. } = sealed;
            let mut patience = Patience::new("storing a piece of log");
            let put = loop {
                match place.create(&name, bytes.clone()).await {
                    Err(error) if patience.again(&shared, &error).await => {}
                    outcome => break outcome,
                }
            };
            let outcome = match put {
                Ok(Created::New | Created::AlreadyOurs) => Ok(()),
                Ok(Created::Conflict) => Err(Error::conflict(format!("object {name} was written by somebody else"))),
                Err(error) => Err(error),
            };
            Done::Landed(sequence, outcome)
        });
    }

    /// Looks at the journal for all that has landed in a row.
    fn begin_check(&mut self) {
        let landed = self.pending.iter().take_while(|pending| pending.landed).count();
        if landed == 0 || self.checking.is_some() {
            return;
        }
        self.checking = Some(landed);
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let mut patience = Patience::new("looking for later writers");
            let look = loop {
                match shared.journal.refresh_placed().await {
                    Err(error) if patience.again(&shared, &error).await => {}
                    outcome => break outcome,
                }
            };
            Done::Checked(look.and_then(|(generation, catalog)| {
                let stands = shared.stands(generation, &catalog);
                shared.learn(catalog);
                stands
            }))
        });
    }

    fn finish(&mut self, done: Done) -> Result<()> {
        match done {
            Done::Sealed(sealed) => {
                let (sealer, sealed) = sealed?;
                self.sealer = Some(sealer);
                self.previous = Some(sealed.digest);
                let sequence = self.pending.back().map_or(0, |pending| pending.piece.sequence);
                self.begin_put(sequence, sealed);
            }
            Done::Landed(sequence, outcome) => {
                outcome?;
                let landed = self.pending.iter_mut().find(|pending| pending.piece.sequence == sequence);
                if let Some(pending) = landed {
                    pending.landed = true;
                }
            }
            Done::Checked(outcome) => {
                outcome?;
                let count = self.checking.take().unwrap_or(0);
                let done: Vec<_> = self.pending.drain(..count).map(|p| (p.lineage, p.piece)).collect();
                self.shared.acknowledge(&done);
            }
        }
        Ok(())
    }

    /// Says in the journal where the log of this writer ends.
    async fn seal_epoch(&self) -> Result<()> {
        let (shared, ends) = (&self.shared, self.shared.known.lock().ends.clone());
        let at = shared.context.env.now();
        let sealed = shared.journal.commit_by(|generation, catalog| {
            shared.stands(generation, catalog)?;
            Ok(vec![Event::LogSealed { epoch: shared.epoch, ends: ends.clone(), at }])
        });
        let (_, catalog) = sealed.await?;
        shared.learn(catalog);
        Ok(())
    }
}
