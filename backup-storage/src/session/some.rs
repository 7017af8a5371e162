//! Many small files: looked at, and opened, a lot at a time. A thread that is woken for each of them costs more than the look.

use std::sync::Arc;

use backup_core::engine::{LocalFile, Put, Unchanged};
use backup_core::entry::EntryPath;
use futures::future::join_all;

use super::sink::{Begun, Opened, Sink, WholeFile, blocking, glance, open};
use crate::error::{Error, Result};
use crate::pack::SEGMENT;
use crate::pipeline::worker::{Job, Span};

/// A file on its way, and where its outcome belongs.
struct Waiting {
    at: usize,
    path: EntryPath,
    file: LocalFile,
}

impl Sink {
    /// The outcome of each of `files`, in their order.
    pub(super) async fn store_some(&self, files: Vec<LocalFile>) -> Vec<Result<Put>> {
        let mut outcomes: Vec<Option<Result<Put>>> = Vec::with_capacity(files.len());
        let mut waiting = Vec::with_capacity(files.len());
        for (at, file) in files.into_iter().enumerate() {
            outcomes.push(match self.claim_file(&file.meta).await {
                Ok(()) => {
                    waiting.push(Waiting { at, path: file.meta.path.clone(), file });
                    None
                }
                Err(error) => Some(Err(error)),
            });
        }
        let mut end = |at: usize, path: &EntryPath, put: Result<Put>| outcomes[at] = Some(self.unless_put(path, put));

        let waiting = self.take_unchanged(waiting, &mut end).await;
        let (waiting, opened) = open_all(waiting).await;
        let (mut spans, mut receipts, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (Waiting { at, path, file }, opened) in waiting.into_iter().zip(opened) {
            let begun = match opened {
                Ok(Some(opened)) => self.begin(file, opened).await,
                Ok(None) => Ok(Begun::Put(Put::Vanished)),
                Err(error) => Err(error),
            };
            match begun {
                Ok(Begun::Put(put)) => end(at, &path, Ok(put)),
                Ok(Begun::Whole(whole)) if whole.len <= SEGMENT as u64 => {
                    let WholeFile { assembly, file, len, on_shrink, receipt } = whole;
                    spans.push(Span { assembly, file: Arc::new(file), range: 0..len, on_shrink });
                    receipts.push((at, path, receipt));
                }
                Ok(begun) => others.push((at, path, begun)),
                Err(error) => end(at, &path, Err(error)),
            }
        }
        let small = async {
            for spans in lots(spans) {
                if let Err(error) = self.shared.submit(Job::Spans(spans)).await {
                    // Everybody who waits is told the same: the receipts of what was not submitted are gone.
                    tracing::debug!(%error, "files are not stored");
                    break;
                }
            }
            let waits = receipts
                .into_iter()
                .map(|(at, path, receipt)| async move { (at, path, self.receive(receipt).await.map(Put::Stored)) });
            join_all(waits).await
        };
        let large =
            others.into_iter().map(|(at, path, begun)| async move { (at, path, self.store_begun(begun).await) });
        let (small, large) = futures::join!(small, join_all(large));
        for (at, path, put) in small.into_iter().chain(large) {
            end(at, &path, put);
        }
        let missing = || Err(Error::internal("a file was neither put nor refused"));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(missing)).collect()
    }

    /// Takes from the parent what need not be opened. Returns the rest.
    async fn take_unchanged(
        &self,
        waiting: Vec<Waiting>,
        end: &mut (impl FnMut(usize, &EntryPath, Result<Put>) + Send),
    ) -> Vec<Waiting> {
        let Some(parent) = &self.parent else { return waiting };
        let by_time = |waiting: &Waiting| matches!(waiting.file.unchanged, Unchanged::BySizeAndTime);
        let looked_at: Vec<_> = waiting.iter().filter(|w| by_time(w)).map(|w| w.file.path.clone()).collect();
        if looked_at.is_empty() {
            return waiting;
        }
        // A look that fails is no answer: opening says what is wrong.
        let seen = blocking(move || looked_at.iter().map(|path| glance(path)).collect::<Vec<_>>()).await;
        let mut seen = seen.unwrap_or_default().into_iter();
        let mut rest = Vec::new();
        for waiting in waiting {
            let seen = if by_time(&waiting) { seen.next().flatten() } else { None };
            let Some(seen) = seen else {
                rest.push(waiting);
                continue;
            };
            let Waiting { at, path, file } = waiting;
            match parent.entry(&path).await {
                Ok(Some(entry)) if parent.is_unchanged(&entry, &file.unchanged, seen.len, seen.modified) => {
                    let meta = file.meta.with_mode(seen.mode).with_modified(seen.modified);
                    let put = self.take_whole(parent, &entry, meta).await;
                    end(at, &path, put);
                }
                Ok(_) => rest.push(Waiting { at, path, file }),
                Err(error) => end(at, &path, Err(error)),
            }
        }
        rest
    }
}

/// Cuts spans into lots of about as much as a worker reads in one go.
fn lots(spans: Vec<Span>) -> Vec<Vec<Span>> {
    let mut lots: Vec<Vec<Span>> = Vec::new();
    let mut room = 0;
    for span in spans {
        let len = span.range.end - span.range.start;
        match lots.last_mut() {
            Some(lot) if len <= room => {
                lot.push(span);
                room -= len;
            }
            _ => {
                lots.push(vec![span]);
                room = (SEGMENT as u64).saturating_sub(len);
            }
        }
    }
    lots
}

/// Opens all of them, in their order.
async fn open_all(waiting: Vec<Waiting>) -> (Vec<Waiting>, Vec<Result<Option<Opened>>>) {
    let paths: Vec<_> = waiting.iter().map(|waiting| waiting.file.path.clone()).collect();
    if paths.is_empty() {
        return (waiting, Vec::new());
    }
    let opened = match blocking(move || paths.iter().map(|path| open(path)).collect()).await {
        Ok(opened) => opened,
        Err(error) => waiting.iter().map(|_| Err(Error::internal(error.to_string()))).collect(),
    };
    (waiting, opened)
}
