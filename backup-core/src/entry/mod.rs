//! What a backup consists of: files, folders, links and small records, each under a path of its own.

mod path;
mod selector;

pub use path::EntryPath;
pub use selector::Selector;

use jiff::Timestamp;
use minicbor::{Decode, Encode};

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EntryKind {
    /// Content that is restored as a file.
    #[n(0)]
    File,
    /// A folder. Only needed where an empty folder or its permissions matter.
    #[n(1)]
    Directory,
    /// A symbolic link with its target as bytes. Extraction only makes links that stay inside the target directory.
    #[n(2)]
    Symlink {
        /// The link's target.
        #[cbor(n(0), with = "minicbor::bytes")]
        target: Vec<u8>,
    },
    /// Content that only its engine reads (a schema, a description). Never extracted as a file.
    #[n(3)]
    Record,
}

/// Native proof that two files are the same content, made by an engine: name, size and the engine's own checksum, or a
/// content hash. Compared as bytes; at most 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct ContentIdentity(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>);

impl ContentIdentity {
    /// An identity of the given bytes.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when it is empty or longer than 256 bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> crate::Result<Self> {
        let bytes = bytes.into();
        if bytes.is_empty() || bytes.len() > 256 {
            return Err(crate::Error::invalid(format!(
                "a content identity must have 1 to 256 bytes, not {}",
                bytes.len()
            )));
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What is known of an entry besides its content.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
#[non_exhaustive]
pub struct EntryMeta {
    /// Where it stands.
    #[n(0)]
    pub path: EntryPath,
    /// What it is.
    #[n(1)]
    pub kind: EntryKind,
    /// Unix permission bits (`0o7777` at most).
    #[n(2)]
    pub mode: u32,
    /// Last modification by the source's clock.
    #[cbor(n(3), with = "optional_timestamp")]
    pub modified: Option<Timestamp>,
    /// Native identity of the content.
    #[n(4)]
    #[serde(skip)]
    pub identity: Option<ContentIdentity>,
}

impl EntryMeta {
    /// An entry at `path`; mode `0600`, or `0700` for a folder.
    #[must_use]
    pub fn new(path: EntryPath, kind: EntryKind) -> Self {
        let mode = if kind == EntryKind::Directory { 0o700 } else { 0o600 };
        Self { path, kind, mode, modified: None, identity: None }
    }

    /// A file at `path`.
    #[must_use]
    pub fn file(path: EntryPath) -> Self {
        Self::new(path, EntryKind::File)
    }

    /// A folder at `path`.
    #[must_use]
    pub fn directory(path: EntryPath) -> Self {
        Self::new(path, EntryKind::Directory)
    }

    /// A record at `path`.
    #[must_use]
    pub fn record(path: EntryPath) -> Self {
        Self::new(path, EntryKind::Record)
    }

    /// Sets the permission bits; others are cut off.
    #[must_use]
    pub fn with_mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o7777;
        self
    }

    /// Sets the time of the last modification.
    #[must_use]
    pub fn with_modified(mut self, modified: Option<Timestamp>) -> Self {
        self.modified = modified;
        self
    }

    /// Sets the native identity.
    #[must_use]
    pub fn with_identity(mut self, identity: ContentIdentity) -> Self {
        self.identity = Some(identity);
        self
    }
}

/// An entry of a stored backup.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct EntryInfo {
    /// What is known besides content.
    #[serde(flatten)]
    pub meta: EntryMeta,
    /// Length of the content in bytes.
    pub len: u64,
}

impl EntryInfo {
    /// An entry of `len` bytes.
    #[must_use]
    pub fn new(meta: EntryMeta, len: u64) -> Self {
        Self { meta, len }
    }
}

mod optional_timestamp {
    use jiff::Timestamp;
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    use crate::cbor::timestamp;

    pub(super) fn encode<C, W: Write>(
        value: &Option<Timestamp>,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        match value {
            Some(time) => timestamp::encode(time, e, ctx),
            None => e.null()?.ok(),
        }
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<Option<Timestamp>, DecodeError> {
        if d.datatype()? == minicbor::data::Type::Null {
            d.null()?;
            return Ok(None);
        }
        timestamp::decode(d, ctx).map(Some)
    }
}
