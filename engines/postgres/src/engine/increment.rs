//! An increment through the server: what changed since the parent is all that it sends.
//!
//! The server is told by a manifest what the parent holds, and finds out from its own summaries what has changed since (`BASE_BACKUP
//! (INCREMENTAL)`, from version 17). Where it does not, or where anything is in doubt, it is asked for everything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use backup_core::engine::{BackupContext, BackupSource, Changes};
use backup_core::entry::{EntryKind, EntryPath, Selector};
use backup_core::{Error, Finding, Result, Severity};
use futures::stream::TryStreamExt;

use super::changed::Proof;
use super::facts::{self, Facts};
use super::overlay::Overlay;
use super::probe::Server;
use super::settings::ChangeTracking;
use super::summaries::{self, Wanted};
use super::waldir;
use super::{pages, receive};
use crate::basebackup::{IncrementHeader, Started};
use crate::changes::{ChangeMap, summarizes_visibility};
use crate::manifest::{Checksum, ManifestFile, ManifestWriter, WalRange};
use crate::page::{Fork, RelationFile};
use crate::wal::TimelineHistory;
use crate::wire::Session;

/// Before the name of a file of which only changed blocks come.
const PREFIX: &[u8] = b"INCREMENTAL.";
/// How much of a manifest is sent at once.
const PIECE: usize = 64 << 10;

/// Whether there is a backup to build on.
#[derive(Debug)]
pub(super) enum Found {
    /// There is no parent, or nobody asked.
    Nothing,
    /// There is none that will do: why.
    Unclear(String),
    /// This one.
    Basis(Box<Basis>),
}

/// The backup that an increment builds on.
#[derive(Debug)]
pub(super) struct Basis {
    source: Arc<dyn BackupSource>,
    before: Facts,
    /// Of the server's timeline, if that is not the parent's.
    history: Option<TimelineHistory>,
    /// Pages that the parent names as wrong, by path.
    bad: BTreeMap<String, Vec<Finding>>,
    /// What is known of the history.
    pub(super) proof: Proof,
}

impl Basis {
    /// Looks whether the parent will do.
    ///
    /// # Errors
    /// Cancelled. Everything else is a reason to ask for everything.
    pub(super) async fn find(
        cx: &BackupContext,
        tracking: ChangeTracking,
        server: &Server,
        sql: &mut Session,
        replication: &mut Session,
    ) -> Result<Found> {
        let parent = cx.parent().zip(cx.parent_source()).filter(|_| tracking != ChangeTracking::Never);
        let Some((parent, source)) = parent else { return Ok(Found::Nothing) };
        let unclear = |text: String| Ok(Found::Unclear(text));
        if server.version.major() < 17 {
            return unclear(format!("postgresql {} knows no incremental backups", server.version));
        }
        if !summarizes_visibility(server.version) {
            let text = "leaves changes of visibility maps out of its incremental backups; 17.11 and 18.6 do not";
            return unclear(format!("postgresql {} {text}", server.version));
        }
        let before = match Facts::of(&parent.snapshot) {
            Ok(before) => before,
            Err(error) => return unclear(error.to_string()),
        };
        if before.system_id != server.system_id || before.major != server.version.major() {
            return unclear("the parent is of another cluster".to_owned());
        }
        let checksums = if server.data_checksums { "on" } else { "off" };
        if parent.snapshot.fact(facts::DATA_CHECKSUMS) != Some(checksums) {
            return unclear(format!("page checksums are {checksums} now"));
        }
        let bad: BTreeMap<_, _> = pages::known(&parent.snapshot)
            .into_iter()
            .map(|(path, findings)| (path.to_owned(), findings.into_iter().cloned().collect()))
            .collect();
        if bad.contains_key("") {
            return unclear("the parent has pages with wrong checksums that it does not name".to_owned());
        }
        match summaries::readable(sql).await {
            Ok(true) => {}
            Ok(false) => return unclear("the role may not read the server's summaries of its log".to_owned()),
            Err(error) => return unclear(error.to_string()),
        }
        let mut basis = Self { source: Arc::clone(source), before, history: None, bad, proof: Proof::Named };
        match basis.recognise(replication).await {
            Ok(()) => Ok(Found::Basis(Box::new(basis))),
            Err(error) => {
                cx.work().checkpoint()?;
                unclear(error.to_string())
            }
        }
    }

    /// Looks whether the server's history is the parent's: the log at the end of the parent is the same, or not there any more.
    async fn recognise(&mut self, replication: &mut Session) -> Result<()> {
        let identity = replication.identify_system().await?;
        if identity.system_id != self.before.system_id {
            let text = format!("another cluster answers, with system identifier {}", identity.system_id);
            return Err(Error::conflict(text));
        }
        if identity.timeline != self.before.timeline {
            let (_, content) = replication.timeline_history(identity.timeline).await?;
            self.history = Some(TimelineHistory::parse(identity.timeline, &content)?);
        }
        let own = waldir::stored(&*self.source, &self.before).await?;
        let range = waldir::witnesses(self.before.start, self.before.stop);
        match receive::seen(replication, self.before.timeline, range).await? {
            None => self.proof = Proof::Named,
            Some(theirs) if theirs == own => self.proof = Proof::Recognised,
            Some(_) => return Err(Error::environment("the log is not the one that the parent was taken with")),
        }
        Ok(())
    }

