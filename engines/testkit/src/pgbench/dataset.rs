//! A shop's database: realistic in shape, in size of rows and in how well it compresses.
//!
//! Made-up text must be neither noise nor repetition, or every figure measured on it lies. Text here is drawn from a
//! vocabulary with the skew of a language, identifiers are random, times and numbers grow as they do in life.
//! Everything follows from the seed, so two loads hold the same rows.

use std::fmt::Write as _;

use bytes::Bytes;
use futures::SinkExt as _;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Config};

use super::random::Random;
use crate::error::{Error, Result};
use crate::postgres::Postgres;

/// Rows per MiB of database, measured so that heap, indexes and TOAST come to the wanted size together.
const CUSTOMERS_PER_MIB: u64 = 230;
const ORDERS_PER_MIB: u64 = 1330;
const EVENTS_PER_MIB: u64 = 1020;
const DOCUMENTS_PER_MIB: u64 = 23;
/// Events are partitioned by number.
const PARTITIONS: u64 = 3;
/// Copy data is sent in pieces of about this many bytes.
const PIECE: usize = 256 * 1024;
/// 2024-01-01T00:00:00Z, in seconds since the Unix epoch.
const EPOCH: u64 = 1_704_067_200;

/// A dataset to load: the schema `shop` with customers, orders, events (partitioned) and documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dataset {
    mebibytes: u64,
    seed: u64,
}

/// Which rows a change touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeShape {
    /// Neighbours: few pages, each changed all over.
    Clustered,
    /// Rows at equal distances: many pages, each changed a little. The worst case for incremental backups.
    Spread,
}

impl Dataset {
    /// A dataset of about `size` bytes on disk (at least 1 MiB), indexes and TOAST included, WAL not.
    #[must_use]
    pub fn realistic(size: u64, seed: u64) -> Self {
        Self { mebibytes: (size >> 20).max(1), seed }
    }

    /// Creates and fills the schema `shop` in `database` of `server`.
    ///
    /// # Errors
    /// [`Error::Sql`], also when the schema exists.
    pub async fn load(&self, server: &Postgres, database: &str) -> Result<()> {
        self.load_on(&server.config(database)).await
    }

    /// As [`load`](Self::load), on any server. Uses one connection per table at the same time.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn load_on(&self, config: &Config) -> Result<()> {
        let client = crate::postgres::connect(config).await?;
        client
            .batch_execute(
                "create schema shop;
                 create table shop.events (id bigint not null, at timestamptz not null, session uuid not null,
                     kind text not null, payload jsonb not null) partition by range (id)",
            )
            .await?;
        let mut tables = JoinSet::new();
        for table in self.tables() {
            let client = crate::postgres::connect(config).await?;
            tables.spawn(table.fill(client));
        }
        while let Some(done) = tables.join_next().await {
            done.map_err(|error| Error::invalid(format!("loading was interrupted: {error}")))??;
        }
        // Everything is frozen and visible, so a later look at the rows changes no page.
        client.batch_execute("vacuum analyze").await?;
        client.batch_execute("checkpoint").await?;
        Ok(())
    }

    fn tables(&self) -> Vec<Table> {
        let customers = self.mebibytes * CUSTOMERS_PER_MIB;
        let mut tables = vec![
            Table {
                name: "shop.orders".to_owned(),
                create: "create table shop.orders (id bigint not null, customer bigint not null, placed_at timestamptz not null,
                    status text not null, total numeric(12,2) not null, note text, lines jsonb not null)"
                    .to_owned(),
                finish: "alter table shop.orders add primary key (id);
                    create index on shop.orders (customer);
                    create index on shop.orders using brin (placed_at)"
                    .to_owned(),
                rows: 1..self.mebibytes * ORDERS_PER_MIB + 1,
                row: order,
                customers,
                seed: self.seed ^ 1,
            },
            Table {
                name: "shop.customers".to_owned(),
                create: "create table shop.customers (id bigint not null, key uuid not null, email text not null, name text not null,
                    created_at timestamptz not null, profile jsonb not null)"
                    .to_owned(),
                finish: "alter table shop.customers add primary key (id);
                    create unique index on shop.customers (email);
                    create index on shop.customers using gin (profile jsonb_path_ops)"
                    .to_owned(),
                rows: 1..customers + 1,
                row: customer,
                customers,
                seed: self.seed ^ 2,
            },
            Table {
                name: "shop.documents".to_owned(),
                create: "create table shop.documents (id bigint not null, title text not null, tags text[] not null, body text not null)"
                    .to_owned(),
                finish: "alter table shop.documents add primary key (id);
                    create index on shop.documents using gin (tags)"
                    .to_owned(),
                rows: 1..self.mebibytes * DOCUMENTS_PER_MIB + 1,
                row: document,
                customers,
                seed: self.seed ^ 3,
            },
        ];
        let share = self.mebibytes * EVENTS_PER_MIB / PARTITIONS + 1;
        for part in 0..PARTITIONS {
            let (from, to) = (part * share, (part + 1) * share);
            let name = format!("shop.events_{part}");
            tables.push(Table {
                create: format!("create table {name} (like shop.events)"),
                finish: format!(
                    "alter table {name} add primary key (id);
                     create index on {name} using brin (at);
                     alter table shop.events attach partition {name} for values from ({from}) to ({to})"
                ),
                name,
                rows: from..to,
                row: event,
                customers,
                seed: self.seed ^ (4 + part),
            });
        }
        tables
    }

    /// Changes about `fraction` (above 0, at most 1) of the customers, orders and documents and returns how many rows that were. Each `round`
    /// changes other rows.
    ///
    /// # Errors
    /// [`Error::Sql`]; [`Error::InvalidInput`] for a fraction out of range.
    pub async fn change_fraction(&self, client: &Client, fraction: f64, shape: ChangeShape, round: u32) -> Result<u64> {
        if !(fraction > 0.0 && fraction <= 1.0) {
            return Err(Error::invalid(format!("cannot change a fraction of {fraction}")));
        }
        let every = (1.0 / fraction).round().max(1.0);
        let mut changed = 0;
        for (table, change, rows) in [
            ("shop.orders", "status = 'changed-' || ($1::bigint + id)::text, total = total + 1", ORDERS_PER_MIB),
            (
                "shop.customers",
                "name = reverse(name), profile = profile || jsonb_build_object('round', $1::bigint + id)",
                CUSTOMERS_PER_MIB,
            ),
            (
                "shop.documents",
                "title = title || ($1::bigint)::text, body = md5(body) || substr(body, 33)",
                DOCUMENTS_PER_MIB,
            ),
        ] {
            let rows = (self.mebibytes * rows) as f64;
            let count = (rows * fraction).ceil().max(1.0);
            let chosen = match shape {
                ChangeShape::Spread => format!("id % {every} = {}", f64::from(round) % every),
                ChangeShape::Clustered => {
                    let first = (f64::from(round) * count) % rows;
                    format!("id > {first} and id <= {}", first + count)
                }
            };
            let sql = format!("update {table} set {change} where {chosen}");
            changed += client.execute(&sql, &[&i64::from(round)]).await?;
        }
        Ok(changed)
    }
}

