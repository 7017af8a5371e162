//! HashiCorp Vault's transit secrets engine as a recipient: it wraps the keys of epochs and never sees anything else.
//!
//! Source: "Transit secrets engine (API)" of Vault's documentation: `POST /v1/<mount>/encrypt/<key>` and `/decrypt/<key>`. Repository, epoch and
//! recipient go along as `associated_data`, so a wrap of one place is refused in another; with a derived key they are its `context`, too.
//! A rotation of the key in Vault needs nothing: a ciphertext names the version it was made with. To retire old versions (`min_decryption_version`)
//! add the recipient again with [`AddRecipient::rewrap`](crate::AddRecipient::rewrap) first.
//!
//! The token needs the capability `update` on both paths. Without `create` on the first Vault does not make up a key whose name was mistyped.

mod exchange;
mod settings;

pub use settings::TransitSettings;

use std::fmt;

use async_trait::async_trait;
use backup_crypto::{EpochKey, ErrorKind, KeyWrapper, RecipientId, WrapContext};
use base64ct::{Base64, Encoding};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use exchange::{Exchange, Refusal};

/// A key of a transit engine.
pub struct VaultTransit {
    exchange: Exchange,
    recipient: RecipientId,
    settings: TransitSettings,
}

/// What is asked. The plaintext is wiped.
#[derive(Serialize)]
struct Asked<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext: Option<&'a str>,
    associated_data: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: String,
}

impl Drop for Decrypted {
    fn drop(&mut self) {
        self.plaintext.zeroize();
    }
}

impl VaultTransit {
    /// The key that `settings` name. Nothing is connected yet.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) for certificates or a token that cannot be used.
    pub fn new(settings: TransitSettings) -> crate::error::Result<Self> {
        Ok(Self { exchange: Exchange::new(&settings)?, recipient: settings.recipient()?, settings })
    }

    /// Asks, and gives back the answer as JSON.
    async fn ask(
        &self,
        action: &'static str,
        path: &str,
        context: &WrapContext<'_>,
        (plaintext, ciphertext): (Option<&str>, Option<&str>),
    ) -> backup_crypto::Result<Zeroizing<Vec<u8>>> {
        let bound = Base64::encode_string(context.associated_data().as_bytes());
        let derived = self.settings.derived.then_some(bound.as_str());
        let asked = Asked { plaintext, ciphertext, associated_data: &bound, context: derived };
        // Of one allocation, so that no copy of a key is left behind where it grew.
        let mut body = Zeroizing::new(Vec::with_capacity(ROOM));
        serde_json::to_writer(&mut *body, &asked).map_err(|e| self.failed(action, ErrorKind::Internal, e))?;
        let answer = self.exchange.post(path, body).await;
        answer.map_err(|Refusal { kind, said }| self.failed(action, kind, said))
    }

    fn failed(
        &self,
        action: &'static str,
        kind: ErrorKind,
        why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> backup_crypto::Error {
        backup_crypto::Error::from_service(kind, action, self.recipient_id(), why)
    }
}

/// Bytes of a request, at most: what a wrap can carry, and what is said about it.
const ROOM: usize = 64 << 10;

#[async_trait]
impl KeyWrapper for VaultTransit {
    /// `vault-` and a digest of mount, namespace and key. The address is not part of it: a Vault may move.
    fn recipient_id(&self) -> RecipientId {
        self.recipient.clone()
    }

    async fn wrap(&self, context: &WrapContext<'_>, key: &EpochKey) -> backup_crypto::Result<Vec<u8>> {
        let plaintext = Zeroizing::new(Base64::encode_string(&key.expose()[..]));
        let answer = self.ask("wrap", &self.settings.path("encrypt"), context, (Some(&plaintext), None)).await?;
        let answer: Answer<Encrypted> =
            serde_json::from_slice(&answer).map_err(|e| self.failed("wrap", ErrorKind::Unavailable, e))?;
        if !answer.data.ciphertext.starts_with("vault:") {
            return Err(self.failed("wrap", ErrorKind::Unavailable, "the answer is no ciphertext of Vault"));
        }
        Ok(answer.data.ciphertext.into_bytes())
    }

    async fn unwrap(&self, context: &WrapContext<'_>, sealed: &[u8]) -> backup_crypto::Result<EpochKey> {
        let damaged = |why: &'static str| self.failed("unwrap", ErrorKind::Damaged, why);
        let sealed = std::str::from_utf8(sealed).map_err(|_| damaged("the wrap is no ciphertext of Vault"))?;
        let answer = self.ask("unwrap", &self.settings.path("decrypt"), context, (None, Some(sealed))).await?;
        let answer: Answer<Decrypted> = serde_json::from_slice(&answer)
            .map_err(|_| self.failed("unwrap", ErrorKind::Unavailable, "the answer is not understood"))?;
        let mut key = Zeroizing::new([0; EpochKey::LEN]);
        let decoded = Base64::decode(answer.data.plaintext.trim(), &mut key[..]);
        if decoded.map(<[u8]>::len) != Ok(EpochKey::LEN) {
            return Err(damaged("what was wrapped is no key of an epoch"));
        }
        Ok(EpochKey::take(&mut key))
    }
}

impl fmt::Display for VaultTransit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transit key {} of {}", self.settings.key, self.settings.url)
    }
}

impl fmt::Debug for VaultTransit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultTransit").field("settings", &self.settings).finish_non_exhaustive()
    }
}
