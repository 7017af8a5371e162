//! Figures of several runs.

use crate::measure::Cost;

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
    pub(crate) name: String,
    pub(crate) runs: usize,
    pub(crate) wall: Spread,
    pub(crate) cpu: Spread,
    pub(crate) server_cpu: Spread,
    pub(crate) rss: Spread,
    /// Bytes that were read by system calls, of the median.
    pub(crate) read: f64,
    /// Bytes that went to disks, of the median.
    pub(crate) written: f64,
    /// Bytes of content of one run.
    pub(crate) bytes: u64,
    /// Bytes stored or written by one run.
    pub(crate) stored: u64,
    /// Requests to the store of one run, where they are known.
    pub(crate) requests: Option<u64>,
    /// Bytes of content by the median second.
    pub(crate) rate: f64,
}

impl Figures {
    pub(crate) fn of(name: &str, runs: &[Cost]) -> Self {
        let spread = |value: fn(&Cost) -> f64| Spread::of(runs.iter().map(value));
        let wall = spread(|c| c.wall);
        let last = runs.last();
        let bytes = last.map_or(0, |c| c.bytes);
        Self {
            name: name.to_owned(),
            runs: runs.len(),
            wall,
            cpu: spread(|c| c.cpu),
            server_cpu: spread(|c| c.server_cpu),
            rss: spread(|c| c.rss),
            read: spread(|c| c.read as f64).median,
            written: spread(|c| c.written as f64).median,
            bytes,
            stored: last.map_or(0, |c| c.stored),
            requests: last.and_then(|c| c.requests),
            rate: if wall.median > 0.0 { bytes as f64 / wall.median } else { 0.0 },
        }
    }

    /// Processor seconds, the server's included.
    pub(crate) fn processor(&self) -> f64 {
        self.cpu.median + self.server_cpu.median
    }
}

/// A Markdown table.
pub(crate) fn table(all: &[Figures]) -> String {
    let mut text = String::from(
        "| | wall s (min–max) | CPU s | server CPU s | peak RSS MiB | content MB | read MB | stored MB | to disk MB | requests | MB/s |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for f in all {
        text.push_str(&format!(
            "| {} | {:.2} ({:.2}–{:.2}) | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {} | {:.0} |\n",
            f.name,
            f.wall.median,
            f.wall.min,
            f.wall.max,
            f.cpu.median,
            f.server_cpu.median,
            f.rss.max,
            f.bytes as f64 / 1e6,
            f.read / 1e6,
            f.stored as f64 / 1e6,
            f.written / 1e6,
            f.requests.map_or_else(String::new, |requests| requests.to_string()),
            f.rate / 1e6,
        ));
    }
    text
}

/// Ours over each other: below 1 is less than theirs. The first of `all` is ours.
pub(crate) fn ratios(all: &[Figures]) -> String {
    let [ours, others @ ..] = all else { return String::new() };
    if others.is_empty() {
        return String::new();
    }
    let mut text =
        format!("| {} ÷ | wall | CPU, server included | peak RSS | stored |\n|---|---|---|---|---|\n", ours.name);
    let over = |a: f64, b: f64| if b > 0.0 { format!("{:.2}", a / b) } else { "–".to_owned() };
    for f in others {
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} |\n",
            f.name,
            over(ours.wall.median, f.wall.median),
            over(ours.processor(), f.processor()),
            over(ours.rss.max, f.rss.max),
            over(ours.stored as f64, f.stored as f64),
        ));
    }
    text
}
