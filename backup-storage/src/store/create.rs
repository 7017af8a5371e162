//! The put that tells the truth.

use std::sync::atomic::Ordering::Relaxed;

use object_store::path::Path;
use object_store::{PutMode, PutOptions};

use crate::error::{Error, Result};

use super::metrics::Op;
use super::request::{Backoff, Failure, within};
use super::{ObjectName, PutBody, Store};

/// What [`Store::create`] found out. It is never a guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub enum Created {
    /// The store took the object, and said so.
    New,
    /// The object was there with our very bytes: an earlier put of ours had landed and its reply was lost.
    AlreadyOurs,
    /// The object is there with other bytes. Somebody else was first.
    Conflict,
}

impl Created {
    /// Whether the object holds our bytes.
    #[must_use]
    pub fn is_ours(self) -> bool {
        matches!(self, Self::New | Self::AlreadyOurs)
    }
}

/// What reading back showed.
enum Found {
    Ours,
    Other,
    Nothing,
}

impl Store {
    /// Creates `name` with `body`, unless something is there.
    ///
    /// Whatever the store answers but a plain success is settled by reading the object back; an object that is not there
    /// is put again after a delay, up to the settings' retries.
    ///
    /// Bodies must be unlike any other writer's body under the same name (put a random nonce in), because equal bytes are
    /// taken for our own.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) for a body above `max_object_len`,
    /// [`Environment`](crate::error::ErrorKind::Environment) for missing permissions or a full disk,
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) when the retries are used up. After any error but the
    /// first the object may or may not be there, and may still appear until the store has given up on the request.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the object there whole, or absent, or about to appear; never in part.
    #[tracing::instrument(level = "debug", skip_all, fields(name = %self.full(name.as_str())))]
    pub async fn create(&self, name: &ObjectName, body: impl Into<PutBody> + Send) -> Result<Created> {
        self.create_body(name, body.into()).await
    }

    async fn create_body(&self, name: &ObjectName, body: PutBody) -> Result<Created> {
        let full = self.full(name.as_str());
        let limit = self.shared.settings.max_object_len;
        if body.len() > limit {
            return Err(Error::invalid(format!(
                "create {full}: a body of {} bytes is above the limit of {limit}",
                body.len()
            )));
        }
        let path = self.path(name.as_str())?;
        let mut backoff = Backoff::new();
        // Whether some attempt so far may have landed or may still land.
        let mut doubtful = false;
        loop {
            let failure = match self.put(&path, &body).await {
                Ok(()) => return Ok(Created::New),
                Err(failure) => failure,
            };
            let certain = !failure.says_exists() && !failure.is_transient();
            if certain && !doubtful {
                return Err(self.put_error(failure, &full));
            }
            doubtful |= !certain;
            tracing::debug!(name = full, ?failure, "put is in doubt, reading back");
            self.shared.counters.read_backs.fetch_add(1, Relaxed);
            match self.read_back(&path, &body).await {
                Ok(Found::Ours) => {
                    self.shared.counters.landed_unseen.fetch_add(1, Relaxed);
                    self.settle(name).await?;
                    return Ok(Created::AlreadyOurs);
                }
                Ok(Found::Other) => {
                    self.shared.counters.conflicts.fetch_add(1, Relaxed);
                    return Ok(Created::Conflict);
                }
                Ok(Found::Nothing) if certain => return Err(self.put_error(failure, &full)),
                Ok(Found::Nothing) => {}
                // A store that takes puts but refuses reads cannot be told apart from a conflict by waiting.
                Err(back) if !back.is_transient() => {
                    return Err(back.into_error(Op::Get, &full).context(format!("create {full}: reading back failed")));
                }
                Err(back) => tracing::debug!(name = full, failure = ?back, "reading back failed"),
            }
            if !backoff.wait(&self.shared, Op::Create).await {
                let why = self.put_error(failure, &full);
                let message = format!("create {full}: still in doubt after {} retries", self.shared.settings.retries);
                return Err(Error::unavailable(message).with_source(why));
            }
        }
    }

    /// Puts `body` as `name` in one step, whatever is there. For what was found damaged, and nothing else.
    ///
    /// # Errors
    /// As [`create`](Self::create); [`Environment`](crate::error::ErrorKind::Environment) also where objects cannot be replaced: object lock,
    /// credentials that may only add.
    ///
    /// # Cancel safety
    /// Dropping the future leaves what was there, or the body; never a part.
    pub(crate) async fn replace(&self, name: &ObjectName, body: impl Into<PutBody> + Send) -> Result<()> {
        let body = body.into();
        let path = self.path(name.as_str())?;
        self.retrying(Op::Create, &self.full(name.as_str()), || async {
            self.pay(&body).await;
            let options = PutOptions { mode: PutMode::Overwrite, ..PutOptions::default() };
            let put = self.shared.inner.put_opts(&path, body.payload(), options);
            within(self.shared.settings.deadline(body.len()), put).await??;
            Ok(())
        })
        .await?;
        self.shared.counters.of(Op::Create).bytes(body.len());
        self.settle(name).await
    }

    /// Waits for its share of the bandwidth.
    async fn pay(&self, body: &PutBody) {
        if let Some(limit) = &self.shared.upload {
            limit.pay(body.len(), &**self.shared.env.clock()).await;
        }
    }

    /// One create-only put, as the client reports it.
    pub(super) async fn put(&self, path: &Path, body: &PutBody) -> Result<(), Failure> {
        let shared = &self.shared;
        self.pay(body).await;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let outcome = self
            .request(Op::Create, async {
                let put = shared.inner.put_opts(path, body.payload(), options);
                within(shared.settings.deadline(body.len()), put).await??;
                Ok(())
            })
            .await;
        shared.counters.of(Op::Create).bytes(body.len());
        outcome
    }

    async fn read_back(&self, path: &Path, body: &PutBody) -> Result<Found, Failure> {
        match self.request(Op::Get, self.fetch_if_len(path, body.len())).await {
            Ok(Some(bytes)) if body.equals(&bytes) => Ok(Found::Ours),
            Ok(_) => Ok(Found::Other),
            Err(failure) if failure.is_not_found() => Ok(Found::Nothing),
            Err(failure) => Err(failure),
        }
    }

    /// The error of a put. A missing object means a missing bucket here, unlike for reads.
    fn put_error(&self, failure: Failure, full: &str) -> Error {
        if failure.is_not_found() {
            let error = failure.into_error(Op::Create, full);
            return Error::environment(format!("create {full}: the bucket or directory of {self} does not exist"))
                .with_source(error);
        }
        if failure.says_exists() {
            return Error::unavailable(format!("create {full}: the store says that it exists, but it cannot be read"));
        }
        failure.into_error(Op::Create, full)
    }
}

#[cfg(not(feature = "fs"))]
impl Store {
    /// Remote stores are durable when an object is visible.
    async fn settle(&self, _name: &ObjectName) -> Result<()> {
        Ok(())
    }

    /// Removes what killed puts left on local disk; there is nothing to do without the feature `fs`.
    ///
    /// # Errors
    /// None.
    pub async fn remove_abandoned(&self, _idle: std::time::Duration) -> Result<u64> {
        Ok(0)
    }

    /// Remote stores have no folders.
    pub(crate) async fn remove_empty_folders(&self) -> Result<()> {
        Ok(())
    }
}
