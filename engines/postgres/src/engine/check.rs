//! Checking a stored backup without a server.

use std::collections::BTreeMap;

use backup_core::engine::{BackupSource, CheckContext, CheckReport};
use backup_core::entry::{EntryInfo, EntryKind, EntryPath, Selector};
use backup_core::observe::{Phase, Unit};
use backup_core::{BackupSourceExt, Finding, Result, Severity};
use futures::stream::StreamExt;

use super::facts::{self, Facts};
use super::{ending, pages};
use crate::control::ControlFile;
use crate::label::BackupLabel;
use crate::lsn::Lsn;
use crate::manifest::{FileHasher, ManifestFile, ManifestReader};
use crate::page::{PAGE_SIZE, PageCheck, RelationFile, Verdict};
use crate::wal::LongPageHeader;

/// The pages that the source had with wrong checksums.
type Known<'a> = BTreeMap<&'a str, Vec<&'a Finding>>;

/// At most this many findings of one kind are reported.
const MOST: usize = 100;

/// Checks what only PostgreSQL's own formats can tell.
pub(super) async fn check(cx: &CheckContext) -> Result<CheckReport> {
    let source = &**cx.source();
    let record = source.record();
    let facts = Facts::of(&record.snapshot)?;
    let mut checker = Checker { report: CheckReport::default(), source };
    let control = checker.control(&facts).await?;
    checker.label(&facts).await?;
    checker.wal(&facts).await?;
    if source.entry(&EntryPath::new("PG_VERSION")?).await?.is_none() {
        checker.wrong("missing-file", "PG_VERSION", "is missing");
    }
    let known = pages::known(&record.snapshot);
    let listed = checker.manifest().await?;
    let judge =
        (record.snapshot.fact(facts::DATA_CHECKSUMS) == Some("on")).then_some(PageCheck { start_lsn: facts.start });
    let per_segment = control.map_or(131_072, |c| c.relation_segment_blocks);
    cx.work().started(Phase::Verify, Some(record.data_bytes), Unit::Bytes);
    checker.content(cx, listed, judge, per_segment, &known).await?;
    cx.work().ended(Phase::Verify);
    Ok(checker.report)
}

struct Checker<'a> {
    report: CheckReport,
    source: &'a dyn BackupSource,
}

