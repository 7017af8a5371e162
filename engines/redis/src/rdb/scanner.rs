//! The walk through a whole file, its end, and its checksum.

use super::crc64::Crc64;
use super::layout::{self, ValueType, opcode};
use super::version::{Dialect, RdbVersion};
use super::visitor::{KeyHead, Part, Visitor};
use super::walk::{Carry, Cursor, Walk, Whole};
use crate::error::{Error, Result};

/// What the checksum said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumState {
    /// It fits every byte.
    Verified,
    /// The server was told not to write one (`rdbchecksum no`). Only the structure was checked.
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Magic,
    /// Before a type or an opcode.
    Next,
    Record(u8),
    Key,
    Value,
    Footer,
    /// Something unknown came: only the checksum goes on.
    Blind,
    Done(ChecksumState),
    Failed,
}

/// Walks through a snapshot file that comes in chunks of any size, and tells a [`Visitor`] what it meets.
#[derive(Debug)]
pub struct Scanner {
    phase: Phase,
    version: RdbVersion,
    /// Where in the file the present chunk begins.
    base: u64,
    walk: Walk,
    carry: Carry,
    crc: Crc64,
    blind: Blind,
    pending: Pending,
    database: u64,
    value_type: ValueType,
    value_start: u64,
}

/// What was said about the next key.
#[derive(Debug, Default, Clone, Copy)]
struct Pending {
    expires: Option<i64>,
    idle: Option<u64>,
    frequency: Option<u8>,
}

/// The last eight bytes that came, which may be the checksum.
#[derive(Debug, Default)]
struct Blind {
    tail: Vec<u8>,
    /// The last byte before them.
    before: u8,
    /// Where in the present chunk they begin.
    from: usize,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// A scanner before the first byte of a file.
    #[must_use]
    pub fn new() -> Self {
        Self {
            phase: Phase::Magic,
            version: RdbVersion::redis(0),
            base: 0,
            walk: Walk::new(),
            carry: Carry::default(),
            crc: Crc64::new(),
            blind: Blind::default(),
            pending: Pending::default(),
            database: 0,
            value_type: ValueType(0),
            value_start: 0,
        }
    }

