//! TLS by rustls with the *ring* provider: which certificates are believed follows libpq's `sslmode`.
//!
//! `require` and below encrypt without judging the certificate (the manual, "SSL Support": protection against listeners,
//! not against a server in the middle; SCRAM's channel binding gives the latter). `verify-ca` and `verify-full` build a
//! chain to a root. A server certificate that *is* one of the roots, byte for byte, is believed as it is, like a pinned
//! key: that is how self-signed servers are set up, and a chain builder would refuse it for not being a leaf.
//! Names are checked against the subject alternative names only; the common name, which libpq still falls back to, is not.

use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore, SignatureScheme,
    version,
};

use super::transport::Transport;
use crate::conn::{RootCertificates, SslMode, TlsSettings};
use crate::error::{Error, Result};

/// Certificate and key files over this size are not certificate and key files.
const MAX_FILE: u64 = 4 << 20;

/// Upgrades `stream` for `address`, whose certificate must be for `name` where the mode says so.
pub(super) async fn upgrade(settings: &TlsSettings, stream: TcpStream, name: &str, address: &str) -> Result<Transport> {
    let wrong = |reason: String| Error::Tls { address: address.to_owned(), reason };
    let config = client_config(settings).map_err(wrong)?;
    let server =
        ServerName::try_from(name.to_owned()).map_err(|_| wrong(format!("{name} is not a name or address")))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await.map_err(|error| {
        let reason = error.get_ref().map_or_else(|| error.to_string(), ToString::to_string);
        wrong(reason)
    })?;
    Ok(Transport::Tls(Box::new(stream)))
}

fn client_config(settings: &TlsSettings) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let versions: &[_] = if settings.only_tls13 { &[&version::TLS13] } else { &[&version::TLS13, &version::TLS12] };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(settings, provider)?));
    let mut config = match &settings.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            check_permissions(key)?;
            let key_pem = zeroize::Zeroizing::new(read(key)?);
            let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|e| format!("{}: {e}", key.display()))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, key)
                .map_err(|error| format!("{}: {error}", certificate.display()))?
        }
    };
    if settings.direct {
        // The server closes a direct connection that does not name the protocol (manual, "SSL Session Encryption").
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(config)
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

/// libpq's rule for `sslkey`: nobody but its owner may read it, except that root's key may be readable by its group.
fn check_permissions(path: &Path) -> Result<(), String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
        if metadata.mode() & forbidden != 0 {
            return Err(format!("private key {} is open to group or others", path.display()));
        }
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[derive(Debug)]
struct Verifier {
    /// `None` when the certificate is not judged.
    chain: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    check_name: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(settings: &TlsSettings, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let check_name = settings.mode == SslMode::VerifyFull;
        // libpq: `require` with a root certificate file means `verify-ca`; the modes below never look at roots.
        let roots = settings.roots.as_ref().filter(|_| settings.mode >= SslMode::Require);
        let Some(roots) = roots else {
            return Ok(Self { chain: None, pinned: Vec::new(), check_name: false, provider });
        };
        let pinned = match roots {
            RootCertificates::File(path) => certificates(path)?,
            RootCertificates::System => system_roots()?,
        };
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(pinned.iter().cloned());
        if added == 0 {
            return Err("no usable root certificate".to_owned());
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
            .build()
            .map_err(|error| error.to_string())?;
        let pinned = if matches!(roots, RootCertificates::File(_)) { pinned } else { Vec::new() };
        Ok(Self { chain: Some(chain), pinned, check_name, provider })
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
    Err("sslrootcert=system needs the feature native-certs".to_owned())
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
        if self.pinned.iter().any(|pinned| pinned.as_ref() == end_entity.as_ref()) {
            if self.check_name {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
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
