//! One request over one connection. The other side is not trusted: its answer is read up to the status and no further.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use super::settings::WebhookSettings;
use crate::error::{Error, Result};

/// What the other side said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has the notice.
    Delivered,
    /// It will not take it, now or later.
    Refused(u16),
    /// It may take it later.
    Later(u16),
}

impl Answer {
    fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            200..=299 => Self::Delivered,
            408 | 425 | 429 => Self::Later(status.as_u16()),
            300..=499 => Self::Refused(status.as_u16()),
            _ => Self::Later(status.as_u16()),
        }
    }
}

/// Where requests go.
pub(super) struct Endpoint {
    host: String,
    port: u16,
    authority: String,
    target: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Endpoint {
    pub(super) fn new(settings: &WebhookSettings) -> Result<Self> {
        let wrong = |reason: String| Error::invalid(format!("the URL of a webhook {reason}"));
        let url = Url::parse(&settings.url).map_err(|error| wrong(format!("is none: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("must not hold a user or password: requests are signed".to_owned()));
        }
        let host = url.host().ok_or_else(|| wrong("has no host".to_owned()))?;
        let secure = match url.scheme() {
            "https" => true,
            "http" if settings.allow_plain || is_local(&host) => false,
            "http" => return Err(wrong("is plain HTTP to another host: use https".to_owned())),
            other => return Err(wrong(format!("has scheme {other}, and not https"))),
        };
        let port = url.port_or_known_default().ok_or_else(|| wrong("has no port".to_owned()))?;
        let name = match &host {
            Host::Domain(name) => (*name).to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let authority = url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
        let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let tls = match secure {
            true => {
                let server = ServerName::try_from(name.clone())
                    .map_err(|error| wrong(format!("has a host that no certificate can be for: {error}")))?;
                Some((connector(settings)?, server))
            }
            false => None,
        };
        Ok(Self { host: name, port, authority, target, tls })
    }

    /// Sends one request.
    ///
    /// # Cancel safety
    /// When dropped, the other side has it or not.
    pub(super) async fn post(&self, headers: &[(&'static str, String)], body: String) -> Result<Answer> {
        let refused = |error| Error::unavailable(format!("cannot connect to {self}")).with_source(error);
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(refused)?;
        match &self.tls {
            None => self.exchange(tcp, headers, body).await,
            Some((connector, server)) => {
                let tls = connector.connect(server.clone(), tcp).await.map_err(|error| {
                    let distrust = error.kind() == std::io::ErrorKind::InvalidData;
                    let kind = if distrust { crate::ErrorKind::Environment } else { crate::ErrorKind::Unavailable };
                    Error::new(kind, format!("no secure connection to {self}")).with_source(error)
                })?;
                self.exchange(tls, headers, body).await
            }
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        headers: &[(&'static str, String)],
        body: String,
    ) -> Result<Answer> {
        let broken = |error: hyper::Error| Error::unavailable(format!("no answer from {self}")).with_source(error);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.target)
            .header(HOST, &self.authority)
            .header(USER_AGENT, concat!("backup/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Error::internal("a notice makes no request").with_source(error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let (mut response, mut connection) = (std::pin::pin!(sender.send_request(request)), std::pin::pin!(connection));
        let response = tokio::select! {
            biased;
            response = &mut response => response,
            ended = &mut connection => match ended {
                Ok(()) => response.await,
                Err(error) => Err(error),
            },
        };
        Ok(Answer::of(response.map_err(broken)?.status()))
    }
}

/// Without path and query, in which receivers keep secrets of their own.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "webhook {}", self.authority)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("authority", &self.authority).finish_non_exhaustive()
    }
}

fn is_local(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

fn connector(settings: &WebhookSettings) -> Result<TlsConnector> {
    let certificates = match &settings.roots {
        Some(file) => {
            let unusable = |error: tokio_rustls::rustls::pki_types::pem::Error| {
                Error::environment(format!("root certificates in {}", file.display())).with_source(error)
            };
            let found = CertificateDer::pem_file_iter(file).map_err(unusable)?;
            found.collect::<Result<Vec<_>, _>>().map_err(unusable)?
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(Error::environment("there is no root certificate that a webhook's server could be judged by"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("no version of TLS is available").with_source(error))?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::WebhookSecret;

    fn endpoint(url: &str) -> Result<Endpoint> {
        Endpoint::new(&WebhookSettings::new(url, WebhookSecret::new([7; 16]).unwrap()))
    }

    #[test]
    fn a_url_says_where_to_go_and_secrets_stay_in_it() {
        let local = endpoint("http://127.0.0.1:8080/hooks/hunter2?token=hunter2").unwrap();
        assert_eq!((local.port, local.target.as_str()), (8080, "/hooks/hunter2?token=hunter2"));
        assert_eq!((local.to_string().as_str(), local.tls.is_none()), ("webhook 127.0.0.1:8080", true));
        assert!(!format!("{local:?}").contains("hunter2"));
        assert_eq!(endpoint("http://[::1]/").unwrap().host, "::1");
        for (url, why) in [
            ("orders", "is none"),
            ("http://example.com/", "use https"),
            ("https://kim:secret@example.com/", "must not hold"),
            ("ftp://example.com/", "scheme ftp"),
        ] {
            let refusal = endpoint(url).unwrap_err();
            assert!(refusal.kind() == crate::ErrorKind::InvalidInput && refusal.to_string().contains(why), "{refusal}");
        }
    }

    #[test]
    fn only_what_may_change_is_tried_again() {
        let answer = |status| Answer::of(StatusCode::from_u16(status).unwrap());
        assert_eq!([answer(200), answer(204)], [Answer::Delivered, Answer::Delivered]);
        assert_eq!([answer(302), answer(404)], [Answer::Refused(302), Answer::Refused(404)]);
        assert_eq!([answer(429), answer(503)], [Answer::Later(429), Answer::Later(503)]);
    }
}
