//! One request and its answer.

use std::sync::Arc;

use backup_crypto::ErrorKind;
use bytes::Bytes;
use futures::StreamExt;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Deserialize;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version};
use zeroize::Zeroizing;

use super::TransitSettings;
use crate::error::{Error, Result};

/// Bytes of an answer, at most.
const MOST: usize = 64 << 10;
/// Characters of what a server says, at most.
const SAID: usize = 512;

/// The connection to one server.
pub(super) struct Exchange {
    http: reqwest::Client,
    base: url::Url,
}

/// Why there is no answer, for people, and what is to be done.
pub(super) struct Refusal {
    pub(super) kind: ErrorKind,
    pub(super) said: String,
}

#[derive(Deserialize, Default)]
struct Errors {
    #[serde(default)]
    errors: Vec<String>,
}

impl Exchange {
    pub(super) fn new(settings: &TransitSettings) -> Result<Self> {
        let mut headers = HeaderMap::new();
        let header = |what: &str, text: &str| {
            let wrong = |_| Error::invalid(format!("the {what} has characters that no header may have"));
            HeaderValue::from_str(text).map_err(wrong)
        };
        let mut token = header("token", settings.token.trim())?;
        token.set_sensitive(true);
        headers.insert("X-Vault-Token", token);
        // Vault's protection against requests that somebody was tricked into.
        headers.insert("X-Vault-Request", HeaderValue::from_static("true"));
        if let Some(namespace) = &settings.namespace {
            headers.insert("X-Vault-Namespace", header("namespace", namespace)?);
        }
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .timeout(settings.timeout)
            // What a server redirects to is another server: the token is not for that.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_backend_preconfigured(tls(settings)?)
            .build()
            .map_err(|e| Error::invalid("there is no http client").with_source(e))?;
        let mut base = settings.url.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        Ok(Self { http, base })
    }

    /// Sends `body` and reads the answer. The request's own copy is not wiped: it goes through the client.
    pub(super) async fn post(&self, path: &str, body: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let url = self.base.join(path).map_err(|e| Refusal { kind: ErrorKind::Internal, said: e.to_string() })?;
        let request = self.http.post(url).header("Content-Type", "application/json");
        let sent = request.body(Bytes::from_owner(Wiped(body))).send().await;
        let response = sent.map_err(|e| broken(&e))?;
        let status = response.status();
        let mut answer = Zeroizing::new(Vec::with_capacity(MOST));
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|e| broken(&e))?;
            if answer.len() + piece.len() > MOST {
                let said = format!("the answer has more than {MOST} bytes");
                return Err(Refusal { kind: ErrorKind::Unavailable, said });
            }
            answer.extend_from_slice(&piece);
        }
        if status.is_success() { Ok(answer) } else { Err(refused(status, &answer)) }
    }
}

/// A body that is wiped when it was sent.
struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn broken(error: &reqwest::Error) -> Refusal {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    Refusal { kind: ErrorKind::Unavailable, said }
}

/// What a status means ("HTTP status codes" of the API's documentation), with what the server says.
fn refused(status: StatusCode, answer: &[u8]) -> Refusal {
    let errors = serde_json::from_slice::<Errors>(answer).unwrap_or_default().errors.join("; ");
    let errors: String = errors.chars().filter(|c| !c.is_control()).take(SAID).collect();
    let (kind, meaning) = match status.as_u16() {
        // The key is there, and this ciphertext is not of it, or not of this place.
        400 if errors.contains("authentication failed") || errors.contains("invalid ciphertext") => {
            (ErrorKind::Damaged, "the wrap is not one of this key in this place")
        }
        400 if errors.contains("not found") => (ErrorKind::Environment, "there is no such key"),
        400 => (ErrorKind::Environment, "the request is not valid for this key"),
        403 => (ErrorKind::Environment, "permission denied"),
        404 => (ErrorKind::Environment, "there is no such engine or key"),
        429 => (ErrorKind::Unavailable, "there are too many requests"),
        473 => (ErrorKind::Unavailable, "the server is a standby"),
        503 => (ErrorKind::Unavailable, "the server is sealed or in maintenance"),
        300..=399 => (ErrorKind::Environment, "it is another server"),
        _ => (ErrorKind::Unavailable, "the server failed"),
    };
    let said = if errors.is_empty() { String::new() } else { format!(": {errors}") };
    Refusal { kind, said: format!("{meaning} (status {}){said}", status.as_u16()) }
}

fn tls(settings: &TransitSettings) -> Result<ClientConfig> {
    let mut store = RootCertStore::empty();
    if settings.url.scheme() == "https" {
        let file = settings.roots.as_ref();
        let file = file.ok_or_else(|| Error::invalid("https needs the root certificates that are trusted"))?;
        let pem = std::fs::read(file).map_err(|e| Error::io(file.display(), e))?;
        let roots = CertificateDer::pem_slice_iter(&pem).collect::<std::result::Result<Vec<_>, _>>();
        let roots = roots.map_err(|e| Error::invalid(format!("{}: {e}", file.display())))?;
        if store.add_parsable_certificates(roots).0 == 0 {
            return Err(Error::invalid(format!("{} has no usable root certificate", file.display())));
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|e| Error::internal("tls cannot be used").with_source(e))?;
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}
