//! Where nobody may replicate and no file can be read: every key is asked for, with `SCAN` and `DUMP`.
//!
//! What comes of it is a snapshot file like any other, so every way back takes it. It is not of one moment: each key is as it was
//! when it was asked for. Expiry and value of one key are of the same moment, since they are asked for in one transaction.
//!
//! A server may name a key twice while it grows or shrinks its tables, and a file with a key twice ends the server that loads it. So
//! digests of the names are kept, in the memory that is allowed for it; where the keys of a database are too many for that, the
//! names are gone through several times, and each time only a part of them is asked for.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use backup_core::engine::BackupContext;
use backup_core::{Error as CoreError, Finding, LossyItem, Result as CoreResult, Severity};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use parking_lot::Mutex;

use super::probe::Probe;
use super::receive::{self, Received};
use super::settings::RedisSettings;
use crate::client::{Connection, Pipeline, Reply};
use crate::error::{Error, Result};
use crate::node::{NodeFacts, Product};
use crate::rdb::{Builder, Counter, Opened, RdbVersion};
use crate::restore::snapshot_version;

/// So many names are asked for at a time.
const NAMES: &str = "512";
/// So many keys are asked for at a time at most, and so many bytes of values are expected then.
const TOGETHER: usize = 64;
const EXPECTED: usize = 4 << 20;
/// Pieces of the file are of about this size.
const PIECE: usize = 256 << 10;
/// Bytes that a name takes in the table of names, which doubles when it grows.
const NAME: usize = 64;
/// A table of fewer names is of no use.
const FEW: usize = 16;

/// Asks for every key and stores the file that is made of them.
///
/// # Errors
/// [`Environment`](backup_core::ErrorKind::Environment) with the command that the server refuses;
/// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) for values that are not known here;
/// [`Unavailable`](backup_core::ErrorKind::Unavailable) when far more keys come into being meanwhile than there were.
pub(super) async fn backup(cx: &BackupContext, settings: &RedisSettings, probe: &Probe) -> CoreResult<Received> {
    let facts = &probe.node.facts;
    let mut connection = Connection::open(&probe.client, probe.node.connection.endpoint()).await?;
    let clock = cx.work().env().clock();
    let begun = clock.monotonic();
    let mut builder = Builder::new(version(&mut connection, facts).await?);
    let name = if facts.product == Product::Valkey { "valkey-ver" } else { "redis-ver" };
    builder.aux(name, &facts.version);
    let mut lossy = vec![LossyItem::new(
        "one moment for all keys",
        "keys were asked for one after the other: what belongs together may be of different moments",
    )];
    if probe.node.info.get("maxmemory_policy").is_some_and(|policy| policy != "noeviction") {
        let reason = "a server does not tell it with the value; it is counted anew after a restore";
        lossy.push(LossyItem::new("how long and how often keys were used", reason));
    }
    lossy.extend(functions(&mut connection, facts, &mut builder).await?);
    let scan = Scan::new(connection, builder, facts, settings.scan_memory);
    let outcome = Outcome::default();
    receive::store(cx, pieces(scan, &outcome)).await?;
    let found = outcome.lock().take();
    let (summary, tally) = found.ok_or_else(|| CoreError::internal("a scan was stored without being at its end"))?;
    let took = clock.monotonic().saturating_sub(begun);
    let text = format!(
        "keys were read one after the other, in {:.1} s: the backup is of no single moment; {} keys went away before they were read",
        took.as_secs_f64(),
        tally.vanished
    );
    tracing::info!(keys = summary.keys(), vanished = tally.vanished, repeated = tally.repeated, "every key was read");
    let findings = vec![Finding::new(Severity::Warning, "not-point-in-time", text)];
    Ok(Received { summary, position: None, answered: None, findings, lossy })
}

