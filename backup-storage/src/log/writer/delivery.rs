//! Objects on their way to where they become durable, several at a time. What has arrived is told in the order of the log.

use std::collections::VecDeque;
use std::sync::Arc;

use backup_core::Lineage;
use tokio::task::JoinSet;

use super::shared::{Patience, Shared};
use super::spool::{Kept, Spool};
use crate::error::{Error, Result};
use crate::log::name::Piece;
use crate::log::object::Sealed;
use crate::store::{Created, Store};

/// Where objects go.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// What has landed counts when a look at the journal that began afterwards has shown no later writer.
    Vault(Store),
    /// What is there counts.
    Spool(Arc<Spool>),
}

/// The objects of one writer that are on their way.
pub(super) struct Delivery {
    shared: Arc<Shared>,
    place: Place,
    /// In order.
    pending: VecDeque<Pending>,
    /// How many of the first pending ones a look at the journal is under way for.
    checking: Option<usize>,
    tasks: JoinSet<Done>,
}

#[derive(Debug)]
struct Pending {
    lineage: Lineage,
    piece: Piece,
    landed: Option<Kept>,
}

/// Something that a task has done.
enum Done {
    Landed(u64, Result<Kept>),
    Checked(Result<()>),
}

impl Delivery {
    pub(super) fn new(shared: Arc<Shared>, place: Place) -> Self {
        Self { shared, place, pending: VecDeque::new(), checking: None, tasks: JoinSet::new() }
    }

    /// How many objects are expected or on their way.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether something is on its way.
    pub(super) fn is_busy(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Notes that the next object is to hold `piece`.
    pub(super) fn expect(&mut self, lineage: Lineage, piece: Piece) {
        self.pending.push_back(Pending { lineage, piece, landed: None });
    }

    /// Sends the object of the [expected](Self::expect) piece with this number.
    pub(super) fn send(&mut self, sequence: u64, object: impl Future<Output = Result<Sealed>> + Send + 'static) {
        let pending = self.pending.iter().find(|pending| pending.piece.sequence == sequence);
        let Some((lineage, piece)) = pending.map(|pending| (pending.lineage.clone(), pending.piece)) else { return };
        let (shared, place) = (Arc::clone(&self.shared), self.place.clone());
        self.tasks.spawn(async move {
            let landing = async {
                let sealed = object.await?;
                let kept = Kept::of(lineage, piece, &sealed);
                match place {
                    Place::Vault(store) => put(&shared, &store, sealed).await?,
                    Place::Spool(spool) => spool.keep(&shared, &kept, sealed).await?,
                }
                Ok(kept)
            };
            Done::Landed(sequence, landing.await)
        });
    }

    /// The next objects in order, once they count. Never returns while nothing is on its way.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// What ends the writer.
    pub(super) async fn arrived(&mut self) -> Result<Vec<Kept>> {
        loop {
            if matches!(self.place, Place::Vault(_)) {
                self.begin_check();
            }
            let Some(done) = self.tasks.join_next().await else { return futures::future::pending().await };
            let done = done.map_err(|e| Error::internal("a task of a log writer panicked").with_source(e))?;
            let count = match done {
                Done::Landed(sequence, outcome) => {
                    let kept = outcome?;
                    let landed = self.pending.iter_mut().find(|pending| pending.piece.sequence == sequence);
                    if let Some(pending) = landed {
                        pending.landed = Some(kept);
                    }
                    match self.place {
                        Place::Vault(_) => 0,
                        Place::Spool(_) => self.landed(),
                    }
                }
                Done::Checked(outcome) => {
                    outcome?;
                    self.checking.take().unwrap_or(0)
                }
            };
            if count > 0 {
                return Ok(self.pending.drain(..count).filter_map(|pending| pending.landed).collect());
            }
        }
    }

    /// How many have landed in a row.
    fn landed(&self) -> usize {
        self.pending.iter().take_while(|pending| pending.landed.is_some()).count()
    }

    /// Looks at the journal for all that has landed in a row.
    fn begin_check(&mut self) {
        let landed = self.landed();
        if landed == 0 || self.checking.is_some() {
            return;
        }
        self.checking = Some(landed);
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let mut patience = Patience::new("looking for later writers is repeated until the store is back");
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
}

async fn put(shared: &Shared, store: &Store, sealed: Sealed) -> Result<()> {
    let Sealed { name, bytes, .. } = sealed;
    let mut patience = Patience::new("storing a piece of log is repeated until the store is back");
    let put = loop {
        match store.create(&name, bytes.clone()).await {
            Err(error) if patience.again(shared, &error).await => {}
            outcome => break outcome,
        }
    };
    match put? {
        Created::New | Created::AlreadyOurs => {
            shared.give_back(bytes);
            Ok(())
        }
        Created::Conflict => Err(Error::conflict(format!("object {name} was written by somebody else"))),
    }
}
