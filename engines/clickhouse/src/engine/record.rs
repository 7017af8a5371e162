//! What a backup says of the parts of a table, beside their files.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::engine::{BackupSource, BackupSourceExt};
use backup_core::entry::Selector;
use backup_core::{Error, Result};
use futures::StreamExt;
use minicbor::{Decode, Encode};

use crate::layout;
use crate::part::PartName;
use crate::server::TableKey;

/// More than a million parts.
const MAX_RECORD: u64 = 256 << 20;

/// A part, as it was when it was frozen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct PartRecord {
    #[n(0)]
    pub(crate) name: String,
    /// `hash_of_all_files`; empty when the part's list could not be read.
    #[n(1)]
    pub(crate) hash: String,
    #[n(2)]
    pub(crate) disk: String,
    #[n(3)]
    pub(crate) rows: Option<u64>,
    #[n(4)]
    pub(crate) bytes: u64,
    #[n(5)]
    pub(crate) files: u64,
    /// Whether something of it was wrong when it was read.
    #[n(6)]
    pub(crate) damaged: bool,
}

impl PartRecord {
    pub(crate) fn parsed(&self) -> Result<PartName> {
        PartName::guess(&self.name).map_err(|error| Error::damaged("a backup names a part").with_source(error))
    }
}

/// The parts of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct PartsRecord {
    #[n(0)]
    pub(crate) parts: Vec<PartRecord>,
    /// The files of mutations that had not come to their end.
    #[n(1)]
    pub(crate) mutations: Vec<String>,
    /// Parts of the server for which others of this record stand, with the same rows.
    #[cbor(n(2), default)]
    pub(crate) stands: Vec<Stand>,
    /// The member of the same backup that has the parts of this replicated table, and this one has none.
    #[n(3)]
    pub(crate) holder: Option<String>,
}

/// A part that the server has merged, and what is stored in its place: the parts whose rows it has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Stand {
    /// What it is called at the server.
    #[n(0)]
    pub(crate) name: String,
    /// Its `hash_of_all_files`.
    #[n(1)]
    pub(crate) hash: String,
    #[n(2)]
    pub(crate) rows: u64,
    /// The names of those in its place.
    #[n(3)]
    pub(crate) parts: Vec<String>,
}

impl PartsRecord {
    /// The parts that the server had, each with the hash of all its files.
    pub(crate) fn live(&self) -> BTreeMap<&str, &str> {
        let merged: BTreeSet<&str> = self.stands.iter().flat_map(|stand| &stand.parts).map(String::as_str).collect();
        let stored = self.parts.iter().map(|part| (part.name.as_str(), part.hash.as_str()));
        let stored = stored.filter(|(name, _)| !merged.contains(name));
        stored.chain(self.stands.iter().map(|stand| (stand.name.as_str(), stand.hash.as_str()))).collect()
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        minicbor::to_vec(self).map_err(|e| Error::internal("the list of parts cannot be encoded").with_source(e))
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        minicbor::decode(bytes).map_err(|error| Error::damaged("a list of parts cannot be read").with_source(error))
    }

    /// The lists of those of `tables` that are in the backup. Nothing else of it is read, however many files it has.
    pub(crate) async fn of<'a>(
        source: &dyn BackupSource,
        tables: impl Iterator<Item = &'a TableKey>,
    ) -> Result<BTreeMap<TableKey, Self>> {
        let mut all = BTreeMap::new();
        for table in tables {
            let path = layout::table(layout::PARTS, table)?;
            if source.entry(&path).await?.is_some() {
                let bytes = source.read_small(&path, MAX_RECORD).await?;
                all.insert(table.clone(), Self::decode(&bytes)?);
            }
        }
        Ok(all)
    }

    /// The lists of all tables that `wanted` chooses.
    pub(crate) async fn all(
        source: &dyn BackupSource,
        wanted: impl Fn(&TableKey) -> bool,
    ) -> Result<BTreeMap<TableKey, Self>> {
        let mut all = BTreeMap::new();
        let mut entries = source.entries(Selector::parse([layout::PARTS])?);
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            let Some((table, "")) = layout::table_of(layout::PARTS, &entry.meta.path) else { continue };
            if wanted(&table) {
                let bytes = source.read_small(&entry.meta.path, MAX_RECORD).await?;
                all.insert(table, Self::decode(&bytes)?);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        let part = PartRecord {
            name: "all_1_1_0".to_owned(),
            hash: "ab".to_owned(),
            disk: "default".to_owned(),
            rows: Some(3),
            bytes: 4,
            files: 5,
            damaged: true,
        };
        let stand = Stand { name: "all_2_4_1".to_owned(), hash: "cd".to_owned(), rows: 7, parts: vec![String::new()] };
        let record = PartsRecord {
            parts: vec![part, PartRecord::default()],
            mutations: vec!["mutation_3.txt".to_owned()],
            stands: vec![stand],
            holder: Some("shard-01-replica-01".to_owned()),
        };
        assert_eq!(PartsRecord::decode(&record.encode().unwrap()).unwrap(), record);
        assert_eq!(record.live(), BTreeMap::from([("all_1_1_0", "ab"), ("all_2_4_1", "cd")]));
        assert!(PartsRecord::decode(b"\xff").is_err());
    }

    #[test]
    fn records_from_before_there_were_stands_are_read() {
        // `{0: [], 1: ["m"]}`
        let record = PartsRecord::decode(b"\xa2\x00\x80\x01\x81\x61m").unwrap();
        assert_eq!(record, PartsRecord { mutations: vec!["m".to_owned()], ..PartsRecord::default() });
    }
}
