//! What follows a type or an opcode, as data: the walk through a value is the same for all of them.

use super::version::{Dialect, RdbVersion};

/// One step of a walk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    /// A string that nobody looks into.
    Str,
    /// A string that is kept, as far as a name is long.
    Keep,
    /// A length.
    Len,
    /// So many bytes.
    Fixed(u8),
    /// A number as text: one byte that says how long it is, or, from 253 on, that it is infinite or none.
    Text,
    /// A length, and then these steps as often as it says.
    Times(&'static [Self]),
    /// Values of a module, each with a mark of its kind, until the mark of the end.
    Module,
}

use Op::{Fixed, Keep, Len, Module, Str, Text, Times};

/// The steps of a walk, and of what is kept.
pub(super) type Layout = &'static [Op];

pub(super) const KEY: Layout = &[Keep];

/// The bytes that are no types.
pub(super) mod opcode {
    /// 243, as Redis uses it: metadata of modules about the next key.
    pub(crate) const KEY_META: u8 = 243;
    /// 243, as Valkey uses it: slots that are on their way in.
    pub(crate) const SLOT_IMPORT: u8 = 243;
    pub(crate) const SLOT_INFO: u8 = 244;
    pub(crate) const FUNCTION: u8 = 245;
    pub(crate) const MODULE_AUX: u8 = 247;
    pub(crate) const IDLE: u8 = 248;
    pub(crate) const FREQ: u8 = 249;
    pub(crate) const AUX: u8 = 250;
    pub(crate) const RESIZE_DB: u8 = 251;
    pub(crate) const EXPIRE_MS: u8 = 252;
    pub(crate) const EXPIRE_S: u8 = 253;
    pub(crate) const SELECT_DB: u8 = 254;
    pub(crate) const EOF: u8 = 255;
}

/// What follows `opcode`. None when it is not one that is known.
pub(super) fn of_opcode(version: RdbVersion, opcode: u8) -> Option<Layout> {
    Some(match opcode {
        opcode::KEY_META if version.dialect == Dialect::Redis => &[Times(&[Fixed(4), Module])],
        opcode::SLOT_IMPORT => &[Keep, Times(&[Len, Len])],
        opcode::SLOT_INFO => &[Len, Len, Len],
        opcode::FUNCTION => &[Keep],
        // Identity, then when it was written: marked as a number, and the number.
        opcode::MODULE_AUX => &[Len, Len, Len, Module],
        opcode::IDLE | opcode::SELECT_DB => &[Len],
        opcode::FREQ => &[Fixed(1)],
        opcode::AUX => &[Keep, Keep],
        opcode::RESIZE_DB => &[Len, Len],
        opcode::EXPIRE_MS => &[Fixed(8)],
        opcode::EXPIRE_S => &[Fixed(4)],
        _ => return None,
    })
}

/// What a user calls the type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// Strings, which bitmaps and HyperLogLogs are, too.
    String,
    /// Lists.
    List,
    /// Sets.
    Set,
    /// Sorted sets, which geographic indices are, too.
    SortedSet,
    /// Hashes.
    Hash,
    /// Streams.
    Stream,
    /// What a module brought.
    Module,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::String, Self::List, Self::Set, Self::SortedSet, Self::Hash, Self::Stream, Self::Module];

    /// The word that the command `TYPE` answers; for modules `module`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::SortedSet => "zset",
            Self::Hash => "hash",
            Self::Stream => "stream",
            Self::Module => "module",
        }
    }
}

/// The byte before a key: how its value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ValueType(pub u8);

impl ValueType {
    pub(super) const HASH: Self = Self(4);
    pub(super) const MODULE: Self = Self(7);
    /// Valkey: a hash whose fields have expiries. Redis: the same in another form, of release candidates only.
    pub(super) const HASH_2: Self = Self(22);
    pub(super) const HASH_METADATA: Self = Self(24);
    pub(super) const HASH_LISTPACK_EX: Self = Self(25);

    /// What a user calls it. None when it is not known in this version.
    #[must_use]
    pub fn kind(self, version: RdbVersion) -> Option<Kind> {
        let redis = version.dialect == Dialect::Redis;
        Some(match self.0 {
            0 => Kind::String,
            1 | 10 | 14 | 18 => Kind::List,
            2 | 11 | 20 => Kind::Set,
            3 | 5 | 12 | 17 => Kind::SortedSet,
            4 | 9 | 13 | 16 | 22 => Kind::Hash,
            23..=25 if redis => Kind::Hash,
            15 | 19 | 21 => Kind::Stream,
            7 => Kind::Module,
            _ => return None,
        })
    }

    /// Whether the fields of such a hash have expiries of their own.
    #[must_use]
    pub fn has_field_expiry(self) -> bool {
        (Self::HASH_2.0..=Self::HASH_LISTPACK_EX.0).contains(&self.0)
    }

    /// The oldest version of the format that has this type. A payload that claims it is taken by every server that can read it.
    #[must_use]
    pub fn since(self, version: RdbVersion) -> u16 {
        match (self.0, version.dialect) {
            (0..=15, _) => 9,
            (16..=19, _) => 10,
            (20 | 21, _) => 11,
            (_, Dialect::Valkey) => RdbVersion::VALKEY,
            (22..=25, _) => 12,
            _ => version.number,
        }
    }

    /// Whether a value of it is one string and nothing else, in every version that has it.
    pub(super) fn is_one_string(self) -> bool {
        matches!(self.0, 0 | 9..=13 | 16 | 17 | 20 | 23)
    }

    /// How a value of it is written. None when it is not known in this version.
    pub(super) fn layout(self, version: RdbVersion) -> Option<Layout> {
        // A group: name, last identity; what was delivered and not acknowledged; who works on it, and on what.
        const PENDING: Op = Times(&[Fixed(16), Fixed(8), Len]);
        const OWNED: Op = Times(&[Fixed(16)]);
        const STREAM_1: Layout =
            &[Times(&[Str, Str]), Len, Len, Len, Times(&[Str, Len, Len, PENDING, Times(&[Str, Fixed(8), OWNED])])];
        const STREAM_2: Layout = &[
            Times(&[Str, Str]),
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Times(&[Str, Len, Len, Len, PENDING, Times(&[Str, Fixed(8), OWNED])]),
        ];
        const STREAM_3: Layout = &[
            Times(&[Str, Str]),
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Times(&[Str, Len, Len, Len, PENDING, Times(&[Str, Fixed(8), Fixed(8), OWNED])]),
        ];
        self.kind(version)?;
        Some(match (self.0, version.dialect) {
            _ if self.is_one_string() => &[Str],
            (1 | 2 | 14, _) => &[Times(&[Str])],
            (3, _) => &[Times(&[Str, Text])],
            (4, _) => &[Times(&[Str, Str])],
            (5, _) => &[Times(&[Str, Fixed(8)])],
            (7, _) => &[Len, Module],
            (18, _) => &[Times(&[Len, Str])],
            (22, Dialect::Valkey) => &[Times(&[Str, Str, Fixed(8)])],
            (22, Dialect::Redis) => &[Times(&[Len, Str, Str])],
            (24, _) => &[Fixed(8), Times(&[Len, Str, Str])],
            (25, _) => &[Fixed(8), Str],
            (15, _) => STREAM_1,
            (19, _) => STREAM_2,
            (21, _) => STREAM_3,
            _ => return None,
        })
    }
}
