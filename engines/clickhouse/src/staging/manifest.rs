//! The list of the files of a server's backup: `.backup` in its folder.
//!
//! Source: `BackupImpl::writeBackupMetadata`, `readBackupMetadata` in `src/Backups/BackupImpl.cpp` (version 1): `config/contents/file`, each with
//! `name`, `size` and, when it is not empty, `checksum`. Our backups are made without `deduplicate_files`, so each file lies under its own name. The
//! checksum is the hash that parts have of their files ([`FileHasher`]), as 32 digits, the higher word first; servers take files with the same one for the same file.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use backup_core::entry::EntryPath;
use backup_core::{Error, Result};
use jiff::Timestamp;
use quick_xml::escape::escape;
use quick_xml::events::Event;
use quick_xml::reader::Reader;

use crate::files::read_list;
use crate::part::hash::FileHasher;
use crate::part::{Checksums, Hash128};

/// Its name.
const MANIFEST: &str = ".backup";
/// The text of an element has at most so many bytes.
const MAX_TEXT: usize = 64 << 10;
/// Folders lie at most so deep: database, table, part, projection.
const DEEPEST: usize = 8;

/// What is in a folder that a server has written, or is to read.
#[derive(Debug)]
pub(crate) struct Manifest;

impl Manifest {
    /// Makes sure that every file of the list is in `dir` with the length that the list says; how many there are. Blocking.
    ///
    /// # Errors
    /// [`Environment`](backup_core::ErrorKind::Environment) when there is no list; [`Damaged`](backup_core::ErrorKind::Damaged) when it cannot be
    /// understood, or is not what is there.
    pub(crate) fn prove(dir: &Path) -> Result<u64> {
        let path = dir.join(MANIFEST);
        let file = File::open(&path).map_err(|error| {
            let text = format!("the server has written its backup, and {} cannot be read here", path.display());
            Error::environment(text).with_source(error)
        })?;
        let mut files = 0;
        read(BufReader::new(file), |name, size| {
            files += 1;
            let wrong = |what: &str| Error::damaged(format!("the server has not backed up everything: {name} {what}"));
            let place =
                EntryPath::new(name.to_owned()).map_err(|error| wrong(&format!("is no name: {error}")))?.under(dir);
            match place.symlink_metadata() {
                // Nothing is written for files without bytes.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && size == 0 => Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(wrong("is missing")),
                Err(error) => Err(Error::io(place.display(), error)),
                Ok(meta) if meta.is_file() && meta.len() == size => Ok(()),
                Ok(meta) => Err(wrong(&format!("has {} bytes instead of {size}", meta.len()))),
            }
        })?;
        Ok(files)
    }

    /// Writes the list of everything in `dir`, whose parts have been verified. Blocking.
    ///
    /// # Errors
    /// [`Environment`](backup_core::ErrorKind::Environment) when it cannot be written.
    pub(crate) fn write(dir: &Path, uuid: &str, at: Timestamp) -> Result<()> {
        let path = dir.join(MANIFEST);
        let failed = |error| Error::io(path.display(), error);
        let mut out = BufWriter::new(File::create(&path).map_err(failed)?);
        write!(
            out,
            "<config><version>1</version><deduplicate_files>0</deduplicate_files><timestamp>{}</timestamp><uuid>{uuid}</uuid><contents>",
            at.strftime("%Y-%m-%d %H:%M:%S")
        )
        .map_err(failed)?;
        level(dir, "", 0, &mut |name, size, hash| {
            let name = escape(name);
            write!(out, "<file><name>{name}</name><size>{size}</size>").map_err(failed)?;
            if size > 0 {
                write!(out, "<checksum>{:016x}{:016x}</checksum>", hash.high(), hash.low()).map_err(failed)?;
            }
            write!(out, "</file>").map_err(failed)
        })?;
        write!(out, "</contents></config>").and_then(|()| out.flush()).map_err(failed)
    }
}

/// Tells name and length of each file of a list.
fn read(from: impl std::io::BufRead, mut each: impl FnMut(&str, u64) -> Result<()>) -> Result<()> {
    let broken =
        |why: &str| Error::damaged(format!("the list {MANIFEST} of a server's backup cannot be understood: {why}"));
    let mut reader = Reader::from_reader(from);
    let (mut path, mut buffer): (Vec<String>, Vec<u8>) = (Vec::new(), Vec::new());
    let (mut text, mut name, mut size) = (String::new(), None::<String>, None::<u64>);
    let (mut begun, mut ended) = (false, false);
    loop {
        buffer.clear();
        let event = reader.read_event_into(&mut buffer).map_err(|error| broken(&error.to_string()))?;
        match event {
            Event::Start(start) => {
                text.clear();
                path.push(String::from_utf8_lossy(start.name().as_ref()).into_owned());
                begun = true;
                if path.len() > DEEPEST {
                    return Err(broken("it is too deep"));
                }
            }
            Event::Text(piece) => {
                text.push_str(&piece.decode().map_err(|error| broken(&error.to_string()))?);
                if text.len() > MAX_TEXT {
                    return Err(broken("a text is too long"));
                }
            }
            Event::GeneralRef(reference) => {
                let known = reference.resolve_char_ref().map_err(|error| broken(&error.to_string()))?;
                let known = known.map(String::from).or_else(|| {
                    let entity = reference.decode().ok()?;
                    quick_xml::escape::resolve_predefined_entity(&entity).map(str::to_owned)
                });
                text.push_str(&known.ok_or_else(|| broken("an entity is unknown"))?);
            }
            Event::End(_) => {
                let place: Vec<_> = path.iter().map(String::as_str).collect();
                match place.as_slice() {
                    ["config", "version"] if text != "1" => return Err(broken(&format!("its version is {text}"))),
                    ["config", "contents", "file", "name"] => name = Some(std::mem::take(&mut text)),
                    ["config", "contents", "file", "size"] => {
                        size = Some(text.parse().map_err(|_| broken("a length is no number"))?);
                    }
                    ["config", "contents", "file", "data_file" | "use_base"] => {
                        return Err(broken("a file lies in the place of another one"));
                    }
                    ["config", "contents", "file"] => match (name.take(), size.take()) {
                        (Some(name), Some(size)) => each(&name, size)?,
                        _ => return Err(broken("a file has no name or no length")),
                    },
                    _ => {}
                }
                path.pop();
                ended = path.is_empty();
            }
            Event::Eof if begun && ended => return Ok(()),
            Event::Eof => return Err(broken("it ends in the middle")),
            _ => {}
        }
    }
}

