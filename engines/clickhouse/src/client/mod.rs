//! A client of ClickHouse's HTTP interface: statements, rows, streams.
//!
//! Source: "HTTP Interface" of the manual. Statements are sent as the body of a `POST`, settings as parameters of the address, and who asks
//! in the headers `X-ClickHouse-User` and `X-ClickHouse-Key`, so that neither lands in an access log. Answers to statements are
//! awaited whole by the server (`wait_end_of_query`), else an error in the middle would come as text behind the status 200.

mod settings;

pub use settings::ClientSettings;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version};

use crate::error::{Error, Result, code};

/// Answers that are read whole have at most so many bytes.
const MAX_ANSWER: usize = 1 << 30;
/// How often tables are listed where some are dropped all the time.
const LISTINGS: u32 = 50;
/// Messages of errors have at most so many.
const MAX_MESSAGE: usize = 4 << 10;

/// A connection to one server: cheap to clone, safe to share.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    settings: ClientSettings,
    /// Settings that every statement is sent with.
    parameters: Arc<[(String, String)]>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Client {
    /// A client; nothing is connected yet.
    ///
    /// # Errors
    /// [`Error::Settings`] for certificates that cannot be used.
    pub fn new(settings: ClientSettings) -> Result<Self> {
        let mut headers = HeaderMap::new();
        let wrong = |what: &str| Error::Settings(format!("the {what} has characters that no header may have"));
        if let Some(user) = &settings.user {
            headers.insert("X-ClickHouse-User", HeaderValue::from_str(user).map_err(|_| wrong("user"))?);
        }
        if let Some(password) = &settings.password {
            let mut value = HeaderValue::from_str(password).map_err(|_| wrong("password"))?;
            value.set_sensitive(true);
            headers.insert("X-ClickHouse-Key", value);
        }
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(settings.connect_timeout)
            .read_timeout(settings.timeout)
            // What a server redirects to is another server.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        // Without encryption no certificates are looked for, and none need be there.
        let config = if settings.url.scheme() == "https" { tls(&settings)? } else { trusting_nobody()? };
        builder = builder.tls_backend_preconfigured(config);
        let http = builder.build().map_err(|error| Error::Settings(format!("no http client: {}", said(&error))))?;
        Ok(Self { http, settings, parameters: Arc::default() })
    }

    /// The same client, whose statements are sent with these settings.
    #[must_use]
    pub fn with_parameters(mut self, parameters: impl IntoIterator<Item = (String, String)>) -> Self {
        self.parameters = parameters.into_iter().collect();
        self
    }

    /// The address, without user and password.
    #[must_use]
    pub fn address(&self) -> String {
        self.settings.address()
    }

    /// Runs a statement. `what` says in a few words what it is for.
    ///
    /// # Cancel safety
    /// Dropped, the statement may have been run or not.
    ///
    /// # Errors
    /// Those of the server and of the connection.
    pub async fn execute(&self, what: &str, sql: &str) -> Result<()> {
        self.text(what, sql).await.map(drop)
    }

    /// What the server answers, as it is.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn text(&self, what: &str, sql: &str) -> Result<String> {
        let response = self.send(what, sql, &[("wait_end_of_query", "1")]).await?;
        let bytes = self.read(what, response, MAX_ANSWER).await?;
        String::from_utf8(bytes).map_err(|_| protocol(what, "it is not utf-8"))
    }

    /// The rows of a query, which names no format.
    ///
    /// # Errors
    /// As [`execute`](Self::execute); [`Error::Protocol`] when they are not what `T` says.
    pub async fn rows<T: DeserializeOwned>(&self, what: &str, sql: &str) -> Result<Vec<T>> {
        let parameters = [("wait_end_of_query", "1"), ("output_format_json_quote_64bit_integers", "0")];
        let response = self.send(what, &format!("{sql} FORMAT JSONEachRow"), &parameters).await?;
        let bytes = self.read(what, response, MAX_ANSWER).await?;
        let rows = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        rows.map(|line| serde_json::from_slice(line).map_err(|error| protocol(what, &error.to_string()))).collect()
    }

    /// The rows of a query about all tables there are.
    ///
    /// Old servers list the tables first and then look at each; one that is dropped in between fails the query, which is therefore asked again.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub(crate) async fn listing<T: DeserializeOwned>(&self, what: &str, sql: &str) -> Result<Vec<T>> {
        let mut attempt = 0;
        loop {
            match self.rows(what, sql).await {
                Err(error) if error.is_gone() && attempt < LISTINGS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// The only row of a query.
    ///
    /// # Errors
    /// As [`rows`](Self::rows); [`Error::Protocol`] when there is none.
    pub async fn row<T: DeserializeOwned>(&self, what: &str, sql: &str) -> Result<T> {
        self.rows(what, sql).await?.into_iter().next().ok_or_else(|| protocol(what, "it has no row"))
    }

    /// What the server answers, in pieces, when it has all of it: servers of old put an error in the middle behind what they have sent,
    /// as if it were more of it.
    ///
    /// # Errors
    /// As [`execute`](Self::execute), in the beginning and in the stream.
    pub async fn stream(&self, what: &str, sql: &str) -> Result<BoxStream<'static, Result<Bytes>>> {
        let response = self.send(what, sql, &[("wait_end_of_query", "1")]).await?;
        let (what, settings) = (what.to_owned(), self.settings.clone());
        Ok(response.bytes_stream().map(move |piece| piece.map_err(|error| broken(&settings, &what, &error))).boxed())
    }

    /// Sends `rows` behind an `INSERT … FORMAT …`.
    ///
    /// # Errors
    /// As [`execute`](Self::execute). Those of `rows` break the statement off.
    pub async fn insert<E>(&self, what: &str, sql: &str, rows: BoxStream<'static, Result<Bytes, E>>) -> Result<()>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let parameters = [("wait_end_of_query", "1"), ("query", sql)];
        let response = self.post(what, reqwest::Body::wrap_stream(rows), &parameters).await?;
        self.read(what, response, MAX_ANSWER).await.map(drop)
    }

    async fn send(&self, what: &str, sql: &str, parameters: &[(&str, &str)]) -> Result<Response> {
        self.post(what, sql.to_owned(), parameters).await
    }

    async fn post(&self, what: &str, body: impl Into<reqwest::Body>, parameters: &[(&str, &str)]) -> Result<Response> {
        let mut url = self.settings.url.clone();
        {
            let mut pairs = url.query_pairs_mut();
            pairs.extend_pairs(parameters);
            pairs.extend_pairs(self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        }
        tracing::trace!(what, "asking the server");
        let sent = self.http.post(url).body(body).send().await;
        let response = sent.map_err(|error| broken(&self.settings, what, &error))?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let number = |name: &str| response.headers().get(name)?.to_str().ok()?.parse::<u32>().ok();
        let code = number("X-ClickHouse-Exception-Code");
        // Longer messages are cut off, not refused.
        let mut body = response.bytes_stream();
        let mut message = Vec::new();
        while let Some(Ok(piece)) = body.next().await {
            message.extend_from_slice(&piece);
            if message.len() > MAX_MESSAGE {
                break;
            }
        }
        message.truncate(MAX_MESSAGE);
        let message = String::from_utf8_lossy(&message).trim().to_owned();
        let code = code.or_else(|| code_of(&message)).unwrap_or(0);
        let message = if message.is_empty() { format!("status {status}") } else { message };
        if code::AUTHENTICATION.contains(&code) {
            let user = self.settings.user.clone().unwrap_or_else(|| "default".to_owned());
            return Err(Error::Authentication { address: self.address(), user, message });
        }
        Err(Error::Server { what: what.to_owned(), code, message })
    }

    async fn read(&self, what: &str, response: Response, limit: usize) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut body = response.bytes_stream();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| broken(&self.settings, what, &error))?;
            if all.len() + piece.len() > limit {
                return Err(protocol(what, &format!("it has more than {limit} bytes")));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

/// `Code: 60, e.displayText() = …` of old servers, `Code: 60. DB::Exception: …` of newer ones.
fn code_of(message: &str) -> Option<u32> {
    let (_, rest) = message.split_once("Code: ")?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    rest[..digits].parse().ok()
}

fn protocol(what: &str, reason: &str) -> Error {
    Error::Protocol { what: what.to_owned(), reason: reason.to_owned() }
}

/// What the error says, and what caused it.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn broken(settings: &ClientSettings, what: &str, error: &reqwest::Error) -> Error {
    if error.is_timeout() && !error.is_connect() {
        return Error::Timeout { what: what.to_owned(), after: settings.timeout };
    }
    Error::Connect { address: settings.address(), reason: said(error) }
}

fn config(store: RootCertStore) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| Error::Settings(format!("tls: {error}")))?;
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}

