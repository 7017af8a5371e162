//! TLS by rustls with the *ring* provider.

use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore, ServerConfig,
    SignatureScheme, version,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::settings::{TlsSettings, Trust};
use crate::error::{Error, Result};

/// Certificate and key files over this size are not certificate and key files.
const MAX_FILE: u64 = 4 << 20;

/// Encrypts `stream` to `host`. `address` is for errors.
pub(super) async fn upgrade(
    settings: &TlsSettings,
    stream: TcpStream,
    host: &str,
    address: &str,
) -> Result<TlsStream<TcpStream>> {
    let wrong = |reason: String| Error::Tls { address: address.to_owned(), reason };
    let config = client_config(settings).map_err(wrong)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong(format!("{host} is no name or address")))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| {
        let reason = error.get_ref().map_or_else(|| error.to_string(), ToString::to_string);
        wrong(reason)
    })
}

/// What greets visitors over TLS with the certificate and the key of these PEM files.
///
/// # Errors
/// [`Error::Settings`] when a file cannot be used.
pub(crate) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let config = || -> Result<ServerConfig, String> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|error| error.to_string())?
            .with_no_client_auth();
        builder
            .with_single_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| format!("{}: {error}", certificate.display()))
    };
    let config = config().map_err(|reason| Error::Settings(format!("the certificate of the link: {reason}")))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn private_key(key: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = zeroize::Zeroizing::new(read(key)?);
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| format!("{}: {error}", key.display()))
}

fn client_config(settings: &TlsSettings) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(settings, provider)?));
    let Some((certificate, key)) = &settings.identity else { return Ok(builder.with_no_client_auth()) };
    builder
        .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
        .map_err(|error| format!("{}: {error}", certificate.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    let length = std::fs::metadata(path).map_err(wrong)?.len();
    if length > MAX_FILE {
        return Err(format!("{}: {length} bytes are too many", path.display()));
    }
    std::fs::read(path).map_err(wrong)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let list = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{}: {error}", path.display()))?;
    if list.is_empty() {
        return Err(format!("{} holds no certificate", path.display()));
    }
    Ok(list)
}

#[derive(Debug)]
struct Verifier {
    /// None when the certificate is not judged.
    chain: Option<Arc<WebPkiServerVerifier>>,
    check_name: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(settings: &TlsSettings, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let check_name = settings.trust == Trust::Full;
        if settings.trust == Trust::Nobody {
            return Ok(Self { chain: None, check_name, provider });
        }
        let roots = match &settings.roots {
            Some(file) => certificates(file)?,
            None => system_roots()?,
        };
        let mut store = RootCertStore::empty();
        if store.add_parsable_certificates(roots).0 == 0 {
            return Err("no usable root certificate".to_owned());
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { chain: Some(chain), check_name, provider })
    }
}

#[cfg(feature = "native-certs")]
fn system_roots() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(format!("the system has no root certificates: {:?}", found.errors));
    }
    Ok(found.certs)
}

#[cfg(not(feature = "native-certs"))]
fn system_roots() -> Result<Vec<CertificateDer<'static>>, String> {
    Err("no root certificates are given, and those of the system need the feature native-certs".to_owned())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is judged last, so everything else was right.
            Err(RustlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
