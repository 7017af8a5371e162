//! Snapshot files that no server wrote, for tests of what reads them.

use super::crc64::Crc64;
use super::layout::{Layout, Op, ValueType, opcode};
use super::length::{self, INT8, LZF};
use super::version::{Dialect, RdbVersion};

/// Writes a file, piece by piece.
#[derive(Debug)]
pub struct SampleFile {
    out: Vec<u8>,
}

impl SampleFile {
    /// An empty file of `version`.
    #[must_use]
    pub fn new(version: RdbVersion) -> Self {
        Self { out: version.magic() }
    }

    /// Bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.out.extend_from_slice(bytes);
        self
    }

    fn code(mut self, code: u8, numbers: &[u64]) -> Self {
        self.out.push(code);
        for number in numbers {
            length::write(*number, &mut self.out);
        }
        self
    }

    /// A named field.
    #[must_use]
    pub fn aux(self, name: &str, value: &str) -> Self {
        let mut file = self.code(opcode::AUX, &[]);
        length::write_string(name.as_bytes(), &mut file.out);
        length::write_string(value.as_bytes(), &mut file.out);
        file
    }

    /// What follows is in this database.
    #[must_use]
    pub fn database(self, number: u64) -> Self {
        self.code(opcode::SELECT_DB, &[number])
    }

    /// So many keys follow, and so many of them expire.
    #[must_use]
    pub fn sizes(self, keys: u64, expires: u64) -> Self {
        self.code(opcode::RESIZE_DB, &[keys, expires])
    }

    /// So many keys follow in this slot.
    #[must_use]
    pub fn slot(self, slot: u64, keys: u64, expires: u64) -> Self {
        self.code(opcode::SLOT_INFO, &[slot, keys, expires])
    }

    /// A library of functions.
    #[must_use]
    pub fn function(self, code: &str) -> Self {
        let mut file = self.code(opcode::FUNCTION, &[]);
        length::write_string(code.as_bytes(), &mut file.out);
        file
    }

    /// The next key expires then, in milliseconds since 1970.
    #[must_use]
    pub fn expires(mut self, ms: i64) -> Self {
        self.out.push(opcode::EXPIRE_MS);
        self.raw(&ms.to_le_bytes())
    }

    /// The next key expires then, in seconds since 1970, as old servers wrote it.
    #[must_use]
    pub fn expires_seconds(mut self, seconds: i32) -> Self {
        self.out.push(opcode::EXPIRE_S);
        self.raw(&seconds.to_le_bytes())
    }

    /// The next key was not used for so many seconds.
    #[must_use]
    pub fn idle(self, seconds: u64) -> Self {
        self.code(opcode::IDLE, &[seconds])
    }

    /// The next key was used so often.
    #[must_use]
    pub fn frequency(self, often: u8) -> Self {
        self.raw(&[opcode::FREQ, often])
    }

    /// A key, and the bytes of its value.
    #[must_use]
    pub fn key(mut self, value_type: u8, key: &[u8], value: &[u8]) -> Self {
        self.out.push(value_type);
        length::write_string(key, &mut self.out);
        self.raw(value)
    }

    /// A key that holds a plain string.
    #[must_use]
    pub fn string(self, key: &str, value: &[u8]) -> Self {
        let mut raw = Vec::new();
        length::write_string(value, &mut raw);
        self.key(0, key.as_bytes(), &raw)
    }

    /// The whole file with its checksum.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.out.push(opcode::EOF);
        let crc = Crc64::of(&self.out);
        self.raw(&crc.to_le_bytes()).out
    }

    /// The whole file as a server writes it that was told to write no checksum.
    #[must_use]
    pub fn finish_without_checksum(mut self) -> Vec<u8> {
        self.out.push(opcode::EOF);
        self.raw(&[0; 8]).out
    }
}

/// Two keys in one database.
#[must_use]
pub fn small_file() -> Vec<u8> {
    SampleFile::new(RdbVersion::redis(11))
        .aux("redis-ver", "7.2.4")
        .database(0)
        .sizes(2, 1)
        .string("greeting", b"hello")
        .expires(1_900_000_000_000)
        .string("session", b"x")
        .finish()
}

/// What a file of [`arbitrary_file`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expected {
    /// Keys.
    pub keys: u64,
    /// Keys with an expiry.
    pub expires: u64,
}

/// The types that a file of `version` may hold.
pub fn types(version: RdbVersion) -> impl Iterator<Item = u8> {
    (0..=255).filter(move |byte| ValueType(*byte).layout(version).is_some())
}

