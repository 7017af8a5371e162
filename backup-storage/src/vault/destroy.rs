//! Destroying a repository, so that it can be interrupted anywhere and nothing of it can be read from early on.
//!
//! ```text
//! catalog: the service is being purged   (sealed: whoever can only write objects cannot say so)
//! purge                                  plain mark: what lies here without keys is to be deleted
//! keys/…                                 deleted, those of the one who does it last and newest first: the content is unreadable from here on
//! everything else, repository            deleted
//! purge                                  deleted
//! ```
//!
//! While there is a key, the catalog decides and the mark says nothing. Once there is none, nothing can be read any more and the mark
//! is what lets the next run go on. The same holds once an epoch has no key any more of which an older one says that it began: then the
//! catalog cannot be read either. A repository without keys and without the mark has lost them in another way, and is left alone.

use backup_core::engine::Work;
use backup_core::repository::Destroyed;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::error::{Error, Result};
use crate::layout;
use crate::store::{Created, ObjectName, Store};

/// What the mark says. It is for people: its name is what counts.
const TEXT: &[u8] = b"This repository is being destroyed. Its keys are deleted first, then everything else.\n";

/// The mark of a repository that is being destroyed.
pub(super) fn marker() -> Result<ObjectName> {
    ObjectName::new(layout::PURGE)
}

/// Destroys what lies in `store`. The keys `own` go last, in this order.
pub(super) async fn destroy(store: &Store, own: &[ObjectName], work: &Work) -> Result<Destroyed> {
    let marker = marker()?;
    if let Created::Conflict = store.create(&marker, Bytes::from_static(TEXT)).await? {
        return Err(Error::conflict(format!("object {marker} was written by somebody else")));
    }
    let mut destroyed = Destroyed::default();
    destroyed.keys = sweep(store, layout::KEYS, own, work).await?;
    for name in own {
        store.delete(name).await?;
        destroyed.keys += 1;
    }
    destroyed.keys += sweep(store, layout::KEYS, &[], work).await?;
    let last = [layout::repository()?, marker.clone()];
    // Whoever was about to write when the keys went may still do so once.
    loop {
        let objects = sweep(store, "", &last, work).await?;
        destroyed.objects += objects;
        if objects == 0 {
            break;
        }
    }
    for name in &last {
        store.delete(name).await?;
        destroyed.objects += 1;
    }
    store.remove_empty_folders().await?;
    Ok(destroyed)
}

/// Deletes what lies in `folder`, but for `kept`. How many objects.
async fn sweep(store: &Store, folder: &str, kept: &[ObjectName], work: &Work) -> Result<u64> {
    let mut found = store.list(folder);
    let mut count = 0;
    loop {
        work.checkpoint()?;
        let mut names = Vec::new();
        while names.len() < 1000
            && let Some(object) = found.try_next().await?
        {
            if !kept.contains(&object.name) {
                names.push(object.name);
            }
        }
        if names.is_empty() {
            return Ok(count);
        }
        let mut outcomes = store.delete_many(futures::stream::iter(names));
        while let Some((name, outcome)) = outcomes.next().await {
            outcome.map_err(|e| e.context(format!("object {name} cannot be deleted")))?;
            count += 1;
        }
    }
}
