//! The slots that make the nodes of a cluster keep their log for us, and what they cost.
//!
//! The node that is followed moves its slot by what we acknowledge. On the other nodes nobody follows, so their slots are moved by
//! hand: a slot that stands still would fill a disk. They exist so that after a failover the new primary still has what we lack.

use std::time::Duration;

use backup_core::engine::LogContext;
use backup_core::{Error, Finding, Result, Severity};

use super::node::{NodeFacts, Nodes};
use super::{found, lineage};
use crate::conn::Settings;
use crate::engine::{LogSlot, PostgresSettings};
use crate::lsn::Lsn;
use crate::wire::{Session, SessionKind};

/// How often slots are looked at.
const EVERY: Duration = Duration::from_secs(15);
/// A slot that has less room than this before the server gives it up is worth a warning: some segments of the usual size.
const LITTLE: i64 = 256 << 20;

/// Makes the slot if it does not exist.
pub(super) async fn ensure(session: &mut Session, name: &str) -> Result<()> {
    if let Some(slot) = session.read_slot(name).await?
        && slot.restart.is_some()
    {
        return Ok(());
    }
    match session.create_physical_slot(name, false).await {
        Ok(()) => Ok(()),
        // It exists: it was made in between, or it was lost because the server keeps no more than it was told to.
        Err(error) if error.sqlstate() == Some("42710") => {
            let lost = session.read_slot(name).await?.is_none_or(|slot| slot.restart.is_none());
            if lost && session.version().major() >= 13 {
                session.drop_slot(name).await?;
                session.create_physical_slot(name, false).await?;
            }
            Ok(())
        }
        Err(error) => {
            let text = format!(
                "replication slot {name} cannot be made; without one the server removes log before it is stored: raise \
                 max_replication_slots, or do without by choice"
            );
            Err(Error::from(error).context(text))
        }
    }
}

/// Looks after the slots of all nodes while one is followed.
pub(super) struct Keeper<'a> {
    cx: &'a LogContext,
    slot: Option<&'a str>,
    own: Option<Settings>,
    others: Vec<(String, Settings)>,
    node: &'a NodeFacts,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(settings: &'a PostgresSettings, cx: &'a LogContext, nodes: &Nodes, node: &'a NodeFacts) -> Self {
        let slot = match &settings.slot {
            LogSlot::Named(name) => Some(name.as_str()),
            LogSlot::None => None,
        };
        let own = nodes.settings_of(&node.name);
        Self { cx, slot, own, others: nodes.others(&node.name), node }
    }

    /// Runs until it is dropped. What goes wrong here harms nobody at once and is only told.
    pub(super) async fn run(self) {
        let Some(slot) = self.slot else { return std::future::pending().await };
        let mut warned = String::new();
        loop {
            if let Some(own) = &self.own {
                match self.state(own, slot).await {
                    Ok(Some(warning)) if warning != warned => {
                        warned.clone_from(&warning);
                        let finding = Finding::new(Severity::Warning, "slot", warning).about(self.node.name.clone());
                        found(self.cx, finding);
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => warned.clear(),
                    Err(error) => tracing::debug!(%error, "the state of the slot is not known"),
                }
            }
            for (name, other) in &self.others {
                if let Err(error) = self.advance(other, slot).await {
                    tracing::debug!(%error, node = %name, "the slot of another node was not moved");
                }
            }
            self.cx.work().env().clock().sleep(EVERY).await;
        }
    }

    /// A warning, when the server is about to remove what the slot needs, or keeps much for it.
    async fn state(&self, node: &Settings, slot: &str) -> Result<Option<String>> {
        let mut session = Session::connect(node, SessionKind::Sql).await?;
        let sql = format!(
            "SELECT wal_status, safe_wal_size, pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
             ELSE pg_current_wal_lsn() END, restart_lsn)::bigint AS kept FROM pg_catalog.pg_replication_slots WHERE slot_name = '{slot}'"
        );
        let row = session.query(&sql).await?.pop();
        session.close().await;
        let Some(row) = row else { return Ok(Some(format!("slot {slot} was dropped"))) };
        let kept: i64 = row.text("kept")?.and_then(|text| text.parse().ok()).unwrap_or(0);
        let safe: Option<i64> = row.text("safe_wal_size")?.and_then(|text| text.parse().ok());
        Ok(match row.text("wal_status")? {
            Some("unreserved") => {
                Some(format!("slot {slot} needs log that the server removes at its next checkpoint ({kept} bytes)"))
            }
            Some("lost") => Some(format!("slot {slot} is lost: the server has removed what it needed")),
            Some("extended") => match safe {
                Some(safe) if safe < LITTLE => {
                    Some(format!("slot {slot} keeps {kept} bytes of log; after {safe} more the server gives it up"))
                }
                // Without a limit the disk is the limit.
                None => Some(format!(
                    "slot {slot} keeps {kept} bytes of log, more than max_wal_size, and max_slot_wal_keep_size sets no limit"
                )),
                Some(_) => None,
            },
            _ => None,
        })
    }

    /// Moves the slot of a node that is not followed up to what is stored, as far as the node itself has come.
    async fn advance(&self, node: &Settings, slot: &str) -> Result<()> {
        let mut session = Session::connect(node, SessionKind::ReplicationDatabase).await?;
        let system_id = session.identify_system().await?.system_id;
        if system_id != self.node.system_id {
            return Ok(());
        }
        ensure(&mut session, slot).await?;
        if let Some(durable) = self.cx.sink().durable()
            && lineage::timeline_of(&durable.lineage).is_some_and(|timeline| self.node.history.contains(timeline))
        {
            let to = Lsn(durable.offset);
            let sql = format!(
                "SELECT pg_replication_slot_advance(slot_name, least('{to}'::pg_lsn, CASE WHEN pg_is_in_recovery() THEN \
                 pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END)) FROM pg_replication_slots \
                 WHERE slot_name = '{slot}' AND NOT active AND restart_lsn < '{to}'::pg_lsn"
            );
            session.query(&sql).await?;
        }
        session.close().await;
        Ok(())
    }
}
