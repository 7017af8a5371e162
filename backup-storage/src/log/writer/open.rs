//! Opening a writer: a number, a listing, and an end for those before.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::catalog::{Catalog, Event};
use backup_core::engine::LogOptions;
use backup_core::log::{LogEpoch, LogPurpose};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use super::queue::{Cutting, Queue};
use super::sender::Sender;
use super::shared::{Known, Progress, Shared, Waiting};
use super::spool::courier::Courier;
use super::spool::leftovers::Leftovers;
use super::spool::{Hold, Spool};
use super::{LogWriter, WINDOW};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::log::{LogCache, Stored};
use crate::pipeline::failure::Failure;

/// The largest piece of a writer, in bytes.
pub(super) const MAX_PIECE: u64 = 16 << 20;

/// A writer that has a number.
pub(super) struct Enrolled {
    purpose: LogPurpose,
    epoch: LogEpoch,
    /// The generation of the journal that knows it.
    generation: u32,
    /// What counts, with the older writers at their ends.
    stored: Stored,
}

/// Opens a writer.
///
/// What lies in its spool is stored before it begins. The order matters: first under the names that it was sealed for, while
/// the writer that has acknowledged it may not have been given an end, then a number is taken and the older writers get their ends,
/// and then what lies beyond such an end is stored again.
///
/// # Errors
/// Those of the store and of the journal; with a spool also Environment and Conflict, when it cannot be used or is somebody else's, and
/// Conflict, when what lies there is stored with other bytes.
pub(crate) async fn open(
    cache: Arc<LogCache>,
    journal: Arc<Journal<Catalog>>,
    options: LogOptions,
) -> Result<LogWriter> {
    let context = Arc::clone(cache.context());
    let Some(dir) = &options.spool else {
        let enrolled = Enrolled::enroll(&context, &journal, options.purpose).await?;
        return enrolled.start(cache, journal, &options, None);
    };
    if options.purpose != LogPurpose::Stream {
        return Err(Error::invalid(
            "only a writer that follows the stream has a spool: whoever imports can import again",
        ));
    }
    let hold = Hold::take(&context, dir).await?;
    let left = Leftovers::send(&context, &journal, hold.folder()).await?;
    let mut enrolled = Enrolled::enroll(&context, &journal, options.purpose).await?;
    enrolled.check_last()?;
    if left.settle(&cache, &journal, &enrolled.stored).await? {
        enrolled.look_again(&context, &journal).await?;
        enrolled.check_last()?;
    }
    enrolled.start(cache, journal, &options, Some(hold))
}

impl Enrolled {
    /// Takes the next number. One that follows the stream fences the one before by this, and gives it an end.
    pub(super) async fn enroll(context: &Context, journal: &Journal<Catalog>, purpose: LogPurpose) -> Result<Self> {
        let at = context.env.now();
        let mut epoch = LogEpoch(0);
        let (place, _) = journal
            .commit_by(|_, catalog| {
                epoch = catalog.log().next_epoch();
                Ok(vec![Event::LogOpened { epoch, purpose, at }])
            })
            .await?;
        let mut stored = Stored::survey(&context.store, journal, None).await?;
        if purpose == LogPurpose::Stream {
            seal_older(journal, &mut stored, epoch, context.env.now()).await?;
        }
        let enrolled = Self { purpose, epoch, generation: place.generation, stored };
        enrolled.check()?;
        Ok(enrolled)
    }

    fn check(&self) -> Result<()> {
        if self.stored.generation != self.generation {
            let epoch = self.epoch;
            return Err(Error::conflict(format!("the catalog was rebuilt while log writer {epoch} was opened")));
        }
        Ok(())
    }

    /// Checks that what was listed will stay what counts: all of it was written by those who have their ends, or by those who get none.
    ///
    /// A later writer has no end yet, and some of its pieces may lie behind others that never arrive. Without a spool it suffices that such
    /// a listing is never acknowledged on. With one it would be, and the source would forget what was believed to be stored.
    fn check_last(&self) -> Result<()> {
        match self.stored.state().fenced_by(self.epoch) {
            Some(by) => Err(Error::conflict(format!("log writer {} was fenced by log writer {by}", self.epoch))),
            None => Ok(()),
        }
    }

    /// Lists what is stored again.
    async fn look_again(&mut self, context: &Context, journal: &Journal<Catalog>) -> Result<()> {
        self.stored = Stored::survey(&context.store, journal, None).await?;
        self.check()
    }

    /// Begins to write.
    pub(super) fn start(
        self,
        cache: Arc<LogCache>,
        journal: Arc<Journal<Catalog>>,
        options: &LogOptions,
        hold: Option<Hold>,
    ) -> Result<LogWriter> {
        let Self { purpose, epoch, generation, stored } = self;
        let context = Arc::clone(cache.context());
        let room = room(&context);
        let cutting = Cutting {
            bytes: options.flush_bytes.clamp(1, MAX_PIECE.min(room / 4)),
            after: options.flush_after,
            idle: options.idle_mark,
            anywhere: purpose != LogPurpose::Stream,
        };
        let known = Known { covered: stored.covered(), catalog: stored.catalog, ends: BTreeMap::new(), ledger: None };
        let spool = hold.as_ref().map(|hold| Spool::new(Arc::clone(hold.folder()), generation, options.spool_bytes));
        let spool = spool.map(Arc::new);
        let shared = Arc::new(Shared {
            epoch,
            purpose,
            generation,
            queue: Mutex::new(Waiting { queue: Queue::new(epoch, cutting), held: 0, closing: false }),
            room,
            spool: spool.clone(),
            wake: Notify::new(),
            released: Notify::new(),
            progress: watch::Sender::new(Progress::default()),
            failure: Failure::default(),
            known: Mutex::new(known),
            spare: Mutex::default(),
            journal,
            context,
        });
        let (vault, most) = (shared.context.store.clone(), abreast(&shared.context));
        let courier = spool.clone().map(|spool| Courier::new(Arc::clone(&shared), spool, vault.clone(), most));
        let sender = Sender::new(Arc::clone(&shared), spool, vault, most)?;
        let task = AbortOnDropHandle::new(tokio::spawn(super::run(Arc::clone(&shared), sender, courier)));
        Ok(LogWriter { shared, cache, task, _hold: hold })
    }
}

/// Bytes of plaintext that may be on their way: a quarter of the memory. The sealed form of some of it comes on top.
pub(super) fn room(context: &Context) -> u64 {
    (context.shape.memory_budget / 4).clamp(4 << 20, 64 << 20)
}

/// How many objects may be on their way to the vault.
pub(super) fn abreast(context: &Context) -> usize {
    context.shape.transfers.clamp(1, WINDOW as usize)
}

/// Says where the log of those ends who followed the stream before. `stored` was listed after they were fenced.
async fn seal_older(
    journal: &Journal<Catalog>,
    stored: &mut Stored,
    epoch: LogEpoch,
    at: jiff::Timestamp,
) -> Result<()> {
    let older = stored.unsealed_before(epoch);
    let (_, catalog) = journal
        .commit_by(|_, catalog| {
            let open = |epoch: &LogEpoch| catalog.log().writer(*epoch).is_some_and(|writer| writer.ends.is_none());
            let open = older.iter().filter(|(epoch, _)| open(epoch));
            Ok(open.map(|(epoch, ends)| Event::LogSealed { epoch: *epoch, ends: ends.clone(), at }).collect())
        })
        .await?;
    stored.catalog = catalog;
    Ok(())
}
