//! What a host that only writes remembers of its last deposit, so that the next one stores only what has changed.
//!
//! A folder of the host itself with two files: `<session>.parts` has the segments of the manifest (entries, block hashes, lists of extents, the root),
//! `last` says which backup that is. No content, and no key: of what is stored, nothing can be opened with it. It does have names and sizes of what was backed up,
//! which the host has anyway; the folder is for its owner alone.
//!
//! The folder is a cache. Whatever is wrong with it costs a full backup: both files are checked as a whole before anything is built on them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::SessionId;
use backup_core::catalog::{BackupRecord, PackId};
use backup_crypto::HostSecret;
use bytes::Bytes;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;

use super::file::HostFile;
use super::repository::only_writes;
use crate::error::{Error, Result};
use crate::manifest::{BlockMap, Content, Extent, ManifestEntry, PackUse};
use crate::pack::{Role, SEGMENT};

const LAST: &str = "last";
const PARTS: &str = "parts";
/// In the place of a name, for the tag of the file `last`.
const TAGGED: &str = "host-state/last";
const TAG: usize = 32;
/// Session, number of the pack, segment, role and three zeros, length of what follows.
const ROW: usize = 16 + 4 + 4 + 4 + 4;
const VERSION: u32 = 1;

/// What `last` says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Last {
    #[n(0)]
    version: u32,
    #[cbor(n(1), with = "minicbor::bytes")]
    repository: [u8; 16],
    #[n(2)]
    record: BackupRecord,
    /// BLAKE3 of the file of parts.
    #[cbor(n(3), with = "minicbor::bytes")]
    digest: [u8; 32],
}

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct StateFolder {
    dir: Arc<Path>,
}

/// The last deposit, as far as the host remembers it.
#[derive(Debug)]
pub(crate) struct Remembered {
    pub(crate) record: BackupRecord,
    pub(crate) noted: Arc<Noted>,
}

/// Segments of a manifest in a file.
pub(crate) struct Noted {
    file: File,
    index: HashMap<(PackId, u32), Row>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    offset: u64,
    len: u32,
    role: u8,
}

impl StateFolder {
    /// The folder `dir`, which is made where it is not there.
    ///
    /// # Errors
    /// Environment when it cannot be had. Blocking.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let at = |e| Error::io(format!("the host's state folder {}", dir.display()), e);
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at)?;
        Ok(Self { dir: dir.into() })
    }

    fn parts(&self, session: SessionId) -> PathBuf {
        self.dir.join(format!("{session}.{PARTS}"))
    }

    /// What is remembered; nothing when there is nothing that is whole. Blocking.
    pub(crate) fn load(&self, file: &HostFile) -> Option<Remembered> {
        match self.try_load(file) {
            Ok(remembered) => remembered,
            Err(error) => {
                tracing::warn!(%error, "what the host remembers is of no use: everything is stored anew");
                None
            }
        }
    }

    fn try_load(&self, file: &HostFile) -> Result<Option<Remembered>> {
        let path = self.dir.join(LAST);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(path.display(), e)),
        };
        let damaged = || Error::damaged(format!("{} is damaged, or another host's", path.display()));
        let (said, tag) = bytes.split_last_chunk::<TAG>().ok_or_else(damaged)?;
        if !file.secret.verify(TAGGED, said, tag) {
            return Err(damaged());
        }
        let last: Last = minicbor::decode(said).map_err(|e| damaged().with_source(e))?;
        if last.version != VERSION || &last.repository != file.repository.as_bytes() {
            return Err(damaged());
        }
        let path = self.parts(last.record.session);
        let parts = File::open(&path).map_err(|e| Error::io(path.display(), e))?;
        let (noted, digest) = Noted::scan(parts).map_err(|e| e.context(path.display().to_string()))?;
        if digest != last.digest {
            return Err(Error::damaged(format!("{} is damaged", path.display())));
        }
        Ok(Some(Remembered { record: last.record, noted: Arc::new(noted) }))
    }

    /// Begins to note the manifest of `session`. Blocking.
    ///
    /// # Errors
    /// Environment.
    pub(crate) fn begin(&self, session: SessionId) -> Result<Notes> {
        let path = self.parts(session);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|e| Error::io(path.display(), e))?;
        Ok(Notes { path, writer: Mutex::new(Some(std::io::BufWriter::with_capacity(SEGMENT, file))) })
    }

    /// Makes `record`, whose manifest is in the file with `digest`, what is remembered. Blocking.
    ///
    /// # Errors
    /// Environment; what was remembered before is then remembered still, or nothing.
    pub(crate) fn remember(&self, file: &HostFile, record: &BackupRecord, digest: [u8; 32]) -> Result<()> {
        let last = Last { version: VERSION, repository: *file.repository.as_bytes(), record: record.clone(), digest };
        let mut bytes = minicbor::to_vec(&last)
            .map_err(|e| Error::internal("what a host remembers cannot be encoded").with_source(e))?;
        let tag = tag(&file.secret, &bytes);
        bytes.extend_from_slice(&tag);
        let (new, path) = (self.dir.join(format!("{LAST}.{}", record.session)), self.dir.join(LAST));
        let at = |e| Error::io(path.display(), e);
        let mut options = OpenOptions::new();
        let mut open = options.write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(at)?;
        open.write_all(&bytes).and_then(|()| open.sync_all()).map_err(at)?;
        std::fs::rename(&new, &path).map_err(at)?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(at)?;
        self.tidy(record.session);
        Ok(())
    }

    /// Removes what belongs to other sessions: they have failed, or are remembered no more.
    fn tidy(&self, kept: SessionId) {
        let (kept, all) = (self.parts(kept), std::fs::read_dir(&self.dir));
        for path in all.into_iter().flatten().flatten().map(|entry| entry.path()) {
            let spare = path.extension().is_some_and(|extension| extension == PARTS) && path != kept;
            if spare && let Err(error) = std::fs::remove_file(&path) {
                tracing::debug!(%error, path = %path.display(), "what a host need not remember cannot be removed");
            }
        }
    }
}

