//! The way back: what is refused whatever the way is, and which way it is.

use backup_core::engine::{RestoreContext, Restored};
use backup_core::{Error, Finding, Result, Severity};

use super::RedisEngine;
use super::settings::Persistence;
use crate::restore::{self, RestoreSettings};

/// Why a restore would be refused.
pub(super) async fn assess(engine: &RedisEngine, cx: &RestoreContext) -> Result<Vec<Finding>> {
    let refused = |code: &str, text: &str| Finding::new(Severity::Blocker, code, text);
    let mut findings = Vec::new();
    if engine.settings.persistence == Persistence::Off {
        findings.push(refused("persistence-off", "the data of this deployment are not kept"));
    }
    if !cx.selector().is_all() {
        findings.push(refused("selection", "a snapshot is one file: which keys are wanted is said by rules"));
    }
    match way(engine) {
        None => findings.push(refused("no-data-directory", "no data directory says where the snapshot goes")),
        Some(settings) if findings.is_empty() => findings.extend(restore::assess(&settings, cx).await?),
        Some(_) => {}
    }
    Ok(findings)
}

/// Restores the snapshot.
pub(super) async fn restore(engine: &RedisEngine, cx: &RestoreContext) -> Result<Restored> {
    if let Some(finding) = assess(engine, cx).await?.iter().find(|finding| finding.severity == Severity::Blocker) {
        return Err(finding.refusal("the restore"));
    }
    let settings = way(engine).ok_or_else(|| Error::invalid("no data directory is named"))?;
    restore::restore(&settings, cx).await
}

/// The way that was chosen; without a choice the data directory.
fn way(engine: &RedisEngine) -> Option<RestoreSettings> {
    engine.restore.clone().or_else(|| engine.settings.data_dir.as_ref().map(RestoreSettings::files))
}
