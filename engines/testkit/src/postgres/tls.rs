//! A throw-away certificate authority and a server certificate for loopback.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::template::write;
use crate::error::{Error, Result};

/// Writes `server.crt` and `server.key` (the names that the server looks for by default) into `data` and returns the
/// authority's certificate as PEM.
pub(super) fn install(data: &Path) -> Result<String> {
    let made = make().map_err(|error| Error::invalid(format!("cannot make a certificate: {error}")))?;
    write(&data.join("server.crt"), &made.certificate)?;
    write(&data.join("server.key"), &made.key)?;
    Ok(made.authority)
}

struct Made {
    authority: String,
    certificate: String,
    key: String,
}

fn make() -> Result<Made, rcgen::Error> {
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
    Ok(Made { authority: authority_pem, certificate, key: key.serialize_pem() })
}
