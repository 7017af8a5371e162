//! The way back as a file: the snapshot in a directory, where a server finds it when it starts.

use std::path::Path;

use backup_core::engine::{Extract, RestoreContext, Restored};
use backup_core::entry::Selector;
use backup_core::{Error, Finding, Goal, Result, Severity};

use super::facts;
use super::settings::{Persistence, RedisSettings};

/// Why a restore would be refused.
pub(super) fn assess(settings: &RedisSettings, cx: &RestoreContext) -> Vec<Finding> {
    let refused = |code: &str, text: &str| Finding::new(Severity::Blocker, code, text);
    let mut findings = Vec::new();
    if settings.persistence == Persistence::Off {
        findings.push(refused("persistence-off", "the data of this deployment are not kept"));
    }
    match &settings.data_dir {
        None => findings.push(refused("no-data-directory", "no data directory says where the snapshot goes")),
        Some(dir) if !is_free(dir) => {
            let text = format!("{} is not an empty directory", dir.display());
            findings.push(refused("data-directory-in-use", &text).in_surroundings());
        }
        Some(_) => {}
    }
    if !cx.selector().is_all() {
        findings.push(refused("selection", "a snapshot file is restored as a whole"));
    }
    if cx.log().is_some_and(|log| !log.path().is_empty()) && !matches!(cx.target().goal, Goal::Backup(_)) {
        findings.push(refused("log", "a snapshot file ends where its backup ends; name the backup itself"));
    }
    findings
}

/// Writes the snapshot file.
pub(super) async fn restore(settings: &RedisSettings, cx: &RestoreContext) -> Result<Restored> {
    if let Some(finding) = assess(settings, cx).iter().find(|finding| finding.severity == Severity::Blocker) {
        return Err(finding.refusal("the restore"));
    }
    let dir = settings.data_dir.as_deref().ok_or_else(|| Error::invalid("no data directory is named"))?;
    std::fs::create_dir_all(dir).map_err(|error| Error::environment(format!("{}: {error}", dir.display())))?;
    let dump = facts::path(facts::DUMP)?;
    // A server that finds half a snapshot ends itself: it comes last.
    let order = Extract::into_dir(dir).with_selector(Selector::within([dump.clone()])).with_last([dump]);
    Ok(Restored::new(cx.source().extract(order, cx.work()).await?))
}

fn is_free(dir: &Path) -> bool {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}
