//! The walk through what follows a type or an opcode: it may stop and go on at any byte.

use super::layout::{Layout, Op};
use super::length::{self, INT8, INT16, INT32, LZF, Length};
use super::name::Name;

/// A chunk, and how far it is read.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }
}

/// The first bytes of something short whose last bytes come with the next chunk.
#[derive(Debug, Default)]
pub(super) struct Carry {
    bytes: [u8; Self::LEN],
    len: usize,
}

impl Carry {
    /// The longest thing that is read as one: an identity in a stream.
    pub(super) const LEN: usize = 16;

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The next `width` bytes, at most [`LEN`](Self::LEN), when all of them are there. Else they are kept, and the same is to be asked again.
    pub(super) fn take(&mut self, cursor: &mut Cursor<'_>, width: usize) -> Option<[u8; Self::LEN]> {
        let mut out = [0; Self::LEN];
        if self.len == 0
            && let Some(whole) = cursor.rest().get(..width)
        {
            out.get_mut(..width)?.copy_from_slice(whole);
            cursor.at += width;
            return Some(out);
        }
        while self.len < width {
            let byte = *cursor.rest().first()?;
            *self.bytes.get_mut(self.len)? = byte;
            self.len += 1;
            cursor.at += 1;
        }
        self.len = 0;
        Some(self.bytes)
    }

    /// The next length, when all of it is there.
    pub(super) fn length(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<Length>, String> {
        let rest = cursor.rest();
        let first = if self.len == 0 { rest.first().copied() } else { Some(self.bytes[0]) };
        let Some(first) = first else { return Ok(None) };
        // Most lengths are one byte.
        if self.len == 0 && first < 0x40 {
            cursor.at += 1;
            return Ok(Some(Length::Number(first.into())));
        }
        let width = length::width(first).ok_or_else(|| format!("no length begins with the byte {first:#04x}"))?;
        Ok(self.take(cursor, width).and_then(|bytes| length::read(bytes.get(..width)?)))
    }
}

/// A string all of which is there, as most are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole {
    encoding: Option<u8>,
    stored: usize,
    plain: u64,
    /// Where it ends, from the beginning of its length.
    pub(super) end: usize,
}

impl Whole {
    /// The string that `bytes` begin with. None when it is not whole, or when it is none.
    #[inline]
    pub(super) fn find(bytes: &[u8]) -> Option<Self> {
        let (len, start) = Self::length(bytes)?;
        let (encoding, stored, plain, start) = match len {
            Length::Number(len) => (None, usize::try_from(len).ok()?, len, start),
            Length::Encoded(encoding @ (INT8 | INT16 | INT32)) => (Some(encoding), 1 << encoding, 1 << encoding, start),
            Length::Encoded(LZF) => {
                let (packed, first) = Self::length(bytes.get(start..)?)?;
                let (plain, second) = Self::length(bytes.get(start + first..)?)?;
                let (Length::Number(packed), Length::Number(plain)) = (packed, plain) else { return None };
                (Some(LZF), usize::try_from(packed).ok()?, plain, start + first + second)
            }
            Length::Encoded(_) => return None,
        };
        let end = start.checked_add(stored)?;
        (end <= bytes.len()).then_some(Self { encoding, stored, plain, end })
    }

    #[inline]
    fn length(bytes: &[u8]) -> Option<(Length, usize)> {
        let first = *bytes.first()?;
        if first < 0x40 {
            return Some((Length::Number(first.into()), 1));
        }
        let width = length::width(first)?;
        Some((length::read(bytes.get(..width)?)?, width))
    }
}

#[derive(Debug)]
struct Frame {
    ops: Layout,
    at: usize,
    /// How often they are still walked, this time counted.
    left: u64,
}

/// Where in a string the walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before a step.
    Step,
    /// Before the length of compressed bytes.
    Packed,
    /// Before the length that they become.
    Plain,
    /// In the bytes.
    Bytes,
}

/// A walk that is under way, and what it kept.
#[derive(Debug)]
pub(super) struct Walk {
    frames: Vec<Frame>,
    stage: Stage,
    skip: u64,
    keeping: bool,
    kept: usize,
    counted: usize,
    /// What was to be kept, in order.
    pub(super) names: [Name; 2],
    /// The first numbers outside of repetitions.
    pub(super) numbers: [u64; 3],
    /// The last bytes of fixed number.
    pub(super) fixed: [u8; Carry::LEN],
}

impl Walk {
    pub(super) fn new() -> Self {
        Self {
            frames: Vec::with_capacity(6),
            stage: Stage::Step,
            skip: 0,
            keeping: false,
            kept: 0,
            counted: 0,
            names: Default::default(),
            numbers: [0; 3],
            fixed: [0; Carry::LEN],
        }
    }

    /// Keeps one string, without a walk, when all of it is there.
    #[inline]
    pub(super) fn keep_one(&mut self, carry: &Carry, cursor: &mut Cursor<'_>) -> bool {
        let Some(whole) = Whole::find(cursor.rest()).filter(|_| carry.len() == 0) else { return false };
        self.kept = 0;
        self.keep(whole, cursor.rest());
        cursor.at += whole.end;
        true
    }

    pub(super) fn begin(&mut self, ops: Layout) {
        self.frames.clear();
        self.frames.push(Frame { ops, at: 0, left: 1 });
        (self.stage, self.kept, self.counted) = (Stage::Step, 0, 0);
    }