impl Checker<'_> {
    fn found(&mut self, severity: Severity, code: &str, subject: impl Into<String>, text: impl Into<String>) {
        if self.report.findings.iter().filter(|f| f.code == code).count() < MOST {
            self.report.findings.push(Finding::new(severity, code, text).about(subject));
        }
    }

    fn wrong(&mut self, code: &str, subject: impl Into<String>, text: impl Into<String>) {
        self.found(Severity::Blocker, code, subject, text);
    }

    async fn small(&mut self, path: &str) -> Result<Option<bytes::Bytes>> {
        let entry = EntryPath::new(path)?;
        if self.source.entry(&entry).await?.is_none() {
            self.wrong("missing-file", path, "is missing");
            return Ok(None);
        }
        self.source.read_small(&entry, 64 << 10).await.map(Some)
    }

    async fn control(&mut self, facts: &Facts) -> Result<Option<ControlFile>> {
        const PATH: &str = "global/pg_control";
        let Some(bytes) = self.small(PATH).await? else { return Ok(None) };
        match ControlFile::parse(&bytes) {
            Ok(control) => {
                if control.system_id != facts.system_id {
                    let text = format!("belongs to the cluster with system identifier {}", control.system_id);
                    self.wrong("other-cluster", PATH, text);
                }
                Ok(Some(control))
            }
            Err(error) => {
                self.wrong("damaged-file", PATH, error.to_string());
                Ok(None)
            }
        }
    }

    async fn label(&mut self, facts: &Facts) -> Result<()> {
        const PATH: &str = "backup_label";
        let Some(bytes) = self.small(PATH).await? else { return Ok(()) };
        match BackupLabel::parse(&bytes) {
            Ok(label) if label.incremental_from.is_some() => {
                self.wrong("incremental-label", PATH, "is of an incremental backup: no server starts from it");
            }
            Ok(label) if label.start != facts.start || label.timeline != facts.timeline => {
                let text = format!("starts at {} on timeline {}, not at {}", label.start, label.timeline, facts.start);
                self.wrong("wrong-label", PATH, text);
            }
            Ok(_) => {}
            Err(error) => self.wrong("damaged-file", PATH, error.to_string()),
        }
        Ok(())
    }

    /// Every segment of the log from start to stop is there and is what its name says.
    async fn wal(&mut self, facts: &Facts) -> Result<()> {
        let size = facts.wal_segment_size;
        let mut at = size.floor(facts.start);
        if ending::last_record(self.source, facts).await?.is_none() {
            let text = format!("has no record that ends at {}, where the backup ends", facts.stop);
            self.found(Severity::Warning, "wal-end", "pg_wal", text);
        }
        while at < facts.stop {
            let segment = size.name(facts.timeline, at);
            at = Lsn(at.0 + size.bytes());
            let path = EntryPath::new(format!("pg_wal/{segment}"))?;
            match self.source.entry(&path).await? {
                None => {
                    self.wrong("missing-wal", path.to_string(), "is missing");
                    continue;
                }
                Some(entry) if entry.len != size.bytes() => {
                    self.wrong("damaged-file", path.to_string(), format!("has {} bytes", entry.len));
                    continue;
                }
                Some(_) => {}
            }
            let mut head = Vec::new();
            let mut pieces = self.source.read(&path, 0..LongPageHeader::LENGTH as u64);
            while let Some(piece) = pieces.next().await {
                head.extend_from_slice(&piece?);
            }
            drop(pieces);
            let verdict = LongPageHeader::parse(&head).and_then(|header| {
                header.check_name(segment)?;
                Ok(header.system_id)
            });
            match verdict {
                Ok(id) if id == facts.system_id => {}
                Ok(id) => self.wrong("other-cluster", path.to_string(), format!("belongs to system identifier {id}")),
                Err(error) => self.wrong("damaged-file", path.to_string(), error.to_string()),
            }
        }
        Ok(())
    }

    /// What the server's own manifest lists, if the backup has one.
    async fn manifest(&mut self) -> Result<Option<BTreeMap<Vec<u8>, ManifestFile>>> {
        const PATH: &str = "backup_manifest";
        let path = EntryPath::new(PATH)?;
        let Some(entry) = self.source.entry(&path).await? else { return Ok(None) };
        let mut reader = ManifestReader::new();
        let mut files = BTreeMap::new();
        let mut pieces = self.source.read(&path, 0..entry.len);
        while let Some(piece) = pieces.next().await {
            let pushed = reader.push(&piece?, &mut |file| {
                files.insert(file.path.clone(), file);
            });
            if let Err(error) = pushed {
                drop(pieces);
                self.wrong("damaged-file", PATH, error.to_string());
                return Ok(None);
            }
        }
        drop(pieces);
        match reader.finish() {
            Ok(_) => Ok(Some(files)),
            Err(error) => {
                self.wrong("damaged-file", PATH, error.to_string());
                Ok(None)
            }
        }
    }

    /// Reads every file once: against the server's list, and page by page.
    async fn content(
        &mut self,
        cx: &CheckContext,
        mut listed: Option<BTreeMap<Vec<u8>, ManifestFile>>,
        pages: Option<PageCheck>,
        per_segment: u32,
        known: &Known<'_>,
    ) -> Result<()> {
        let source = self.source;
        let mut entries = source.entries(Selector::all());
        while let Some(entry) = entries.next().await {
            cx.work().checkpoint()?;
            let entry = entry?;
            if entry.meta.kind != EntryKind::File {
                continue;
            }
            let expected = listed.as_mut().and_then(|files| files.remove(entry.meta.path.as_bytes()));
            if expected.is_none() && listed.is_some() && !outside_manifest(&entry.meta.path) {
                self.wrong("unlisted-file", entry.meta.path.to_string(), "is not in the server's manifest");
            }
            self.file(cx, &entry, expected.as_ref(), pages, per_segment, known).await?;
        }
        for file in listed.into_iter().flatten() {
            self.wrong(
                "missing-file",
                file.0.escape_ascii().to_string(),
                "is in the server's manifest and not in the backup",
            );
        }
        Ok(())
    }

    async fn file(
        &mut self,
        cx: &CheckContext,
        entry: &EntryInfo,
        expected: Option<&ManifestFile>,
        pages: Option<PageCheck>,
        per_segment: u32,
        known: &Known<'_>,
    ) -> Result<()> {
        let path = &entry.meta.path;
        let relation = RelationFile::parse_path(path.as_bytes()).filter(|_| pages.is_some());
        let first = relation.and_then(|file| file.first_block(per_segment));
        let mut hasher = expected.and_then(|file| file.checksum.as_ref()).map(|c| FileHasher::new(c.algorithm));
        if expected.is_some_and(|file| file.size != entry.len) {
            self.wrong(
                "wrong-size",
                path.to_string(),
                format!("has {} bytes, not what the server's manifest says", entry.len),
            );
        }
        let mut at = 0;
        let mut carry: Vec<u8> = Vec::new();
        let mut pieces = self.source.read(path, 0..entry.len);
        let mut bad = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            cx.work().advanced(Phase::Verify, piece.len() as u64);
            self.report.bytes += piece.len() as u64;
            if let Some(hasher) = &mut hasher {
                hasher.update(&piece);
            }
            if let (Some(check), Some(first)) = (pages, first) {
                carry.extend_from_slice(&piece);
                let (whole, _) = carry.as_chunks::<PAGE_SIZE>();
                for page in whole {
                    let block = first.saturating_add(u32::try_from(at / PAGE_SIZE as u64).unwrap_or(u32::MAX));
                    if let Verdict::Wrong { .. } = check.page(page, block) {
                        bad.push(block);
                    }
                    at += PAGE_SIZE as u64;
                }
                let rest = carry.len() % PAGE_SIZE;
                carry.drain(..carry.len() - rest);
            }
        }
        drop(pieces);
        self.report.entries += 1;
        for block in bad {
            // What was wrong at the source is no damage of the backup. A finding without a path stands for many.
            let finding = pages::wrong(path, block, Severity::Warning);
            let named =
                known.get(finding.subject.as_str()).is_some_and(|f| f.iter().any(|f| f.message == finding.message));
            let severity = if named || known.contains_key("") { Severity::Warning } else { Severity::Blocker };
            self.found(severity, pages::CODE, finding.subject, finding.message);
        }
        if let (Some(hasher), Some(expected)) = (hasher, expected)
            && Some(&hasher.finish()) != expected.checksum.as_ref()
        {
            self.wrong("wrong-digest", path.to_string(), "is not what the server's manifest says");
        }
        Ok(())
    }
}

/// Files that a server does not list in its manifest ("Backup Manifest Format" in the manual).
fn outside_manifest(path: &EntryPath) -> bool {
    path.is_within(b"pg_wal") || path.as_bytes() == b"backup_manifest"
}
