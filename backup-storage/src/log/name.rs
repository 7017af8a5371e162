//! The names of log objects. A name says everything that has to be known of an object to know what is covered, so one listing
//! tells which log is stored.
//!
//! ```text
//! log/<lineage>/<writer epoch %08d>/<sequence %010d>-<start %016x>-<end %016x>
//! ```
//! The name is bound into the key of the object, so what it says is as authentic as the object.

use std::ops::Range;

use backup_core::Lineage;
use backup_core::log::{LogEpoch, LogRange};

use crate::error::{Error, Result};
use crate::layout::LOG;
use crate::store::ObjectName;

/// One stored piece of one writer, without its lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Piece {
    /// Who wrote it.
    pub(crate) epoch: LogEpoch,
    /// Its number among the pieces of its writer, of all lineages, from 1.
    pub(crate) sequence: u64,
    /// Its first offset.
    pub(crate) start: u64,
    /// The offset behind its last one. An empty piece carries the source's word that nothing happened.
    pub(crate) end: u64,
}

impl Piece {
    /// The largest sequence number that a name has room for.
    #[cfg(test)]
    pub(crate) const MAX_SEQUENCE: u64 = 9_999_999_999;

    pub(crate) fn offsets(&self) -> Range<u64> {
        self.start..self.end
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The name of the object that holds it.
    ///
    /// # Errors
    /// InvalidInput for a lineage that cannot be part of a name.
    pub(crate) fn name(&self, lineage: &Lineage) -> Result<ObjectName> {
        if !lineage.is_storable() {
            return Err(Error::invalid(format!("lineage {:?} cannot be part of a name", lineage.as_str())));
        }
        let Self { epoch, sequence, start, end } = self;
        ObjectName::new(format!("{LOG}/{lineage}/{:08}/{sequence:010}-{start:016x}-{end:016x}", epoch.0))
    }

    pub(crate) fn range(&self, lineage: &Lineage) -> LogRange {
        LogRange::new(lineage.clone(), self.offsets())
    }
}

/// Reads the name of a log object. Foreign names, and those that are written in another way, are `None`.
pub(crate) fn parse(name: &str) -> Option<(Lineage, Piece)> {
    let rest = name.strip_prefix(LOG)?.strip_prefix('/')?;
    let (lineage, rest) = rest.split_once('/')?;
    let (epoch, rest) = rest.split_once('/')?;
    let mut parts = rest.split('-');
    let (sequence, start, end) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let lineage = Lineage::new(lineage);
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !lineage.is_storable() || !digits(epoch) || !digits(sequence) || !hex(start) || !hex(end) {
        return None;
    }
    let piece = Piece {
        epoch: LogEpoch(epoch.parse().ok()?),
        sequence: sequence.parse().ok()?,
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
    };
    // One piece has one name.
    let own = piece.name(&lineage).ok()?;
    (piece.start <= piece.end && own.as_str() == name).then_some((lineage, piece))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_come_back_and_sort_as_they_were_written(
            lineage in "[a-z0-9]([a-z0-9._-]{0,78}[a-z0-9_-])?",
            epoch in any::<u32>(),
            sequence in 0..=Piece::MAX_SEQUENCE,
            start in any::<u64>(),
            len in any::<u64>(),
        ) {
            let lineage = Lineage::new(lineage);
            let end = start.saturating_add(len);
            let piece = Piece { epoch: LogEpoch(epoch), sequence, start, end };
            let name = piece.name(&lineage).unwrap();
            prop_assert_eq!(parse(name.as_str()), Some((lineage.clone(), piece)));
            let next = Piece { sequence: sequence.saturating_add(1), ..piece };
            if sequence < Piece::MAX_SEQUENCE {
                prop_assert!(name < next.name(&lineage).unwrap());
            }
        }

        #[test]
        fn no_text_is_two_pieces(text in "log/[a-z0-9/-]{0,60}") {
            if let Some((lineage, piece)) = parse(&text) {
                let name = piece.name(&lineage).unwrap();
                prop_assert_eq!(name.as_str(), text);
            }
        }
    }

    #[test]
    fn foreign_names_are_not_read() {
        let good = "log/1/00000002/0000000003-00000000000000ff-0000000000000100";
        assert!(parse(good).is_some());
        for foreign in [
            "log",
            "log/1/00000002",
            "logs/1/00000002/0000000003-00000000000000ff-0000000000000100",
            "log/A/00000002/0000000003-00000000000000ff-0000000000000100",
            "log/1/2/0000000003-00000000000000ff-0000000000000100",
            "log/1/00000002/3-00000000000000ff-0000000000000100",
            "log/1/00000002/0000000003-00000000000000FF-0000000000000100",
            "log/1/00000002/0000000003-00000000000001ff-0000000000000100",
            "log/1/00000002/0000000003-00000000000000ff-0000000000000100-1",
            "log/1/00000002/0000000003-00000000000000ff",
            "log/1/00000002/+000000003-00000000000000ff-0000000000000100",
            "log/1/00000002/x/0000000003-00000000000000ff-0000000000000100",
            "log/1/99999999999/0000000003-00000000000000ff-0000000000000100",
        ] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
        assert!(Piece { epoch: LogEpoch(1), sequence: 1, start: 0, end: 1 }.name(&Lineage::new("../x")).is_err());
    }
}
