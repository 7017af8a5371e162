//! Replication ids as lineages of the log.

use backup_core::engine::LogContext;
use backup_core::log::{LineageRecord, Notation};
use backup_core::{Error, Lineage, LogPosition, Result};

use crate::client::StreamPosition;
use crate::node::NodeFacts;

/// Fact: which server it was, e.g. `redis 7.4.1`.
const SERVER: &str = "server";

/// The lineage of a replication id.
pub(super) fn lineage_of(id: &str) -> Lineage {
    Lineage::new(id)
}

/// A position of the log as one of the stream.
pub(super) fn position_of(at: &LogPosition) -> StreamPosition {
    StreamPosition::new(at.lineage.as_str(), at.offset)
}

/// Makes the history of `node` known, and the one before it: the last one is what the deployment follows. What is known stays as it was
/// said first: a replica does not know the past of its primary.
///
/// # Errors
/// Conflict when the history is known of another deployment.
pub(super) async fn declare(cx: &LogContext, node: &NodeFacts, source: &str) -> Result<()> {
    let ledger = cx.sink().ledger();
    let known = |id: &str| ledger.lineage(&lineage_of(id));
    if let Some(record) = known(&node.position.id) {
        return same(record, source);
    }
    let record = |id: &str| {
        LineageRecord::new(lineage_of(id), source, Notation::Decimal, cx.work().env().now())
            .with_fact(SERVER, format!("{} {}", node.product, node.version))
    };
    let mut own = record(&node.position.id);
    if let Some(before) = &node.before {
        match known(&before.id) {
            Some(record) => same(record, source)?,
            None => cx.sink().declare(record(&before.id)).await?,
        }
        own = own.with_fork(lineage_of(&before.id), before.offset);
    }
    cx.sink().declare(own).await
}

fn same(record: &LineageRecord, source: &str) -> Result<()> {
    if record.source == source {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "the history {} is known as one of {}, not of {source}; if they are the same, name the identity",
        record.lineage, record.source
    )))
}
