//! Verifying page checksums while pages pass on their way into the repository.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use backup_core::engine::BlockInspector;
use backup_core::entry::EntryPath;
use backup_core::{Finding, Severity, Snapshot};
use parking_lot::Mutex;

use crate::page::{PAGE_SIZE, PageCheck, RelationFile, Verdict};

/// At most this many bad pages are named one by one; the snapshot stands in one small object.
const MOST_NAMED: usize = 100;

/// The kind of finding that names a page.
pub(super) const CODE: &str = "page-checksum";

/// What is said of a page.
pub(super) fn wrong(path: &EntryPath, block: u32, severity: Severity) -> Finding {
    Finding::new(severity, CODE, format!("block {block} has a wrong checksum")).about(path.to_string())
}

/// The pages that a backup names as wrong, by path.
pub(super) fn known(snapshot: &Snapshot) -> BTreeMap<&str, Vec<&Finding>> {
    let mut known: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in snapshot.findings.iter().filter(|finding| finding.code == CODE) {
        known.entry(&finding.subject).or_default().push(finding);
    }
    known
}

/// Bad pages of one backup.
#[derive(Debug, Default)]
pub(super) struct BadPages {
    found: Mutex<(Vec<(EntryPath, u32)>, u64)>,
}

impl BadPages {
    fn add(&self, path: &EntryPath, block: u32) {
        let mut found = self.found.lock();
        found.1 += 1;
        if found.0.len() < MOST_NAMED {
            found.0.push((path.clone(), block));
        }
    }

    /// What was found, as findings: the backup is kept, exactly as damaged as its source.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut found = self.found.lock();
        found.0.sort_unstable();
        let mut findings: Vec<_> = found.0.iter().map(|(path, block)| wrong(path, *block, Severity::Warning)).collect();
        let more = found.1 - found.0.len() as u64;
        if more > 0 {
            let text = format!("{more} more pages have a wrong checksum");
            findings.push(Finding::new(Severity::Warning, CODE, text));
        }
        findings
    }
}

/// Checks the pages of one relation file.
#[derive(Debug)]
pub(super) struct PageInspector {
    check: PageCheck,
    path: EntryPath,
    first_block: u32,
    /// Where to read a page once more. Nowhere for a page that came through the server, which has done so itself.
    again: Option<PathBuf>,
    bad: Arc<BadPages>,
}

impl PageInspector {
    /// An inspector for the file at `path`, if it consists of pages with checksums.
    pub(super) fn for_file(
        check: PageCheck,
        path: &EntryPath,
        blocks_per_segment: u32,
        again: Option<PathBuf>,
        bad: &Arc<BadPages>,
    ) -> Option<Arc<dyn BlockInspector>> {
        let relation = RelationFile::parse_path(path.as_bytes())?;
        let first_block = relation.first_block(blocks_per_segment)?;
        Some(Arc::new(Self { check, path: path.clone(), first_block, again, bad: Arc::clone(bad) }))
    }

    /// Whether a page that looked wrong is wrong when it is read once more.
    fn still_wrong(&self, at: u64, block: u32) -> bool {
        let Some(path) = &self.again else { return true };
        let mut page = [0; PAGE_SIZE];
        match File::open(path).and_then(|file| file.read_exact_at(&mut page, at)) {
            Ok(()) => matches!(self.check.page(&page, block), Verdict::Wrong { .. }),
            // The relation was truncated or dropped: recovery will do the same.
            Err(_) => false,
        }
    }
}

impl BlockInspector for PageInspector {
    fn inspect(&self, offset: u64, bytes: &[u8]) {
        let (pages, _) = bytes.as_chunks::<PAGE_SIZE>();
        let first = offset / PAGE_SIZE as u64;
        for (index, page) in (0..).zip(pages) {
            let Ok(in_file) = u32::try_from(first + index) else { return };
            let Some(block) = self.first_block.checked_add(in_file) else { return };
            if let Verdict::Wrong { .. } = self.check.page(page, block)
                && self.still_wrong((first + index) * PAGE_SIZE as u64, block)
            {
                self.bad.add(&self.path, block);
            }
        }
    }
}
