//! The map as bytes.
//!
//! CBOR with indexed fields, so that a reader skips what it does not know; field 0 is the version of the meaning. The blocks of
//! a fork are a string of unsigned LEB128 numbers: for each chunk of 65536 blocks, the number of chunks passed over and the number
//! of runs; for each run, the number of blocks passed over and the number of blocks in it less one. Runs are in order and
//! never adjacent inside of a chunk: there is one form for each map.

use minicbor::{Decode, Encode};

use super::blocks::BlockSet;
use super::doubt::Doubt;
use super::map::{ChangeMap, ForkChanges, ForkIndex};
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::wal::{RelationId, Rmgr};

const VERSION: u32 = 1;

#[derive(Encode, Decode)]
struct Stored {
    #[n(0)]
    version: u32,
    #[n(1)]
    start: u64,
    #[n(2)]
    end: u64,
    #[n(3)]
    last: Option<u64>,
    #[n(4)]
    doubt: Option<StoredDoubt>,
    #[n(5)]
    databases: Vec<(u32, u32)>,
    #[n(6)]
    forks: Vec<StoredFork>,
}

#[derive(Encode, Decode)]
enum StoredDoubt {
    #[n(0)]
    Minimal(#[n(0)] u64),
    #[n(1)]
    Unknown(#[n(0)] u64, #[n(1)] u8, #[n(2)] u8),
    #[n(2)]
    Unreadable(#[n(0)] u64),
    #[n(3)]
    Gap(#[n(0)] u64, #[n(1)] u64),
}

#[derive(Encode, Decode)]
struct StoredFork {
    #[n(0)]
    tablespace: u32,
    #[n(1)]
    database: u32,
    #[n(2)]
    number: u32,
    #[n(3)]
    fork: u8,
    #[n(4)]
    from: Option<u32>,
    #[cbor(n(5), with = "minicbor::bytes")]
    blocks: Vec<u8>,
}

impl ChangeMap {
    /// The map as bytes, the same for the same map.
    ///
    /// # Errors
    /// None in practice: memory takes any bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let doubt = self.doubt.map(|doubt| match doubt {
            Doubt::Minimal { at } => StoredDoubt::Minimal(at.0),
            Doubt::Unknown { at, rmgr, info } => StoredDoubt::Unknown(at.0, rmgr.0, info),
            Doubt::Unreadable { at } => StoredDoubt::Unreadable(at.0),
            Doubt::Gap { from, to } => StoredDoubt::Gap(from.0, to.0),
        });
        let forks = self.forks.iter().map(|((relation, fork), changes)| StoredFork {
            tablespace: relation.tablespace,
            database: relation.database,
            number: relation.number,
            fork: *fork as u8,
            from: changes.from,
            blocks: write_blocks(&changes.blocks),
        });
        let stored = Stored {
            version: VERSION,
            start: self.start.0,
            end: self.end.0,
            last: self.last.map(|last| last.0),
            doubt,
            databases: self.databases.iter().copied().collect(),
            forks: forks.collect(),
        };
        minicbor::to_vec(&stored).map_err(|error| wrong(error.to_string()))
    }

    /// Reads what [`ChangeMap::to_bytes`] wrote. Never panics, and takes memory in proportion to `bytes`.
    ///
    /// # Errors
    /// [`Error::Malformed`] for anything else, and for a map of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let stored: Stored = minicbor::decode(bytes).map_err(|error| wrong(error.to_string()))?;
        if stored.version != VERSION {
            return Err(wrong(format!("version {}", stored.version)));
        }
        let mut map = Self::new(Lsn(stored.start));
        map.end = Lsn(stored.end);
        map.last = stored.last.map(Lsn);
        map.doubt = stored.doubt.map(|doubt| match doubt {
            StoredDoubt::Minimal(at) => Doubt::Minimal { at: Lsn(at) },
            StoredDoubt::Unknown(at, rmgr, info) => Doubt::Unknown { at: Lsn(at), rmgr: Rmgr(rmgr), info },
            StoredDoubt::Unreadable(at) => Doubt::Unreadable { at: Lsn(at) },
            StoredDoubt::Gap(from, to) => Doubt::Gap { from: Lsn(from), to: Lsn(to) },
        });
        map.databases = stored.databases.into_iter().collect();
        for fork in stored.forks {
            let StoredFork { tablespace, database, number, from, .. } = fork;
            let index = match fork.fork {
                0 => ForkIndex::Main,
                2 => ForkIndex::Visibility,
                3 => ForkIndex::Init,
                other => return Err(wrong(format!("fork {other}"))),
            };
            let key = (RelationId { tablespace, database, number }, index);
            let mut blocks = read_blocks(&fork.blocks).ok_or_else(|| wrong(format!("blocks of relation {number}")))?;
            if let Some(from) = from {
                blocks.truncate(from);
            }
            if map.forks.last_key_value().is_some_and(|last| *last.0 >= key) {
                return Err(wrong(format!("relation {number} is out of order")));
            }
            map.forks.insert(key, ForkChanges { from, blocks });
        }
        if map.end < map.start || map.last.is_some_and(|last| last < map.start || last >= map.end) {
            return Err(wrong(format!("a log from {} to {}", map.start, map.end)));
        }
        Ok(map)
    }
}

fn wrong(reason: String) -> Error {
    Error::malformed("change map", reason)
}

fn write_blocks(blocks: &BlockSet) -> Vec<u8> {
    let mut out = Vec::new();
    let mut next_chunk = 0;
    for (index, runs) in blocks.chunks() {
        write_number(&mut out, u32::from(index) - next_chunk);
        write_number(&mut out, runs.len() as u32);
        next_chunk = u32::from(index) + 1;
        let mut next = 0;
        for (first, last) in runs {
            write_number(&mut out, u32::from(first) - next);
            write_number(&mut out, u32::from(last - first));
            next = u32::from(last) + 1;
        }
    }
    out
}

fn read_blocks(mut bytes: &[u8]) -> Option<BlockSet> {
    let mut blocks = BlockSet::default();
    let mut next_chunk = 0_u32;
    while !bytes.is_empty() {
        let index = next_chunk.checked_add(read_number(&mut bytes)?)?;
        next_chunk = index.checked_add(1)?;
        let mut next = 0_u32;
        let mut runs = Vec::new();
        for _ in 0..read_number(&mut bytes)? {
            let first = next.checked_add(read_number(&mut bytes)?)?;
            let last = first.checked_add(read_number(&mut bytes)?)?;
            runs.push((u16::try_from(first).ok()?, u16::try_from(last).ok()?));
            next = last + 1;
        }
        if !blocks.put_chunk(u16::try_from(index).ok()?, runs) {
            return None;
        }
    }
    Some(blocks)
}

fn write_number(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_number(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0_u32;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u32::from(byte & 0x7f);
        if part << shift >> shift != part {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
