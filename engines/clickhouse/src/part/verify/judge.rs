//! What has passed, compared with what was promised.

use super::{Column, Finding, Folder, Kept, PartFacts, PartFormat, Problem, Seen, Verifier, columns, path_of};
use crate::ddl::escape_for_file_name;
use crate::part::checksums::{self, Checksum, Checksums, FileName};
use crate::part::{Error, Hash128};

/// The number of rows.
pub(super) const COUNT: &str = "count.txt";

/// Files that no list has, in some version of a server or in all (`IMergeTreeDataPart.cpp`). What FREEZE adds for disks
/// of object storage is `frozen_metadata.txt`; `delete-on-destroy.txt` is of versions that are past.
const NEVER_LISTED: [&str; 9] = [
    checksums::NAME,
    columns::NAME,
    "columns_substreams.txt",
    "default_compression_codec.txt",
    "delete-on-destroy.txt",
    "frozen_metadata.txt",
    "metadata_version.txt",
    "txn_version.txt",
    "uuid.txt",
];
/// Inverted indexes of 23.x and 24.x: they are listed with nought for length and hash (`checkSize`, `checkEqual`).
const INVERTED: [&str; 5] = [".gin_bflt", ".gin_dict", ".gin_post", ".gin_seg", ".gin_sid"];
/// Marks that only compact parts have.
const COMPACT_MARKS: [&str; 4] = ["data.mrk3", "data.cmrk3", "data.mrk4", "data.cmrk4"];

pub(super) fn judge(verifier: Verifier) -> PartFacts {
    let Verifier { part, projections, findings, bytes, files, is_packed, .. } = verifier;
    let mut facts = PartFacts { bytes, files, findings, packed: is_packed, ..PartFacts::default() };
    let list = FolderJudge { facts: &mut facts, folder: &part, projection: None }.judge();
    facts.columns = columns_of(part.columns.as_ref()).unwrap_or_default();
    facts.rows = part.count.as_ref().and_then(|kept| rows(kept).ok());
    facts.hash_of_all_files = list.as_ref().map(Checksums::hash_of_all_files);
    facts.listed_bytes = list.as_ref().map_or(0, Checksums::total_size);
    facts.format = list.as_ref().and_then(format);
    for (name, folder) in &projections {
        let inner = FolderJudge { facts: &mut facts, folder, projection: Some(name) }.judge();
        facts.projections.extend(name.projection().map(str::to_owned));
        let Some(list) = &list else { continue };
        match list.get(name.as_str()) {
            None => facts.findings.push(Finding::new(name.as_str(), Problem::Unlisted)),
            Some(listed) => {
                let found = inner.map(|inner| (inner.total_size(), inner.hash_of_all_files()));
                facts.findings.extend(found.and_then(|found| difference(name.as_str(), listed, found)));
            }
        }
    }
    if let Some(list) = list {
        let missing = list.iter().filter(|(name, _)| name.projection().is_some() && !projections.contains_key(*name));
        facts.findings.extend(missing.map(|(name, _)| Finding::new(name.as_str(), Problem::Missing)));
    }
    facts
}

struct FolderJudge<'a> {
    facts: &'a mut PartFacts,
    folder: &'a Folder,
    projection: Option<&'a FileName>,
}

