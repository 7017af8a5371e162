//! Worker threads.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::JoinHandle;

use backup_core::engine::OnShrink;

use super::Shared;
use super::assembly::Assembly;
use super::lane::Lane;
use super::sparse::Step;
use crate::error::{Error, Result};
use crate::pack::{BLOCK, SEGMENT};

/// The most bytes of one entry that one worker reads in one go: neighbouring segments then stand in one pack, which keeps
/// extents few and restores sequential.
pub(crate) const SPAN: u64 = 8 << 20;

/// A piece of work.
#[derive(Debug)]
pub(crate) enum Job {
    /// Read this range of a local file.
    Span(Span),
    /// Read these, one after the other: small files, for each of which to wake a worker takes longer than to read it.
    Spans(Vec<Span>),
    /// Read some of this much of a local file.
    Sparse { assembly: Arc<Assembly>, file: Arc<File>, steps: Vec<Step>, on_shrink: OnShrink },
    /// Take these bytes, at most 1 MiB, for the parts that the steps would read.
    Patch { assembly: Arc<Assembly>, steps: Vec<Step>, bytes: Vec<u8> },
    /// Take these bytes, at most 1 MiB.
    Chunk { assembly: Arc<Assembly>, offset: u64, bytes: Vec<u8> },
    /// The feeder of an entry has no more.
    End { assembly: Arc<Assembly> },
    /// Add the entries whose content is stored already.
    Taken,
}

/// A range of a local file.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) assembly: Arc<Assembly>,
    pub(crate) file: Arc<File>,
    pub(crate) range: Range<u64>,
    pub(crate) on_shrink: OnShrink,
}

/// Starts the workers of a session.
pub(crate) fn spawn(shared: &Arc<Shared>, jobs: &async_channel::Receiver<Job>) -> Result<Vec<JoinHandle<()>>> {
    (0..shared.context.shape.workers)
        .map(|number| {
            let lane = Lane::new(Arc::clone(shared))?;
            let jobs = jobs.clone();
            std::thread::Builder::new()
                .name(format!("backup-{number}"))
                .spawn(move || run(lane, &jobs))
                .map_err(|e| Error::io("a worker thread cannot be started", e))
        })
        .collect()
}

fn run(mut lane: Lane, jobs: &async_channel::Receiver<Job>) {
    let shared = Arc::clone(lane.shared());
    let mut buffer = Vec::new();
    while let Ok(job) = jobs.recv_blocking() {
        // After a failure jobs are only taken out of the queue, so that whoever waits for room in it goes on.
        if shared.failure.is_set() {
            continue;
        }
        if let Err(error) = work(job, &mut lane, &mut buffer) {
            shared.failure.set(error);
        }
    }
    if !shared.failure.is_set()
        && let Err(error) = lane.finish()
    {
        shared.failure.set(error);
    }
}

fn work(job: Job, lane: &mut Lane, buffer: &mut Vec<u8>) -> Result<()> {
    match job {
        Job::Span(span) => {
            advise(&span.file, &span.range);
            span.read(lane, buffer)
        }
        Job::Spans(spans) => {
            // A disk is quickest with many requests to choose from. What is one read anyway needs no more than that.
            let several = spans.iter().filter(|span| span.range.end - span.range.start > BLOCK as u64);
            several.for_each(|span| advise(&span.file, &span.range));
            spans.into_iter().try_for_each(|span| span.read(lane, buffer))
        }
        Job::Sparse { assembly, file, steps, on_shrink } => {
            // All at once: a disk is quickest with many requests to choose from.
            for step in &steps {
                match step {
                    Step::Keep(_) => {}
                    Step::Read(range) => advise(&file, range),
                    Step::Patch(_, parts) => parts.iter().for_each(|part| advise(&file, part)),
                }
            }
            let reading = Reading { assembly: &assembly, file: &file, on_shrink };
            for step in steps {
                let goes_on = match step {
                    Step::Keep(_) => true,
                    Step::Read(range) => reading.whole(range, lane, buffer)?,
                    Step::Patch(block, parts) => reading.patch(&block, &parts, lane, buffer)?,
                };
                if !goes_on {
                    return Ok(());
                }
            }
            assembly.close_read(lane)
        }
        Job::Patch { assembly, steps, bytes } => {
            let mut rest = &bytes[..];
            for step in steps {
                let len = usize::try_from(step.reads()).unwrap_or(usize::MAX);
                let taken = rest.split_at_checked(len);
                let (here, behind) = taken.ok_or_else(|| Error::internal("a patch has fewer bytes than steps"))?;
                rest = behind;
                match step {
                    Step::Keep(_) => {}
                    Step::Read(range) => assembly.ingest(range.start, here, lane)?,
                    Step::Patch(block, parts) => assembly.patch(&block, &parts, here, lane)?,
                }
            }
            assembly.close_read(lane)
        }
        Job::Chunk { assembly, offset, bytes } => {
            assembly.ingest(offset, &bytes, lane)?;
            assembly.close_read(lane)
        }
        Job::End { assembly } => assembly.close_read(lane),
        Job::Taken => lane.shared().add_taken(),
    }
}