fn tag(secret: &HostSecret, said: &[u8]) -> [u8; TAG] {
    secret.tag(TAGGED, said)
}

impl Noted {
    /// Reads what is in `file`, and its digest.
    fn scan(mut file: File) -> Result<(Self, [u8; 32])> {
        let at = |e| Error::io("a file of parts", e);
        let damaged = || Error::damaged("it is cut off");
        let len = file.metadata().map_err(at)?.len();
        let mut reader = std::io::BufReader::with_capacity(SEGMENT, &mut file);
        let (mut hasher, mut index, mut offset) = (blake3::Hasher::new(), HashMap::new(), 0);
        let mut content = Vec::new();
        while offset < len {
            let mut row = [0; ROW];
            reader.read_exact(&mut row).map_err(|_| damaged())?;
            let (pack, segment, found) = parse_row(&row, offset + ROW as u64);
            if found.len as usize > SEGMENT {
                return Err(Error::damaged("it has a segment that is too long"));
            }
            content.resize(found.len as usize, 0);
            reader.read_exact(&mut content).map_err(|_| damaged())?;
            hasher.update(&row).update(&content);
            offset = found.offset + u64::from(found.len);
            index.insert((pack, segment), found);
        }
        Ok((Self { file, index }, *hasher.finalize().as_bytes()))
    }

    /// A segment of the manifest, or of what it refers to. Blocking.
    ///
    /// # Errors
    /// InvalidInput, by [`OnlyWrites`](super::OnlyWrites), for anything else.
    pub(crate) fn read(&self, pack: PackId, segment: u32) -> Result<Bytes> {
        let row = self.index.get(&(pack, segment));
        let row = row.ok_or_else(|| only_writes(format!("read segment {segment} of pack {pack}")))?;
        let mut bytes = vec![0; row.len as usize];
        self.file.read_exact_at(&mut bytes, row.offset).map_err(|e| Error::io("a file of parts", e))?;
        Ok(bytes.into())
    }
}

impl fmt::Debug for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Noted({} segments)", self.index.len())
    }
}

/// The manifest of a session that is under way, noted as it is sealed. What goes wrong costs the next backup its parent, and this one nothing.
pub(crate) struct Notes {
    path: PathBuf,
    writer: Mutex<Option<std::io::BufWriter<File>>>,
}

