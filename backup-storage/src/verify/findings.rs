//! What is wrong, by object.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::BackupId;
use backup_core::catalog::PackDamage;
use backup_core::repository::Damage;

use crate::error::Error;
use crate::layout::{self, SessionObject};

/// Damages in the making: one per object, however many things are wrong with it.
#[derive(Debug, Default)]
pub(super) struct Findings(BTreeMap<String, Finding>);

#[derive(Debug, Default)]
struct Finding {
    problems: Vec<String>,
    backups: BTreeSet<BackupId>,
    /// Whether others may see it in another way: who lacks a key cannot say that something is damaged.
    doubtful: bool,
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

    /// What is wrong with `object`, which is known already, may be so only for us.
    pub(super) fn doubt(&mut self, object: &str) {
        if let Some(finding) = self.0.get_mut(object) {
            finding.doubtful = true;
        }
    }

    /// Whether something is wrong with `object`.
    pub(super) fn has(&self, object: &str) -> bool {
        self.0.contains_key(object)
    }

    /// The packs that are damaged for everyone.
    pub(super) fn packs(&self) -> Vec<PackDamage> {
        let certain = self.0.iter().filter(|(_, finding)| !finding.doubtful);
        let packs = certain.filter_map(|(object, finding)| match layout::session_object(object)? {
            SessionObject::Pack(pack) => {
                let backups = finding.backups.iter().copied().collect();
                Some(PackDamage { pack, problem: finding.text(), backups })
            }
            _ => None,
        });
        packs.collect()
    }

    pub(super) fn into_damages(self) -> Vec<Damage> {
        let damage = |(object, finding): (String, Finding)| {
            let text = finding.text();
            Damage::new(object, text, finding.backups.into_iter().collect())
        };
        self.0.into_iter().map(damage).collect()
    }
}

impl Finding {
    /// A pack of which every segment is gone needs no line for each.
    fn text(&self) -> String {
        let mut text = self.problems.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("; ");
        let more = self.problems.len().saturating_sub(5);
        if more > 0 {
            text.push_str(&format!("; and {more} more"));
        }
        text
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