/// The version of the file: the one that the server writes. Valkey from 9 on has a format of its own, which is taken only where there
/// is something that others do not have, as for a replica.
async fn version(connection: &mut Connection, facts: &NodeFacts) -> Result<RdbVersion> {
    if facts.product == Product::Valkey && facts.line() >= (9, 0) {
        return Ok(if facts.replica_version().is_some() {
            RdbVersion::valkey(RdbVersion::VALKEY)
        } else {
            RdbVersion::redis(11)
        });
    }
    // What it says itself is better than what is known of its release.
    let said = match connection.call(&["RANDOMKEY"]).await {
        Ok(key) => match key.bytes() {
            Some(key) => connection.call(&[b"DUMP".as_slice(), key]).await?,
            None => Reply::Nil,
        },
        Err(Error::Server { .. }) => Reply::Nil,
        Err(error) => return Err(error),
    };
    match said.bytes() {
        Some(payload) => Ok(RdbVersion::redis(Opened::of(payload)?.version)),
        None => Ok(snapshot_version(facts)),
    }
}

/// Writes the libraries of functions. What is missing when the server does not give them.
async fn functions(connection: &mut Connection, facts: &NodeFacts, builder: &mut Builder) -> Result<Option<LossyItem>> {
    if !facts.since_functions() {
        return Ok(None);
    }
    match connection.call(&["FUNCTION", "DUMP"]).await {
        Ok(reply) => {
            let dump = reply.bytes().ok_or_else(|| Error::Protocol("functions that are no bytes".into()))?;
            builder.functions(dump).map(|()| None)
        }
        Err(Error::Server { message, .. }) => {
            Ok(Some(LossyItem::new("functions", format!("FUNCTION DUMP was refused: {message}"))))
        }
        Err(error) => Err(error),
    }
}

/// What was seen at the end of a scan.
type Outcome = Arc<Mutex<Option<(crate::rdb::Summary, Tally)>>>;

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    /// Keys that went away between their name and their value.
    vanished: u64,
    /// Keys that were named again.
    repeated: u64,
}

/// The bytes of the file. They end only behind a sound one.
fn pieces<'a>(scan: Scan, outcome: &Outcome) -> BoxStream<'a, CoreResult<Bytes>> {
    let outcome = Arc::clone(outcome);
    let state = Some((Box::new(scan), Box::new(Counter::new()), outcome));
    let next = |state: Option<(Box<Scan>, Box<Counter>, Outcome)>| async move {
        let Some((mut scan, mut counter, outcome)) = state else { return Ok(None) };
        while scan.builder.len() < PIECE {
            if scan.step().await? {
                continue;
            }
            let Scan { builder, tally, .. } = *scan;
            let rest = builder.finish();
            counter.push(&rest)?;
            let summary = counter.finish()?;
            receive::sound(&summary)?;
            *outcome.lock() = Some((summary, tally));
            return Ok(Some((Bytes::from(rest), None)));
        }
        let piece = scan.builder.drain();
        counter.push(&piece)?;
        Ok(Some((Bytes::from(piece), Some((scan, counter, outcome)))))
    };
    stream::try_unfold(state, next).boxed()
}

/// How the moment is asked for at which a key expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    /// The moment itself: from Redis 7.0 on, and in every Valkey.
    Moment,
    /// The time that is left, and what time it is.
    Left,
}

/// A walk through all keys of a server.
struct Scan {
    connection: Connection,
    builder: Builder,
    expiry: Expiry,
    /// The database that the connection is in.
    selected: u64,
    /// Databases that come next, with how many keys they had.
    databases: VecDeque<(u64, u64)>,
    /// Databases that were begun.
    begun: BTreeSet<u64>,
    place: Option<Place>,
    /// Names whose keys are to be asked for.
    names: VecDeque<Bytes>,
    /// Digests of the names of the present part that were asked for.
    met: HashSet<u128>,
    /// So many names may be kept.
    most: usize,
    /// So many keys are asked for at a time.
    together: usize,
    tally: Tally,
}

/// How far a database is gone through.
struct Place {
    database: u64,
    /// None behind the last name.
    cursor: Option<Bytes>,
    part: u64,
    parts: u64,
}