fn trusting_nobody() -> Result<ClientConfig> {
    config(RootCertStore::empty())
}

fn tls(settings: &ClientSettings) -> Result<ClientConfig> {
    let roots = match &settings.roots {
        Some(file) => {
            let wrong = |error: &dyn std::error::Error| Error::Settings(format!("{}: {error}", file.display()));
            let pem = std::fs::read(file).map_err(|error| wrong(&error))?;
            CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?
        }
        None => system_roots()?,
    };
    let mut store = RootCertStore::empty();
    if store.add_parsable_certificates(roots).0 == 0 {
        return Err(Error::Settings("no usable root certificate".to_owned()));
    }
    config(store)
}

#[cfg(feature = "native-certs")]
fn system_roots() -> Result<Vec<CertificateDer<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(Error::Settings(format!("the system has no root certificates: {:?}", found.errors)));
    }
    Ok(found.certs)
}

#[cfg(not(feature = "native-certs"))]
fn system_roots() -> Result<Vec<CertificateDer<'static>>> {
    let text = "no root certificates are given, and those of the system need the feature native-certs";
    Err(Error::Settings(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_from_old_and_new_messages() {
        assert_eq!(code_of("Code: 60, e.displayText() = DB::Exception: Table a.b doesn't exist."), Some(60));
        assert_eq!(code_of("Code: 516. DB::Exception: default: Authentication failed"), Some(516));
        assert_eq!(code_of("Poco::Exception. Code: 1000, e.code() = 13"), Some(1000));
        assert_eq!(code_of("no such thing"), None);
        assert_eq!(code_of("Code: many"), None);
    }
}
