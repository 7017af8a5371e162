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
use super::{LogWriter, WINDOW};
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::log::{LogCache, Stored};
use crate::pipeline::failure::Failure;

/// The largest piece of a writer, in bytes.
const MAX_PIECE: u64 = 16 << 20;

/// Opens a writer.
///
/// # Errors
/// Those of the store and of the journal.
pub(crate) async fn open(
    cache: Arc<LogCache>,
    journal: Arc<Journal<Catalog>>,
    options: LogOptions,
) -> Result<LogWriter> {
    if options.spool.is_some() {
        // Better refused than taken for a promise that nobody keeps.
        return Err(Error::invalid("this repository acknowledges only what its store has: there is no spool"));
    }
    let context = Arc::clone(cache.context());
    let (epoch, generation) = enroll(&journal, options.purpose, context.env.now()).await?;
    let mut stored = Stored::survey(&context.store, &journal, None).await?;
    if options.purpose == LogPurpose::Stream {
        seal_older(&journal, &mut stored, epoch, context.env.now()).await?;
    }
    if stored.generation != generation {
        return Err(Error::conflict(format!("the catalog was rebuilt while log writer {epoch} was opened")));
    }
    // A quarter of the memory for what is on its way, plaintext; the sealed form of some of it comes on top.
    let room = (context.shape.memory_budget / 4).clamp(4 << 20, 64 << 20);
    let cutting = Cutting {
        bytes: options.flush_bytes.clamp(1, MAX_PIECE.min(room / 4)),
        after: options.flush_after,
        idle: options.idle_mark,
        anywhere: options.purpose != LogPurpose::Stream,
    };
    let known = Known { covered: stored.covered(), catalog: stored.catalog, ends: BTreeMap::new(), ledger: None };
    let shared = Arc::new(Shared {
        epoch,
        purpose: options.purpose,
        generation,
        queue: Mutex::new(Waiting { queue: Queue::new(epoch, cutting), held: 0, closing: false }),
        room,
        wake: Notify::new(),
        released: Notify::new(),
        progress: watch::Sender::new(Progress::default()),
        failure: Failure::default(),
        known: Mutex::new(known),
        journal,
        context,
    });
    let most = shared.context.shape.transfers.clamp(1, WINDOW as usize);
    let sender = Sender::new(Arc::clone(&shared), shared.context.store.clone(), most)?;
    let sender = AbortOnDropHandle::new(tokio::spawn(sender.run()));
    Ok(LogWriter { shared, cache, sender })
}

/// Takes the next number. One that follows the stream fences the one before by this.
async fn enroll(journal: &Journal<Catalog>, purpose: LogPurpose, at: jiff::Timestamp) -> Result<(LogEpoch, u32)> {
    let mut epoch = LogEpoch(0);
    let (place, _) = journal
        .commit_by(|_, catalog| {
            epoch = catalog.log().next_epoch();
            Ok(vec![Event::LogOpened { epoch, purpose, at }])
        })
        .await?;
    Ok((epoch, place.generation))
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
