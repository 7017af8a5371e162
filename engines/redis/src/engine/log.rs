//! The log side of the engine.

use std::path::Path;

use async_trait::async_trait;
use backup_core::engine::{Imported, LogContext, LogEngine, RestoreLog, StatedPosition};
use backup_core::{Error, Lineage, Result};

use super::RedisEngine;
use crate::capture;
use crate::client::identifier;

#[async_trait]
impl LogEngine for RedisEngine {
    async fn stream(&self, cx: &LogContext) -> Result<()> {
        capture::stream(self.settings(), cx).await
    }

    /// There is nothing to import: a server leaves no pieces of its stream anywhere.
    async fn import(&self, _cx: &LogContext, dir: &Path) -> Result<Imported> {
        Err(Error::invalid(format!(
            "{} cannot be imported: servers leave no pieces of their stream in folders, it is captured while it comes",
            dir.display()
        )))
    }

    /// `123456`, or `123456@` and the replication id.
    fn parse_position(&self, text: &str) -> Result<StatedPosition> {
        let wrong =
            || Error::invalid(format!("{text:?} is no position: write it as 123456, or 123456@ and a replication id"));
        let (offset, id) = match text.split_once('@') {
            Some((offset, id)) => (offset, Some(identifier(id).ok_or_else(wrong)?)),
            None => (text, None),
        };
        let offset = Some(offset).filter(|offset| offset.bytes().all(|byte| byte.is_ascii_digit()));
        let offset = offset.and_then(|offset| offset.parse().ok()).ok_or_else(wrong)?;
        Ok(StatedPosition { lineage: id.map(Lineage::new), offset })
    }

    /// Transactions have no names here.
    async fn find_transaction(&self, _log: &RestoreLog, name: &str) -> Result<Option<(Lineage, u64)>> {
        Err(Error::invalid(format!("{name:?} cannot be looked for: transactions of redis have no names")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RedisSettings;

    #[test]
    fn positions_may_name_their_history() {
        let engine = RedisEngine::new(RedisSettings::default()).unwrap();
        let plain = engine.parse_position("1234").unwrap();
        assert_eq!((plain.lineage, plain.offset), (None, 1234));
        let id = "0123456789ABCDEF0123456789abcdef01234567";
        let full = engine.parse_position(&format!("7@{id}")).unwrap();
        assert_eq!((full.lineage, full.offset), (Some(Lineage::new(id.to_lowercase())), 7));
        for wrong in ["", "x", "+7", "-1", "7@", "7@abc", "@1"] {
            assert!(engine.parse_position(wrong).is_err(), "{wrong}");
        }
    }
}
