//! What is wrong, by object.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::BackupId;
use backup_core::repository::Damage;

use crate::error::Error;

/// Damages in the making: one per object, however many things are wrong with it.
#[derive(Debug, Default)]
pub(super) struct Findings(BTreeMap<String, Finding>);

#[derive(Debug, Default)]
struct Finding {
    problems: Vec<String>,
    backups: BTreeSet<BackupId>,
}

impl Findings {
    /// `problem` of `object` harms `backups`.
    pub(super) fn add(
        &mut self,
        object: impl Into<String>,
        problem: impl Into<String>,
        backups: impl IntoIterator<Item = BackupId>,
    ) {
        let finding = self.0.entry(object.into()).or_default();
        let problem = problem.into();
        if !finding.problems.contains(&problem) {
            finding.problems.push(problem);
        }
        finding.backups.extend(backups);
    }

    /// What is wrong with `object`, which is known already, harms `backup`.
    pub(super) fn harm(&mut self, object: &str, backup: BackupId) {
        if let Some(finding) = self.0.get_mut(object) {
            finding.backups.insert(backup);
        }
    }

    pub(super) fn into_damages(self) -> Vec<Damage> {
        let damage = |(object, Finding { mut problems, backups }): (String, Finding)| {
            // A pack of which every segment is gone needs no line for each.
            let more = problems.len().saturating_sub(5);
            problems.truncate(5);
            let mut text = problems.join("; ");
            if more > 0 {
                text.push_str(&format!("; and {more} more"));
            }
            Damage::new(object, text, backups.into_iter().collect())
        };
        self.0.into_iter().map(damage).collect()
    }
}

/// An error with its causes on one line.
pub(crate) fn describe(error: Error) -> String {
    let error = backup_core::Error::from(error);
    let mut text = error.message().to_owned();
    for cause in error.causes() {
        // Wrappers often repeat what they wrap.
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}