/// Writes one row in the text form of COPY, without the line end.
type WriteRow = fn(&mut String, &mut Random, &Words, id: u64, customers: u64);

struct Table {
    name: String,
    create: String,
    finish: String,
    rows: std::ops::Range<u64>,
    row: WriteRow,
    customers: u64,
    seed: u64,
}

impl Table {
    async fn fill(self, client: Client) -> Result<()> {
        // Created and filled in one transaction, rows may be frozen at once: no later rewrite of hint bits.
        client.batch_execute("begin").await?;
        client.batch_execute(&self.create).await?;
        let sink = client.copy_in(&format!("copy {} from stdin (freeze)", self.name)).await?;
        futures::pin_mut!(sink);
        let (words, mut random) = (Words::new(), Random::new(self.seed));
        let mut piece = String::with_capacity(PIECE * 2);
        for id in self.rows {
            (self.row)(&mut piece, &mut random, &words, id, self.customers);
            piece.push('\n');
            if piece.len() >= PIECE {
                sink.send(Bytes::copy_from_slice(piece.as_bytes())).await?;
                piece.clear();
            }
        }
        sink.send(Bytes::from(piece)).await?;
        sink.as_mut().finish().await?;
        client.batch_execute("commit").await?;
        client.batch_execute(&self.finish).await?;
        Ok(())
    }
}

fn customer(out: &mut String, random: &mut Random, words: &Words, id: u64, _: u64) {
    let (first, last) = (words.rare(random), words.rare(random));
    let _ = write!(out, "{id}\t");
    uuid(out, random);
    let _ = write!(out, "\t{first}.{last}{id}@{}.example\t{first} {last}\t", words.common(random));
    timestamp(out, EPOCH + id * 37 + u64::from(random.below(3600)));
    let _ = write!(
        out,
        "\t{{\"city\": \"{}\", \"zip\": \"{:05}\", \"phone\": \"+{:011}\", \"plan\": \"{}\", \"score\": {}.{}, \"interests\": [\"{}\", \"{}\", \"{}\"], \"about\": \"",
        words.common(random),
        random.below(100_000),
        random.next() % 100_000_000_000,
        ["hobbyist", "startup", "business", "premium"][random.skewed(4) as usize],
        random.below(100),
        random.below(1000),
        words.common(random),
        words.common(random),
        words.rare(random),
    );
    let length = 5 + random.skewed(40);
    words.sentence(out, random, length);
    out.push_str("\"}");
}

