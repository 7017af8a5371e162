//! A throw-away certificate authority and a certificate for loopback, for servers and for clients.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::error::{Error, Result};

/// What a server needs to offer TLS on loopback; all of it PEM.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// The certificate of the authority that signed the other one.
    pub(crate) authority: String,
    /// The certificate for `localhost` and 127.0.0.1.
    pub(crate) certificate: String,
    /// Its private key.
    pub(crate) key: String,
}

impl Certificate {
    /// A new authority and a certificate that it signed.
    pub(crate) fn new() -> Result<Self> {
        make().map_err(|error| Error::invalid(format!("cannot make a certificate: {error}")))
    }
}

fn make() -> Result<Certificate, rcgen::Error> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority.distinguished_name.push(DnType::CommonName, "testkit authority");
    let authority_key = KeyPair::generate()?;
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let mut leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, "localhost");
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &issuer)?.pem();
    Ok(Certificate { authority: authority_pem, certificate, key: key.serialize_pem() })
}
