//! Files of a restored directory that are not what they were, for a restore that mends them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::Error;

/// How many files are damaged.
pub(super) const FILES: usize = 5;
const BLOCK: usize = 8192;

/// One block that was overwritten, and what it was.
#[derive(Debug)]
pub(super) struct Damage {
    dir: PathBuf,
    blocks: Vec<(PathBuf, Vec<u8>)>,
}

/// Overwrites the first block of the largest files of `dir`.
pub(super) fn inflict(dir: &Path) -> Result<Damage, Error> {
    let mut files = vec![];
    list(dir, &mut files)?;
    files.sort_by_key(|(len, path)| (std::cmp::Reverse(*len), path.clone()));
    let mut blocks = vec![];
    for (_, path) in files.into_iter().take(FILES) {
        let file = File::options().read(true).write(true).open(&path)?;
        let mut block = vec![0; BLOCK];
        file.read_exact_at(&mut block, 0)?;
        let wrong: Vec<u8> = block.iter().map(|byte| !byte).collect();
        file.write_all_at(&wrong, 0)?;
        blocks.push((path, block));
    }
    Ok(Damage { dir: dir.to_owned(), blocks })
}

fn list(dir: &Path, files: &mut Vec<(u64, PathBuf)>) -> Result<(), Error> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            // The log of a backup is not part of every contender's.
            if entry.file_name() != "pg_wal" {
                list(&entry.path(), files)?;
            }
        } else if entry.metadata()?.len() >= BLOCK as u64 {
            files.push((entry.metadata()?.len(), entry.path()));
        }
    }
    Ok(())
}

impl Damage {
    pub(super) fn is_in(&self, dir: &Path) -> bool {
        self.dir == dir
    }

    pub(super) fn is_mended(&self) -> Result<(), Error> {
        for (path, before) in &self.blocks {
            let mut block = vec![0; BLOCK];
            File::open(path)?.read_exact_at(&mut block, 0)?;
            if block != *before {
                return Err(format!("{} was not mended", path.display()).into());
            }
        }
        Ok(())
    }
}
