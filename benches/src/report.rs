//! What a scenario leaves behind: JSON for programs, a table for people, a drawing of each comparison.

use std::path::Path;

use crate::figures::{Figures, ratios, table};
use crate::machine::Machine;
use crate::peers::Missing;
use crate::rounds::{Field, Phase};
use crate::{Error, chart};

/// Figures that are compared with each other; the first are ours.
#[derive(Debug, serde::Serialize)]
struct Comparison {
    title: String,
    slug: String,
    figures: Vec<Figures>,
}

/// A scenario's results, gathered.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Report {
    bench: &'static str,
    title: String,
    machine: Machine,
    settings: serde_json::Value,
    contenders: Vec<(String, String)>,
    missing: Vec<Missing>,
    comparisons: Vec<Comparison>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(bench: &'static str, title: String, out: &Path, settings: serde_json::Value) -> Self {
        let (contenders, missing, comparisons, notes) = (vec![], vec![], vec![], vec![]);
        Self { bench, title, machine: Machine::here(out), settings, contenders, missing, comparisons, notes }
    }

    /// Takes what `field` has done in `phases`; `dataset` is put before the titles where there are several.
    pub(crate) fn take(&mut self, field: &Field, phases: &[Phase], dataset: Option<(&str, &str)>) {
        for phase in phases {
            let figures = field.figures(*phase);
            let (title, slug) = match dataset {
                Some((name, slug)) => (format!("{name}: {}", phase.title()), format!("{slug}-{}", phase.slug())),
                None => (phase.title(), phase.slug()),
            };
            self.compare(title, slug, figures);
        }
        for (name, terms) in field.terms() {
            if self.contenders.iter().all(|(known, _)| *known != name) {
                self.contenders.push((name, terms));
            }
        }
        for missing in &field.missing {
            if self.missing.iter().all(|known| known.name != missing.name || known.reason != missing.reason) {
                self.missing.push(missing.clone());
            }
        }
    }

    pub(crate) fn compare(&mut self, title: String, slug: String, figures: Vec<Figures>) {
        if !figures.is_empty() {
            self.comparisons.push(Comparison { title, slug, figures });
        }
    }

    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Writes everything to `out` and prints the tables.
    #[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
    pub(crate) fn write(&self, out: &Path) -> Result<(), Error> {
        let name = self.bench;
        std::fs::write(out.join(format!("{name}.json")), serde_json::to_string_pretty(self)?)?;
        for comparison in &self.comparisons {
            let title = format!("{}: {}", self.title, comparison.title);
            let file = out.join(format!("{name}-{}.svg", comparison.slug));
            std::fs::write(file, chart::seconds(&title, &comparison.figures))?;
        }
        let text = self.text();
        std::fs::write(out.join(format!("{name}.md")), &text)?;
        println!("{text}\nwritten to {}", out.display());
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = format!("## {}\n\n{}\n", self.title, self.machine.text());
        for Comparison { title, slug, figures } in &self.comparisons {
            text += &format!("\n### {title}\n\n{}\n{}", table(figures), ratios(figures));
            text += &format!("\n![{title}]({}-{slug}.svg)\n", self.bench);
        }
        for note in &self.notes {
            text += &format!("\n{note}\n");
        }
        text += "\n| contender | terms |\n|---|---|\n";
        for (name, terms) in &self.contenders {
            text += &format!("| {name} | {terms} |\n");
        }
        for Missing { name, reason } in &self.missing {
            text += &format!("| {name} | **missing**: {reason} |\n");
        }
        text
    }
}
