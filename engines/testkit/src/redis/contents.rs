//! What a server holds, in a form that two servers can be compared by, and data of every type to compare.
//!
//! The server's own `DEBUG DIGEST` says whether two are equal; this says what differs, and sees what that leaves out: moments of
//! expiry, consumer groups, functions. Values are compared as clients see them: the same set may be laid out in another way after
//! a restore.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::client::{RedisClient, Reply};
use super::server::Redis;
use crate::error::Result;

/// How many keys are asked for at a time.
const BATCH: &str = "500";
/// A moment in the year 2100, in seconds: expiry that no test sees.
const FAR: u64 = 4_102_444_800;

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The type, as `TYPE` calls it.
    pub kind: String,
    /// When it expires, in milliseconds since 1970; 0 where it does and the server can't say when (Redis 6.2).
    pub expires: Option<i64>,
    /// A digest of what clients see.
    pub digest: String,
}

/// All that a server holds: keys by database and name, and its functions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The keys.
    pub keys: BTreeMap<(u64, Vec<u8>), Item>,
    /// The libraries of functions, as `FUNCTION LIST WITHCODE` shows them.
    pub functions: String,
}

/// Reads all that `server` holds.
///
/// # Errors
/// [`Error::Redis`](crate::Error::Redis), [`Error::Io`](crate::Error::Io).
pub async fn contents(server: &Redis) -> Result<Contents> {
    let mut client = server.connect().await?;
    let mut all = Contents::default();
    if server.version().since_7() {
        all.functions = client.run("FUNCTION LIST WITHCODE").await?.text();
    }
    let keyspace = client.run("INFO keyspace").await?.text();
    let databases = keyspace.lines().filter_map(|line| line.strip_prefix("db")?.split_once(':')?.0.parse::<u64>().ok());
    for database in databases {
        client.run(&format!("SELECT {database}")).await?;
        let mut cursor = "0".to_owned();
        loop {
            let page = client.call(&["SCAN", &cursor, "COUNT", BATCH]).await?;
            let [next, keys] = page.items() else { break };
            let keys: Vec<_> = keys.items().iter().filter_map(Reply::bytes).map(<[u8]>::to_vec).collect();
            let items = items(&mut client, server, &keys).await?;
            all.keys.extend(keys.into_iter().map(|key| (database, key)).zip(items));
            cursor = next.text();
            if cursor == "0" {
                break;
            }
        }
    }
    Ok(all)
}

/// Looks at all of `keys` with few questions, each about all of them.
async fn items(client: &mut RedisClient, server: &Redis, keys: &[Vec<u8>]) -> Result<Vec<Item>> {
    let each = |name: &str| -> Vec<_> { keys.iter().map(|key| words(&[name.as_bytes(), key])).collect() };
    let kinds: Vec<_> = client.send(&each("TYPE")).await?.iter().map(Reply::text).collect();
    let exact = server.version().since_7();
    let times = client.send(&each(if exact { "PEXPIRETIME" } else { "PTTL" })).await?;
    let questions: Vec<_> = kinds.iter().zip(keys).map(|(kind, key)| question(kind, key)).collect();
    let values = client.send(&questions).await?;
    let mut items = Vec::with_capacity(keys.len());
    for (((key, kind), value), time) in keys.iter().zip(kinds).zip(values).zip(times) {
        let mut hash = Sha256::new();
        match kind.as_str() {
            "set" => feed_sorted(&mut hash, value.items(), 1),
            "hash" => {
                feed_sorted(&mut hash, value.items(), 2);
                if server.version().has_field_expiry() {
                    field_expiry(client, key, &value, &mut hash).await?;
                }
            }
            "stream" => feed_stream(&mut hash, &value),
            _ => feed(&mut hash, &value),
        }
        let expires = time.number().filter(|at| *at >= 0).map(|at| if exact { at } else { 0 });
        let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        items.push(Item { kind, expires, digest });
    }
    Ok(items)
}

