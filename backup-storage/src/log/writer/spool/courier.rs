//! The task that sends what lies in the spool.

use std::sync::Arc;

use super::Spool;
use crate::error::Result;
use crate::log::writer::delivery::{Delivery, Place};
use crate::log::writer::shared::Shared;
use crate::store::Store;

/// Sends pieces of one writer, in order.
pub(in crate::log::writer) struct Courier {
    spool: Arc<Spool>,
    delivery: Delivery,
    /// How many pieces may be on their way, and how many bytes of them may be in memory.
    most: (usize, u64),
    /// Bytes of pieces that are on their way.
    carried: u64,
    shared: Arc<Shared>,
}

impl Courier {
    pub(in crate::log::writer) fn new(shared: Arc<Shared>, spool: Arc<Spool>, vault: Store, most: usize) -> Self {
        let delivery = Delivery::new(Arc::clone(&shared), Place::Vault(vault));
        let most = (most, shared.room);
        Self { spool, delivery, most, carried: 0, shared }
    }

    /// Runs until everything is in the vault and nothing more comes.
    ///
    /// # Errors
    /// What ends the writer.
    pub(in crate::log::writer) async fn run(&mut self) -> Result<()> {
        loop {
            self.begin();
            if self.delivery.is_empty() && self.spool.is_complete() {
                return Ok(());
            }
            tokio::select! {
                sent = self.delivery.arrived() => {
                    let sent = sent?;
                    self.carried -= sent.iter().map(|kept| kept.len).sum::<u64>();
                    self.spool.remove(sent).await?;
                    self.shared.released.notify_waiters();
                }
                () = self.spool.changed.notified() => {}
            }
        }
    }

    fn begin(&mut self) {
        let (pieces, bytes) = self.most;
        while self.delivery.len() < pieces {
            // One that is larger than all the room goes alone.
            let room = if self.delivery.is_empty() { u64::MAX } else { bytes.saturating_sub(self.carried) };
            let Some(kept) = self.spool.take(room) else { return };
            self.carried += kept.len;
            self.delivery.expect(kept.lineage.clone(), kept.piece);
            let spool = Arc::clone(&self.spool);
            self.delivery.send(kept.piece.sequence, async move { spool.read(&kept).await });
        }
    }
}
