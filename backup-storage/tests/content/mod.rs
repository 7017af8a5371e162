//! What a backup holds, in memory, for tests that compare it with what was put.

use std::collections::BTreeMap;

use backup_core::BackupSource;
use backup_core::entry::Selector;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

/// Entries by their paths.
pub(crate) type Content = BTreeMap<String, Vec<u8>>;

/// Reads all of a backup.
pub(crate) async fn read(source: &dyn BackupSource) -> Content {
    let mut content = Content::new();
    let mut entries = source.entries(Selector::all());
    while let Some(entry) = entries.next().await {
        let entry = entry.unwrap();
        let pieces: Vec<Bytes> = source.read(&entry.meta.path, 0..entry.len).try_collect().await.unwrap();
        content.insert(entry.meta.path.to_string(), pieces.concat());
    }
    content
}
