//! What a server has to do with others that are backed up together with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::MemberName;
use tokio::sync::Barrier;

use crate::server::TableKey;

/// The part of one member in a backup of several. Of one that is alone it is nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Share {
    /// Nobody freezes before all are ready.
    pub(super) gate: Option<Arc<Barrier>>,
    /// Replicated tables whose parts are taken from another member, and from which.
    pub(super) elsewhere: BTreeMap<TableKey, MemberName>,
}

impl Share {
    /// From which other member the parts of a table are taken.
    pub(super) fn holder(&self, table: &TableKey) -> Option<&MemberName> {
        self.elsewhere.get(table)
    }

    /// Waits until all members are ready. Whoever fails before ends the others.
    pub(super) async fn ready(&self) {
        if let Some(gate) = &self.gate {
            gate.wait().await;
        }
    }
}
