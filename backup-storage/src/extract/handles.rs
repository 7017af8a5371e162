//! Open files of a batch. Blocking.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::sync::Arc;

use parking_lot::Mutex;

use super::plan::Target;
use super::tree::Tree;
use crate::error::Result;

/// How many files are kept open: a quarter of the usual limit of 1024 descriptors.
const OPEN: usize = 256;

/// Opens files when they are written for the first time, and again after they had to make room for others.
#[derive(Debug, Default)]
pub(super) struct Handles(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    files: HashMap<u32, Arc<File>>,
    /// In the order in which they were opened; some of them are closed already.
    order: VecDeque<u32>,
}

impl Handles {
    /// The file `target`, which has `number`, made with its length when it does not exist.
    pub(super) fn get(&self, number: u32, target: &Target, tree: &Tree) -> Result<Arc<File>> {
        if let Some(file) = self.0.lock().files.get(&number) {
            return Ok(Arc::clone(file));
        }
        // Held while the file is opened, so that two who come at once do not both make it.
        let mut made = target.made.lock();
        if let Some(file) = self.0.lock().files.get(&number) {
            return Ok(Arc::clone(file));
        }
        let file = if *made {
            tree.open(&target.place)?
        } else {
            let file = tree.create(&target.place)?;
            file.set_len(target.len).map_err(|e| tree.failed(&target.place, e))?;
            *made = true;
            file
        };
        let file = Arc::new(file);
        let mut open = self.0.lock();
        while open.files.len() >= OPEN
            && let Some(oldest) = open.order.pop_front()
        {
            open.files.remove(&oldest);
        }
        open.files.insert(number, Arc::clone(&file));
        open.order.push_back(number);
        if open.order.len() > 4 * OPEN {
            let Open { files, order } = &mut *open;
            order.retain(|number| files.contains_key(number));
        }
        Ok(file)
    }

    /// The file is complete.
    pub(super) fn close(&self, number: u32) {
        self.0.lock().files.remove(&number);
    }
}
