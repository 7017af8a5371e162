//! The pages of all files, judged by their checksums after the server was stopped: those of indexes too, which nobody has read.
//!
//! Free space maps are left out. They are not logged, a server repairs them by itself, and after a crash their checksums may be wrong.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use backup_core::catalog::{DrillCheck, DrillOutcome};
use backup_core::engine::{Examined, Work};
use backup_core::{Error, Finding, Result, Severity};

use super::relations::Names;
use crate::control::ControlFile;
use crate::disk::{at, blocking};
use crate::lsn::Lsn;
use crate::page::{Fork, PAGE_SIZE, PageCheck, RelationFile, Verdict};

const CHECK: &str = "page-checksums";
/// So much is read at a time.
const PIECE: usize = 1 << 20;

/// A file of a relation.
#[derive(Debug, Clone)]
struct Piece {
    /// Below the data directory.
    path: String,
    file: RelationFile,
}

/// Judges every page of the cluster in `data`, which no server runs in.
pub(super) async fn check(
    data: PathBuf,
    control: &ControlFile,
    names: Names,
    examined: &mut Examined,
    work: &Work,
) -> Result<()> {
    if control.data_checksum_version == 0 {
        examined.checks.push(DrillCheck::skipped(CHECK, "the cluster has no page checksums"));
        return Ok(());
    }
    if control.block_size as usize != PAGE_SIZE {
        let text = format!("pages of {} bytes are not known here", control.block_size);
        examined.checks.push(DrillCheck::skipped(CHECK, text));
        return Ok(());
    }
    let root = data.clone();
    let pieces = blocking(move || list(&root)).await?;
    let files = pieces.len() as u64;
    let (mut pages, mut problem) = (0, None);
    for piece in pieces {
        work.checkpoint()?;
        let (path, first) = (data.join(&piece.path), piece.file.first_block(control.relation_segment_blocks));
        let (count, wrong) = blocking(move || judge(&path, first.unwrap_or_default())).await?;
        pages += count;
        if wrong.is_empty() {
            continue;
        }
        let name = names.get(stem(&piece.path)).map_or(piece.path.as_str(), String::as_str);
        let text = format!(
            "{} of {count} pages in {} have wrong checksums, first block {}",
            wrong.len(),
            piece.path,
            wrong[0]
        );
        problem.get_or_insert(format!("{name}: {text}"));
        examined.wrong(DrillOutcome::Damaged, format!("{name}: {text}"));
        examined.findings.push(Finding::new(Severity::Blocker, "page-checksum", text).about(name));
    }
    let mut check = DrillCheck::passed(CHECK).counted("files", files).counted("pages", pages);
    if let Some(problem) = problem {
        check = check.failed(problem);
    }
    examined.checks.push(check);
    Ok(())
}

/// The path of a relation's first file: `base/5/16384` of `base/5/16384_vm.1`.
fn stem(path: &str) -> &str {
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    let end = path[name..].find(['_', '.']).map_or(path.len(), |end| name + end);
    &path[..end]
}

/// The files of relations below `data`, through the links of tablespaces.
fn list(data: &Path) -> Result<Vec<Piece>> {
    let mut found = Vec::new();
    let mut folders = vec!["global".to_owned(), "base".to_owned(), "pg_tblspc".to_owned()];
    while let Some(folder) = folders.pop() {
        let path = data.join(&folder);
        for entry in at(&path, fs::read_dir(&path))? {
            let entry = at(&path, entry)?;
            let Some(name) = entry.file_name().to_str().map(|name| format!("{folder}/{name}")) else { continue };
            let kind = match fs::metadata(entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                kind => at(&entry.path(), kind)?,
            };
            if kind.is_dir() {
                folders.push(name);
            } else if let Some(file) = RelationFile::parse_path(name.as_bytes())
                && file.fork != Fork::FreeSpace
            {
                found.push(Piece { path: name, file });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// How many pages a file has, and the blocks whose checksum is wrong.
fn judge(path: &Path, first: u32) -> Result<(u64, Vec<u32>)> {
    let check = PageCheck { start_lsn: Lsn(u64::MAX) };
    let mut file = at(path, File::open(path))?;
    let (mut buffer, mut filled) = (vec![0; PIECE], 0);
    let (mut pages, mut wrong) = (0_u32, Vec::new());
    loop {
        let read = at(path, file.read(&mut buffer[filled..]))?;
        filled += read;
        if read > 0 && filled < buffer.len() {
            continue;
        }
        let (whole, rest) = buffer[..filled].as_chunks::<PAGE_SIZE>();
        for page in whole {
            let block = first.saturating_add(pages);
            if let Verdict::Wrong { .. } = check.page(page, block) {
                wrong.push(block);
            }
            pages += 1;
        }
        if !rest.is_empty() {
            return Err(Error::damaged(format!("{} does not end with a page", path.display())));
        }
        if read == 0 {
            return Ok((u64::from(pages), wrong));
        }
        filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_and_segments_belong_to_a_relation() {
        for path in ["base/5/16384", "base/5/16384.2", "base/5/16384_vm", "base/5/16384_vm.1"] {
            assert_eq!(stem(path), "base/5/16384");
        }
        assert_eq!(stem("pg_tblspc/16385/PG_17_202406281/5/16390.1"), "pg_tblspc/16385/PG_17_202406281/5/16390");
    }

    #[test]
    fn files_are_judged_over_their_whole_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1");
        let pages = PIECE / PAGE_SIZE + 3;
        let mut bytes = vec![0; pages * PAGE_SIZE];
        fs::write(&path, &bytes).unwrap();
        assert_eq!(judge(&path, 0).unwrap(), (pages as u64, vec![]), "pages that were never filled");
        // A filled page with a checksum of zero, which is never right.
        bytes[(pages - 1) * PAGE_SIZE + 14] = 24;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(judge(&path, 10).unwrap(), (pages as u64, vec![10 + pages as u32 - 1]));
        fs::write(&path, &bytes[..PAGE_SIZE + 1]).unwrap();
        assert_eq!(judge(&path, 0).unwrap_err().kind(), backup_core::ErrorKind::Damaged);
    }
}