impl Scan {
    fn new(connection: Connection, builder: Builder, facts: &NodeFacts, memory: usize) -> Self {
        let expiry = if facts.since_functions() { Expiry::Moment } else { Expiry::Left };
        Self {
            connection,
            builder,
            expiry,
            selected: 0,
            databases: VecDeque::new(),
            begun: BTreeSet::new(),
            place: None,
            names: VecDeque::new(),
            met: HashSet::new(),
            most: (memory / NAME).max(FEW),
            together: TOGETHER,
            tally: Tally::default(),
        }
    }

    /// Does one thing after the other. False when there is nothing left to do.
    async fn step(&mut self) -> Result<bool> {
        if !self.names.is_empty() {
            self.values().await?;
            return Ok(true);
        }
        match self.place.take() {
            Some(Place { cursor: None, database, part, parts }) => {
                self.met.clear();
                if part + 1 < parts {
                    let cursor = Some(Bytes::from_static(b"0"));
                    self.place = Some(Place { database, cursor, part: part + 1, parts });
                }
                Ok(true)
            }
            Some(Place { cursor: Some(cursor), database, part, parts }) => {
                let cursor = self.page(&cursor, database, part, parts).await?;
                self.place = Some(Place { database, cursor, part, parts });
                Ok(true)
            }
            None => self.enter().await,
        }
    }

    /// Enters the next database. False when there is none with keys that was not begun.
    async fn enter(&mut self) -> Result<bool> {
        if self.databases.is_empty() {
            // Meanwhile there may be more than there were.
            let info = crate::node::info(&mut self.connection).await?;
            let keys = |text: &str| text.strip_prefix("keys=")?.split(',').next()?.parse().ok();
            let all: BTreeSet<_> =
                info.numbered("db").filter_map(|(number, text)| Some((number, keys(text)?))).collect();
            self.databases = all.into_iter().filter(|(number, _)| !self.begun.contains(number)).collect();
        }
        let Some((database, keys)) = self.databases.pop_front() else { return Ok(false) };
        self.begun.insert(database);
        if self.selected != database {
            self.connection.call(&["SELECT".to_owned(), database.to_string()]).await?;
            self.selected = database;
        }
        // Room for as many that come into being meanwhile.
        let parts = keys.saturating_mul(2).div_ceil(self.most as u64).max(1);
        self.place = Some(Place { database, cursor: Some(Bytes::from_static(b"0")), part: 0, parts });
        Ok(true)
    }

    /// Asks for some names. Gives where the next ones are to be had.
    async fn page(&mut self, cursor: &[u8], database: u64, part: u64, parts: u64) -> Result<Option<Bytes>> {
        let reply = self.connection.call(&[b"SCAN".as_slice(), cursor, b"COUNT", NAMES.as_bytes()]).await?;
        let [next, names] = reply.items() else { return Err(Error::Protocol("names without a cursor".into())) };
        let next = next.bytes().ok_or_else(|| Error::Protocol("a cursor that is no number".into()))?;
        for name in names.items() {
            let Reply::Bulk(name) = name else { return Err(Error::Protocol("a name that is no string".into())) };
            let id = digest(name);
            if part_of(id, parts) != part {
                continue;
            }
            if self.met.len() == self.most && !self.met.contains(&id) {
                return Err(Error::Closed(format!(
                    "database {database} got far more keys while they were read; try again, or allow more memory"
                )));
            }
            if self.met.insert(id) {
                self.names.push_back(name.clone());
            } else {
                self.tally.repeated += 1;
            }
        }
        Ok((next != b"0").then(|| Bytes::copy_from_slice(next)))
    }

