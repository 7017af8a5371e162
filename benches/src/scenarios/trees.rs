//! Seeded trees of files: the same names and bytes in every run.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use crate::Error;

/// A tree's shape and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tree {
    /// Files of some kilobytes of text, a hundred in a folder.
    ManySmall,
    /// Eight files of rows.
    FewLarge,
    /// Files of 4 MB that no program can compress.
    Incompressible,
}

impl Tree {
    pub(crate) const ALL: [Self; 3] = [Self::ManySmall, Self::FewLarge, Self::Incompressible];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::ManySmall => "many small files",
            Self::FewLarge => "few large files",
            Self::Incompressible => "incompressible files",
        }
    }

    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::ManySmall => "small",
            Self::FewLarge => "large",
            Self::Incompressible => "noise",
        }
    }

    /// Makes it below `dir`, about `bytes` in all; how many files it has.
    pub(crate) fn plant(self, dir: &Path, bytes: u64) -> Result<u64, Error> {
        let mut random = Random(self as u64 + 1);
        std::fs::create_dir_all(dir)?;
        let (mut left, mut number) = (bytes, 0);
        while left > 0 {
            let len = match self {
                // Most are small, some are not: between 0.5 and 64 kB, 8 kB in the mean.
                Self::ManySmall => 512 << (random.next() % 8).min(random.next() % 8),
                Self::FewLarge => (bytes / 8).max(1),
                Self::Incompressible => 4 << 20,
            };
            let len = left.min(len);
            let folder = dir.join(format!("{:04}", number / 100));
            if number % 100 == 0 {
                std::fs::create_dir_all(&folder)?;
            }
            self.fill(&folder.join(format!("{number:07}")), len, &mut random)?;
            (left, number) = (left - len, number + 1);
        }
        Ok(number)
    }

    fn fill(self, path: &Path, len: u64, random: &mut Random) -> Result<(), Error> {
        let mut file = BufWriter::with_capacity(256 << 10, File::create(path)?);
        let mut left = usize::try_from(len)?;
        let mut piece = Vec::with_capacity(64 << 10);
        while left > 0 {
            piece.clear();
            let wanted = left.min(32 << 10);
            while piece.len() < wanted {
                if self == Self::Incompressible {
                    piece.extend_from_slice(&random.next().to_le_bytes());
                } else {
                    row(&mut piece, random);
                }
            }
            piece.truncate(wanted);
            file.write_all(&piece)?;
            left -= wanted;
        }
        file.flush()?;
        Ok(())
    }
}

/// A line as exports and logs have them: times, words of a small vocabulary, numbers, an identifier.
fn row(out: &mut Vec<u8>, random: &mut Random) {
    const WORDS: [&str; 16] = [
        "account", "session", "order", "invoice", "customer", "delivery", "pending", "shipped", "berlin", "helsinki",
        "toronto", "sydney", "monthly", "premium", "refund", "basket",
    ];
    let (a, b) = (random.next(), random.next());
    let word = |shift: u32| WORDS[(a >> shift & 15) as usize];
    let text = format!(
        "2026-{:02}-{:02}T{:02}:{:02}:{:02}Z {} {} {}={} {:016x} {}.{:02}\n",
        a % 12 + 1,
        a / 12 % 28 + 1,
        a >> 20 & 15,
        a >> 24 & 31,
        a >> 29 & 31,
        word(34),
        word(38),
        word(42),
        word(46),
        b,
        a >> 50 & 1023,
        a >> 60,
    );
    out.extend_from_slice(text.as_bytes());
}

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_as_large_as_asked_for_and_the_same_each_time() {
        for tree in Tree::ALL {
            let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let files = tree.plant(one.path(), 300_001).unwrap();
            assert_eq!(tree.plant(two.path(), 300_001).unwrap(), files);
            assert_eq!(crate::yardstick::size(one.path()).unwrap(), 300_001);
            assert_eq!(crate::yardstick::count(one.path()).unwrap(), files);
            let first = |dir: &Path| std::fs::read(dir.join("0000/0000000")).unwrap();
            assert_eq!(first(one.path()), first(two.path()));
        }
    }
}
