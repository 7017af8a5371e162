//! Figures of several runs.

use crate::process::Cost;

/// Minimum, median and maximum.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(0.0);
        Self { min: at(0), median: at(values.len() / 2), max: at(values.len().saturating_sub(1)) }
    }
}

/// What one contender cost over all its runs.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Figures {
    pub(crate) name: &'static str,
    pub(crate) wall: Spread,
    pub(crate) cpu: Spread,
    pub(crate) rss: Spread,
    /// Bytes of content of one run.
    pub(crate) bytes: u64,
    /// Bytes stored or written by one run.
    pub(crate) stored: u64,
    /// Bytes of content by the median second.
    pub(crate) rate: f64,
}

impl Figures {
    pub(crate) fn of(name: &'static str, runs: &[Cost]) -> Self {
        let wall = Spread::of(runs.iter().map(|c| c.wall));
        let last = runs.last();
        let bytes = last.map_or(0, |c| c.bytes);
        Self {
            name,
            wall,
            cpu: Spread::of(runs.iter().map(|c| c.cpu)),
            rss: Spread::of(runs.iter().map(|c| c.rss)),
            bytes,
            stored: last.map_or(0, |c| c.stored),
            rate: if wall.median > 0.0 { bytes as f64 / wall.median } else { 0.0 },
        }
    }
}

/// A Markdown table.
pub(crate) fn table(all: &[Figures]) -> String {
    let mut text = String::from(
        "| | wall s (min–max) | CPU s | peak RSS MiB | content MB | stored MB | MB/s |\n|---|---|---|---|---|---|---|\n",
    );
    for f in all {
        text.push_str(&format!(
            "| {} | {:.2} ({:.2}–{:.2}) | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} |\n",
            f.name,
            f.wall.median,
            f.wall.min,
            f.wall.max,
            f.cpu.median,
            f.rss.max,
            f.bytes as f64 / 1e6,
            f.stored as f64 / 1e6,
            f.rate / 1e6,
        ));
    }
    text
}