fn words(words: &[&[u8]]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.to_vec()).collect()
}

/// The command that shows what is in a key of this type.
fn question(kind: &str, key: &[u8]) -> Vec<Vec<u8>> {
    match kind {
        "string" => words(&[b"GET", key]),
        "list" => words(&[b"LRANGE", key, b"0", b"-1"]),
        "set" => words(&[b"SMEMBERS", key]),
        "zset" => words(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"]),
        "hash" => words(&[b"HGETALL", key]),
        "stream" => words(&[b"XINFO", b"STREAM", key, b"FULL", b"COUNT", b"0"]),
        _ => words(&[b"DUMP", key]),
    }
}

async fn field_expiry(client: &mut RedisClient, key: &[u8], value: &Reply, hash: &mut Sha256) -> Result<()> {
    let mut fields: Vec<_> = value.items().iter().step_by(2).filter_map(Reply::bytes).map(<[u8]>::to_vec).collect();
    fields.sort_unstable();
    let count = fields.len().to_string().into_bytes();
    let mut command = vec![b"HPEXPIRETIME".to_vec(), key.to_vec(), b"FIELDS".to_vec(), count];
    command.extend(fields);
    feed(hash, &client.call(&command).await?);
    Ok(())
}

fn feed(hash: &mut Sha256, reply: &Reply) {
    match reply {
        Reply::Array(items) => {
            hash.update(format!("*{}\n", items.len()));
            items.iter().for_each(|item| feed(hash, item));
        }
        Reply::Bulk(bytes) => {
            hash.update(format!("${}\n", bytes.len()));
            hash.update(bytes);
        }
        other => hash.update(format!("{}\n", other.text())),
    }
}

/// The order of sets and hashes is nobody's promise.
fn feed_sorted(hash: &mut Sha256, items: &[Reply], together: usize) {
    let mut groups: Vec<Vec<_>> = items
        .chunks(together)
        .map(|group| group.iter().map(|item| item.bytes().unwrap_or_default()).collect())
        .collect();
    groups.sort_unstable();
    for bytes in groups.into_iter().flatten() {
        hash.update(format!("${}\n", bytes.len()));
        hash.update(bytes);
    }
}

/// What `XINFO STREAM … FULL` says, without how the server lays it out and when consumers last asked.
fn feed_stream(hash: &mut Sha256, reply: &Reply) {
    let Reply::Array(items) = reply else { return feed(hash, reply) };
    hash.update(format!("*{}\n", items.len()));
    let mut skip = false;
    for item in items {
        if !std::mem::take(&mut skip) {
            feed_stream(hash, item);
            let layout = ["radix-tree-keys", "radix-tree-nodes", "seen-time", "active-time"];
            skip = layout.contains(&item.text().as_str());
        }
    }
}

/// Fills a server with keys of every type and layout that its version has, in three databases, and a library
/// of functions. About 2,500 keys and 2 MB.
///
/// # Errors
/// [`Error::Redis`](crate::Error::Redis), [`Error::Io`](crate::Error::Io).
pub async fn every_type(server: &Redis) -> Result<()> {
    let mut client = server.connect().await?;
    for database in [0, 3, 15] {
        client.run(&format!("SELECT {database}")).await?;
        strings(&mut client, database).await?;
        collections(&mut client).await?;
        streams(&mut client).await?;
        if server.version().has_field_expiry() {
            must(&mut client, &[&["HSET", "hash:fields", "a", "1", "b", "2", "c", "3"]]).await?;
            must(&mut client, &[&["HEXPIREAT", "hash:fields", &FAR.to_string(), "FIELDS", "1", "a"]]).await?;
            let many: Vec<String> = (0..600).flat_map(|n| [format!("f{n}"), format!("v{n}")]).collect();
            let mut set = vec!["HSET", "hash:many-fields"];
            set.extend(many.iter().map(String::as_str));
            must(&mut client, &[&set]).await?;
            must(&mut client, &[&["HEXPIREAT", "hash:many-fields", &FAR.to_string(), "FIELDS", "2", "f1", "f77"]])
                .await?;
        }
    }
    if server.version().since_7() {
        let code = "#!lua name=testkit\nredis.register_function('answer', function() return 42 end)";
        must(&mut client, &[&["FUNCTION", "LOAD", code]]).await?;
    }
    Ok(())
}

async fn must(client: &mut RedisClient, commands: &[&[&str]]) -> Result<()> {
    for command in commands {
        client.call(command).await?;
    }
    Ok(())
}

async fn strings(client: &mut RedisClient, database: u64) -> Result<()> {
    let far = FAR.to_string();
    let long = "a line that repeats itself; ".repeat(4_000);
    must(
        client,
        &[
            &["SET", "string:int8", "-5"],
            &["SET", "string:int32", "123456789"],
            &["SET", "string:int64", "-9223372036854775808"],
            &["SET", "string:empty", ""],
            &["SET", "string:short", &format!("in database {database}")],
            &["SET", "string:long", &long],
            &["SET", "string:expires", "later"],
            &["EXPIREAT", "string:expires", &far],
            &["SETBIT", "bitmap", "100003", "1"],
            &["PFADD", "hyperloglog", "a", "b", "c", "d"],
        ],
    )
    .await?;
    // Neither names nor values need be text.
    client.call(&[b"SET".as_slice(), b"\x00\xff\r\n key", &(0..=255).collect::<Vec<u8>>()]).await?;
    let many: Vec<_> = (0..800).map(|n| ["SET".to_owned(), format!("many:{n}"), format!("value {n}")]).collect();
    client.send(&many).await.map(drop)
}

async fn collections(client: &mut RedisClient) -> Result<()> {
    let far = FAR.to_string();
    let big = "x".repeat(10_000);
    must(
        client,
        &[
            &["RPUSH", "list:short", "a", "2", "", "-70000"],
            &["RPUSH", "list:long", &big, "small", &big],
            &["SADD", "set:numbers", "1", "200", "70000", "-5000000000"],
            &["SADD", "set:words", "one", "two", "3"],
            &["ZADD", "zset:short", "1.5", "a", "-inf", "b", "inf", "c", "3", "d"],
            &["HSET", "hash:short", "name", "value", "number", "7"],
            &["EXPIREAT", "hash:short", &far],
            &["GEOADD", "geo", "13.361389", "38.115556", "Palermo"],
        ],
    )
    .await?;
    let number = |n: u32| (n.to_string(), format!("{:0>80}", n * 7));
    let mut commands = Vec::new();
    for n in 0..600 {
        let (score, long) = number(n);
        commands.push(vec!["RPUSH".to_owned(), "list:many".to_owned(), long.clone()]);
        commands.push(vec!["SADD".to_owned(), "set:many".to_owned(), long.clone()]);
        commands.push(vec!["ZADD".to_owned(), "zset:many".to_owned(), format!("{score}.25"), long.clone()]);
        commands.push(vec!["HSET".to_owned(), "hash:many".to_owned(), score, long]);
    }
    client.send(&commands).await.map(drop)
}

async fn streams(client: &mut RedisClient) -> Result<()> {
    let entries: Vec<_> = (1..300)
        .map(|n| ["XADD".to_owned(), "stream".to_owned(), format!("{n}-1"), "field".to_owned(), format!("value {n}")])
        .collect();
    client.send(&entries).await?;
    must(
        client,
        &[
            &["XGROUP", "CREATE", "stream", "readers", "0"],
            &["XGROUP", "CREATE", "stream", "empty", "$"],
            &["XREADGROUP", "GROUP", "readers", "alice", "COUNT", "5", "STREAMS", "stream", ">"],
            &["XREADGROUP", "GROUP", "readers", "bob", "COUNT", "3", "STREAMS", "stream", ">"],
            &["XACK", "stream", "readers", "2-1"],
            &["XDEL", "stream", "7-1", "150-1"],
        ],
    )
    .await
}
