//! The names of files in a spool: a piece's generation of the journal and object name, with another separator.
//!
//! ```text
//! <generation %04d>+log+<lineage>+<writer %08d>+<sequence %010d>-<start %016x>-<end %016x>
//! ```
//! No object name has a `+`, so the way back is unambiguous. The generation tells writers apart that got the same number before and
//! after the catalog was rebuilt.

use backup_core::Lineage;

use crate::error::Result;
use crate::log::name::{self, Piece};

/// A piece of log in a spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpoolName {
    /// The generation of the journal in which its writer was opened.
    pub(crate) generation: u32,
    pub(crate) lineage: Lineage,
    pub(crate) piece: Piece,
}

impl SpoolName {
    /// The name of its file.
    ///
    /// # Errors
    /// InvalidInput for a lineage that cannot be part of a name.
    pub(crate) fn file(&self) -> Result<String> {
        let object = self.piece.name(&self.lineage)?;
        Ok(format!("{:04}+{}", self.generation, object.as_str().replace('/', "+")))
    }

    /// Reads the name of a file. Foreign names, and those that are written in another way, are `None`.
    pub(crate) fn parse(file: &str) -> Option<Self> {
        let (generation, object) = file.split_once('+')?;
        let digits = generation.bytes().all(|b| b.is_ascii_digit());
        let generation = generation.parse().ok().filter(|_| digits)?;
        let (lineage, piece) = name::parse(&object.replace('+', "/"))?;
        let parsed = Self { generation, lineage, piece };
        // One piece has one name.
        (parsed.file().ok()? == file).then_some(parsed)
    }

    /// In which order pieces were written.
    pub(crate) fn order(&self) -> (u32, backup_core::log::LogEpoch, u64) {
        (self.generation, self.piece.epoch, self.piece.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::log::LogEpoch;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_come_back_and_lie_in_one_folder(
            generation in any::<u32>(),
            lineage in "[a-z0-9]([a-z0-9._-]{0,78}[a-z0-9_-])?",
            epoch in any::<u32>(),
            sequence in 0..=Piece::MAX_SEQUENCE,
            start in any::<u64>(),
            len in any::<u64>(),
        ) {
            let piece = Piece { epoch: LogEpoch(epoch), sequence, start, end: start.saturating_add(len) };
            let name = SpoolName { generation, lineage: Lineage::new(lineage), piece };
            let file = name.file().unwrap();
            prop_assert!(!file.contains('/') && file.len() < 255 && file.as_bytes()[0].is_ascii_digit());
            prop_assert_eq!(SpoolName::parse(&file), Some(name));
        }

        #[test]
        fn no_file_is_two_pieces(file in "[0-9+]{1,6}log[+/][a-z0-9+-]{0,60}") {
            if let Some(name) = SpoolName::parse(&file) {
                prop_assert_eq!(name.file().unwrap(), file);
            }
        }
    }

    #[test]
    fn foreign_names_are_not_read() {
        let good = "0001+log+1+00000002+0000000003-00000000000000ff-0000000000000100";
        assert!(SpoolName::parse(good).is_some());
        for foreign in [
            "lock",
            "identity",
            "log+1+00000002+0000000003-00000000000000ff-0000000000000100",
            "1+log+1+00000002+0000000003-00000000000000ff-0000000000000100",
            "+0001+log+1+00000002+0000000003-00000000000000ff-0000000000000100",
            "0001+log/1+00000002+0000000003-00000000000000ff-0000000000000100",
            "0001+log+1+2+0000000003-00000000000000ff-0000000000000100",
            "0001+log+..+00000002+0000000003-00000000000000ff-0000000000000100",
            "0001+log+1+00000002+0000000003-00000000000000ff-0000000000000100.tmp",
            "0001+log+1+00000002+0000000003-00000000000000ff-0000000000000100.damaged",
        ] {
            assert_eq!(SpoolName::parse(foreign), None, "{foreign}");
        }
    }
}
