//! What a table holds, as a few numbers that two servers can be compared by.
//!
//! The server reads all rows and hashes each of them as a text that does not depend on how they are stored: the rows'
//! order and the parts that they lie in do not matter, how often each of them is there does.

use std::collections::BTreeMap;

use super::server::ClickHouse;
use super::version::ClickHouseVersion;
use crate::error::{Error, Result};

/// A digest of all rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableDigest {
    /// How many rows there are.
    pub rows: u64,
    /// The sum of the hashes of all rows, modulo 2^64.
    pub sum: u64,
    /// The hashes of all rows, combined by exclusive or.
    pub xor: u64,
}

/// Digests all rows of one table as they are read without `FINAL`: columns that are stored or computed on insertion, of
/// states of aggregation what they come to. Tables of the engine `Set` can't be read.
///
/// # Errors
/// [`Error::ClickHouse`] when the server refuses, [`Error::InvalidInput`] when there is no such table.
pub async fn digest(server: &ClickHouse, database: &str, table: &str) -> Result<TableDigest> {
    let only = format!("database = {} AND table = {}", literal(database), literal(table));
    let tables = columns(server, &only).await?;
    let Some(columns) = tables.values().next() else {
        return Err(Error::invalid(format!("there is no table {database}.{table}")));
    };
    rows(server, database, table, columns).await
}

/// Digests all tables of all databases but the system's, by database and table. Views are read through, and the tables that
/// materialized views keep their rows in (`.inner.…`, and with an identifier in the name `.inner_id.…`) are there as well;
/// tables of the engine `Set`, which can't be read, and `Null` are left out.
///
/// # Errors
/// As [`digest`].
pub async fn digests(server: &ClickHouse) -> Result<BTreeMap<(String, String), TableDigest>> {
    const ALL: &str = "database NOT IN ('system', 'INFORMATION_SCHEMA', 'information_schema') AND (database, table) NOT IN \
                       (SELECT database, name FROM system.tables WHERE engine IN ('Set', 'Null'))";
    let mut all = BTreeMap::new();
    for (name, columns) in columns(server, ALL).await? {
        let found = rows(server, &name.0, &name.1, &columns).await?;
        all.insert(name, found);
    }
    Ok(all)
}

/// Names and types of columns, by database and table.
type Columns = BTreeMap<(String, String), Vec<(String, String)>>;

/// The columns that are stored or computed on insertion, of the tables that `condition` says.
async fn columns(server: &ClickHouse, condition: &str) -> Result<Columns> {
    // In hexadecimal: names may have anything in them, and the two versions escape differently.
    let list = server
        .query(&format!(
            "SELECT hex(database), hex(table), hex(name), hex(type) FROM system.columns WHERE default_kind NOT IN \
             ('ALIAS', 'EPHEMERAL') AND {condition} ORDER BY database, table, name"
        ))
        .await?;
    let mut tables = Columns::new();
    for line in list.lines() {
        let fields: Option<Vec<_>> = line.split('\t').map(unhex).collect();
        let Some([database, table, name, kind]) = fields.and_then(|fields| <[String; 4]>::try_from(fields).ok()) else {
            return Err(Error::invalid(format!("the list of columns has the line {line:?}")));
        };
        tables.entry((database, table)).or_default().push((name, kind));
    }
    Ok(tables)
}

async fn rows(server: &ClickHouse, database: &str, table: &str, columns: &[(String, String)]) -> Result<TableDigest> {
    let texts = columns.iter().map(|(name, kind)| text(&identifier(name), kind));
    let row = match server.version() {
        ClickHouseVersion::V18_16 => {
            // Each with its length, so that no text can be taken for two.
            let parts = texts.map(|text| format!("toString(length({text})), ':', {text}"));
            format!("concat('', {})", parts.collect::<Vec<_>>().join(", "))
        }
        ClickHouseVersion::V26 => format!("formatRow('TabSeparated', {})", texts.collect::<Vec<_>>().join(", ")),
    };
    let table = format!("{}.{}", identifier(database), identifier(table));
    let answer = server
        .query(&format!("SELECT count(), sum(h), groupBitXor(h) FROM (SELECT sipHash64({row}) AS h FROM {table})"))
        .await?;
    let numbers: Vec<u64> = answer.split('\t').filter_map(|number| number.parse().ok()).collect();
    match numbers[..] {
        [rows, sum, xor] => Ok(TableDigest { rows, sum, xor }),
        _ => Err(Error::invalid(format!("the digest of {table} is {answer:?}"))),
    }
}

fn unhex(text: &str) -> Option<String> {
    let digits = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    String::from_utf8(digits.collect::<Option<Vec<_>>>()?).ok()
}

/// A column as something to hash: a text of its own for each value.
fn text(column: &str, kind: &str) -> String {
    if kind.starts_with("AggregateFunction(") {
        format!("toString(finalizeAggregation({column}))")
    } else if kind.starts_with("Nullable(") || kind.starts_with("LowCardinality(Nullable(") {
        format!("concat(toString(isNull({column})), ifNull(toString({column}), ''))")
    } else if kind.starts_with("String") {
        column.to_owned()
    } else {
        format!("toString({column})")
    }
}

/// A name as statements have it.
#[must_use]
pub fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A text as statements have it.
#[must_use]
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
