//! Physical replication slots: how a server is made to keep its log for us.
//!
//! Source: manual, "Streaming Replication Protocol"; `READ_REPLICATION_SLOT` exists from version 15 on, before that the
//! view `pg_replication_slots` must be asked in a session with SQL.

use super::session::{Session, SessionKind};
use crate::error::{Error, Result};
use crate::lsn::{Lsn, TimelineId};

/// A physical slot as the server sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicationSlot {
    /// The oldest position that the server keeps for it; none when nothing was reserved yet.
    pub restart: Option<Lsn>,
    /// The timeline of that position; not told before version 15.
    pub timeline: Option<TimelineId>,
}

impl Session {
    /// Creates a physical slot that keeps the log from the latest checkpoint's redo position on. Without that reservation
    /// a slot keeps nothing until somebody streams from it. A temporary slot ends with this session. Only in a
    /// replication session.
    ///
    /// # Errors
    /// [`Error::Server`] with 42710 when it exists already and 53400 when `max_replication_slots` is reached.
    pub async fn create_physical_slot(&mut self, name: &str, temporary: bool) -> Result<()> {
        check(name)?;
        let temporary = if temporary { " TEMPORARY" } else { "" };
        self.query(&format!("CREATE_REPLICATION_SLOT \"{name}\"{temporary} PHYSICAL RESERVE_WAL")).await.map(drop)
    }

    /// Drops a slot, waiting until nobody uses it. Only in a replication session.
    ///
    /// # Errors
    /// [`Error::Server`] with 42704 when there is none.
    pub async fn drop_slot(&mut self, name: &str) -> Result<()> {
        check(name)?;
        self.query(&format!("DROP_REPLICATION_SLOT \"{name}\" WAIT")).await.map(drop)
    }

    /// Looks at a physical slot; `None` when there is none. From version 15 in a replication session of either kind,
    /// before that in one with a database or an ordinary one.
    ///
    /// # Errors
    /// [`Error::Server`] with 22023 or 0A000 for a logical slot.
    pub async fn read_slot(&mut self, name: &str) -> Result<Option<ReplicationSlot>> {
        check(name)?;
        let sql = if self.version().major() >= 15 && self.kind() != SessionKind::Sql {
            format!("READ_REPLICATION_SLOT \"{name}\"")
        } else {
            format!(
                "SELECT slot_type, restart_lsn, NULL AS restart_tli FROM pg_catalog.pg_replication_slots \
                 WHERE slot_name = '{name}' AND slot_type = 'physical'"
            )
        };
        let Some(row) = self.query(&sql).await?.pop() else { return Ok(None) };
        if row.text("slot_type")?.is_none() {
            return Ok(None);
        }
        let restart = row.text("restart_lsn")?.map(str::parse).transpose()?;
        let timeline = row.text("restart_tli")?.map(str::parse).transpose()?;
        Ok(Some(ReplicationSlot { restart, timeline }))
    }
}

/// The server's own rule for names (`ReplicationSlotValidateName`), which also makes quoting needless.
fn check(name: &str) -> Result<()> {
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if fits { Ok(()) } else { Err(Error::settings(format!("{name:?} cannot be the name of a replication slot"))) }
}
