//! `columns.txt`: the columns of a part.
//!
//! Source: `NamesAndTypesList::readText` of `src/Core/NamesAndTypes.cpp`.

use crate::ddl::quote;
use crate::part::{Error, Result};

/// What the file is called.
pub(super) const NAME: &str = "columns.txt";

/// A column of a part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// Its name; `nest.x` for one of a nested structure.
    pub name: String,
    /// Its type, as the server wrote it.
    pub data_type: String,
}

/// Reads the file.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Column>> {
    let corrupt = |offset: usize, reason: &str| Error::corrupt(NAME, offset, reason);
    let text = std::str::from_utf8(bytes).map_err(|error| corrupt(error.valid_up_to(), "it is not utf-8"))?;
    let Some(body) = text.strip_prefix("columns format version: 1\n") else {
        return Err(corrupt(0, "it does not begin with version 1"));
    };
    let Some((count, mut rest)) = body.split_once(" columns:\n") else {
        return Err(corrupt(0, "it does not say how many columns there are"));
    };
    let count: u64 = count.parse().map_err(|_| corrupt(0, "the number of its columns is no number"))?;
    let mut columns = Vec::new();
    while !rest.is_empty() {
        let offset = text.len() - rest.len();
        let Some((column, after)) = column(rest) else { return Err(corrupt(offset, "a column is cut off")) };
        columns.push(column);
        rest = after;
    }
    if columns.len() as u64 == count { Ok(columns) } else { Err(corrupt(0, "it has not as many columns as it says")) }
}

/// The first column, and what follows it.
fn column(text: &str) -> Option<(Column, &str)> {
    let quoted = text.get(..quote::length(text).filter(|_| text.starts_with('`'))?)?;
    let (data_type, rest) = text.get(quoted.len()..)?.strip_prefix(' ')?.split_once('\n')?;
    let name = quote::unquote(quoted)?.into_owned();
    (!data_type.is_empty()).then(|| (Column { name, data_type: data_type.to_owned() }, rest))
}
