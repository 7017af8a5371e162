//! Where notices go and how hard it is tried.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// What sender and receiver share. It is wiped from memory in the end and never shown.
#[derive(Clone)]
pub struct WebhookSecret(Zeroizing<Vec<u8>>);

impl WebhookSecret {
    /// Fewer bytes could be guessed.
    pub const MIN_LEN: usize = 16;

    /// Takes over a secret.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for one of less than [`MIN_LEN`](Self::MIN_LEN) bytes.
    pub fn new(secret: impl Into<Vec<u8>>) -> Result<Self> {
        let secret = Zeroizing::new(secret.into());
        if secret.len() < Self::MIN_LEN {
            return Err(Error::invalid(format!("the secret of a webhook has less than {} bytes", Self::MIN_LEN)));
        }
        Ok(Self(secret))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(..)")
    }
}

/// Where notices go and how hard it is tried. Data, not components.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WebhookSettings {
    /// `https://…`, or `http://…` on this host.
    pub url: String,
    /// Signs every request.
    pub secret: WebhookSecret,
    /// How often one notice is tried. Three: a receiver that is being restarted is back by then; one that is not gets it by a later tick.
    pub attempts: u32,
    /// How long one attempt may take, from the connection to the answer. Three seconds: receivers should only take it down.
    pub attempt_timeout: Duration,
    /// How long one notice may take with all attempts. Ten seconds: ticks wait for it, and a lease is kept meanwhile.
    pub within: Duration,
    /// The pause after the first attempt; it doubles, and a part of it is random. Half a second.
    pub pause: Duration,
    /// PEM file of the only root certificates that are believed; those of the operating system when not set.
    pub roots: Option<PathBuf>,
    /// Allow plain HTTP beyond this host: everybody on the way reads the notices. Off.
    pub allow_plain: bool,
}

impl WebhookSettings {
    /// Settings with the defaults.
    pub fn new(url: impl Into<String>, secret: WebhookSecret) -> Self {
        Self {
            url: url.into(),
            secret,
            attempts: 3,
            attempt_timeout: Duration::from_secs(3),
            within: Duration::from_secs(10),
            pause: Duration::from_millis(500),
            roots: None,
            allow_plain: false,
        }
    }

    /// Sets how often one notice is tried.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets how long one attempt may take.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// Sets how long one notice may take.
    #[must_use]
    pub fn within(mut self, bound: Duration) -> Self {
        self.within = bound;
        self
    }

    /// Sets the pause after the first attempt.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Believes only the root certificates of this PEM file.
    #[must_use]
    pub fn roots(mut self, file: impl Into<PathBuf>) -> Self {
        self.roots = Some(file.into());
        self
    }

    /// Allows plain HTTP beyond this host.
    #[must_use]
    pub fn allow_plain(mut self) -> Self {
        self.allow_plain = true;
        self
    }
}
