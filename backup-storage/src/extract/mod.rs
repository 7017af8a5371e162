//! Writing entries of a backup into directories.
//!
//! The order of the steps is the rule: refuse before anything is touched; take away what makes the target startable; write
//! everything else; remove what is foreign; make it durable; and only then write what makes it startable.
//!
//! ```text
//! survey ─▶ withdraw ─▶ folders ─▶ plan ─▶ batches ─▶ links ─▶ foreign ─▶ sync ─▶ last ─▶ sync
//!                                   │         │
//!                           compare what      packs in order: fetch, decode each segment once,
//!                           is there          write its parts wherever they belong
//! ```
//!
//! Memory is bounded by the batch and the memory budget, not by the backup. All file system and processor work happens on
//! blocking threads, as many at a time as there are workers. Everything that touches the target goes through the
//! [tree], which never follows a symbolic link.

mod delta;
mod flush;
mod foreign;
mod handles;
mod hands;
mod place;
mod plan;
mod survey;
mod sync;
mod tree;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::engine::{Extract, Extracted, Work};
use backup_core::observe::{Phase, Unit};
use futures::stream::{Stream, StreamExt, TryStreamExt};
use rustix::fs::FileType;
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::reader::BackupReader;
use flush::Flusher;
use hands::Hands;
use place::{Place, Places};
use plan::{Batch, Planned, Planner};
use survey::{Choice, Survey};
use sync::Ledger;
use tree::Tree;
use write::Writer;

/// Writes what `order` asks for.
///
/// # Cancel safety
/// When it returns, nothing writes any more. When it is dropped, what is being written at that moment ends with the segment
/// that it is at; entries of [`Extract::last`] are not among it unless everything else was durable.
pub(crate) async fn extract(reader: &BackupReader, order: Extract, work: &Work) -> Result<Extracted> {
    let hands = Arc::new(Hands::new(reader.context().shape.workers, work.cancel()));
    let _guard = hands.guard();
    let extraction = run(reader, order, work, &hands);
    let outcome = match work.cancel().run_until_cancelled(extraction).await {
        Some(outcome) => outcome,
        None => Err(Error::cancelled()),
    };
    hands.settle().await;
    outcome
}

async fn run(reader: &BackupReader, order: Extract, work: &Work, hands: &Arc<Hands>) -> Result<Extracted> {
    let choice = Choice::new(order);
    let (order, replace) = (choice.order.clone(), choice.is_delta());
    let tree = hands.run(move |_| Tree::new(Places::new(&order)?, replace)).await?;
    let tree = Arc::new(tree);
    let mut survey = Survey::take(reader, &choice, &tree, hands).await?;
    if choice.is_delta() {
        withdraw(&choice, &tree, hands).await?;
        work.started(Phase::Compare, Some(survey.bytes), Unit::Bytes);
    }
    // How much of what is there has to be written is only known when it has been compared.
    work.started(Phase::Write, (!choice.is_delta()).then_some(survey.bytes), Unit::Bytes);
    folders(&survey, &tree, hands).await?;

    let ledger = Arc::new(Ledger::default());
    let flusher = Flusher::start(hands);
    let writer = Arc::new(Writer {
        context: Arc::clone(reader.context()),
        cache: Arc::clone(reader.cache()),
        packs: reader.pack_table(),
        session: reader.root().session,
        tree: Arc::clone(&tree),
        hands: Arc::clone(hands),
        ledger: Arc::clone(&ledger),
        work: work.clone(),
        budget: Arc::new(Semaphore::new(write::budget(reader.context()))),
        transfers: Arc::new(Semaphore::new(reader.context().shape.transfers)),
        written: AtomicU64::new(0),
        offers: flusher.offers(),
    });
    let planner = Planner { reader, tree: &tree, hands, work, delta: choice.is_delta() };
    let early = reader.entries_full(choice.order.selector.clone());
    let early = early.try_filter(|entry| std::future::ready(choice.is_early_file(entry)));
    batches(&writer, planner.plan(early)).await?;
    links(std::mem::take(&mut survey.links), &tree, hands).await?;
    let mut removed = 0;
    if choice.is_delta() {
        removed = foreign::remove(reader, &choice, &tree, hands).await?;
    }
    let mut late_folders = survey.folders;
    let last: Vec<_> = survey.last.iter().map(|entry| tree.places.locate(&entry.meta.path)).collect();
    let early_folders = split_off_early(&mut late_folders, &last);
    work.started(Phase::Sync, None, Unit::Items);
    flusher.finish().await?;
    settle(&tree, &ledger, early_folders, hands).await?;

    batches(&writer, planner.few(survey.last)).await?;
    settle(&tree, &ledger, late_folders, hands).await?;
    for phase in [Phase::Compare, Phase::Write, Phase::Sync] {
        if phase != Phase::Compare || choice.is_delta() {
            work.ended(phase);
        }
    }
    let mut done = Extracted::default();
    done.entries = survey.entries;
    done.bytes = survey.bytes;
    done.written_bytes = writer.written.load(Ordering::Relaxed);
    done.removed = removed;
    Ok(done)
}

