//! How the story is told.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use backup_examples::cli::exit;
use backup_examples::human::{duration, rate, size};
use backup_examples::progress::Bars;
use backup_examples::table::{Cell, Table};

use crate::story::Journey;

/// Writes to standard output, around the progress bars.
pub(crate) struct Narrator {
    out: io::Stdout,
    bars: Option<Arc<Bars>>,
    terminal: bool,
    chapters: u32,
}

impl Narrator {
    pub(crate) fn new(bars: Option<Arc<Bars>>) -> Self {
        let out = io::stdout();
        Self { terminal: out.is_terminal(), out, bars, chapters: 0 }
    }

    pub(crate) fn chapter(&mut self, title: &str) -> io::Result<()> {
        self.clear();
        self.chapters += 1;
        let gap = if self.chapters == 1 { "" } else { "\n" };
        let (bold, plain) = if self.terminal { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        writeln!(self.out, "{gap}{bold}{}. {title}{plain}", self.chapters)?;
        self.out.flush()
    }

    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        self.clear();
        let text = text.as_ref();
        if text.is_empty() { writeln!(self.out) } else { writeln!(self.out, "   {text}") }?;
        self.out.flush()
    }

    pub(crate) fn backup(&mut self, journey: &Journey) -> io::Result<()> {
        let record = &journey.record;
        self.line(format!(
            "{} read by the {} method in {}, {}.",
            size(record.data_bytes),
            record.snapshot.method,
            duration(journey.backup_time),
            rate(record.data_bytes, journey.backup_time)
        ))?;
        self.line(format!(
            "{} of it were not stored yet; compressed and encrypted they take {}.",
            size(record.new_bytes),
            size(record.stored_bytes)
        ))
    }

    pub(crate) fn table(&mut self, table: &Table) -> io::Result<()> {
        self.clear();
        table.write(&mut self.out, true)?;
        self.out.flush()
    }

    /// Says why the story ended early.
    pub(crate) fn failed(&mut self, error: &(dyn Error + 'static)) -> u8 {
        self.clear();
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        let _ = writeln!(io::stderr(), "error: {text}");
        error.downcast_ref::<backup_core::Error>().map_or(exit::ENVIRONMENT, |error| exit::of(error.kind()))
    }

    /// Says that it was stopped.
    pub(crate) fn interrupted(&mut self) -> u8 {
        self.clear();
        let _ = writeln!(io::stderr(), "stopped; servers and directories are removed");
        exit::CANCELLED
    }

    fn clear(&self) {
        if let Some(bars) = &self.bars {
            bars.clear();
        }
    }
}

/// Both backups next to each other.
pub(crate) fn comparison([full, incremental]: &[Journey; 2]) -> Table {
    let mut table = Table::new(&["", "full", "incremental"]);
    let mut row = |name: &str, value: &dyn Fn(&Journey) -> String| {
        table.row(vec![Cell::text(name), Cell::text(value(full)), Cell::text(value(incremental))]);
    };
    row("data", &|j| size(j.record.data_bytes));
    row("new to the repository", &|j| size(j.record.new_bytes));
    row("stored, encrypted", &|j| size(j.record.stored_bytes));
    row("data : newly stored", &|j| {
        format!("{:.1} : 1", j.record.data_bytes as f64 / j.record.stored_bytes.max(1) as f64)
    });
    row("backup took", &|j| duration(j.backup_time));
    row("backup rate", &|j| rate(j.record.data_bytes, j.backup_time));
    row("restore took", &|j| duration(j.restore_time));
    row("restore rate", &|j| rate(j.restored.bytes, j.restore_time));
    row("every table equal", &|_| "yes".to_owned());
    table
}
