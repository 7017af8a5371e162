//! Making a target durable: one pass over what was touched. Blocking.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::place::Place;
use super::tree::Tree;
use crate::error::Result;

/// Up to this many files are made durable one by one. For more it is cheaper to have the whole file system written out,
/// where the system can do that.
const FEW: usize = if cfg!(target_os = "linux") { 512 } else { usize::MAX };

/// Which files are not known to be durable. Those that an earlier extraction wrote are among them: it may have ended before
/// it came to this.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Files>);

#[derive(Debug, Default)]
struct Files {
    places: Vec<Place>,
    many: bool,
}

impl Ledger {
    /// Notes that the file at `place` is not known to be durable.
    pub(super) fn note(&self, place: &Place) {
        let mut files = self.0.lock();
        if files.many {
            return;
        }
        files.places.push(place.clone());
        if files.places.len() > FEW {
            files.many = true;
            files.places = Vec::new();
        }
    }

    fn take(&self) -> Files {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Gives `folders` their modes and makes everything durable that was touched since the last pass.
pub(super) fn pass(tree: &Tree, ledger: &Ledger, folders: &BTreeMap<Place, u32>) -> Result<()> {
    let Files { places, many } = ledger.take();
    let changed = tree.take_changed();
    let mut everything = many || changed.len() > FEW;
    if !everything {
        for place in &places {
            // What its owner may not read is written out with everything else.
            everything |= !tree.sync_file(place)?;
        }
    }
    // Deepest first: a folder that becomes closed hides nothing that is still to be done. The order of places is that of
    // their bytes, so a folder stands before what is in it.
    let mut all: Vec<_> = changed.iter().chain(folders.keys()).collect();
    all.sort_unstable();
    all.dedup();
    for place in all.into_iter().rev() {
        if let Some(folder) = tree.folder(place)? {
            if let Some(mode) = folders.get(place) {
                tree.set_folder_mode(place, &folder, *mode)?;
            }
            if !everything {
                rustix::fs::fsync(&*folder).map_err(|e| tree.failed(place, e))?;
            }
        }
    }
    if everything {
        tree.sync_everything()?;
    }
    Ok(())
}