impl Notes {
    /// Notes a segment, if it is one of a manifest. Blocking.
    pub(crate) fn note(&self, pack: PackId, segment: u32, role: Role, plaintext: &[u8]) {
        if !matches!(role, Role::Blob | Role::ManifestPart | Role::ManifestRoot) {
            return;
        }
        let mut writer = self.writer.lock();
        let Some(open) = writer.as_mut() else { return };
        if let Err(error) = put(open, pack, segment, role as u8, plaintext) {
            tracing::warn!(%error, path = %self.path.display(), "the host cannot remember what it stores");
            *writer = None;
        }
    }

    /// Adds what the manifest refers to and others have stored, which `before` has, and ends. `packs` is the pack table of the manifest. Returns
    /// the digest of the file. Blocking.
    ///
    /// # Errors
    /// When it cannot be remembered.
    pub(crate) fn finish(&self, own: SessionId, packs: &[PackUse], before: Option<&Noted>) -> Result<[u8; 32]> {
        let at = |e| Error::io(self.path.display(), e);
        let gone = || Error::environment(format!("{} was not written as a whole", self.path.display()));
        let mut writer = self.writer.lock().take().ok_or_else(gone)?;
        writer.flush().map_err(at)?;
        let (noted, _) = Noted::scan(File::open(&self.path).map_err(at)?)?;
        let mut wanted = BTreeSet::new();
        for ((pack, segment), _) in noted.index.iter().filter(|(_, row)| row.role == Role::ManifestPart as u8) {
            let part = noted.read(*pack, *segment)?;
            let mut decoder = minicbor::Decoder::new(&part);
            while decoder.position() < part.len() {
                let entry: ManifestEntry = decoder
                    .decode()
                    .map_err(|e| Error::internal("an entry that was just written is not readable").with_source(e))?;
                for extent in metadata(&entry) {
                    let pack = extent.pack_index().and_then(|index| packs.get(index as usize)).map(|used| used.pack);
                    let foreign = pack.filter(|pack| pack.session != own);
                    wanted.extend(
                        foreign.into_iter().flat_map(|pack| extent.segments(0).map(move |part| (pack, part.segment))),
                    );
                }
            }
        }
        for (pack, segment) in wanted {
            let before = before.ok_or_else(gone)?;
            let content = before.read(pack, segment)?;
            put(&mut writer, pack, segment, Role::Blob as u8, &content).map_err(at)?;
        }
        let file = writer.into_inner().map_err(|e| at(e.into_error()))?;
        file.sync_all().map_err(at)?;
        Ok(Noted::scan(File::open(&self.path).map_err(at)?)?.1)
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notes").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The extents of an entry that belong to the manifest and not to content.
fn metadata(entry: &ManifestEntry) -> impl Iterator<Item = &Extent> {
    let list = match &entry.content {
        Content::Stored(list) => &list[..],
        Content::Inline(_) => &[],
    };
    let hashes = match &entry.blocks {
        BlockMap::Stored { hashes, .. } => &hashes[..],
        BlockMap::Inline { .. } => &[],
    };
    list.iter().chain(hashes)
}

fn put(to: &mut impl Write, pack: PackId, segment: u32, role: u8, plaintext: &[u8]) -> std::io::Result<()> {
    let len = u32::try_from(plaintext.len()).map_err(std::io::Error::other)?;
    let mut row = [0; ROW];
    row[..16].copy_from_slice(&pack.session.to_bytes());
    row[16..20].copy_from_slice(&pack.number.to_le_bytes());
    row[20..24].copy_from_slice(&segment.to_le_bytes());
    row[24] = role;
    row[28..].copy_from_slice(&len.to_le_bytes());
    to.write_all(&row)?;
    to.write_all(plaintext)
}

fn parse_row(row: &[u8; ROW], offset: u64) -> (PackId, u32, Row) {
    let word = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
    let mut session = [0; 16];
    session.copy_from_slice(&row[..16]);
    let pack = PackId { session: SessionId::from_bytes(session), number: word(16) };
    (pack, word(20), Row { offset, len: word(28), role: row[24] })
}