    /// Asks for some keys.
    async fn values(&mut self) -> Result<()> {
        let database = self.selected;
        let names: Vec<_> = self.names.drain(..self.together.min(self.names.len())).collect();
        let mut questions = Pipeline::new();
        for name in &names {
            questions.push(&["MULTI"]);
            match self.expiry {
                Expiry::Moment => questions.push(&[b"PEXPIRETIME".as_slice(), name]),
                Expiry::Left => {
                    questions.push(&["TIME"]);
                    questions.push(&[b"PTTL".as_slice(), name]);
                }
            }
            questions.push(&[b"DUMP".as_slice(), name]);
            questions.push(&["EXEC"]);
        }
        let each = questions.len() / names.len().max(1);
        self.connection.ask(&questions).await?;
        let mut largest = 1;
        for name in &names {
            let mut last = Reply::Nil;
            for _ in 0..each {
                last = match self.connection.answer().await? {
                    Reply::Error(message) => return Err(Error::Server { command: "DUMP".into(), message }),
                    other => other,
                };
            }
            match key(self.expiry, &last)? {
                Some((expires, payload)) => {
                    largest = largest.max(payload.len());
                    self.builder.key(database, name, expires, payload)?;
                }
                None => self.tally.vanished += 1,
            }
        }
        // As many as are likely to be bearable, when all are as large as the largest one was.
        self.together = (EXPECTED / largest).clamp(1, TOGETHER.min(self.together.saturating_mul(2)));
        Ok(())
    }
}

/// When a key expires, and its payload. None when it is not there any more.
fn key(expiry: Expiry, reply: &Reply) -> Result<Option<(Option<i64>, &[u8])>> {
    let wrong = || Error::Protocol("a transaction was answered with something else".into());
    let failed = reply.items().iter().find_map(|item| match item {
        Reply::Error(message) => Some(message.clone()),
        _ => None,
    });
    if let Some(message) = failed {
        return Err(Error::Server { command: "DUMP".into(), message });
    }
    let (at, payload) = match (expiry, reply.items()) {
        (Expiry::Moment, [at, payload]) => (at.int().ok_or_else(wrong)?, payload),
        (Expiry::Left, [time, left, payload]) => {
            let left = left.int().ok_or_else(wrong)?;
            (if left < 0 { left } else { millis(time).ok_or_else(wrong)?.saturating_add(left) }, payload)
        }
        _ => return Err(wrong()),
    };
    let Some(payload) = payload.bytes() else { return Ok(None) };
    Ok(Some(((at >= 0).then_some(at), payload)))
}

/// Seconds and microseconds since 1970 as milliseconds.
fn millis(time: &Reply) -> Option<i64> {
    let [seconds, micros] = time.items() else { return None };
    seconds.int()?.checked_mul(1000)?.checked_add(micros.int()? / 1000)
}

fn digest(name: &[u8]) -> u128 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = *blake3::hash(name).as_bytes();
    u128::from_be_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
}

