//! Rows of values: an aligned table with a head on a terminal, plain lines otherwise.
//!
//! Plain lines are tab-separated, without a head and with exact numbers, so that `cut` and `awk` can take them apart.
//! Programs should rather ask for JSON.

use std::io::{self, Write};

use crate::human;

/// One value.
#[derive(Debug, Clone)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A size in bytes.
    Bytes(u64),
    /// A number of things.
    Count(u64),
}

impl Cell {
    /// The value as words.
    pub fn text(value: impl std::fmt::Display) -> Self {
        Self::Text(value.to_string())
    }

    fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Bytes(number) | Self::Count(number) => number.to_string(),
        }
    }

    fn pretty(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Bytes(bytes) => human::size(*bytes),
            Self::Count(number) => human::count(*number),
        }
    }

    fn is_number(&self) -> bool {
        !matches!(self, Self::Text(_))
    }
}

/// Rows under a head.
#[derive(Debug, Clone)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; missing cells at its end stay empty.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Writes it: aligned with a head when `pretty`, as plain lines otherwise.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write, pretty: bool) -> io::Result<()> {
        if !pretty {
            for row in &self.rows {
                let cells: Vec<_> = row.iter().map(Cell::plain).collect();
                writeln!(out, "{}", cells.join("\t"))?;
            }
            return Ok(());
        }
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(Cell::pretty).collect()).collect();
        let columns = rows.iter().map(Vec::len).chain([self.head.len()]).max().unwrap_or(0);
        let width = |text: &str| text.chars().count();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = rows.iter().filter_map(|row| row.get(column)).map(|text| width(text));
                cells.chain(self.head.get(column).map(|text| width(text))).max().unwrap_or(0)
            })
            .collect();
        // Numbers stand under each other to the right, and their head with them.
        let right: Vec<bool> = (0..columns)
            .map(|column| self.rows.iter().any(|row| row.get(column).is_some_and(Cell::is_number)))
            .collect();
        let line = |cells: &[&str]| {
            let mut line = String::new();
            for (column, width_here) in widths.iter().enumerate() {
                let text = cells.get(column).copied().unwrap_or("");
                let blank = " ".repeat(width_here - width(text));
                let gap = if column == 0 { "" } else { "  " };
                line += &if right[column] { format!("{gap}{blank}{text}") } else { format!("{gap}{text}{blank}") };
            }
            line.trim_end().to_owned()
        };
        if self.head.iter().any(|text| !text.is_empty()) {
            writeln!(out, "{}", line(&self.head))?;
            let total = widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1);
            writeln!(out, "{}", "─".repeat(total))?;
        }
        for row in &rows {
            writeln!(out, "{}", line(&row.iter().map(String::as_str).collect::<Vec<_>>()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["name", "size", "note"]);
        table.row(vec![Cell::text("a"), Cell::Bytes(1_500_000), Cell::text("x")]);
        table.row(vec![Cell::text("longer"), Cell::Bytes(20)]);
        table
    }

    fn written(pretty: bool) -> String {
        let mut out = Vec::new();
        table().write(&mut out, pretty).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_terminal_gets_an_aligned_table() {
        assert_eq!(written(true), "name      size  note\n────────────────────\na       1.5 MB  x\nlonger    20 B\n");
    }

    #[test]
    fn a_pipe_gets_exact_numbers_between_tabs() {
        assert_eq!(written(false), "a\t1500000\tx\nlonger\t20\n");
    }
}