/// Removes what an earlier extraction may have written last, durably: from here on the target does not start.
async fn withdraw(choice: &Choice, tree: &Arc<Tree>, hands: &Hands) -> Result<()> {
    let order = &choice.order;
    let chosen = order.last.iter().filter(|path| order.selector.matches(path));
    let places: Vec<_> = chosen.map(|path| tree.places.locate(path)).collect();
    let tree = Arc::clone(tree);
    hands
        .run(move |_| {
            for place in places {
                let stands = tree.stat(&place)?.map(|facts| FileType::from_raw_mode(facts.st_mode));
                if stands.is_some_and(|kind| !kind.is_dir()) {
                    tree.unlink(&place)?;
                }
            }
            sync::pass(&tree, &Ledger::default(), &BTreeMap::new())
        })
        .await
}

async fn folders(survey: &Survey, tree: &Arc<Tree>, hands: &Hands) -> Result<()> {
    let needed: Vec<Place> = survey.needed.iter().cloned().collect();
    let tree = Arc::clone(tree);
    hands
        .run(move |stop| {
            for place in &needed {
                stop.check()?;
                let folder = tree.make_folder(place)?;
                tree.make_writable(place, &folder)?;
            }
            Ok(())
        })
        .await
}

async fn links(links: Vec<(Place, Vec<u8>)>, tree: &Arc<Tree>, hands: &Hands) -> Result<()> {
    let tree = Arc::clone(tree);
    hands
        .run(move |stop| {
            for (place, target) in &links {
                stop.check()?;
                if let Some(facts) = tree.stat(place)? {
                    if FileType::from_raw_mode(facts.st_mode).is_symlink() && tree.read_link(place)? == *target {
                        continue;
                    }
                    tree.clear(place)?;
                }
                tree.link(place, target)?;
            }
            Ok(())
        })
        .await
}

/// Writes what is planned, batch by batch.
async fn batches(writer: &Arc<Writer>, planned: impl Stream<Item = Result<Planned>> + Send) -> Result<()> {
    let mut planned = std::pin::pin!(planned);
    let mut batch = Batch::default();
    while let Some(next) = planned.next().await {
        batch.add(next?);
        if batch.is_full() {
            writer.write(std::mem::take(&mut batch)).await?;
        }
    }
    writer.write(batch).await
}

async fn settle(tree: &Arc<Tree>, ledger: &Arc<Ledger>, folders: BTreeMap<Place, u32>, hands: &Hands) -> Result<()> {
    let (tree, ledger) = (Arc::clone(tree), Arc::clone(ledger));
    hands.run(move |_| sync::pass(&tree, &ledger, &folders)).await
}

/// Takes those folders out in which nothing of `last` will be written: only they can be closed before that.
fn split_off_early(folders: &mut BTreeMap<Place, u32>, last: &[Place]) -> BTreeMap<Place, u32> {
    let above: std::collections::BTreeSet<Place> =
        last.iter().flat_map(|place| std::iter::successors(place.folder(), Place::folder)).collect();
    let (late, early) = std::mem::take(folders).into_iter().partition(|(place, _)| above.contains(place));
    *folders = late;
    early
}

#[cfg(test)]
mod tests;
