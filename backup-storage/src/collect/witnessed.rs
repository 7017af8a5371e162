//! Sessions that became backups of which the catalog knows nothing.
//!
//! The last entry of a journal that was lost, or destroyed so that nobody can tell it from something planted, takes a commit with it. Its witness
//! beside the packs tells of it. What it speaks of is nobody's garbage: verification reports it, and a rebuild of the catalog has it again.

use std::collections::BTreeMap;

use backup_core::catalog::{Catalog, SessionState};
use backup_core::{BackupId, SessionId};

use super::survey::Survey;
use crate::context::Context;
use crate::error::{ErrorKind, Result};
use crate::{layout, witness};

/// The sessions with a witness of `generation` that `catalog`, which is younger than `survey`, does not know as committed.
///
/// # Errors
/// Those of the store.
pub(super) async fn find(
    context: &Context,
    (generation, catalog): (u32, &Catalog),
    survey: &Survey,
) -> Result<BTreeMap<SessionId, BackupId>> {
    let mut found = BTreeMap::new();
    for (session, _) in survey.folders.iter().filter(|(_, folder)| folder.witnessed) {
        if let Some(SessionState::Committed(_)) = catalog.session(*session) {
            continue;
        }
        let object = match context.store.get(&layout::witness(*session)?).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() || error.kind() == ErrorKind::Damaged => continue,
            Err(error) => return Err(error),
        };
        // One that does not open was put there by somebody else.
        if let Ok(witness) = witness::open(&context.keyring, *session, &object)
            && witness.place.generation >= generation
        {
            found.insert(*session, witness.backup);
        }
    }
    Ok(found)
}
