//! A bounded cache whose values are made once, however many ask for them at the same time.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::error::Result;

/// Values by key, the least recently used ones dropped first.
pub(crate) struct Shelf<K, V> {
    most: u64,
    inner: Mutex<Inner<K, V>>,
}

struct Inner<K, V> {
    slots: HashMap<K, Slot<V>>,
    /// Keys by their last use.
    order: BTreeMap<u64, K>,
    clock: u64,
    weight: u64,
}

struct Slot<V> {
    cell: Arc<OnceCell<V>>,
    used: u64,
    /// 0 while the value is being made.
    weight: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Shelf<K, V> {
    /// A shelf for values that weigh at most `most` together.
    pub(crate) fn new(most: u64) -> Self {
        let inner = Inner { slots: HashMap::new(), order: BTreeMap::new(), clock: 0, weight: 0 };
        Self { most, inner: Mutex::new(inner) }
    }

    /// The value of `key`, made by `make` together with its weight when it is not here. Of several who ask at the same
    /// time one makes it; when that one fails or is dropped, the next one tries.
    ///
    /// # Errors
    /// Those of `make`. They are not kept.
    pub(crate) async fn get_or_make<F>(&self, key: K, make: F) -> Result<V>
    where
        F: AsyncFnOnce() -> Result<(V, u64)>,
    {
        let cell = self.inner.lock().cell(&key);
        let mut weight = None;
        let outcome = cell
            .get_or_try_init(async || {
                let (value, weighs) = make().await?;
                weight = Some(weighs.max(1));
                Ok(value)
            })
            .await;
        match outcome {
            Ok(value) => {
                let value = value.clone();
                if let Some(weight) = weight {
                    self.inner.lock().weigh(&key, &cell, weight, self.most);
                }
                Ok(value)
            }
            Err(error) => {
                self.inner.lock().forget(&key, &cell);
                Err(error)
            }
        }
    }
}

impl<K: Hash + Eq + Clone, V> Inner<K, V> {
    fn cell(&mut self, key: &K) -> Arc<OnceCell<V>> {
        self.clock += 1;
        let now = self.clock;
        let slot = self.slots.entry(key.clone()).or_insert_with(|| Slot { cell: Arc::default(), used: now, weight: 0 });
        self.order.remove(&slot.used);
        slot.used = now;
        self.order.insert(now, key.clone());
        Arc::clone(&slot.cell)
    }

    fn weigh(&mut self, key: &K, cell: &Arc<OnceCell<V>>, weight: u64, most: u64) {
        let Some(slot) = self.slots.get_mut(key).filter(|slot| Arc::ptr_eq(&slot.cell, cell)) else { return };
        self.weight = self.weight - slot.weight + weight;
        slot.weight = weight;
        // Slots that are being made weigh nothing and would only be made twice.
        let ready: Vec<u64> = if self.weight > most {
            let mut over = self.weight - most;
            let by_age = self.order.iter().filter_map(|(used, key)| {
                self.slots.get(key).filter(|slot| slot.weight > 0).map(|slot| (*used, slot.weight))
            });
            by_age
                .take_while(|(_, weight)| {
                    let more = over > 0;
                    over = over.saturating_sub(*weight);
                    more
                })
                .map(|(used, _)| used)
                .collect()
        } else {
            Vec::new()
        };
        for used in ready {
            if let Some(slot) = self.order.remove(&used).and_then(|key| self.slots.remove(&key)) {
                self.weight -= slot.weight;
            }
        }
    }

    /// Drops a slot whose value could not be made, unless somebody has made it in the meantime.
    fn forget(&mut self, key: &K, cell: &Arc<OnceCell<V>>) {
        if self.slots.get(key).is_some_and(|slot| Arc::ptr_eq(&slot.cell, cell) && !cell.initialized())
            && let Some(slot) = self.slots.remove(key)
        {
            self.order.remove(&slot.used);
        }
    }
}

impl<K, V> fmt::Debug for Shelf<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.lock();
        write!(f, "Shelf({} values, {} of {})", inner.slots.len(), inner.weight, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_value_is_made_once_for_many() {
        let shelf: Shelf<u32, u32> = Shelf::new(10);
        let made = AtomicU32::new(0);
        let ask = || {
            shelf.get_or_make(7, async || {
                tokio::task::yield_now().await;
                made.fetch_add(1, Ordering::Relaxed);
                Ok((49, 1))
            })
        };
        let values = futures::future::try_join_all((0..20).map(|_| ask())).await.unwrap();
        assert_eq!(values, vec![49; 20]);
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn the_least_recently_used_values_go_first() {
        let shelf: Shelf<u32, u32> = Shelf::new(3);
        for key in [1, 2, 3, 1, 4] {
            shelf.get_or_make(key, async || Ok((key, 1))).await.unwrap();
        }
        let fail = async |key| shelf.get_or_make(key, async || Err(Error::internal("not here"))).await;
        assert!(fail(2).await.is_err());
        for here in [1, 3, 4] {
            assert_eq!(fail(here).await.unwrap(), here);
        }
        // One that is too heavy for the shelf is handed out and not kept.
        assert_eq!(shelf.get_or_make(9, async || Ok((81, 100))).await.unwrap(), 81);
        assert!(fail(9).await.is_err());
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let shelf: Shelf<u32, u32> = Shelf::new(3);
        assert!(shelf.get_or_make(1, async || Err(Error::unavailable("later"))).await.is_err());
        assert_eq!(shelf.get_or_make(1, async || Ok((1, 1))).await.unwrap(), 1);
    }
}
