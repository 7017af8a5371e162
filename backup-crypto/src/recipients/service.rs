//! Key management services as recipients.

use std::fmt::{Debug, Display};

use async_trait::async_trait;

use super::{RecipientId, RecipientKind, WrappedKey};
use crate::epoch::{EpochId, EpochKey};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::RepositoryId;

/// What a wrap belongs to. A service must bind it to the wrapped key: as encryption context or as associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrapContext<'a> {
    /// The repository whose key is wrapped.
    pub repository: RepositoryId,
    /// The epoch whose key is wrapped.
    pub epoch: EpochId,
    /// The recipient for whom it is wrapped.
    pub recipient: &'a RecipientId,
}

impl WrapContext<'_> {
    /// The context as one string, for services that take associated data:
    /// `backup-crypto v1 wrap` / repository / epoch / recipient, separated by `/`. Unambiguous, because no part contains a `/`.
    pub fn associated_data(&self) -> String {
        format!("backup-crypto v1 wrap/{}/{}/{}", self.repository, self.epoch, self.recipient)
    }

    /// The context as named values, for services that take an encryption context.
    pub fn pairs(&self) -> [(&'static str, String); 3] {
        [
            ("repository", self.repository.to_string()),
            ("epoch", self.epoch.to_string()),
            ("recipient", self.recipient.to_string()),
        ]
    }
}

/// One who wraps and unwraps epoch keys elsewhere: a cloud key management service, a hardware module, a secret manager.
///
/// Adapters live outside this crate. `Display` names the service and key for people; neither it nor `Debug` may show secrets.
/// Use it through [`WrappedKey::wrap_by`] and [`WrappedKey::unwrap_by`].
#[async_trait]
pub trait KeyWrapper: Debug + Display + Send + Sync + 'static {
    /// The public name of the service's key, stable for as long as the key is.
    fn recipient_id(&self) -> RecipientId;

    /// Wraps `key` so that only [`KeyWrapper::unwrap`] with the same `context` gives it back.
    ///
    /// # Errors
    /// [`Error::KeyWrapper`], see [`Error::from_service`].
    ///
    /// # Cancel safety
    /// Must be safe to drop: an abandoned wrap is of no consequence.
    async fn wrap(&self, context: &WrapContext<'_>, key: &EpochKey) -> Result<Vec<u8>>;

    /// Gives back the key that was wrapped as `sealed`. A `context` other than the one it was wrapped with must fail.
    ///
    /// # Errors
    /// [`Error::KeyWrapper`], see [`Error::from_service`].
    ///
    /// # Cancel safety
    /// Must be safe to drop.
    async fn unwrap(&self, context: &WrapContext<'_>, sealed: &[u8]) -> Result<EpochKey>;
}

impl WrappedKey {
    /// Lets `service` wrap `key`, the key of `epoch` in `repository`.
    ///
    /// # Errors
    /// What the service says; [`Error::Malformed`] when it gives nothing, [`Error::LimitExceeded`] when it gives more than
    /// [`MAX_SEALED_KEY`](super::MAX_SEALED_KEY) bytes.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn wrap_by(
        service: &dyn KeyWrapper,
        key: &EpochKey,
        repository: RepositoryId,
        epoch: EpochId,
    ) -> Result<Self> {
        let recipient = service.recipient_id();
        let sealed = service.wrap(&WrapContext { repository, epoch, recipient: &recipient }, key).await?;
        if sealed.is_empty() {
            return Err(Error::Malformed { what: "the wrapped key", reason: "the service gave nothing" });
        }
        let len = sealed.len();
        Self::build(RecipientKind::Service, recipient, repository, epoch, Vec::new(), len, |_| Ok(sealed))
    }

    /// Lets `service` unwrap the key of `epoch` in `repository`.
    ///
    /// # Errors
    /// [`Error::ContextMismatch`] when the wrap is for another repository or epoch, [`Error::WrongRecipientKind`] when it is not a
    /// service's, [`Error::WrongSecret`] when it is another service's, and what the service says.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn unwrap_by(
        &self,
        service: &dyn KeyWrapper,
        repository: RepositoryId,
        epoch: EpochId,
    ) -> Result<EpochKey> {
        self.check_context(repository, epoch)?;
        if self.kind() != RecipientKind::Service {
            let (needed, given) = (self.kind(), RecipientKind::Service);
            return Err(Error::WrongRecipientKind { recipient: self.recipient().clone(), needed, given });
        }
        let recipient = service.recipient_id();
        if recipient != *self.recipient() {
            return Err(self.wrong_secret());
        }
        service.unwrap(&WrapContext { repository, epoch, recipient: &recipient }, self.sealed()).await
    }
}

impl Error {
    /// For adapters: what a service said, and what the caller must do about it.
    pub fn from_service(
        kind: ErrorKind,
        action: &'static str,
        recipient: RecipientId,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::KeyWrapper { kind, action, recipient, source: source.into() }
    }
}
