//! `log ENGINE`: capture the change stream, or store what an archive command has collected.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backup_core::engine::{LogOptions, Work};
use backup_core::observe::{Observer, Progress};
use backup_core::{Finding, Severity, run};
use clap::Args;
use tokio::sync::mpsc;

use super::Context;
use crate::cli::engines::{OnEngine, Stream};
use crate::cli::failure::Failure;
use crate::cli::view::{ImportView, LogView};
use crate::table::{Cell, Table};

/// Options of the command itself.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Store the complete pieces of log that lie in this folder, and end; may be repeated with the same folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["flush_after", "sync", "spool"])]
    import: Option<PathBuf>,
    /// How long bytes may wait before they are sent to the vault
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    flush_after: Duration,
    /// Send everything at once: for sources whose commits wait for this capture
    #[arg(long, conflicts_with = "flush_after")]
    sync: bool,
    /// Acknowledge what lies, encrypted and durable, in this folder of this host, and send it from there: a vault that is away then
    /// stops nothing. Until it was sent, only this host has it
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// How much the spool may take on its disk; when it is full, the source keeps its log [default: 16GiB]
    #[arg(long, value_name = "SIZE", requires = "spool", value_parser = size)]
    spool_limit: Option<u64>,
}

impl LogArgs {
    fn options(&self) -> LogOptions {
        let mut options = LogOptions::default().flush_after(if self.sync { Duration::ZERO } else { self.flush_after });
        options.spool.clone_from(&self.spool);
        match self.spool_limit {
            Some(bytes) => options.spool_bytes(bytes),
            None => options,
        }
    }
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match &text[end..] {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err("is no size such as 500MiB or 16GiB".to_owned()),
    };
    let number: u64 = text[..end].parse().map_err(|e| format!("is no size such as 500MiB or 16GiB: {e}"))?;
    number.checked_mul(1 << shift).ok_or_else(|| "is too large".to_owned())
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text.parse().map_err(|e| format!("is no duration such as 1s or 200ms: {e}"))?;
    Duration::try_from(parsed).map_err(|_| "must not be negative".to_owned())
}

/// Hands findings on to whoever writes them.
#[derive(Debug)]
struct Findings {
    next: Arc<dyn Observer>,
    found: mpsc::UnboundedSender<Finding>,
}

impl Observer for Findings {
    fn on(&self, progress: &Progress) {
        if let Progress::Found(finding) = progress {
            // Nobody listens any more when the command ends.
            let _ = self.found.send(finding.clone());
        }
        self.next.on(progress);
    }
}

pub(super) async fn run(cx: &mut Context<'_, '_>, engine: OnEngine<Stream, LogArgs>) -> Result<(), Failure> {
    let args = &engine.options;
    let source = engine.source()?;
    let repository = cx.open().await?;
    let (found, mut findings) = mpsc::unbounded_channel();
    let next = Arc::clone(cx.work().observer());
    let work: Work = cx.work().clone().with_observer(Arc::new(Findings { next, found }));
    if let Some(dir) = &args.import {
        let imported = run::import(&repository, source.as_ref(), dir, LogOptions::default(), &work).await?;
        if cx.json() {
            return cx.document(&ImportView { imported: &imported });
        }
        let mut table = Table::new(&[]);
        let mut row = |name: &str, value: Cell| table.row(vec![Cell::text(name), value]);
        row("stored", Cell::Count(imported.stored));
        row("known already", Cell::Count(imported.known));
        row("bytes", Cell::Bytes(imported.bytes));
        cx.table(&table)?;
        cx.remark_findings(&imported.findings);
        return Ok(());
    }
    let options = args.options();
    let mut seen = Vec::new();
    let sink = {
        let capture = run::capture(&repository, source.as_ref(), options, &work);
        let mut capture = std::pin::pin!(capture);
        loop {
            tokio::select! {
                outcome = &mut capture => break outcome?,
                Some(finding) = findings.recv() => {
                    if finding.severity >= Severity::Warning {
                        cx.remark(&finding.to_string());
                    }
                    if seen.last() != Some(&finding) {
                        seen.push(finding);
                    }
                }
            }
        }
    };
    let durable = sink.durable();
    if cx.json() {
        return cx.document(&LogView { epoch: sink.epoch(), durable: durable.as_ref(), findings: &seen });
    }
    match durable {
        Some(position) => cx.line(&format!("captured up to {position} of lineage {}", position.lineage)),
        None => cx.line("nothing was captured"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("0", 0), ("7", 7), ("3KiB", 3072), ("500MiB", 500 << 20), ("16GiB", 16 << 30), ("1TiB", 1 << 40)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "16 GiB", "16GB", "-1", "1.5GiB", "99999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