/// Every file below `dir`, with its length and hash.
fn level(dir: &Path, below: &str, depth: usize, each: &mut dyn FnMut(&str, u64, Hash128) -> Result<()>) -> Result<()> {
    if depth > DEEPEST {
        return Err(Error::internal(format!("{} lies too deep", dir.display())));
    }
    let failed = |error| Error::io(dir.display(), error);
    let list = match read_list(dir)? {
        Some(list) => list.map_err(|error| Error::damaged(format!("{}: {error}", dir.display())))?,
        None => Checksums::new(),
    };
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let name = format!("{below}{file}");
        let meta = entry.metadata().map_err(failed)?;
        if meta.is_dir() {
            level(&entry.path(), &format!("{name}/"), depth + 1, each)?;
        } else if name != MANIFEST {
            // Verified when it was fetched.
            let listed = list.get(&file).filter(|sum| sum.size == meta.len() && sum.hash != Hash128::default());
            let hash = match listed {
                Some(sum) => sum.hash,
                None => hash_of(&entry.path())?,
            };
            each(&name, meta.len(), hash)?;
        }
    }
    Ok(())
}

fn hash_of(path: &Path) -> Result<Hash128> {
    let failed = |error| Error::io(path.display(), error);
    let mut file = File::open(path).map_err(failed)?;
    let (mut hasher, mut buffer) = (FileHasher::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As 26.9 wrote it, of a table with one part.
    const WRITTEN: &str = "<config><version>1</version><deduplicate_files>0</deduplicate_files><timestamp>2026-11-28 07:15:15</timestamp>\
        <uuid>646d7f72-f1ea-423f-b02f-aea8e051bdf0</uuid><backup_id>abc1</backup_id><contents>\
        <file><name>data/d/t/0_1_1_0/checksums.txt</name><size>4</size><checksum>37a87ba96d5f3ff516b14f8fc05082be</checksum></file>\
        <file><name>data/d/a&amp;b&#33;/0_1_1_0/empty</name><size>0</size></file></contents></config>";

    fn listed(text: &str) -> Result<Vec<(String, u64)>> {
        let mut all = Vec::new();
        read(text.as_bytes(), |name, size| {
            all.push((name.to_owned(), size));
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn what_a_server_wrote_is_understood() {
        let all = [("data/d/t/0_1_1_0/checksums.txt".to_owned(), 4), ("data/d/a&b!/0_1_1_0/empty".to_owned(), 0)];
        assert_eq!(listed(WRITTEN).unwrap(), all);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for end in 0..WRITTEN.len() {
            assert!(listed(&WRITTEN[..end]).is_err(), "{end}");
        }
        for (from, to) in [
            ("<version>1", "<version>2"),
            ("<size>4", "<size>x"),
            ("<size>0</size>", ""),
            ("<size>0</size>", "<size>0</size><data_file>data/d/other</data_file>"),
            ("&amp;", "&unknown;"),
        ] {
            assert!(listed(&WRITTEN.replacen(from, to, 1)).is_err(), "{to}");
        }
    }

    #[test]
    fn what_is_missing_or_shorter_is_noticed_and_no_name_leads_outside() {
        let dir = tempfile::tempdir().unwrap();
        let kind = || Manifest::prove(dir.path()).map_err(|error| error.kind());
        assert_eq!(kind(), Err(backup_core::ErrorKind::Environment));
        std::fs::write(dir.path().join(MANIFEST), WRITTEN).unwrap();
        assert_eq!(kind(), Err(backup_core::ErrorKind::Damaged));
        let file = dir.path().join("data/d/t/0_1_1_0/checksums.txt");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "123").unwrap();
        assert_eq!(kind(), Err(backup_core::ErrorKind::Damaged));
        std::fs::write(&file, "1234").unwrap();
        assert_eq!(kind(), Ok(2));
        let outside = WRITTEN.replace("data/d/t/0_1_1_0/checksums.txt", "data/../../x");
        std::fs::write(dir.path().join(MANIFEST), outside).unwrap();
        assert_eq!(kind(), Err(backup_core::ErrorKind::Damaged));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("data/d/a&b/all_1_1_0")).unwrap();
        std::fs::write(dir.path().join("data/d/a&b/all_1_1_0/count.txt"), "17").unwrap();
        std::fs::write(dir.path().join("data/d/a&b/all_1_1_0/none"), "").unwrap();
        Manifest::write(dir.path(), "646d7f72-f1ea-423f-b02f-aea8e051bdf0", Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(Manifest::prove(dir.path()).unwrap(), 2);
        let text = std::fs::read_to_string(dir.path().join(MANIFEST)).unwrap();
        assert!(text.contains("<timestamp>1970-01-01 00:00:00</timestamp>"), "{text}");
        assert_eq!(text.matches("<checksum>").count(), 1, "{text}");
    }
}