    /// Tells the server what the parent holds: the files that it may send changes of.
    ///
    /// # Errors
    /// What the server says against it.
    pub(super) async fn upload(&self, cx: &BackupContext, session: &mut Session) -> Result<()> {
        let Facts { system_id, timeline, start, stop, .. } = self.before;
        let mut writer = ManifestWriter::new(system_id);
        let mut entries = self.source.entries(Selector::all());
        let mut upload = session.copy_in("UPLOAD_MANIFEST").await?;
        let mut text = Vec::new();
        while let Some(entry) = entries.try_next().await? {
            cx.work().checkpoint()?;
            if entry.meta.kind != EntryKind::File || changeable(entry.meta.path.as_bytes()).is_none() {
                continue;
            }
            let (path, modified) = (entry.meta.path.as_bytes().to_vec(), String::new());
            writer.file(&ManifestFile { path, size: entry.len, checksum: None, modified });
            text.extend_from_slice(&writer.take());
            if text.len() >= PIECE {
                upload.send(&text).await?;
                text.clear();
            }
        }
        text.extend_from_slice(&writer.finish(&[WalRange { timeline, start, end: stop }]));
        upload.send(&text).await?;
        upload.finish().await?;
        Ok(())
    }

    /// Learns what the server does not tell in what it sends: from where on nothing is left of relations that were cut off.
    ///
    /// # Errors
    /// When that cannot be known.
    pub(super) async fn resets(&self, cx: &BackupContext, sql: &mut Session, started: &Started) -> Result<ChangeMap> {
        let Started { timeline, position, .. } = *started;
        let line = summaries::line(&self.before, self.history.as_ref(), timeline, position)?;
        let map = summaries::read(cx.work(), sql, &line, Wanted::Limits).await?;
        if map.end() < position {
            let text = format!("no summary tells of the log from {} to {position}", map.end());
            return Err(Error::environment(text));
        }
        Ok(map)
    }
}

/// The relation at `path`, if the server may send changes of it.
fn changeable(path: &[u8]) -> Option<RelationFile> {
    RelationFile::parse_path(path).filter(|file| file.fork != Fork::FreeSpace)
}

/// The path of the file of which `path` holds changes.
fn target(path: &[u8]) -> Option<Vec<u8>> {
    let name = path.iter().rposition(|byte| *byte == b'/')? + 1;
    let target = [&path[..name], path[name..].strip_prefix(PREFIX)?].concat();
    changeable(&target).map(|_| target)
}

/// An increment while it comes.
#[derive(Debug)]
pub(super) struct Increment {
    basis: Box<Basis>,
    resets: ChangeMap,
    /// The length of each file of which changes came.
    lens: HashMap<Vec<u8>, u64>,
    /// Length and checksum of the label, which is stored without what makes it one of an increment.
    label: Option<(u64, Checksum)>,
    carried: Vec<Finding>,
}

impl Increment {
    pub(super) fn new(basis: Box<Basis>, resets: ChangeMap) -> Self {
        Self { basis, resets, lens: HashMap::new(), label: None, carried: Vec::new() }
    }

    /// The entry of which `path` holds changes, if it does.
    pub(super) fn target(&self, path: &EntryPath) -> Option<EntryPath> {
        target(path.as_bytes()).and_then(|target| EntryPath::new(target).ok())
    }

    /// How the blocks behind `header` lie over what the parent has at `path`.
    ///
    /// # Errors
    /// Damaged, when the parent has nothing there: the server was told so.
    pub(super) async fn overlay(&mut self, path: &EntryPath, header: &IncrementHeader) -> Result<Overlay> {
        let entry = self.basis.source.entry(path).await?;
        let missing = || Error::damaged(format!("the server sent changes of {path}, which the parent does not have"));
        let entry = entry.ok_or_else(missing)?;
        let map = RelationFile::parse_path(path.as_bytes()).is_some_and(|file| file.fork == Fork::Visibility);
        let overlay = Overlay::new(header, entry.len, self.resets.reset(path.as_bytes()), map);
        self.lens.insert(path.as_bytes().to_vec(), overlay.len());
        self.carry(path, overlay.changes());
        Ok(overlay)
    }

    /// Pages that are not sent again are what they were.
    fn carry(&mut self, path: &EntryPath, changes: &Changes) {
        let page = crate::page::PAGE_SIZE as u64;
        let Some(findings) = self.basis.bad.get(&path.to_string()) else { return };
        let sent: Vec<String> = changes
            .ranges()
            .iter()
            .flat_map(|range| range.start / page..range.end / page)
            .map(|block| pages::wrong(path, u32::try_from(block).unwrap_or(u32::MAX), Severity::Warning).message)
            .collect();
        let kept = findings.iter().filter(|finding| !sent.contains(&finding.message));
        self.carried.extend(kept.cloned());
    }

    /// Says what the stored label is.
    pub(super) fn label(&mut self, len: u64, checksum: Checksum) {
        self.label = Some((len, checksum));
    }

    /// What the manifest of the whole backup says in the place of what the server's says.
    pub(super) fn described(&self, file: ManifestFile) -> ManifestFile {
        if let Some((size, checksum)) = self.label.as_ref().filter(|_| file.path == b"backup_label") {
            return ManifestFile { size: *size, checksum: Some(checksum.clone()), ..file };
        }
        match target(&file.path).and_then(|path| Some((self.lens.get(&path).copied()?, path))) {
            // Nobody has seen all of it, so there is no checksum.
            Some((size, path)) => ManifestFile { path, size, checksum: None, ..file },
            None => file,
        }
    }

    /// What was found about pages that did not come.
    pub(super) fn findings(self) -> Vec<Finding> {
        self.carried
    }
}
