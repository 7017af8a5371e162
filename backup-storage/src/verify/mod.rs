//! Verification of what is stored.

use std::sync::Arc;

use backup_core::catalog::Catalog;
use backup_core::engine::Work;
use backup_core::repository::{VerifyLevel, VerifyReport};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::fetch::PackCache;
use crate::journal::Journal;
use crate::reader::BackupReader;

/// Checks the catalog and the manifests; deeper levels are refused.
pub(crate) async fn verify(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    cache: &Arc<PackCache>,
    level: VerifyLevel,
    _work: &Work,
) -> Result<VerifyReport> {
    if level != VerifyLevel::Catalog {
        return Err(Error::invalid(format!("level {level} is not available")));
    }
    let catalog = journal.refresh().await?;
    let mut report = VerifyReport::default();
    for record in catalog.backups() {
        BackupReader::open(Arc::clone(context), Arc::clone(cache), record.clone()).await?;
        report.backups += 1;
    }
    Ok(report)
}
