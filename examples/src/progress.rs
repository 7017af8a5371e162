//! Progress as bars of a terminal, with rate and remaining time.

use std::collections::HashMap;
use std::fmt;

use backup_core::Severity;
use backup_core::observe::{Observer, Phase, Progress, Unit};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

/// Draws a bar on standard error for every phase that is under way. A bar goes when its phase ends; what was noticed stays
/// above the bars.
pub struct Bars {
    all: MultiProgress,
    phases: Mutex<HashMap<Phase, ProgressBar>>,
}

impl Bars {
    /// Bars on standard error.
    #[must_use]
    pub fn on_stderr() -> Self {
        // Ten times a second is smooth to the eye and nothing to the worker threads.
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        Self { all, phases: Mutex::default() }
    }

    /// Removes the bars of phases that did not end, as after an error.
    pub fn clear(&self) {
        for (_, bar) in self.phases.lock().drain() {
            bar.finish_and_clear();
        }
    }

    fn start(&self, phase: Phase, total: Option<u64>, unit: Unit) {
        let mut phases = self.phases.lock();
        if let Some(bar) = phases.get(&phase) {
            // A phase that is announced again has learned more about its size.
            if let Some(total) = total {
                bar.set_length(total);
                bar.set_style(style(true, unit));
            }
            return;
        }
        // Hidden until it is one of all: a bar that stands alone draws itself as soon as anything is set.
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        bar.set_style(style(total.is_some(), unit));
        bar.set_prefix(phase.name());
        phases.insert(phase, self.all.add(bar));
    }
}

impl Observer for Bars {
    fn on(&self, progress: &Progress) {
        match progress {
            Progress::Started { phase, total, unit } => self.start(*phase, *total, *unit),
            Progress::Advanced { phase, by } => {
                if let Some(bar) = self.phases.lock().get(phase) {
                    bar.inc(*by);
                }
            }
            Progress::Ended { phase } => {
                if let Some(bar) = self.phases.lock().remove(phase) {
                    bar.finish_and_clear();
                }
            }
            Progress::Found(finding) if finding.severity >= Severity::Warning => {
                // Nobody to tell when the terminal is gone.
                let _ = self.all.println(format!("warning: {finding}"));
            }
            _ => {}
        }
    }
}

impl fmt::Debug for Bars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bars").field("phases", &self.phases.lock().len()).finish_non_exhaustive()
    }
}

fn style(total_known: bool, unit: Unit) -> ProgressStyle {
    let template = match (total_known, unit) {
        (true, Unit::Bytes) => {
            "{prefix:>8} {bar:32} {decimal_bytes} of {decimal_total_bytes} · {decimal_bytes_per_sec} · {eta} left"
        }
        (false, Unit::Bytes) => "{prefix:>8} {spinner} {decimal_bytes} · {decimal_bytes_per_sec} · {elapsed}",
        (true, _) => "{prefix:>8} {bar:32} {human_pos} of {human_len} · {eta} left",
        (false, _) => "{prefix:>8} {spinner} {human_pos} · {elapsed}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_one() {
        for unit in [Unit::Bytes, Unit::Items] {
            for total in [true, false] {
                let bar = ProgressBar::hidden().with_style(style(total, unit));
                bar.tick();
            }
        }
        assert!(ProgressStyle::with_template("{prefix:>8} {bar:32} {decimal_bytes_per_sec} {eta} {human_pos}").is_ok());
    }

    #[test]
    fn bars_come_and_go_with_their_phases() {
        let bars =
            Bars { all: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()), phases: Mutex::default() };
        bars.on(&Progress::Started { phase: Phase::Read, total: None, unit: Unit::Bytes });
        bars.on(&Progress::Started { phase: Phase::Read, total: Some(10), unit: Unit::Bytes });
        bars.on(&Progress::Advanced { phase: Phase::Read, by: 4 });
        bars.on(&Progress::Advanced { phase: Phase::Write, by: 4 });
        {
            let phases = bars.phases.lock();
            let bar = &phases[&Phase::Read];
            assert_eq!((phases.len(), bar.position(), bar.length()), (1, 4, Some(10)));
        }
        bars.on(&Progress::Ended { phase: Phase::Read });
        assert!(bars.phases.lock().is_empty());
    }
}
