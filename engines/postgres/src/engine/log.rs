//! The log side of the engine.

use std::path::Path;

use async_trait::async_trait;
use backup_core::engine::{Imported, LogContext, LogEngine, RestoreLog, StatedPosition};
use backup_core::{Error, Lineage, Result};

use super::{PostgresEngine, scan};
use crate::capture;
use crate::lsn::{Lsn, TimelineId};

#[async_trait]
impl LogEngine for PostgresEngine {
    async fn stream(&self, cx: &LogContext) -> Result<()> {
        capture::stream(&self.settings, cx).await
    }

    async fn import(&self, cx: &LogContext, dir: &Path) -> Result<Imported> {
        capture::import(cx, dir).await
    }

    /// `0/5000028`, or `0/5000028@2` with the timeline.
    fn parse_position(&self, text: &str) -> Result<StatedPosition> {
        let wrong = || {
            Error::invalid(format!("{text:?} is no position: write it as 0/5000028, or 0/5000028@2 with its timeline"))
        };
        let (lsn, timeline) = match text.split_once('@') {
            Some((lsn, timeline)) => (lsn, Some(timeline.parse::<TimelineId>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let lsn: Lsn = lsn.parse().map_err(|_| wrong())?;
        Ok(StatedPosition { lineage: timeline.map(capture::lineage_of), offset: lsn.0 })
    }

    async fn find_transaction(&self, log: &RestoreLog, name: &str) -> Result<Option<(Lineage, u64)>> {
        let xid: u32 =
            name.parse().map_err(|_| Error::invalid(format!("{name:?} is no transaction id, which is a number")))?;
        scan::transaction(log, xid).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PostgresSettings;

    #[test]
    fn positions_may_name_their_timeline() {
        let engine = PostgresEngine::new(PostgresSettings::default()).unwrap();
        let plain = engine.parse_position("A/28").unwrap();
        assert_eq!((plain.lineage, plain.offset), (None, 0xA_0000_0028));
        let full = engine.parse_position("0/5000028@2").unwrap();
        assert_eq!((full.lineage, full.offset), (Some(Lineage::new("2")), 0x500_0028));
        for wrong in ["", "5000028", "0/5@", "0/5@0", "0/5@x", "@1", "0/5@1@2"] {
            assert!(engine.parse_position(wrong).is_err(), "{wrong}");
        }
    }
}