/// In which of `parts` a name is. Digests are evenly spread.
fn part_of(id: u128, parts: u64) -> u64 {
    let high = id >> 64;
    ((high * u128::from(parts)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use futures::TryStreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::client::{ClientSettings, Decoder};
    use crate::node::Info;
    use crate::rdb::{Payload, ValueType};

    #[test]
    fn every_name_is_in_one_part() {
        for parts in [1, 2, 7, 1000] {
            let mut counts = vec![0; parts as usize];
            (0..10_000_u32).for_each(|n| counts[part_of(digest(&n.to_le_bytes()), parts) as usize] += 1);
            let fair = 10_000 / parts as usize;
            assert!(counts.iter().all(|count| *count <= 3 * fair + 10), "{parts}: {counts:?}");
        }
        assert_eq!(part_of(u128::MAX, 1000), 999);
    }

    #[test]
    fn keys_are_read_out_of_either_transaction() {
        let payload = || Reply::Bulk(Bytes::from_static(b"p"));
        let time = Reply::Array(vec![Reply::Bulk("1700000000".into()), Reply::Bulk("5999".into())]);
        let of = |expiry, items: Vec<Reply>| key(expiry, &Reply::Array(items)).map(|found| found.map(|(at, _)| at));
        assert_eq!(of(Expiry::Moment, vec![Reply::Int(7), payload()]).unwrap(), Some(Some(7)));
        assert_eq!(of(Expiry::Moment, vec![Reply::Int(-1), payload()]).unwrap(), Some(None));
        assert_eq!(of(Expiry::Moment, vec![Reply::Int(-2), Reply::Nil]).unwrap(), None);
        let left = of(Expiry::Left, vec![time.clone(), Reply::Int(10), payload()]).unwrap();
        assert_eq!(left, Some(Some(1_700_000_000_015)));
        assert_eq!(of(Expiry::Left, vec![time, Reply::Int(-1), payload()]).unwrap(), Some(None));
        assert!(of(Expiry::Moment, vec![payload()]).is_err());
        let refused = of(Expiry::Moment, vec![Reply::Int(-1), Reply::Error("NOPERM no".into())]).unwrap_err();
        assert!(matches!(refused, Error::Server { .. }));
    }

    /// Answers as a server does that names keys twice: no real one can be made to do so when a test wants it. `pages` are the names
    /// behind each cursor.
    async fn repeating(listener: TcpListener, keys: usize, pages: Vec<Vec<String>>) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut decoder, mut incoming) = (Decoder::new(1 << 20), BytesMut::new());
        let bulk = |bytes: &[u8]| [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        loop {
            let Some(request) = decoder.next(&mut incoming).unwrap() else {
                if stream.read_buf(&mut incoming).await.unwrap() == 0 {
                    return;
                }
                continue;
            };
            let words: Vec<_> = request.items().iter().filter_map(Reply::text).collect();
            let answer = match words[0].as_str() {
                "INFO" => bulk(format!("db0:keys={keys},expires=0\r\n").as_bytes()),
                "SCAN" => {
                    let page: usize = words[1].parse().unwrap();
                    let next = if page + 1 < pages.len() { page + 1 } else { 0 };
                    let mut answer = b"*2\r\n".to_vec();
                    answer.extend(bulk(next.to_string().as_bytes()));
                    answer.extend(format!("*{}\r\n", pages[page].len()).into_bytes());
                    pages[page].iter().for_each(|name| answer.extend(bulk(name.as_bytes())));
                    answer
                }
                "MULTI" => b"+OK\r\n".to_vec(),
                "EXEC" => {
                    let payload = Payload::of(RdbVersion::redis(11), ValueType(0), b"\x01x");
                    [b"*2\r\n:-1\r\n".to_vec(), bulk(&payload)].concat()
                }
                _ => b"+QUEUED\r\n".to_vec(),
            };
            stream.write_all(&answer).await.unwrap();
        }
    }

    /// The keys of the file that comes of such a server, when there is room for so many names.
    async fn scanned(keys: usize, room: usize, pages: Vec<Vec<String>>) -> CoreResult<(u64, Tally)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let server = tokio::spawn(repeating(listener, keys, pages));
        let settings = ClientSettings::new(url.parse().unwrap());
        let connection = Connection::open(&settings, &settings.address.nodes[0]).await.unwrap();
        let id = "a".repeat(40);
        let info = format!("redis_version:7.2.4\nrole:master\nmaster_replid:{id}\nmaster_repl_offset:0\n");
        let facts = NodeFacts::of(&Info::parse(&info)).unwrap();
        let scan = Scan::new(connection, Builder::new(RdbVersion::redis(11)), &facts, room * NAME);
        let outcome = Outcome::default();
        let stored = pieces(scan, &outcome).try_fold((), |(), _| async { Ok(()) }).await;
        server.abort();
        stored?;
        let (summary, tally) = outcome.lock().take().unwrap();
        Ok((summary.keys(), tally))
    }

    #[tokio::test]
    async fn what_is_named_twice_is_taken_once() {
        let names = |range: std::ops::Range<u32>| range.map(|n| format!("key:{n}")).collect::<Vec<_>>();
        let pages = || vec![names(0..60), names(30..90), names(0..100)];
        let (keys, tally) = scanned(100, 10_000, pages()).await.unwrap();
        assert_eq!((keys, tally.repeated, tally.vanished), (100, 120, 0));
        // In parts, since there is room for few names at a time.
        let (keys, tally) = scanned(100, 40, pages()).await.unwrap();
        assert_eq!((keys, tally.repeated), (100, 120));
        let error = scanned(1, 40, pages()).await.unwrap_err();
        assert!(error.to_string().contains("far more keys"), "{error}");
    }
}