fn order(out: &mut String, random: &mut Random, words: &Words, id: u64, customers: u64) {
    let customer = 1 + random.next() % customers;
    let _ = write!(out, "{id}\t{customer}\t");
    timestamp(out, EPOCH + id * 11 + u64::from(random.below(60)));
    let status = ["delivered", "shipped", "paid", "returned", "cancelled"][random.skewed(5) as usize];
    let _ = write!(out, "\t{status}\t{}.{:02}\t", random.skewed(2000), random.below(100));
    if random.below(3) == 0 {
        words.sentence(out, random, 9);
    } else {
        out.push_str("\\N");
    }
    out.push_str("\t[");
    for line in 0..=random.skewed(5) {
        let comma = if line == 0 { "" } else { ", " };
        let _ = write!(
            out,
            "{comma}{{\"sku\": \"{}-{:06}\", \"qty\": {}, \"price\": {}.{:02}}}",
            words.common(random),
            random.below(400_000),
            1 + random.skewed(9),
            random.skewed(500),
            random.below(100)
        );
    }
    out.push(']');
}

fn event(out: &mut String, random: &mut Random, words: &Words, id: u64, customers: u64) {
    let _ = write!(out, "{id}\t");
    timestamp(out, EPOCH + id * 2);
    out.push('\t');
    uuid(out, random);
    let kind = ["view", "click", "search", "add-to-cart", "login", "error"][random.skewed(6) as usize];
    let _ = write!(
        out,
        "\t{kind}\t{{\"path\": \"/{}/{}/{}\", \"customer\": {}, \"ms\": {}, \"agent\": \"{}/{}.{}\", \"ip\": \"10.{}.{}.{}\"}}",
        words.common(random),
        words.common(random),
        random.below(1_000_000),
        1 + random.next() % customers,
        random.skewed(3000),
        words.common(random),
        random.skewed(120),
        random.skewed(40),
        random.below(256),
        random.below(256),
        random.below(256),
    );
}

fn document(out: &mut String, random: &mut Random, words: &Words, id: u64, _: u64) {
    let _ = write!(out, "{id}\t");
    words.sentence(out, random, 7);
    let _ = write!(out, "\t{{{},{},{}}}\t", words.common(random), words.common(random), words.rare(random));
    // Sentences of a page or three: beyond the 2 kB where TOAST begins.
    for _ in 0..60 + random.skewed(300) {
        let length = 6 + random.below(12);
        words.sentence(out, random, length);
        out.push_str(". ");
    }
}

fn uuid(out: &mut String, random: &mut Random) {
    let (a, b) = (random.next(), random.next());
    let _ = write!(
        out,
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    );
}

fn timestamp(out: &mut String, second: u64) {
    let (days, rest) = (second / 86_400, second % 86_400);
    // The Julian day needs no calendar here ("J" form, the manual's "Date Input"); that of 1970-01-01 is 2440588.
    let _ = write!(out, "J{} {:02}:{:02}:{:02}+00", 2_440_588 + days, rest / 3600, rest / 60 % 60, rest % 60);
}

/// The vocabulary: the same for every dataset, so that tables share words as tables of one business do.
struct Words(Vec<String>);

impl Words {
    fn new() -> Self {
        const HEADS: [&str; 24] = [
            "b", "br", "c", "ch", "d", "dr", "f", "g", "gr", "h", "k", "l", "m", "n", "p", "pl", "r", "s", "st", "t",
            "tr", "v", "w", "z",
        ];
        const TAILS: [&str; 20] = [
            "a", "e", "i", "o", "u", "an", "ar", "el", "en", "er", "in", "on", "or", "us", "ea", "ou", "at", "es",
            "ing", "ion",
        ];
        let mut random = Random::new(7);
        let mut pick = |from: &[&'static str]| from[random.below(from.len() as u32) as usize];
        let word = |index: usize| {
            // Common words are short.
            let syllables = 1 + usize::from(index > 60) + usize::from(index > 2500);
            (0..=syllables).map(|_| [pick(&HEADS), pick(&TAILS)].concat()).collect()
        };
        Self((0..12_000).map(word).collect())
    }

    fn common(&self, random: &mut Random) -> &str {
        &self.0[random.skewed(500) as usize]
    }

    fn rare(&self, random: &mut Random) -> &str {
        &self.0[random.below(12_000) as usize]
    }

    fn sentence(&self, out: &mut String, random: &mut Random, length: u32) {
        for position in 0..length {
            if position > 0 {
                out.push(' ');
            }
            let end = if random.below(3) == 0 { 12_000 } else { 900 };
            out.push_str(&self.0[random.skewed(end) as usize]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_from_the_seed() {
        let rows = |seed| {
            let (mut out, mut random, words) = (String::new(), Random::new(seed), Words::new());
            for write in [customer, order, event, document] {
                write(&mut out, &mut random, &words, 5, 100);
                out.push('\n');
            }
            out
        };
        assert_eq!(rows(1), rows(1));
        assert_ne!(rows(1), rows(2));
        let text = rows(1);
        let columns: Vec<_> = text.lines().map(|line| line.split('\t').count()).collect();
        assert_eq!(columns, [6, 7, 5, 4]);
    }
}
