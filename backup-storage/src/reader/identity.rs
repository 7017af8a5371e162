//! Finding entries by the identity of their content.

use backup_core::entry::ContentIdentity;

use super::BackupReader;
use crate::error::{Error, Result};
use crate::manifest::{ManifestEntry, PartRef};

/// Where the entries with an identity stand, by a short hash of it.
#[derive(Debug)]
pub(super) struct Identities {
    parts: Vec<PartRef>,
    rows: Vec<Row>,
}

/// 16 bytes, sorted by hash. Two identities may share a hash: the entry itself decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    hash: u64,
    part: u32,
    at: u32,
}

impl Identities {
    /// Reads all entries of `reader` once.
    pub(super) async fn scan(reader: &BackupReader) -> Result<Self> {
        let parts: Vec<_> = reader.manifest().parts().cloned().collect();
        let mut rows = Vec::new();
        for (number, part) in (0..).zip(&parts) {
            let entries = reader.part(part).await?;
            for (at, entry) in (0..).zip(entries.iter()) {
                if let Some(identity) = &entry.meta.identity {
                    rows.push(Row { hash: hash(identity), part: number, at });
                }
            }
        }
        rows.sort_unstable();
        rows.shrink_to_fit();
        Ok(Self { parts, rows })
    }

    /// The first entry with `identity`.
    pub(super) async fn find(
        &self,
        reader: &BackupReader,
        identity: &ContentIdentity,
    ) -> Result<Option<ManifestEntry>> {
        let hash = hash(identity);
        let first = self.rows.partition_point(|row| row.hash < hash);
        for row in self.rows[first..].iter().take_while(|row| row.hash == hash) {
            let part = self.parts.get(row.part as usize).ok_or_else(|| Error::internal("a part has no number"))?;
            let entries = reader.part(part).await?;
            if let Some(entry) = entries.get(row.at as usize)
                && entry.meta.identity.as_ref() == Some(identity)
            {
                return Ok(Some(entry.clone()));
            }
        }
        Ok(None)
    }
}

/// Stays in memory, so it needs no key.
fn hash(identity: &ContentIdentity) -> u64 {
    let digest = blake3::hash(identity.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    u64::from_le_bytes(first)
}
