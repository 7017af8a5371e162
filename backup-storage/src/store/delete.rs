//! Deletion, idempotent.

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use object_store::path::Path;

use crate::error::Result;

use super::metrics::Op;
use super::request::{Failure, within};
use super::{ObjectName, Store};

/// Names per bulk request: what S3 takes at most.
const BATCH: usize = 1000;

impl Store {
    /// Deletes one object. An object that is not there counts as deleted.
    ///
    /// # Errors
    /// [`Environment`](crate::error::ErrorKind::Environment) without the permission to delete (append-only credentials, object
    /// lock), [`Unavailable`](crate::error::ErrorKind::Unavailable) when the retries are used up.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the object there or not.
    pub async fn delete(&self, name: &ObjectName) -> Result<()> {
        self.writable("delete", name.as_str())?;
        let path = self.path(name.as_str())?;
        self.retrying(Op::Delete, path.as_ref(), || async {
            let mut outcomes = self.delete_paths(vec![path.clone()]).await?;
            match outcomes.pop() {
                Some(Err(Failure::Client(object_store::Error::NotFound { .. }))) | None => Ok(()),
                Some(outcome) => outcome,
            }
        })
        .await
    }

    /// Deletes many objects, in bulk where the store can, and yields the outcome of each, in any order.
    ///
    /// A failure of one object does not stop the others; errors are those of [`Store::delete`].
    ///
    /// # Cancel safety
    /// Dropping the stream leaves the objects that were not yielded there or not.
    pub fn delete_many(
        &self,
        names: impl Stream<Item = ObjectName> + Send + 'static,
    ) -> BoxStream<'static, (ObjectName, Result<()>)> {
        let store = self.clone();
        names
            .chunks(BATCH)
            .then(move |batch| {
                let store = store.clone();
                async move { store.delete_batch(batch).await }
            })
            .flat_map(stream::iter)
            .boxed()
    }

    async fn delete_batch(&self, batch: Vec<ObjectName>) -> Vec<(ObjectName, Result<()>)> {
        let mut done = Vec::with_capacity(batch.len());
        let mut again = Vec::new();
        let paths: Result<Vec<Path>> = batch.iter().map(|name| self.path(name.as_str())).collect();
        let bulk = match paths {
            Ok(paths) if !self.is_read_only() => self.request(Op::Delete, self.delete_paths(paths)).await.ok(),
            _ => None,
        };
        match bulk {
            // The client yields in the order of its input; if it stopped early, nobody knows which names are left.
            Some(outcomes) if outcomes.len() == batch.len() => {
                for (name, outcome) in batch.into_iter().zip(outcomes) {
                    match outcome {
                        Ok(()) => done.push((name, Ok(()))),
                        Err(_) => again.push(name),
                    }
                }
            }
            _ => again = batch,
        }
        for name in again {
            let outcome = self.delete(&name).await;
            done.push((name, outcome));
        }
        done
    }

    async fn delete_paths(&self, paths: Vec<Path>) -> Result<Vec<Result<(), Failure>>, Failure> {
        // One stall more than for a single object, per hundred objects: disks and stores without bulk deletion go one by one.
        let limit =
            self.shared.settings.stall_timeout.saturating_mul(1 + u32::try_from(paths.len() / 100).unwrap_or(0));
        let stream = self.shared.inner.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
        let outcomes = within(limit, stream.collect::<Vec<_>>()).await?;
        self.shared.counters.of(Op::Delete).bytes(outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64);
        Ok(outcomes.into_iter().map(|outcome| outcome.map(drop).map_err(Failure::from)).collect())
    }
}
