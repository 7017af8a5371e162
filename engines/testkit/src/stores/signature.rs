//! Signature Version 4 of Amazon's interfaces ("Authenticating Requests", S3 API reference), for the few requests that a test's store
//! client has no call for.

use std::fmt::Write as _;

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::wait;

/// The checksum that some requests demand: a header that can be a request's [`header`](Signed::header).
pub(super) fn checksum(body: &str) -> (&'static str, String) {
    ("x-amz-checksum-sha256", Base64::encode_string(&Sha256::digest(body)))
}

/// Who signs.
pub(super) struct Signer<'a> {
    pub(super) access_key: &'a str,
    pub(super) secret_key: &'a str,
    pub(super) region: &'a str,
}

/// A request that is to be signed.
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    /// The path, encoded.
    pub(super) path: &'a str,
    /// The query, encoded and sorted; each name with its `=`.
    pub(super) query: &'a str,
    /// One header more, whose name begins with `x-amz-` and sorts before `x-amz-content-sha256`.
    pub(super) header: (&'static str, String),
    pub(super) body: &'a str,
}

impl Signer<'_> {
    /// The headers that the request has to carry, besides its host, as of now.
    pub(super) fn headers(&self, request: &Signed<'_>) -> Result<Vec<(&'static str, String)>> {
        self.headers_at(request, &wait::utc_stamp())
    }

    /// As of `stamp`, for example `20260212T201848Z`.
    fn headers_at(&self, request: &Signed<'_>, stamp: &str) -> Result<Vec<(&'static str, String)>> {
        let digest = hex(&Sha256::digest(request.body));
        let mut headers =
            vec![request.header.clone(), ("x-amz-content-sha256", digest.clone()), ("x-amz-date", stamp.to_owned())];
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let names = headers.iter().fold("host".to_owned(), |names, (name, _)| format!("{names};{name}"));
        let Signed { method, host, path, query, .. } = request;
        let canonical = format!("{method}\n{path}\n{query}\nhost:{host}\n{lines}\n{names}\n{digest}");
        let day = stamp.split('T').next().unwrap_or_default();
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let mut key = format!("AWS4{}", self.secret_key).into_bytes();
        for part in [day, self.region, "s3", "aws4_request"] {
            key = mac(&key, part)?;
        }
        let signature = hex(&mac(&key, &text)?);
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.access_key
        );
        headers.push(("Authorization", authorization));
        Ok(headers)
    }
}

fn mac(key: &[u8], text: &str) -> Result<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| Error::invalid(error.to_string()))?;
    mac.update(text.as_bytes());
    Ok(mac.finalize().into_bytes().to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
