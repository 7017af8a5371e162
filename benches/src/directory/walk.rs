//! What a directory holds.

use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use backup_core::entry::{EntryKind, EntryMeta, EntryPath};
use backup_core::{Error, Result};

/// Files to read, folders and links to note. Sockets, pipes and devices have no content and are left out.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<(EntryPath, PathBuf)>,
    pub(super) nodes: Vec<EntryMeta>,
}

pub(super) fn list(root: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |error: std::io::Error| Error::environment(format!("{}: {error}", folder.display()));
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (kind, path) = (entry.file_type().map_err(failed)?, entry.path());
            let name = EntryPath::relative(root, &path)?;
            if kind.is_file() {
                listing.files.push((name, path));
            } else if kind.is_dir() {
                let mode = entry.metadata().map_err(failed)?.permissions().mode();
                listing.nodes.push(EntryMeta::directory(name).with_mode(mode));
                folders.push(path);
            } else if kind.is_symlink() {
                let target = std::fs::read_link(&path).map_err(failed)?.into_os_string().into_vec();
                listing.nodes.push(EntryMeta::new(name, EntryKind::Symlink { target }));
            }
        }
    }
    // The order of the manifest, and of the disk as far as it follows names.
    listing.files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    listing.nodes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(listing)
}
