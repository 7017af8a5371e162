//! Tables of every kind that a version has, with deterministic rows.
//!
//! The server computes the rows from their numbers and a seed, so the same seed gives the same rows on every server.
//! Tables whose engine combines rows are settled ([`OPTIMIZE … FINAL`](fill)), so that no merge changes what they hold;
//! the others keep the parts that they were filled by.

mod modern;
mod tables;

use super::digest::identifier;
use super::server::ClickHouse;
use super::version::ClickHouseVersion;
use crate::error::Result;

/// The database that most tables are in.
pub const DATABASE: &str = "data";
/// A database whose name has to be quoted everywhere, and escaped in the names of directories.
pub const ODD_DATABASE: &str = "odd db.é`/x";
/// A table of such a name, in [`ODD_DATABASE`].
pub const ODD_TABLE: &str = "a b.é`c/d\\e";

/// How a table keeps its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableKind {
    /// In parts: an engine of the MergeTree family.
    Parts,
    /// In files that are no parts: `Log` and the like, `Set`, `Join`.
    Files,
    /// In memory: gone after a restart.
    Memory,
    /// Nowhere: it shows what others have, or passes on.
    View,
}

/// A table of the dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataTable {
    /// Its database.
    pub database: &'static str,
    /// Its name.
    pub name: &'static str,
    /// How it keeps its rows.
    pub kind: TableKind,
}

/// How a table is made and filled.
struct Definition {
    database: &'static str,
    name: &'static str,
    kind: TableKind,
    /// What follows `CREATE TABLE <name>`, or the whole with `{name}` in it.
    create: &'static str,
    /// Columns to insert from `n`, the row's number, and `h`, a hash of it and the seed; empty to insert nothing.
    rows: &'static str,
    /// Whether the engine combines rows.
    settle: bool,
}

impl Definition {
    const fn parts(name: &'static str, create: &'static str, rows: &'static str) -> Self {
        Self { database: DATABASE, name, kind: TableKind::Parts, create, rows, settle: false }
    }

    const fn settled(name: &'static str, create: &'static str, rows: &'static str) -> Self {
        Self { settle: true, ..Self::parts(name, create, rows) }
    }

    const fn other(kind: TableKind, name: &'static str, create: &'static str, rows: &'static str) -> Self {
        Self { kind, ..Self::parts(name, create, rows) }
    }

    fn full_name(&self) -> String {
        format!("{}.{}", identifier(self.database), identifier(self.name))
    }
}

/// Settings that the old server wants for a type, and the new one for nothing.
const OLD_SETTINGS: &[(&str, &str)] = &[("allow_experimental_low_cardinality_type", "1")];
/// What is inserted is there when the statement returns.
const NEW_SETTINGS: &[(&str, &str)] = &[("async_insert", "0")];

/// How far apart the numbers are that the rows of two seeds begin with. A multiple of all that tables divide them by.
const APART: u64 = 900_000;

/// The tables that [`fill`] makes, in this order. Tables that a materialized view keeps its rows in are not among them:
/// they are called differently by each version.
#[must_use]
pub fn tables(version: ClickHouseVersion) -> Vec<DataTable> {
    let all = definitions(version).into_iter();
    all.map(|table| DataTable { database: table.database, name: table.name, kind: table.kind }).collect()
}

fn definitions(version: ClickHouseVersion) -> Vec<&'static Definition> {
    let more = match version {
        ClickHouseVersion::V18_16 => tables::OLD,
        ClickHouseVersion::V26 => modern::TABLES,
    };
    tables::BOTH.iter().chain(more).collect()
}

/// Makes the tables that are missing and inserts `rows` rows into each of them, where parts are made in three statements;
/// then merges those whose engine combines rows. Filling again, with another seed, changes every table but `empty`.
/// Seeds are small numbers, and rows fewer than 900 000.
///
/// # Errors
/// [`Error::ClickHouse`](crate::Error::ClickHouse) with the statement that the server refused.
pub async fn fill(server: &ClickHouse, seed: u64, rows: u64) -> Result<()> {
    let version = server.version();
    let (created, inserted): (&[_], &[_]) = match version {
        ClickHouseVersion::V18_16 => (OLD_SETTINGS, &[]),
        ClickHouseVersion::V26 => (&[], NEW_SETTINGS),
    };
    for database in [DATABASE, ODD_DATABASE] {
        server.query(&format!("CREATE DATABASE IF NOT EXISTS {}", identifier(database))).await?;
    }
    let all = definitions(version);
    for table in &all {
        server.query_with(&create(table), created).await?;
    }
    for table in all.iter().filter(|table| !table.rows.is_empty()) {
        // Each statement costs more than its rows, so only where it makes parts are there three.
        let pieces = if table.kind == TableKind::Parts { 3 } else { 1 };
        for (from, count) in ranges(rows, pieces) {
            let insert = format!(
                "INSERT INTO {} SELECT {} FROM (SELECT number AS n, intHash64(number * 2654435761 + {seed}) AS h FROM \
                 numbers({}, {count}))",
                table.full_name(),
                table.rows,
                seed * APART + from
            );
            server.query_with(&insert, inserted).await?;
        }
    }
    for table in all.iter().filter(|table| table.settle) {
        server.query(&format!("OPTIMIZE TABLE {} FINAL", table.full_name())).await?;
    }
    if version == ClickHouseVersion::V26 {
        for statement in modern::CHANGES {
            server.query(statement).await?;
        }
    }
    Ok(())
}

fn create(table: &Definition) -> String {
    match table.create.split_once("{name}") {
        Some((before, after)) => format!("{before}{}{after}", table.full_name()),
        None => format!("CREATE TABLE IF NOT EXISTS {} {}", table.full_name(), table.create),
    }
}

/// Ranges of row numbers: first ones and lengths, of nearly the same length.
fn ranges(rows: u64, pieces: u64) -> impl Iterator<Item = (u64, u64)> {
    let bound = move |n| if n == pieces { rows } else { rows / pieces * n };
    (0..pieces).map(move |n| (bound(n), bound(n + 1) - bound(n))).filter(|(_, count)| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_row_is_in_one_range() {
        assert_eq!(ranges(10, 3).collect::<Vec<_>>(), [(0, 3), (3, 3), (6, 4)]);
        assert_eq!(ranges(1, 3).collect::<Vec<_>>(), [(0, 1)]);
        assert_eq!(ranges(5, 1).collect::<Vec<_>>(), [(0, 5)]);
    }

    #[test]
    fn names_are_unique() {
        for version in ClickHouseVersion::ALL {
            let all = tables(version);
            let names: BTreeSet<_> = all.iter().map(|table| (table.database, table.name)).collect();
            assert_eq!(names.len(), all.len());
        }
    }
}
