//! Storing finished packs, several at a time.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::Shared;
use crate::error::{Error, Result};
use crate::pack::FinishedPack;
use crate::store::Created;

/// Starts the uploads of a session. They end when the queue is closed and empty; dropping the set aborts them.
pub(crate) fn spawn(shared: &Arc<Shared>, packs: &async_channel::Receiver<FinishedPack>) -> JoinSet<()> {
    let mut uploads = JoinSet::new();
    for _ in 0..shared.context.shape.transfers {
        let (shared, packs) = (Arc::clone(shared), packs.clone());
        uploads.spawn(async move {
            while let Ok(pack) = packs.recv().await {
                // After a failure packs are only taken out of the queue, so that no worker waits for room in it.
                if shared.failure.is_set() {
                    continue;
                }
                if let Err(error) = upload(&shared, pack).await {
                    shared.failure.set(error);
                }
            }
        });
    }
    uploads
}

async fn upload(shared: &Shared, pack: FinishedPack) -> Result<()> {
    let len = pack.object.len() as u64;
    let object = Bytes::from(pack.object);
    match shared.context.store.create(&pack.name, object.clone()).await? {
        Created::New | Created::AlreadyOurs => {}
        Created::Conflict => {
            return Err(Error::conflict(format!("object {} was written by somebody else", pack.name)));
        }
    }
    shared.count_stored(len);
    if let Ok(unique) = object.try_into_mut() {
        shared.recycle(Vec::from(unique));
    }
    Ok(())
}