    /// Goes on as far as the chunk reaches. True when the walk is at its end.
    pub(super) fn go(&mut self, carry: &mut Carry, cursor: &mut Cursor<'_>) -> Result<bool, String> {
        loop {
            match self.stage {
                Stage::Bytes => {
                    if !self.pass_bytes(cursor) {
                        return Ok(false);
                    }
                    self.stage = Stage::Step;
                    self.advance();
                }
                Stage::Packed => {
                    let Some(len) = carry.length(cursor)? else { return Ok(false) };
                    self.skip = number(len)?;
                    self.stage = Stage::Plain;
                }
                Stage::Plain => {
                    let Some(len) = carry.length(cursor)? else { return Ok(false) };
                    let plain = number(len)?;
                    self.bytes(Some(LZF), self.skip, plain);
                }
                Stage::Step => {
                    let Some(frame) = self.frames.last() else { return Ok(true) };
                    let Some(op) = frame.ops.get(frame.at) else { return Err("a walk went astray".into()) };
                    if !self.step(*op, carry, cursor)? {
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn step(&mut self, op: Op, carry: &mut Carry, cursor: &mut Cursor<'_>) -> Result<bool, String> {
        match op {
            Op::Str | Op::Keep => {
                if carry.len() == 0
                    && let Some(whole) = Whole::find(cursor.rest())
                {
                    if matches!(op, Op::Keep) {
                        self.keep(whole, cursor.rest());
                    }
                    cursor.at += whole.end;
                    self.advance();
                    return Ok(true);
                }
                let Some(len) = carry.length(cursor)? else { return Ok(false) };
                self.keeping = matches!(op, Op::Keep);
                match len {
                    Length::Number(len) => self.bytes(None, len, len),
                    Length::Encoded(LZF) => self.stage = Stage::Packed,
                    Length::Encoded(encoding @ (INT8 | INT16 | INT32)) => {
                        self.bytes(Some(encoding), 1 << encoding, 1 << encoding);
                    }
                    Length::Encoded(encoding) => return Err(format!("a string of the unknown encoding {encoding}")),
                }
            }
            Op::Len => {
                let Some(len) = carry.length(cursor)? else { return Ok(false) };
                let number = number(len)?;
                if let (1, Some(slot)) = (self.frames.len(), self.numbers.get_mut(self.counted)) {
                    *slot = number;
                    self.counted += 1;
                }
                self.advance();
            }
            Op::Fixed(width) => {
                let Some(bytes) = carry.take(cursor, width.into()) else { return Ok(false) };
                self.fixed = bytes;
                self.advance();
            }
            Op::Text => {
                let Some([len, ..]) = carry.take(cursor, 1) else { return Ok(false) };
                self.keeping = false;
                self.bytes(None, if len >= 253 { 0 } else { len.into() }, 0);
            }
            Op::Times(ops) => {
                let Some(len) = carry.length(cursor)? else { return Ok(false) };
                match (number(len)?, self.frames.last_mut()) {
                    (0, _) | (_, None) => self.advance(),
                    (left, Some(frame)) => {
                        frame.at += 1;
                        self.frames.push(Frame { ops, at: 0, left });
                    }
                }
            }
            Op::Module => {
                let Some(len) = carry.length(cursor)? else { return Ok(false) };
                let ops: Layout = match number(len)? {
                    0 => {
                        self.advance();
                        return Ok(true);
                    }
                    1 | 2 => &[Op::Len],
                    3 => &[Op::Fixed(4)],
                    4 => &[Op::Fixed(8)],
                    5 => &[Op::Str],
                    mark => return Err(format!("a value of a module with the unknown mark {mark}")),
                };
                // The step stays where it is: behind one value stands the next mark.
                self.frames.push(Frame { ops, at: 0, left: 1 });
            }
        }
        Ok(true)
    }

    /// Keeps a string all of which is there.
    pub(super) fn keep(&mut self, whole: Whole, bytes: &[u8]) {
        if let Some(name) = self.names.get_mut(self.kept) {
            let Whole { encoding, stored, plain, end } = whole;
            let raw = bytes.get(end - stored..end).unwrap_or_default();
            name.raw.clear();
            name.raw.extend_from_slice(raw.get(..Name::LIMIT).unwrap_or(raw));
            (name.encoding, name.stored, name.plain) = (encoding, stored as u64, plain);
        }
        self.kept += 1;
    }

    fn bytes(&mut self, encoding: Option<u8>, stored: u64, plain: u64) {
        self.skip = stored;
        self.stage = Stage::Bytes;
        if self.keeping
            && let Some(name) = self.names.get_mut(self.kept)
        {
            name.raw.clear();
            (name.encoding, name.stored, name.plain) = (encoding, stored, plain);
        }
    }

    /// Passes over the bytes of a string. True when all have come.
    fn pass_bytes(&mut self, cursor: &mut Cursor<'_>) -> bool {
        let rest = cursor.rest();
        let here = usize::try_from(self.skip).map_or(rest.len(), |skip| skip.min(rest.len()));
        if self.keeping
            && let Some(name) = self.names.get_mut(self.kept)
        {
            let wanted = here.min(Name::LIMIT.saturating_sub(name.raw.len()));
            name.raw.extend_from_slice(rest.get(..wanted).unwrap_or_default());
        }
        cursor.at += here;
        self.skip -= here as u64;
        if self.skip > 0 {
            return false;
        }
        if self.keeping {
            self.kept += 1;
            self.keeping = false;
        }
        true
    }

    /// To the next step, out of every repetition that is at its end.
    fn advance(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.at += 1;
        }
        while let Some(frame) = self.frames.last_mut() {
            if frame.at < frame.ops.len() {
                break;
            }
            frame.left -= 1;
            if frame.left > 0 {
                frame.at = 0;
                break;
            }
            self.frames.pop();
        }
    }
}

fn number(len: Length) -> Result<u64, String> {
    match len {
        Length::Number(number) => Ok(number),
        Length::Encoded(encoding) => Err(format!("a string (encoding {encoding}) where a number must stand")),
    }
}
