//! How hard a repository's sessions and readers may work.

/// Limits of one open repository. Data, not components.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct RepositorySettings {
    /// Bytes of memory for buffers of one session or one extraction, whatever the size of the data.
    ///
    /// 256 MiB: 16 MiB packs on up to eight cores with four uploads in flight.
    pub memory_budget: u64,
    /// Worker threads for hashing, compression and sealing. The number of processors when not set.
    pub workers: Option<usize>,
    /// Objects that are sent or fetched at the same time.
    ///
    /// Four: one stream to an object store carries 85 to 90 MB/s, so four fill a 2.5 Gbit/s line.
    pub transfers: usize,
    /// zstd level of content. Level 1: physical files are many and large, and the next levels cost twice the time for a
    /// few percent.
    pub level: i32,
    /// Size at which a pack is closed, in bytes. 16 MiB, less when the memory budget asks for it.
    pub pack_size: u64,
}

impl Default for RepositorySettings {
    fn default() -> Self {
        Self { memory_budget: 256 << 20, workers: None, transfers: 4, level: 1, pack_size: 16 << 20 }
    }
}

/// What follows from the settings on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) workers: usize,
    pub(crate) transfers: usize,
    pub(crate) level: i32,
    pub(crate) pack_size: usize,
    pub(crate) memory_budget: u64,
}

impl RepositorySettings {
    /// Sets the memory budget in bytes.
    #[must_use]
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.memory_budget = bytes;
        self
    }

    /// Sets the number of worker threads.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Sets how many objects are in transfer at a time.
    #[must_use]
    pub fn transfers(mut self, transfers: usize) -> Self {
        self.transfers = transfers;
        self
    }

    /// Sets the zstd level of content.
    #[must_use]
    pub fn level(mut self, level: i32) -> Self {
        self.level = level;
        self
    }

    /// Sets the size at which a pack is closed, in bytes.
    #[must_use]
    pub fn pack_size(mut self, bytes: u64) -> Self {
        self.pack_size = bytes;
        self
    }

    /// Fits the settings to this host: every worker fills a pack, every transfer holds one, and all of them together with
    /// the workers' buffers stay within three quarters of the budget.
    pub(crate) fn shape(&self) -> Shape {
        const SMALLEST_PACK: u64 = 4 << 20;
        // A worker's own buffers: plaintext, compressed bytes, bundles.
        const WORKER: u64 = 4 << 20;
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let room = self.memory_budget / 4 * 3;
        let transfers = self.transfers.clamp(1, 64) as u64;
        let most = (room.saturating_sub(transfers * SMALLEST_PACK) / (SMALLEST_PACK + WORKER)).max(1);
        let workers = (self.workers.unwrap_or_else(cores).clamp(1, 256) as u64).min(most);
        let pack_size = room.saturating_sub(workers * WORKER) / (workers + transfers + 1);
        let pack_size = pack_size.min(self.pack_size.min(128 << 20)).max(SMALLEST_PACK);
        Shape {
            workers: workers as usize,
            transfers: transfers as usize,
            level: self.level.clamp(-7, 19),
            pack_size: pack_size as usize,
            memory_budget: self.memory_budget,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_any_host_fit_into_the_budget() {
        for workers in [1, 2, 8, 64, 256] {
            for budget in [64 << 20, 256 << 20, 4 << 30] {
                for transfers in [1, 4, 16] {
                    let settings =
                        RepositorySettings::default().workers(workers).memory_budget(budget).transfers(transfers);
                    let shape = settings.shape();
                    let packs = (shape.workers + shape.transfers + 1) as u64 * shape.pack_size as u64;
                    assert!(shape.workers >= 1 && shape.pack_size >= 4 << 20);
                    if transfers < 16 || budget > 64 << 20 {
                        assert!(packs + shape.workers as u64 * (4 << 20) <= budget, "{workers} {budget} {shape:?}");
                    }
                }
            }
        }
        let shape = RepositorySettings::default().workers(2).shape();
        assert_eq!((shape.workers, shape.pack_size), (2, 16 << 20));
    }
}
