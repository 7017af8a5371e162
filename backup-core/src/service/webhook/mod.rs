//! Notices as HTTP requests to a system of the platform.
//!
//! ```text
//! POST <url>
//! content-type: application/json
//! backup-notice-id: <hex>          the same for every attempt and every repetition of one notice: who has seen it skips it
//! backup-signature: t=<seconds>,v1=<hex HMAC-SHA256 of "<seconds>." and the body, under the shared secret>
//!
//! {"id": "<hex>", "service": "orders", "notice": "deadline", …}
//! ```
//! Any answer of 2xx is delivery. The receiver compares the signature in constant time and refuses a moment that lies too far from its
//! own clock; then nobody can make notices up, and a recorded one is worth nothing. Redirects are not followed.
//!
//! One notice takes no longer than [`within`](WebhookSettings::within), whatever the other side does. What was not delivered by then is an
//! error, and whoever asked decides: a deadline counts as told only when it was, and every line of the audit trail is told again by later
//! ticks until it was.

mod http;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use self::http::{Answer, Endpoint};
pub use self::settings::{WebhookSecret, WebhookSettings};
use super::notify::{Notice, Notifier};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::id::ServiceId;

/// Sends notices to a URL, signed.
#[derive(Debug, Clone)]
pub struct WebhookNotifier {
    settings: Arc<WebhookSettings>,
    endpoint: Arc<Endpoint>,
    env: Env,
}

/// One notice on its way.
struct Letter {
    id: String,
    body: String,
}

impl WebhookNotifier {
    /// A notifier for what `settings` describe. Nothing is connected yet.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the URL is none, has a user or password in it, or would send notices over
    /// plain HTTP beyond this host; [`Environment`](crate::ErrorKind::Environment) when there are no root certificates.
    pub fn new(settings: WebhookSettings, env: Env) -> Result<Self> {
        let endpoint = Arc::new(Endpoint::new(&settings)?);
        Ok(Self { settings: Arc::new(settings), endpoint, env })
    }

    /// What is sent of `notice`.
    fn letter(&self, service: &ServiceId, notice: &Notice) -> Result<Letter> {
        let unwritable = |error: serde_json::Error| Error::internal("a notice has no form in JSON").with_source(error);
        let mut value = serde_json::to_value(notice).map_err(unwritable)?;
        let mut digest = Sha256::new();
        digest.update(service.as_str());
        digest.update([0]);
        digest.update(value.to_string());
        if let Notice::Trouble { .. } = notice {
            // The same words on another day are another trouble.
            digest.update(self.env.now().to_string());
        }
        let id = hex(&digest.finalize()[..16]);
        if let Some(object) = value.as_object_mut() {
            object.insert("id".to_owned(), id.clone().into());
            object.insert("service".to_owned(), service.as_str().into());
        }
        Ok(Letter { id, body: value.to_string() })
    }

    /// The value of the signature's header for a request that is sent now.
    fn signature(&self, body: &str) -> Result<String> {
        let at = self.env.now().as_second();
        let mut mac = Hmac::<Sha256>::new_from_slice(self.settings.secret.bytes())
            .map_err(|error| Error::internal("the secret is no key").with_source(error))?;
        mac.update(format!("{at}.").as_bytes());
        mac.update(body.as_bytes());
        Ok(format!("t={at},v1={}", hex(&mac.finalize().into_bytes())))
    }

    /// Tries until it is delivered, refused, or tried often enough.
    async fn deliver(&self, letter: &Letter) -> Result<()> {
        let attempts = self.settings.attempts.max(1);
        let mut attempt = 1;
        loop {
            let problem = match self.attempt(letter).await {
                Ok(Answer::Delivered) => return Ok(()),
                Ok(Answer::Refused(status)) => {
                    return Err(Error::environment(format!("{} refuses notices: status {status}", self.endpoint)));
                }
                Ok(Answer::Later(status)) => Error::unavailable(format!("{} answers {status}", self.endpoint)),
                Err(error) => error,
            };
            tracing::debug!(id = letter.id, attempt, error = %problem, "a notice was not delivered");
            if attempt >= attempts {
                return Err(problem.context(format!("a notice was not delivered in {attempt} attempts")));
            }
            self.env.clock().sleep(self.pause(attempt)).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, letter: &Letter) -> Result<Answer> {
        let headers = [("backup-notice-id", letter.id.clone()), ("backup-signature", self.signature(&letter.body)?)];
        let post = self.endpoint.post(&headers, letter.body.clone());
        tokio::select! {
            answer = post => answer,
            () = self.env.clock().sleep(self.settings.attempt_timeout) => Err(Error::unavailable(format!(
                "{} does not answer within {} ms", self.endpoint, self.settings.attempt_timeout.as_millis()
            ))),
        }
    }

    /// Twice as long after each attempt, and between half of it and all of it, so that many services do not come back at once.
    fn pause(&self, attempt: u32) -> Duration {
        let whole = self.settings.pause.saturating_mul(1 << (attempt - 1).min(16));
        let part = f64::from(u16::from_be_bytes(self.env.random())) / f64::from(u16::MAX);
        whole.div_f64(2.0) + whole.div_f64(2.0).mul_f64(part)
    }
}

#[async_trait]
impl Notifier for WebhookNotifier {
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when it was not delivered in time, which is also when the receiver may have it without
    /// having said so; [`Environment`](crate::ErrorKind::Environment) when the receiver refuses it, or its certificate is not believed.
    async fn notify(&self, service: &ServiceId, notice: &Notice) -> Result<()> {
        let letter = self.letter(service, notice)?;
        let within = self.settings.within;
        tokio::select! {
            delivered = self.deliver(&letter) => delivered,
            () = self.env.clock().sleep(within) => Err(Error::unavailable(format!(
                "a notice was not delivered to {} within {} ms", self.endpoint, within.as_millis()
            ))),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
