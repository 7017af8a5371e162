//! Parts as real servers wrote them, file by file, each in a line: its path and its bytes in hexadecimal digits. The first
//! line has what `system.parts` said of the part: its three hashes, where the server tells any.

use super::Hash128;

/// A part as a server wrote it.
pub(crate) struct GoldenPart {
    /// `hash_of_all_files`, `hash_of_uncompressed_files`, `uncompressed_hash_of_compressed_files`.
    pub(crate) hashes: Vec<Hash128>,
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

impl GoldenPart {
    fn read(text: &str) -> Self {
        let (head, rest) = text.split_once('\n').unwrap();
        let files = rest.lines().map(|line| {
            let (path, hex) = line.rsplit_once(' ').unwrap();
            (path.to_owned(), bytes_of(hex))
        });
        Self { hashes: head.split(' ').filter_map(Hash128::from_hex).collect(), files: files.collect() }
    }

    pub(crate) fn file(&self, path: &str) -> &[u8] {
        &self.files.iter().find(|(name, _)| name == path).unwrap().1
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .as_chunks::<2>()
        .0
        .iter()
        .map(|digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect()
}

macro_rules! golden {
    ($name:literal) => {
        GoldenPart::read(include_str!(concat!("../../tests/golden/", $name, ".txt")))
    };
}

/// 18.16: a part of the old syntax, without `count.txt`.
pub(crate) fn monthly_18() -> GoldenPart {
    golden!("18.16-monthly")
}

/// 18.16: an array, a nullable, a nested structure, a name that is escaped.
pub(crate) fn small_18() -> GoldenPart {
    golden!("18.16-small")
}

/// 18.16: one row of one byte, neither partition nor key.
pub(crate) fn one_18() -> GoldenPart {
    golden!("18.16-one")
}

/// 26.9: all columns in one file.
pub(crate) fn compact_26() -> GoldenPart {
    golden!("26.9-compact")
}

/// 26.9: names of files that are hashes.
pub(crate) fn hashed_26() -> GoldenPart {
    golden!("26.9-hashed")
}

/// 26.9: a projection, an index, sparse columns, a dictionary, a tuple, a time to live, an identity.
pub(crate) fn wide_26() -> GoldenPart {
    golden!("26.9-wide")
}

/// 26.9: all files in one, and a projection with all files in one.
pub(crate) fn packed_26() -> GoldenPart {
    golden!("26.9-packed")
}

pub(crate) fn all() -> Vec<GoldenPart> {
    vec![monthly_18(), small_18(), one_18(), compact_26(), hashed_26(), wide_26()]
}
