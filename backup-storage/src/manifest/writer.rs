//! Writing a manifest while its backup is being taken, in bounded memory.

use backup_core::entry::EntryPath;

use super::{ManifestEntry, PartRef};
use crate::error::{Error, Result};
use crate::pack::{Role, SEGMENT};

/// How many bytes of encoded entries are sorted in memory before they become a run.
const RUN_BYTES: usize = 32 << 20;

/// Takes segments; gives back the number of the pack and of the segment.
pub(crate) trait SegmentSink {
    /// Stores `plaintext`, at most 1 MiB, as one segment.
    fn store(&mut self, role: Role, plaintext: &[u8]) -> Result<(u32, u32)>;
}

/// Collects entries in any order and writes them as sorted runs.
#[derive(Debug)]
pub(crate) struct ManifestWriter {
    pending: Vec<(EntryPath, Vec<u8>)>,
    pending_bytes: usize,
    run_bytes: usize,
    runs: u32,
    parts: Vec<PartRef>,
    entries: u64,
    data_bytes: u64,
}

/// What was written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) parts: Vec<PartRef>,
    pub(crate) entries: u64,
    pub(crate) data_bytes: u64,
}

impl ManifestWriter {
    pub(crate) fn new() -> Self {
        Self::with_run_bytes(RUN_BYTES)
    }

    pub(super) fn with_run_bytes(run_bytes: usize) -> Self {
        Self { pending: Vec::new(), pending_bytes: 0, run_bytes, runs: 0, parts: Vec::new(), entries: 0, data_bytes: 0 }
    }

    /// Adds an entry; writes a run when enough has come together.
    pub(crate) fn add(&mut self, entry: &ManifestEntry, sink: &mut dyn SegmentSink) -> Result<()> {
        let bytes = minicbor::to_vec(entry)
            .map_err(|e| Error::internal("a manifest entry cannot be encoded").with_source(e))?;
        if bytes.len() > SEGMENT {
            return Err(Error::internal(format!(
                "the manifest entry of {} has {} bytes",
                entry.meta.path,
                bytes.len()
            )));
        }
        self.entries += 1;
        self.data_bytes += entry.len;
        self.pending_bytes += bytes.len() + entry.meta.path.as_bytes().len();
        self.pending.push((entry.meta.path.clone(), bytes));
        if self.pending_bytes >= self.run_bytes { self.flush(sink) } else { Ok(()) }
    }

    fn flush(&mut self, sink: &mut dyn SegmentSink) -> Result<()> {
        let mut pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        pending.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let run = self.runs;
        self.runs += 1;
        let mut part = Vec::with_capacity(SEGMENT);
        let mut first: Option<EntryPath> = None;
        let mut entries = 0;
        for (path, bytes) in pending {
            if part.len() + bytes.len() > SEGMENT
                && let Some(first) = first.take()
            {
                let (pack, segment) = sink.store(Role::ManifestPart, &part)?;
                self.parts.push(PartRef { run, first, entries, pack, segment });
                part.clear();
                entries = 0;
            }
            part.extend_from_slice(&bytes);
            entries += 1;
            first.get_or_insert(path);
        }
        if let Some(first) = first {
            let (pack, segment) = sink.store(Role::ManifestPart, &part)?;
            self.parts.push(PartRef { run, first, entries, pack, segment });
        }
        Ok(())
    }

    /// Writes what is left.
    pub(crate) fn finish(mut self, sink: &mut dyn SegmentSink) -> Result<Written> {
        if !self.pending.is_empty() {
            self.flush(sink)?;
        }
        Ok(Written { parts: self.parts, entries: self.entries, data_bytes: self.data_bytes })
    }
}
