//! Why a map of changes cannot be relied on.

use std::fmt;

use crate::lsn::Lsn;
use crate::wal::Rmgr;

/// Why a map of changes cannot be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Doubt {
    /// The server ran with `wal_level = minimal`: it changed files without a record.
    Minimal {
        /// The record that says so.
        at: Lsn,
    },
    /// A record whose meaning is unknown: an extension's, or one of a kind that this version should not have.
    Unknown {
        /// Where it begins.
        at: Lsn,
        /// Whose it is.
        rmgr: Rmgr,
        /// What it says.
        info: u8,
    },
    /// A record that contradicts itself.
    Unreadable {
        /// Where it begins.
        at: Lsn,
    },
    /// A part of the log is missing.
    Gap {
        /// Where the log was left.
        from: Lsn,
        /// Where it goes on.
        to: Lsn,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minimal { at } => write!(f, "from {at} on the server logged too little (wal_level = minimal)"),
            Self::Unknown { at, rmgr, info } => write!(f, "the record at {at} is unknown ({rmgr} {info:#04x})"),
            Self::Unreadable { at } => write!(f, "the record at {at} contradicts itself"),
            Self::Gap { from, to } => write!(f, "the log from {from} to {to} was not seen"),
        }
    }
}
