//! Compression of segments, with contexts that are made once per worker.

use zstd::bulk;
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{InBuffer, OutBuffer, ResetDirective};

use super::SEGMENT;
use crate::error::{Error, Result};

/// How a segment's plaintext was made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Codec {
    /// Not at all.
    Raw = 0,
    /// One zstd frame (RFC 8878).
    Zstd = 1,
}

impl TryFrom<u8> for Codec {
    type Error = Error;

    fn try_from(number: u8) -> Result<Self> {
        match number {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            other => Err(Error::damaged(format!("a segment has the unknown codec {other}"))),
        }
    }
}

/// Compresses one segment at a time.
pub(crate) struct Compressor {
    zstd: bulk::Compressor<'static>,
    buffer: Vec<u8>,
}

impl Compressor {
    /// A compressor of zstd `level`.
    pub(crate) fn new(level: i32) -> Result<Self> {
        let zstd = bulk::Compressor::new(level).map_err(|e| Error::io("zstd", e))?;
        Ok(Self { zstd, buffer: Vec::with_capacity(zstd::zstd_safe::compress_bound(SEGMENT)) })
    }

    /// Goes on with another zstd level.
    pub(crate) fn set_level(&mut self, level: i32) -> Result<()> {
        self.zstd.set_compression_level(level).map_err(|e| Error::io("zstd", e))
    }

    /// Appends `plaintext` to `out`, made smaller, or as it is where that saves less than one part in 32: such a segment is read faster raw.
    /// Where `out` has no room for what compressing may take, it grows by no more than is needed in the end.
    pub(crate) fn append(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<Codec> {
        let start = out.len();
        if out.capacity() - start < zstd::zstd_safe::compress_bound(plaintext.len()) {
            let (codec, packed) = self.compress(plaintext)?;
            out.extend_from_slice(packed);
            return Ok(codec);
        }
        let failed = |code| {
            let name = zstd::zstd_safe::get_error_name(code);
            Error::internal(format!("zstd could not compress a segment: {name}"))
        };
        let context = self.zstd.context_mut();
        context.reset(ResetDirective::SessionOnly).map_err(failed)?;
        let left = {
            let mut to = OutBuffer::around_pos(out, start);
            let mut from = InBuffer::around(plaintext);
            context.compress_stream2(&mut to, &mut from, ZSTD_EndDirective::ZSTD_e_end).map_err(failed)?
        };
        if left > 0 {
            return Err(Error::internal("zstd did not end a segment for which there was room"));
        }
        if pays(out.len() - start, plaintext.len()) {
            return Ok(Codec::Zstd);
        }
        out.truncate(start);
        out.extend_from_slice(plaintext);
        Ok(Codec::Raw)
    }

    /// As [`append`](Self::append), into a buffer of its own.
    pub(crate) fn compress<'a>(&'a mut self, plaintext: &'a [u8]) -> Result<(Codec, &'a [u8])> {
        let bound = zstd::zstd_safe::compress_bound(plaintext.len());
        self.buffer.clear();
        self.buffer.reserve(bound);
        self.zstd
            .compress_to_buffer(plaintext, &mut self.buffer)
            .map_err(|e| Error::internal("zstd could not compress a segment").with_source(e))?;
        if pays(self.buffer.len(), plaintext.len()) {
            Ok((Codec::Zstd, &self.buffer))
        } else {
            Ok((Codec::Raw, plaintext))
        }
    }
}

/// Whether `packed` bytes instead of `plain` are worth the time to read them.
fn pays(packed: usize, plain: usize) -> bool {
    packed + plain / 32 < plain
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compressor")
    }
}

/// Decompresses one segment at a time.
pub(crate) struct Decompressor {
    zstd: bulk::Decompressor<'static>,
}

impl Decompressor {
    pub(crate) fn new() -> Result<Self> {
        let zstd = bulk::Decompressor::new().map_err(|e| Error::io("zstd", e))?;
        Ok(Self { zstd })
    }

    /// Writes the plaintext of `packed` into `out`, which it replaces. It must be exactly `plain_len` bytes; no more is ever
    /// allocated.
    pub(crate) fn decompress(
        &mut self,
        codec: Codec,
        packed: &[u8],
        plain_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.clear();
        match codec {
            Codec::Raw => out.extend_from_slice(packed),
            Codec::Zstd => {
                out.reserve(plain_len);
                self.zstd
                    .decompress_to_buffer(packed, out)
                    .map_err(|e| Error::damaged("a segment cannot be decompressed").with_source(e))?;
            }
        }
        if out.len() != plain_len {
            return Err(Error::damaged(format!("a segment has {} bytes instead of {plain_len}", out.len())));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decompressor")
    }
}