/// A file of `keys` keys of every type and encoding, another one for every `seed`.
#[must_use]
pub fn arbitrary_file(version: RdbVersion, seed: u64, keys: u64) -> (Vec<u8>, Expected) {
    let mut dice = Dice(seed);
    let mut file = SampleFile::new(version).aux("ctime", "1700000000").aux("repl-id", &"a".repeat(40));
    let types: Vec<u8> = types(version).collect();
    let mut expected = Expected::default();
    if dice.below(2) == 0 {
        file = file.function("#!lua name=lib\nredis.register_function('f', function() end)");
    }
    if version.dialect == Dialect::Valkey {
        file = file.raw(&[opcode::SLOT_IMPORT, 1, b'j', 1, 5, 6]);
    }
    if dice.below(2) == 0 {
        file = file.raw(&[opcode::MODULE_AUX, 5, 2, 1]);
        walk(&[Op::Module], &mut dice, &mut file.out);
    }
    for number in 0..keys {
        if number == 0 || dice.below(4) == 0 {
            file = file.database(dice.below(20)).sizes(dice.below(100), 0);
        }
        if dice.below(8) == 0 {
            file = file.slot(dice.below(16384), 1, 1);
        }
        let expiry = dice.below(6);
        match expiry {
            0 => file = file.expires(dice.below(1 << 41) as i64),
            1 => file = file.expires_seconds(dice.below(1 << 31) as i32),
            _ => {}
        }
        expected.keys += 1;
        expected.expires += u64::from(expiry < 2);
        if dice.below(4) == 0 {
            file = file.idle(dice.below(1 << 20)).frequency(dice.below(256) as u8);
        }
        if version.dialect == Dialect::Redis && dice.below(16) == 0 {
            file = file.raw(&[opcode::KEY_META]);
            walk(&[Op::Times(&[Op::Fixed(4), Op::Module])], &mut dice, &mut file.out);
        }
        let value_type = types[dice.below(types.len() as u64) as usize];
        file.out.push(value_type);
        dice.string(&mut file.out);
        let Some(layout) = ValueType(value_type).layout(version) else { continue };
        walk(layout, &mut dice, &mut file.out);
    }
    (file.finish(), expected)
}

/// Writes something that has this layout.
fn walk(layout: Layout, dice: &mut Dice, out: &mut Vec<u8>) {
    for op in layout {
        match op {
            Op::Str | Op::Keep => dice.string(out),
            Op::Len => {
                let bits = dice.below(64);
                length::write(dice.roll() >> bits, out);
            }
            Op::Fixed(width) => out.extend((0..*width).map(|_| dice.below(256) as u8)),
            Op::Text => match dice.below(4) {
                0 => out.push(253 + dice.below(3) as u8),
                _ => out.extend_from_slice(b"\x043.14"),
            },
            Op::Times(inner) => {
                let times = dice.below(4);
                length::write(times, out);
                (0..times).for_each(|_| walk(inner, dice, out));
            }
            Op::Module => {
                for _ in 0..dice.below(4) {
                    let (mark, inner): (u8, Layout) = match dice.below(5) {
                        0 => (1, &[Op::Len]),
                        1 => (2, &[Op::Len]),
                        2 => (3, &[Op::Fixed(4)]),
                        3 => (4, &[Op::Fixed(8)]),
                        _ => (5, &[Op::Str]),
                    };
                    out.push(mark);
                    walk(inner, dice, out);
                }
                out.push(0);
            }
        }
    }
}

/// Numbers that look random and are not.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// Any number.
    pub fn roll(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit.max(1)
    }

    /// Appends a string in any of its encodings.
    fn string(&mut self, out: &mut Vec<u8>) {
        match self.below(6) {
            0 => {
                let encoding = self.below(3) as u8;
                out.push(0xc0 | (INT8 + encoding));
                out.extend((0..1 << encoding).map(|_| self.below(256) as u8));
            }
            1 => {
                // Two bytes, and a copy of them: eleven more.
                out.push(0xc0 | LZF);
                length::write(6, out);
                length::write(13, out);
                out.extend_from_slice(&[1, b'a' + self.below(26) as u8, b'b', 7 << 5, 2, 1]);
            }
            _ => {
                let len = match self.below(20) {
                    0 => 70_000,
                    1 => self.below(300),
                    _ => self.below(20),
                };
                let byte = self.roll();
                length::write(len, out);
                out.extend((0..len).map(|index| (byte >> (index % 8)) as u8));
            }
        }
    }
}