impl FolderJudge<'_> {
    /// Compares a folder with its list and gives the list back.
    fn judge(mut self) -> Option<Checksums> {
        let list = match &self.folder.list {
            None => Err(Problem::Missing),
            Some(kept) => kept.clone().and_then(|bytes| Checksums::parse(&bytes)).map_err(Problem::Unreadable),
        };
        let list = list.map_err(|problem| self.find(checksums::NAME, problem)).ok();
        for (name, seen) in &self.folder.seen {
            self.file(name, seen, list.as_ref());
        }
        for (name, _) in list.iter().flat_map(Checksums::iter) {
            if name.projection().is_none() && !self.folder.seen.contains_key(name) {
                self.find(name.as_str(), Problem::Missing);
            }
        }
        self.columns(list.as_ref());
        if let Some(Err(error)) = self.folder.count.as_ref().map(rows) {
            self.find(COUNT, Problem::Unreadable(error));
        }
        list
    }

    fn file(&mut self, name: &FileName, seen: &Seen, list: Option<&Checksums>) {
        let found = (seen.size, seen.hash);
        let listed = list.and_then(|list| list.get(name.as_str()));
        let vouched = listed.filter(|listed| !is_inverted(name) || listed.size > 0);
        let path = path_of(self.projection, name);
        if let Some(listed) = vouched {
            let difference = difference(&path, listed, found);
            let differs = difference.is_some();
            self.facts.findings.extend(difference);
            if differs {
                return;
            }
        } else {
            let known = listed.is_some() || NEVER_LISTED.contains(&name.as_str());
            if list.is_some() && !known {
                self.find(name.as_str(), Problem::Unlisted);
            }
            self.facts.unhashed.push(path);
        }
        if seen.announced != seen.size {
            self.find(name.as_str(), Problem::CutOff { announced: seen.announced, found: seen.size });
        }
    }

    /// Whether `columns.txt` can be read, and each column of a wide part has a file.
    fn columns(&mut self, list: Option<&Checksums>) {
        let columns = match self.folder.columns.as_ref().map(|kept| columns_of(Some(kept))) {
            None => return self.find(columns::NAME, Problem::Missing),
            Some(Err(error)) => return self.find(columns::NAME, Problem::Unreadable(error)),
            Some(Ok(columns)) => columns,
        };
        let Some(list) = list else { return };
        match format(list) {
            Some(PartFormat::Wide) => {
                for column in columns.iter().filter(|column| !has_file(column, list)) {
                    self.find(columns::NAME, Problem::ColumnWithoutFile(column.name.clone()));
                }
            }
            Some(PartFormat::Compact) if list.get("data.bin").is_none() => self.find("data.bin", Problem::Missing),
            _ => {}
        }
    }

    fn find(&mut self, name: &str, problem: Problem) {
        let path = self.projection.map_or_else(|| name.to_owned(), |projection| format!("{projection}/{name}"));
        self.facts.findings.push(Finding { path, problem });
    }
}

/// How a file differs from what is listed.
fn difference(path: &str, listed: &Checksum, (size, hash): (u64, Hash128)) -> Option<Finding> {
    let problem = if listed.size != size {
        Problem::Size { listed: listed.size, found: size }
    } else if listed.hash != hash {
        Problem::Hash { listed: listed.hash, found: hash }
    } else {
        return None;
    };
    Some(Finding::new(path, problem))
}

fn is_inverted(name: &FileName) -> bool {
    INVERTED.iter().any(|suffix| name.as_str().ends_with(suffix))
}

/// How the columns of a listed part are stored.
fn format(list: &Checksums) -> Option<PartFormat> {
    if COMPACT_MARKS.iter().any(|marks| list.get(marks).is_some()) {
        return Some(PartFormat::Compact);
    }
    list.iter().any(|(name, _)| name.as_str().ends_with(".bin")).then_some(PartFormat::Wide)
}

/// Whether a file of the column is listed, as far as can be said: names that became hashes because they were long are
/// known only if the column is one stream; where there are others, nothing is claimed.
fn has_file(column: &Column, list: &Checksums) -> bool {
    let escaped = escape_for_file_name(&column.name);
    let stems = || list.iter().filter_map(|(name, _)| name.as_str().strip_suffix(".bin"));
    let own = |stem: &str| {
        stem.strip_prefix(escaped.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with("%2E"))
    };
    let is_hash = |stem: &str| stem.len() == 32 && Hash128::from_hex(stem).is_some();
    // Neither of these stores anything.
    matches!(column.data_type.as_str(), "Tuple()" | "Nothing") || stems().any(|stem| own(stem) || is_hash(stem))
}

fn columns_of(kept: Option<&Kept>) -> Result<Vec<Column>, Error> {
    match kept {
        None => Ok(Vec::new()),
        Some(Ok(bytes)) => columns::parse(bytes),
        Some(Err(error)) => Err(error.clone()),
    }
}

fn rows(kept: &Kept) -> Result<u64, Error> {
    let bytes = kept.as_ref().map_err(Clone::clone)?;
    let digits = std::str::from_utf8(bytes).ok().map(str::trim_end).filter(|text| !text.starts_with('+'));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| Error::corrupt(COUNT, 0, "it is no number"))
}
