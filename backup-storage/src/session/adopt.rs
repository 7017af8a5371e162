//! Finding what interrupted sessions have left behind.

use std::sync::Arc;

use backup_core::SessionId;
use backup_core::catalog::{Catalog, CloseReason, SessionState};
use futures::TryStreamExt;
use futures::stream::{self, StreamExt};

use crate::context::Context;
use crate::error::Result;
use crate::fetch::PackCache;
use crate::layout::{self, SessionObject};
use crate::pipeline::known::Known;

/// How many sessions are looked at, newest first. Each costs one listing; after a backup that fails again and again, every one
/// of them holds a part that no other has.
const SESSIONS: usize = 256;

/// Reads the footers of packs of sessions that are without a backup and younger than the newest backup. Older ones hold
/// nothing that the newest backup does not have in a better form.
///
/// Such a session may be alive. That does no harm: packs are never changed, and what keeps them is the backup that refers to
/// them, whichever session wrote them.
pub(crate) async fn learn(
    context: &Context,
    cache: &Arc<PackCache>,
    catalog: &Catalog,
) -> Result<(Known, Vec<SessionId>)> {
    let backed_up =
        |state: &SessionState| matches!(state, SessionState::Committed(id) if catalog.backup(*id).is_some());
    let candidates: Vec<_> = catalog
        .sessions()
        .rev()
        .take_while(|(_, state)| !backed_up(state))
        .filter(|(id, state)| {
            let without = matches!(state, SessionState::Open { .. } | SessionState::Closed(CloseReason::Abandoned));
            without && !catalog.is_collected(*id) && !catalog.is_damaged(*id)
        })
        .map(|(id, _)| id)
        .take(SESSIONS)
        .collect();
    let mut known = Known::default();
    let mut adopted = Vec::new();
    for session in candidates {
        let objects: Vec<_> = context.store.list(&layout::session(session)).try_collect().await?;
        let packs = objects.into_iter().filter_map(|object| match layout::session_object(object.name.as_str()) {
            Some(SessionObject::Pack(id)) => Some(id),
            _ => None,
        });
        let mut indices = stream::iter(packs)
            .map(|id| async move { (id, cache.index(id).await) })
            .buffer_unordered(context.shape.transfers * 2);
        let mut learnt = false;
        while let Some((id, index)) = indices.next().await {
            match index {
                Ok(index) if known.learn(id, &index) => learnt = true,
                Ok(_) => break,
                // What cannot be read is not reused; whether it matters is for verification to say.
                Err(error) => tracing::debug!(%error, pack = %id, "a pack of an interrupted session is not readable"),
            }
        }
        drop(indices);
        if learnt {
            adopted.push(session);
        }
    }
    adopted.sort_unstable();
    Ok((known, adopted))
}
