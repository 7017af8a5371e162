//! The one error of this crate and its coarse kinds.

use crate::epoch::EpochId;
use crate::object::ObjectKind;
use crate::recipients::{RecipientId, RecipientKind};

/// Result of everything fallible here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller must do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A service that was asked did not answer: try again later.
    Unavailable,
    /// The caller gave something unusable, a wrong passphrase among others: fix the input.
    InvalidInput,
    /// The host or a service refuses: fix the environment.
    Environment,
    /// Stored bytes are not what was once written, or not in the place where they were written.
    Damaged,
    /// A fault of the calling code.
    Internal,
}

/// Everything that can go wrong here. No variant carries key material or plaintext.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes end before the structure does.
    #[error("{what} is truncated: {found} bytes where at least {needed} are needed")]
    Truncated {
        /// What was parsed.
        what: &'static str,
        /// Bytes needed at least.
        needed: usize,
        /// Bytes found.
        found: usize,
    },
    /// The bytes do not start as this structure does.
    #[error("this is not {what}: the magic number is missing")]
    BadMagic {
        /// What was expected.
        what: &'static str,
    },
    /// Written by a later format, or damaged.
    #[error("{what} has {field} {found}, which is not known here")]
    Unsupported {
        /// What was parsed.
        what: &'static str,
        /// The field with the unknown value.
        field: &'static str,
        /// Its value.
        found: u32,
    },
    /// The structure contradicts itself.
    #[error("{what} is damaged: {reason}")]
    Malformed {
        /// What was parsed.
        what: &'static str,
        /// In which way.
        reason: &'static str,
    },
    /// Well-formed, but of another place than the one it was looked for in.
    #[error("{what} belongs to {field} {found}, not to {expected}")]
    ContextMismatch {
        /// What was looked at.
        what: &'static str,
        /// The part of the context that differs.
        field: &'static str,
        /// What the context asks for.
        expected: String,
        /// What the bytes say.
        found: String,
    },
    /// The header does not commit to the key that belongs to this epoch, repository, kind and name.
    #[error(
        "{kind} {name} was not sealed under this name with the key of epoch {epoch}: it was altered, renamed or comes from elsewhere"
    )]
    Commitment {
        /// Kind of the object.
        kind: ObjectKind,
        /// Name of the object.
        name: Box<str>,
        /// Epoch of the object.
        epoch: EpochId,
    },
    /// A segment is not the one that was sealed at this place.
    #[error("segment {index} of {name} does not authenticate")]
    Segment {
        /// Name of the object.
        name: Box<str>,
        /// Index of the segment.
        index: u32,
    },
    /// A length or a number is out of the bounds of the format.
    #[error("{what} is {found}, beyond the limit of {limit}")]
    LimitExceeded {
        /// What was measured.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The sealer was asked to use an index twice, which would reuse a nonce.
    #[error("segment {index} of {name} was already sealed")]
    SegmentRepeated {
        /// Name of the object.
        name: Box<str>,
        /// Index of the segment.
        index: u32,
    },
    /// The sealer was asked for a segment behind the last one, or for a last one before another.
    #[error("segment {index} of {name} contradicts the end of the object at segment {other}")]
    SegmentOrder {
        /// Name of the object.
        name: Box<str>,
        /// Index of the refused segment.
        index: u32,
        /// The segment it contradicts.
        other: u32,
    },
    /// An object name is empty or too long.
    #[error("an object name of {len} bytes cannot be bound to a key")]
    InvalidName {
        /// Length of the name in bytes.
        len: usize,
    },
    /// A text form could not be read. The text itself is not repeated: it may be a secret.
    #[error("the {what} is not valid: expected {expected}")]
    InvalidText {
        /// What was read.
        what: &'static str,
        /// What it should look like.
        expected: &'static str,
    },
    /// The passphrase or key is not the one that the epoch key was wrapped for.
    #[error("the {secret} does not open the key wrapped for {recipient}")]
    WrongSecret {
        /// What kind of secret was tried.
        secret: RecipientKind,
        /// The recipient of the wrap.
        recipient: RecipientId,
    },
    /// The wrap is for another kind of recipient than the identity is.
    #[error("the key wrapped for {recipient} needs a {needed}, not a {given}")]
    WrongRecipientKind {
        /// The recipient of the wrap.
        recipient: RecipientId,
        /// What the wrap needs.
        needed: RecipientKind,
        /// What was given.
        given: RecipientKind,
    },
    /// The memory that a passphrase needs cannot be had.
    #[error("{bytes} bytes of memory are needed to check the passphrase and cannot be had")]
    OutOfMemory {
        /// Bytes needed.
        bytes: u64,
    },
    /// A key management service failed.
    #[error("the key service could not {action} the key of {recipient}")]
    KeyWrapper {
        /// What the caller must do.
        kind: ErrorKind,
        /// "wrap" or "unwrap".
        action: &'static str,
        /// The recipient behind the service.
        recipient: RecipientId,
        /// What the service said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A cipher or key derivation refused input that was checked before.
    #[error("{what} refused checked input")]
    Internal {
        /// Who refused.
        what: &'static str,
    },
}

impl Error {
    /// What the caller must do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Truncated { .. }
            | Self::BadMagic { .. }
            | Self::Unsupported { .. }
            | Self::Malformed { .. }
            | Self::ContextMismatch { .. }
            | Self::Commitment { .. }
            | Self::Segment { .. } => ErrorKind::Damaged,
            Self::LimitExceeded { .. }
            | Self::InvalidName { .. }
            | Self::InvalidText { .. }
            | Self::WrongSecret { .. }
            | Self::WrongRecipientKind { .. } => ErrorKind::InvalidInput,
            Self::OutOfMemory { .. } => ErrorKind::Environment,
            Self::KeyWrapper { kind, .. } => *kind,
            Self::SegmentRepeated { .. } | Self::SegmentOrder { .. } | Self::Internal { .. } => ErrorKind::Internal,
        }
    }
}
