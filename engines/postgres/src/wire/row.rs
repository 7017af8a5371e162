//! Rows of a simple query: every value is text, as the server prints it.

use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};

/// What one statement of a simple query returned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResultSet {
    /// The names of the columns; empty for a statement without rows.
    pub columns: Arc<[String]>,
    /// The rows in the server's order.
    pub rows: Vec<Row>,
    /// The command tag, for example `SELECT 1`.
    pub tag: String,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Option<Bytes>>,
}

impl Row {
    pub(crate) fn new(columns: Arc<[String]>, values: Vec<Option<Bytes>>) -> Result<Self> {
        if columns.len() != values.len() {
            return Err(Error::protocol(format!("a row of {} values for {} columns", values.len(), columns.len())));
        }
        Ok(Self { columns, values })
    }

    /// The names of the columns.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// All values as text, `None` for NULL and bytes that are not UTF-8 replaced.
    #[must_use]
    pub fn to_texts(&self) -> Vec<Option<String>> {
        self.values.iter().map(|v| v.as_deref().map(|v| String::from_utf8_lossy(v).into_owned())).collect()
    }

    /// The bytes of the value at `index` (0 is the first), `None` for NULL.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the row has no such column.
    pub fn bytes(&self, index: usize) -> Result<Option<&Bytes>> {
        self.values
            .get(index)
            .map(Option::as_ref)
            .ok_or_else(|| Error::protocol(format!("a row of {} values has no value {index}", self.values.len())))
    }

    /// The text of `column`, `None` for NULL.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the row has no such column or its bytes are not UTF-8.
    pub fn text(&self, column: &str) -> Result<Option<&str>> {
        let index = self
            .columns
            .iter()
            .position(|name| name == column)
            .ok_or_else(|| Error::protocol(format!("the answer has no column {column}")))?;
        self.bytes(index)?
            .map(|bytes| std::str::from_utf8(bytes))
            .transpose()
            .map_err(|_| Error::protocol(format!("the value of {column} is not utf-8")))
    }

    /// The text of `column`, which must not be NULL.
    ///
    /// # Errors
    /// As [`Row::text`], and for NULL.
    pub fn required(&self, column: &str) -> Result<&str> {
        self.text(column)?.ok_or_else(|| Error::protocol(format!("{column} is null")))
    }

    /// The value of `column`, which must not be NULL, read by its [`FromStr`].
    ///
    /// # Errors
    /// As [`Row::required`], and for text of another form.
    pub fn parse<T: FromStr>(&self, column: &str) -> Result<T> {
        let text = self.required(column)?;
        text.parse().map_err(|_| Error::protocol(format!("{column} is {text:?}")))
    }
}