impl Span {
    fn read(self, lane: &mut Lane, buffer: &mut Vec<u8>) -> Result<()> {
        let Self { assembly, file, range, on_shrink } = self;
        let reading = Reading { assembly: &assembly, file: &file, on_shrink };
        if reading.whole(range, lane, buffer)? { assembly.close_read(lane) } else { Ok(()) }
    }
}

/// A local file that is being read.
struct Reading<'a> {
    assembly: &'a Arc<Assembly>,
    file: &'a File,
    on_shrink: OnShrink,
}

impl Reading<'_> {
    /// Reads `range`, which begins at a block. False when the entry has been given up.
    fn whole(&self, range: Range<u64>, lane: &mut Lane, buffer: &mut Vec<u8>) -> Result<bool> {
        let mut at = range.start;
        while at < range.end {
            let len = (SEGMENT as u64).min(range.end - at);
            if !self.fill(at, len as usize, 0, buffer) {
                return Ok(false);
            }
            self.assembly.ingest(at, buffer, lane)?;
            at += len;
        }
        Ok(true)
    }

    /// Reads `parts` of `block`. False when the entry has been given up.
    fn patch(&self, block: &Range<u64>, parts: &[Range<u64>], lane: &mut Lane, buffer: &mut Vec<u8>) -> Result<bool> {
        let mut filled = 0;
        for part in parts {
            let len = (part.end - part.start) as usize;
            if !self.fill(part.start, len, filled, buffer) {
                return Ok(false);
            }
            filled += len;
        }
        self.assembly.patch(block, parts, buffer, lane)?;
        Ok(true)
    }

    /// Makes `buffer` end with `len` bytes from `at`, behind what it has up to `kept`. False when the entry has been given up.
    fn fill(&self, at: u64, len: usize, kept: usize, buffer: &mut Vec<u8>) -> bool {
        if self.assembly.is_given_up() {
            return false;
        }
        buffer.resize(kept + len, 0);
        let read = read(self.file, at, &mut buffer[kept..], self.on_shrink, self.assembly);
        read.map_err(|error| self.assembly.fail(error)).is_ok()
    }
}

/// Has the kernel read ahead of this thread, so that the disk works while the processor does.
fn advise(file: &File, range: &Range<u64>) {
    #[cfg(target_os = "linux")]
    if let Some(len) = std::num::NonZero::new(range.end - range.start) {
        // Only a hint: a file system that does not take it reads when it is asked to.
        let _ = rustix::fs::fadvise(file, range.start, Some(len), rustix::fs::Advice::WillNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, range);
}

/// Fills `buffer` from `at`.
fn read(file: &File, at: u64, buffer: &mut [u8], on_shrink: OnShrink, assembly: &Assembly) -> Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => match on_shrink {
                OnShrink::PadWithZeros => {
                    buffer[filled..].fill(0);
                    return Ok(());
                }
                OnShrink::Fail => {
                    let path = &assembly.meta().path;
                    let message =
                        format!("{path} became shorter than {} bytes while it was read", at + buffer.len() as u64);
                    return Err(Error::conflict(message));
                }
            },
            Ok(len) => filled += len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io(format!("read {}", assembly.meta().path), e)),
        }
    }
    Ok(())
}
