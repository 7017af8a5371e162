//! Compressed blocks, as servers write them into the list, and into files of columns.
//!
//! Source: `CompressedReadBufferBase.cpp`, `CompressionInfo.h`. A block is a CityHash128 of what follows; a byte that
//! names the method; its length with these nine bytes; its length behind decompression; the data.

use super::{MAX_LIST, NAME, unsupported};
use crate::part::hash::city_hash128;
use crate::part::{Error, Hash128, Result};

/// The hash and the nine bytes behind it.
const HEAD: usize = 16 + 9;
/// Servers write blocks of 64 KiB here; a file that says more is refused before anything is reserved for it.
const MAX_BLOCK: usize = 1 << 20;
/// What a block written here holds at most, as servers write it (`MergeTreeDataPartChecksums::write`).
const WRITTEN_BLOCK: usize = 1 << 16;

/// How a block is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// Not at all.
    None,
    /// LZ4, the default of servers for most of their time; LZ4HC is read alike.
    Lz4,
    /// ZSTD, which 26.x writes.
    Zstd,
}

impl Codec {
    const fn method(self) -> u8 {
        match self {
            Self::None => 0x02,
            Self::Lz4 => 0x82,
            Self::Zstd => 0x90,
        }
    }

    const fn of(method: u8) -> Option<Self> {
        match method {
            0x02 => Some(Self::None),
            0x82 => Some(Self::Lz4),
            0x90 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// What all blocks have in them; `base` is where the first begins, for messages.
pub(super) fn decompress_all(mut bytes: &[u8], base: usize) -> Result<Vec<u8>> {
    let (length, mut plain) = (bytes.len(), Vec::new());
    while !bytes.is_empty() {
        let offset = base + length - bytes.len();
        bytes = decompress(bytes, offset, &mut plain)?;
    }
    Ok(plain)
}

/// Takes one block from the front and gives back what follows it.
fn decompress<'a>(bytes: &'a [u8], offset: usize, plain: &mut Vec<u8>) -> Result<&'a [u8]> {
    let corrupt = |reason: &str| Error::corrupt(NAME, offset, reason);
    let Some((head, _)) = bytes.split_first_chunk::<HEAD>() else { return Err(corrupt("a block has no head")) };
    let [hash @ .., method, c0, c1, c2, c3, p0, p1, p2, p3] = *head;
    let compressed = u32::from_le_bytes([c0, c1, c2, c3]) as usize;
    let size = u32::from_le_bytes([p0, p1, p2, p3]) as usize;
    let block = compressed.checked_add(16).and_then(|end| Some((bytes.get(16..end)?, bytes.get(end..)?)));
    let Some((block, rest)) = block else { return Err(corrupt("a block is cut off")) };
    if Hash128::from_bytes(hash) != city_hash128(block) {
        return Err(corrupt("the checksum of a block does not fit"));
    }
    let Some(data) = block.get(9..) else { return Err(corrupt("a block is shorter than its head")) };
    let codec = Codec::of(method).ok_or_else(|| unsupported(format!("compression 0x{method:02x} is not known")))?;
    let start = plain.len();
    if size > MAX_BLOCK || start + size > MAX_LIST {
        return Err(Error::TooLarge { file: NAME, limit: if size > MAX_BLOCK { MAX_BLOCK } else { MAX_LIST } as u64 });
    }
    plain.resize(start + size, 0);
    let place = plain.get_mut(start..).unwrap_or_default();
    match inflate(codec, data, place) {
        Ok(written) if written == size => Ok(rest),
        Ok(_) => Err(corrupt("a block has less in it than it says")),
        Err(reason) => Err(corrupt(&reason)),
    }
}

/// Decompresses into a place that is as long as the result has to be.
fn inflate(codec: Codec, data: &[u8], place: &mut [u8]) -> Result<usize, String> {
    match codec {
        Codec::None if data.len() == place.len() => {
            place.copy_from_slice(data);
            Ok(data.len())
        }
        Codec::None => Err("a block that is not compressed has two lengths".to_owned()),
        Codec::Lz4 => lz4_flex::block::decompress_into(data, place).map_err(|error| format!("lz4: {error}")),
        Codec::Zstd => zstd::bulk::decompress_to_buffer(data, place).map_err(|error| format!("zstd: {error}")),
    }
}

/// Writes `plain` in blocks.
pub(super) fn compress_all(plain: &[u8], codec: Codec, out: &mut Vec<u8>) -> Result<()> {
    for piece in plain.chunks(WRITTEN_BLOCK) {
        let data = match codec {
            Codec::None => piece.to_vec(),
            Codec::Lz4 => lz4_flex::block::compress(piece),
            Codec::Zstd => zstd::bulk::compress(piece, 1).map_err(|error| unsupported(format!("zstd: {error}")))?,
        };
        let lengths = (u32::try_from(data.len() + 9), u32::try_from(piece.len()));
        let (Ok(compressed), Ok(size)) = lengths else { return Err(unsupported("a block has more than 4 GiB")) };
        let mut block = vec![codec.method()];
        block.extend_from_slice(&compressed.to_le_bytes());
        block.extend_from_slice(&size.to_le_bytes());
        block.extend_from_slice(&data);
        out.extend_from_slice(&city_hash128(&block).to_bytes());
        out.extend_from_slice(&block);
    }
    Ok(())
}
