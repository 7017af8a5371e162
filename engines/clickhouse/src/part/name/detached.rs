//! Names of folders in a table's `detached`: a part, and why it is there.

use std::fmt;

use super::{PartName, Syntax, partition};
use crate::part::{Error, Result};

/// Why a part lies in `detached`, by the word in front of its name (`DetachedPartInfo::DETACH_REASONS`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DetachReason {
    /// It is being attached, or was when the server ended.
    Attaching,
    /// It was damaged.
    Broken,
    /// It was damaged when it came back from a native backup.
    BrokenFromBackup,
    /// It was damaged when the server started.
    BrokenOnStart,
    /// It is the copy of a part of another replica.
    Clone,
    /// It was in a part that was damaged.
    CoveredByBroken,
    /// It is being dropped.
    Deleting,
    /// It was not needed, as another part had its rows.
    Ignored,
    /// Two replicas merged the same parts to different bytes.
    MergeNotByteIdentical,
    /// Two replicas mutated the same part to different bytes.
    MutateNotByteIdentical,
    /// Too few replicas had it.
    NoQuorum,
    /// It was fetched from another replica, and not to its end.
    TmpFetch,
    /// Keeper did not know of it.
    Unexpected,
    /// Another word, written by a person or by a server that is not known here.
    Other(String),
}

/// Every known word; none of them is the beginning of another with `_` behind it.
pub(super) const WORDS: [(&str, DetachReason); 13] = [
    ("attaching", DetachReason::Attaching),
    ("broken", DetachReason::Broken),
    ("broken-from-backup", DetachReason::BrokenFromBackup),
    ("broken-on-start", DetachReason::BrokenOnStart),
    ("clone", DetachReason::Clone),
    ("covered-by-broken", DetachReason::CoveredByBroken),
    ("deleting", DetachReason::Deleting),
    ("ignored", DetachReason::Ignored),
    ("merge-not-byte-identical", DetachReason::MergeNotByteIdentical),
    ("mutate-not-byte-identical", DetachReason::MutateNotByteIdentical),
    ("noquorum", DetachReason::NoQuorum),
    ("tmp-fetch", DetachReason::TmpFetch),
    ("unexpected", DetachReason::Unexpected),
];

impl DetachReason {
    /// The word as it stands in front of a name.
    #[must_use]
    pub fn word(&self) -> &str {
        if let Self::Other(word) = self {
            return word;
        }
        WORDS.iter().find(|(_, reason)| reason == self).map_or("", |(word, _)| word)
    }

    fn of(word: &str) -> Result<Self, &'static str> {
        match WORDS.iter().find(|(known, _)| *known == word) {
            Some((_, reason)) => Ok(reason.clone()),
            None => partition(word).map(|word| Self::Other(word.to_owned())),
        }
    }
}

/// The name of a folder in `detached`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DetachedName {
    reason: Option<DetachReason>,
    part: PartName,
    attempt: u32,
}

impl DetachedName {
    /// Reads the name of a folder in `detached`, of a table whose syntax is known.
    ///
    /// # Errors
    /// [`Error::Name`] if there is no name of a part in it.
    pub fn parse(folder: &str, syntax: Syntax) -> Result<Self> {
        let (name, attempt) = without_attempt(folder);
        if let Ok(part) = PartName::parse(name, syntax) {
            return Ok(Self { reason: None, part, attempt });
        }
        let named = name.split_once('_').ok_or("it has no blocks");
        let read = named.and_then(|(word, rest)| Ok((DetachReason::of(word)?, rest)));
        match read {
            Ok((reason, rest)) => Ok(Self { reason: Some(reason), part: PartName::parse(rest, syntax)?, attempt }),
            Err(reason) => Err(Error::name(folder, reason)),
        }
    }

    /// Why it is there; `None` if somebody detached it, or put it there to be attached.
    #[must_use]
    pub const fn reason(&self) -> Option<&DetachReason> {
        self.reason.as_ref()
    }

    /// The part.
    #[must_use]
    pub const fn part(&self) -> &PartName {
        &self.part
    }

    /// How many folders of the same name were there before.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether `ATTACH PARTITION` takes it: only what has nothing in front of its name and behind it.
    #[must_use]
    pub const fn is_attachable(&self) -> bool {
        self.reason.is_none() && self.attempt == 0
    }
}

/// The folder's name as it was read.
impl fmt::Display for DetachedName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.reason {
            write!(formatter, "{}_", reason.word())?;
        }
        write!(formatter, "{}", self.part)?;
        if self.attempt > 0 { write!(formatter, "_try{}", self.attempt) } else { Ok(()) }
    }
}

/// Splits `_try3` from a name, which servers put there when the name was taken (`getRelativePathForDetachedPart`).
fn without_attempt(folder: &str) -> (&str, u32) {
    let split = folder.rsplit_once("_try");
    let numbered = split.and_then(|(name, attempt)| {
        let attempt = u32::try_from(super::number(attempt)?).ok()?;
        (attempt > 0).then_some((name, attempt))
    });
    numbered.unwrap_or((folder, 0))
}