    /// The bytes that were taken.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.base
    }

    /// The version, as soon as it is known.
    #[must_use]
    pub fn version(&self) -> Option<RdbVersion> {
        (self.phase != Phase::Magic && self.phase != Phase::Failed).then_some(self.version)
    }

    /// Whether the file is at its end. What comes behind it is not taken.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.phase, Phase::Done(_))
    }

    /// Whether something unknown came. Then the file has no end that can be seen: it ends where its bytes end, which
    /// somebody else must know, and [`finish`](Self::finish) judges it.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.phase == Phase::Blind
    }

    /// Takes the next bytes of the file and returns how many of them belong to it: fewer than all only at its end.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the place, and what the visitor returns. After an error the scanner is of no use.
    pub fn push<V: Visitor>(&mut self, chunk: &[u8], visitor: &mut V) -> Result<usize> {
        let outcome = self.take(chunk, visitor);
        match outcome {
            Ok(taken) => self.base += taken as u64,
            Err(_) => self.phase = Phase::Failed,
        }
        outcome
    }

    /// Says that no more bytes come.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file is not at its end, or when the checksum does not fit.
    pub fn finish(&mut self) -> Result<ChecksumState> {
        match self.phase {
            Phase::Done(state) => Ok(state),
            Phase::Blind => {
                let at = self.base.saturating_sub(self.blind.tail.len() as u64);
                match <[u8; 8]>::try_from(self.blind.tail.as_slice()) {
                    Ok(footer) if self.blind.before == opcode::EOF => self.judge(at, footer),
                    _ => Err(corrupt(at, "the file does not end with its mark and a checksum")),
                }
            }
            _ => Err(corrupt(self.base, format!("the file ends {}", self.place()))),
        }
    }

    /// Bytes that are kept of what passed.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.walk.names.iter().map(|name| name.raw.capacity()).sum()
    }

    fn place(&self) -> String {
        match self.phase {
            Phase::Magic => "before its version".into(),
            Phase::Record(opcode) => format!("behind the opcode {opcode}"),
            Phase::Key => "in a key".into(),
            Phase::Value => format!("in a value of type {}", self.value_type.0),
            Phase::Footer => "in its checksum".into(),
            Phase::Failed => "after an earlier error".into(),
            _ => "without its mark".into(),
        }
    }

    fn take<V: Visitor>(&mut self, chunk: &[u8], visitor: &mut V) -> Result<usize> {
        let mut cursor = Cursor::new(chunk);
        // Where in the chunk the raw bytes begin of what is being walked.
        let mut from = 0;
        while !cursor.is_empty() {
            match self.phase {
                Phase::Magic => self.magic(&mut cursor, visitor)?,
                Phase::Next => {
                    self.next(&mut cursor, visitor)?;
                    from = cursor.at;
                }
                Phase::Record(_) | Phase::Key | Phase::Value => {
                    let done = match self.walk.go(&mut self.carry, &mut cursor) {
                        Ok(done) => done,
                        Err(reason) => return Err(corrupt(self.offset(&cursor), reason)),
                    };
                    if let Some(part) = self.part() {
                        visitor.piece(part, chunk.get(from..cursor.at).unwrap_or_default())?;
                    }
                    from = cursor.at;
                    if done {
                        self.walked(&cursor, visitor)?;
                    }
                }
                Phase::Footer => {
                    let at = self.offset(&cursor);
                    if let Some([a, b, c, d, e, f, g, h, ..]) = self.carry.take(&mut cursor, 8) {
                        self.phase = Phase::Done(self.judge(at, [a, b, c, d, e, f, g, h])?);
                    }
                }
                Phase::Blind => cursor.at = chunk.len(),
                Phase::Done(_) => break,
                Phase::Failed => return Err(corrupt(self.base, "the file was found corrupt before")),
            }
        }
        self.sum_up(chunk, cursor.at);
        Ok(cursor.at)
    }

    /// Sums up a chunk that was read. The bytes up to the end mark are summed up where that is found.
    fn sum_up(&mut self, chunk: &[u8], taken: usize) {
        match self.phase {
            Phase::Footer | Phase::Done(_) => {}
            Phase::Blind => {
                let from = std::mem::take(&mut self.blind.from);
                self.blind.take(chunk.get(from..).unwrap_or_default(), &mut self.crc);
            }
            _ => self.crc.update(chunk.get(..taken).unwrap_or_default()),
        }
    }

    fn magic<V: Visitor>(&mut self, cursor: &mut Cursor<'_>, visitor: &mut V) -> Result<()> {
        let Some([a, b, c, d, e, f, g, h, i, ..]) = self.carry.take(cursor, RdbVersion::LEN) else { return Ok(()) };
        let version = RdbVersion::parse(&[a, b, c, d, e, f, g, h, i])
            .ok_or_else(|| corrupt(0, "this is not a snapshot file of redis or valkey"))?;
        if version.dialect == Dialect::Redis && version.number < RdbVersion::OLDEST {
            return Err(corrupt(
                5,
                format!("{version} has no checksum; the oldest that is read is {}", RdbVersion::OLDEST),
            ));
        }
        self.version = version;
        visitor.version(version)?;
        self.phase = Phase::Next;
        if !version.is_known() {
            self.go_blind(cursor, RdbVersion::LEN as u64, 0, visitor)?;
        }
        Ok(())
    }

    fn next<V: Visitor>(&mut self, cursor: &mut Cursor<'_>, visitor: &mut V) -> Result<()> {
        let at = self.offset(cursor);
        let Some([byte, ..]) = self.carry.take(cursor, 1) else { return Ok(()) };
        let value_type = ValueType(byte);
        if byte == opcode::EOF {
            visitor.end()?;
            self.crc.update(cursor.bytes.get(..cursor.at).unwrap_or_default());
            self.phase = Phase::Footer;
        } else if let Some(layout) = layout::of_opcode(self.version, byte) {
            self.walk.begin(layout);
            self.phase = Phase::Record(byte);
        } else if value_type.kind(self.version).is_some() {
            self.value_type = value_type;
            if self.walk.keep_one(&self.carry, cursor) {
                return self.quick_value(cursor, visitor);
            }
            self.walk.begin(layout::KEY);
            self.phase = Phase::Key;
        } else {
            self.go_blind(cursor, at, byte, visitor)?;
        }
        Ok(())
    }

    /// Something unknown came: what stands behind it is only summed up.
    fn go_blind<V: Visitor>(&mut self, cursor: &Cursor<'_>, at: u64, what: u8, visitor: &mut V) -> Result<()> {
        self.crc.update(cursor.bytes.get(..cursor.at).unwrap_or_default());
        self.blind.from = cursor.at;
        self.phase = Phase::Blind;
        visitor.unknown(at, what)
    }

    fn part(&self) -> Option<Part> {
        match self.phase {
            Phase::Value => Some(Part::Value),
            Phase::Record(opcode::KEY_META) if self.version.dialect == Dialect::Redis => Some(Part::KeyMeta),
            Phase::Record(code @ (opcode::AUX | opcode::FUNCTION | opcode::MODULE_AUX | opcode::SLOT_IMPORT)) => {
                Some(Part::Record(code))
            }
            _ => None,
        }
    }

    /// What was walked through is at its end.
    fn walked<V: Visitor>(&mut self, cursor: &Cursor<'_>, visitor: &mut V) -> Result<()> {
        match self.phase {
            Phase::Key => {
                self.value_start = self.base + cursor.at as u64;
                self.key(visitor)?;
            }
            Phase::Value => {
                self.phase = Phase::Next;
                if self.value_type == ValueType::MODULE {
                    visitor.module_key(self.walk.numbers[0])?;
                }
                visitor.value_end(self.value_start..self.base + cursor.at as u64)?;
            }
            Phase::Record(code) => {
                self.phase = Phase::Next;
                self.record(code, visitor)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn key<V: Visitor>(&mut self, visitor: &mut V) -> Result<()> {
        let (Some(kind), Some(layout)) = (self.value_type.kind(self.version), self.value_type.layout(self.version))
        else {
            return Err(corrupt(self.value_start, "a type without a layout"));
        };
        let Pending { expires, idle, frequency } = std::mem::take(&mut self.pending);
        let head = KeyHead {
            database: self.database,
            value_type: self.value_type,
            kind,
            key: &self.walk.names[0],
            expires,
            idle,
            frequency,
            value_start: self.value_start,
        };
        visitor.key(&head)?;
        self.walk.begin(layout);
        self.phase = Phase::Value;
        Ok(())
    }

    /// What most of a file is: a key that is there as a whole, and often its value, too. Does what a walk would do.
    fn quick_value<V: Visitor>(&mut self, cursor: &mut Cursor<'_>, visitor: &mut V) -> Result<()> {
        self.value_start = self.base + cursor.at as u64;
        self.key(visitor)?;
        if let (true, Some(whole)) = (self.value_type.is_one_string(), Whole::find(cursor.rest())) {
            visitor.piece(Part::Value, cursor.rest().get(..whole.end).unwrap_or_default())?;
            cursor.at += whole.end;
            self.phase = Phase::Next;
            visitor.value_end(self.value_start..self.base + cursor.at as u64)?;
        }
        Ok(())
    }

    fn record<V: Visitor>(&mut self, code: u8, visitor: &mut V) -> Result<()> {
        let Walk { names: [first, second], numbers: [a, b, c], fixed, .. } = &self.walk;
        let fixed: [u8; 8] = std::array::from_fn(|index| fixed[index]);
        match code {
            opcode::AUX => visitor.aux(first, second)?,
            opcode::FUNCTION => visitor.function(first)?,
            opcode::MODULE_AUX => visitor.module_aux(*a)?,
            opcode::SELECT_DB => {
                self.database = *a;
                visitor.database(*a)?;
            }
            opcode::RESIZE_DB => visitor.sizes(*a, *b)?,
            opcode::SLOT_INFO => visitor.slot(*a, *b, *c)?,
            opcode::EXPIRE_MS => self.pending.expires = Some(i64::from_le_bytes(fixed)),
            opcode::EXPIRE_S => {
                let [a, b, c, d, ..] = fixed;
                self.pending.expires = Some(i64::from(i32::from_le_bytes([a, b, c, d])) * 1000);
            }
            opcode::IDLE => self.pending.idle = Some(*a),
            opcode::FREQ => self.pending.frequency = Some(fixed[0]),
            _ => {}
        }
        Ok(())
    }

    /// Where in the file the next thing to be read begins.
    fn offset(&self, cursor: &Cursor<'_>) -> u64 {
        (self.base + cursor.at as u64).saturating_sub(self.carry.len() as u64)
    }

    fn judge(&self, at: u64, footer: [u8; 8]) -> Result<ChecksumState> {
        match u64::from_le_bytes(footer) {
            0 => Ok(ChecksumState::Off),
            stored if stored == self.crc.value() => Ok(ChecksumState::Verified),
            stored => {
                let reason =
                    format!("the checksum is {stored:016x}, the bytes before it have {:016x}", self.crc.value());
                Err(corrupt(at, reason))
            }
        }
    }
}

impl Blind {
    fn take(&mut self, bytes: &[u8], crc: &mut Crc64) {
        let over = (self.tail.len() + bytes.len()).saturating_sub(8);
        let old = over.min(self.tail.len());
        let new = over - old;
        for part in [self.tail.get(..old).unwrap_or_default(), bytes.get(..new).unwrap_or_default()] {
            crc.update(part);
            self.before = part.last().copied().unwrap_or(self.before);
        }
        self.tail.drain(..old);
        self.tail.extend_from_slice(bytes.get(new..).unwrap_or_default());
    }
}

fn corrupt(offset: u64, reason: impl Into<String>) -> Error {
    Error::Corrupt { offset, reason: reason.into() }
}
