//! Which words of a command are keys, and what happens to them.
//!
//! Only commands that servers send to their replicas are here. What is not here is not known, and nothing is claimed of it. Source: the
//! key specifications of the commands (`src/commands/*.json` of Redis 6.2 to 8.2 and Valkey 8 and 9).

/// What a command does to keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It changes one key, which is this word.
    One(usize),
    /// From this word on every so many words stand for a key and what becomes of it, each for itself.
    Each {
        /// The first key.
        first: usize,
        /// Words for each key.
        step: usize,
    },
    /// It changes all of these keys together.
    Together {
        /// The first key.
        first: usize,
        /// Words for each key.
        step: usize,
        /// How many keys there are; none for as many as there are words.
        count: Option<usize>,
    },
    /// It reads all keys but this one, and changes this one.
    Into {
        /// The key that is changed.
        target: usize,
        /// The keys that are read.
        sources: Sources,
    },
    /// It empties the database, or all of them.
    Empty {
        /// All of them.
        all: bool,
    },
    /// It changes libraries of functions.
    Functions,
    /// It changes nothing that is kept.
    Nothing,
}

/// Which words are keys that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sources {
    /// This one.
    One(usize),
    /// All from this one on.
    From(usize),
    /// As many as this word says, behind it.
    Counted(usize),
}

/// What the command of this name, in upper case, with so many words does. None when it is not known, or when it says too late which keys
/// it is about.
pub(super) fn effect(name: &[u8], words: usize) -> Option<Effect> {
    use Effect::{Each, Empty, Functions, Into, Nothing, One, Together};
    let text = std::str::from_utf8(name).ok()?;
    Some(match text {
        "SET" | "SETNX" | "SETEX" | "PSETEX" | "GETSET" | "GETDEL" | "GETEX" | "APPEND" | "SETRANGE" | "SETBIT"
        | "BITFIELD" | "INCR" | "DECR" | "INCRBY" | "DECRBY" | "INCRBYFLOAT" | "DELIFEQ" | "DELEX" => One(1),
        "EXPIRE" | "PEXPIRE" | "EXPIREAT" | "PEXPIREAT" | "PERSIST" | "RESTORE" => One(1),
        "LPUSH" | "RPUSH" | "LPUSHX" | "RPUSHX" | "LPOP" | "RPOP" | "LSET" | "LINSERT" | "LREM" | "LTRIM" => One(1),
        "SADD" | "SREM" | "SPOP" => One(1),
        "ZADD" | "ZINCRBY" | "ZREM" | "ZREMRANGEBYSCORE" | "ZREMRANGEBYRANK" | "ZREMRANGEBYLEX" | "ZPOPMIN"
        | "ZPOPMAX" | "GEOADD" => One(1),
        "HSET" | "HSETNX" | "HMSET" | "HINCRBY" | "HINCRBYFLOAT" | "HDEL" | "HEXPIRE" | "HPEXPIRE" | "HEXPIREAT"
        | "HPEXPIREAT" | "HPERSIST" | "HGETDEL" | "HGETEX" | "HSETEX" => One(1),
        "XADD" | "XDEL" | "XTRIM" | "XSETID" | "XACK" | "XCLAIM" | "XAUTOCLAIM" | "XACKDEL" | "XDELEX" | "PFADD" => {
            One(1)
        }
        "XGROUP" => One(2),
        "DEL" | "UNLINK" => Each { first: 1, step: 1 },
        "MSET" => Each { first: 1, step: 2 },
        "MSETNX" => Together { first: 1, step: 2, count: None },
        "RENAME" | "RENAMENX" | "SMOVE" | "RPOPLPUSH" | "LMOVE" | "BRPOPLPUSH" | "BLMOVE" => {
            Together { first: 1, step: 1, count: Some(2) }
        }
        // With more words it may go into another database.
        "COPY" if words <= 4 => Into { target: 2, sources: Sources::One(1) },
        "SINTERSTORE" | "SUNIONSTORE" | "SDIFFSTORE" | "PFMERGE" => Into { target: 1, sources: Sources::From(2) },
        "BITOP" => Into { target: 2, sources: Sources::From(3) },
        "ZRANGESTORE" | "GEOSEARCHSTORE" => Into { target: 1, sources: Sources::One(2) },
        "ZUNIONSTORE" | "ZINTERSTORE" | "ZDIFFSTORE" => Into { target: 1, sources: Sources::Counted(2) },
        "FLUSHDB" => Empty { all: false },
        "FLUSHALL" => Empty { all: true },
        "FUNCTION" => Functions,
        "PING" | "REPLCONF" | "PUBLISH" | "SPUBLISH" | "SCRIPT" => Nothing,
        _ => return None,
    })
}
