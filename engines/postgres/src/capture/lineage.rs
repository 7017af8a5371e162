//! Timelines as lineages of the log.

use backup_core::engine::LogContext;
use backup_core::log::{LineageRecord, Notation};
use backup_core::{Lineage, Result};

use super::node::NodeFacts;
use crate::lsn::TimelineId;
use crate::wal::TimelineHistory;

/// Fact: size of segments in bytes.
pub(crate) const SEGMENT_SIZE: &str = "wal_segment_size";
/// Fact: the server's version as a number, e.g. `170011`.
pub(crate) const VERSION_NUM: &str = "server_version_num";
/// Fact: the content of the timeline's history file. The first timeline has none.
pub(crate) const HISTORY: &str = "history";

/// The lineage of a timeline.
pub(crate) fn lineage_of(timeline: TimelineId) -> Lineage {
    Lineage::new(timeline.to_string())
}

/// The timeline of a lineage.
pub(crate) fn timeline_of(lineage: &Lineage) -> Option<TimelineId> {
    lineage.as_str().parse().ok()
}

/// Makes the timelines of `node` known, oldest first: the last one is what the cluster follows.
pub(super) async fn declare(cx: &LogContext, node: &NodeFacts) -> Result<()> {
    let source = node.system_id.to_string();
    let size = node.segment_size.bytes().to_string();
    let version = node.version.number().to_string();
    let mut before = None;
    let line = node.history.ancestors.iter().map(|a| (a.timeline, Some(a.end)));
    for (timeline, end) in line.chain([(node.timeline, None)]) {
        let at = cx.work().env().now();
        let mut record = LineageRecord::new(lineage_of(timeline), source.clone(), Notation::HexHalves, at)
            .with_fact(SEGMENT_SIZE, size.clone())
            .with_fact(VERSION_NUM, version.clone());
        if let Some((parent, fork)) = before {
            record = record.with_fork(lineage_of(parent), fork);
        }
        if let Some(content) = node.histories.get(&timeline) {
            record = record.with_fact(HISTORY, String::from_utf8_lossy(content));
        } else if timeline != node.timeline {
            record = record.with_fact(HISTORY, derived(&node.history, timeline));
        }
        cx.sink().declare(record).await?;
        before = end.map(|end: crate::lsn::Lsn| (timeline, end.0));
    }
    Ok(())
}

/// The history file of an ancestor: the lines of the descendant's that come before it. Empty for the first.
fn derived(history: &TimelineHistory, timeline: TimelineId) -> String {
    let before = history.ancestors.iter().take_while(|ancestor| ancestor.timeline < timeline);
    before.map(|a| format!("{}\t{}\t{}\n", a.timeline, a.end, a.reason)).collect()
}
