//! The server's side of SCRAM-SHA-256, without channel binding.
//!
//! Source: RFC 5802 and RFC 7677; `src/backend/libpq/auth-scram.c` for what PostgreSQL makes of them: the user's name in
//! the exchange is ignored, that of the session counts. What is kept proves a password without telling it.

use base64ct::{Base64, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The mechanism's name.
pub(super) const MECHANISM: &str = "SCRAM-SHA-256";
/// What PostgreSQL takes unless told otherwise (`scram_iterations`).
const ITERATIONS: u32 = 4096;
/// A base64 text in a message is a nonce, a hash or a short header.
const MAX_MESSAGE: usize = 1024;

/// Why an exchange failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScramError {
    /// The message is not of its form, or asks for what is not there.
    Malformed(&'static str),
    /// The client does not know the password.
    WrongProof,
}

type Key = [u8; 32];

/// What a server keeps of a password.
pub(super) struct Verifier {
    salt: [u8; 16],
    iterations: u32,
    stored_key: Zeroizing<Key>,
    server_key: Zeroizing<Key>,
}

impl Verifier {
    /// The verifier of `password`, which must be ASCII without control characters: nothing is normalised here.
    pub(super) fn new(password: &str, salt: [u8; 16]) -> Self {
        let salted = salted_password(password.as_bytes(), &salt, ITERATIONS);
        let client_key = Zeroizing::new(hmac(&*salted, &[b"Client Key"]));
        Self {
            salt,
            iterations: ITERATIONS,
            stored_key: Zeroizing::new(Sha256::digest(*client_key).into()),
            server_key: Zeroizing::new(hmac(&*salted, &[b"Server Key"])),
        }
    }

    /// Takes the client's first message; `nonce` is the server's part, printable and without commas.
    pub(super) fn begin(&self, client_first: &[u8], nonce: &str) -> Result<Exchange<'_>, ScramError> {
        let text = message(client_first)?;
        let (binding, rest) = text.split_once(',').ok_or(ScramError::Malformed("no gs2 header"))?;
        match binding {
            // The client cannot bind to a channel, or could and believes that we cannot: both are true without TLS.
            "n" | "y" => {}
            _ => return Err(ScramError::Malformed("channel binding is not offered")),
        }
        let bare = rest.strip_prefix(',').ok_or(ScramError::Malformed("an authorization identity is not supported"))?;
        let mut attributes = bare.split(',');
        match attributes.next() {
            Some(user) if user.starts_with("n=") => {}
            Some(extension) if extension.starts_with("m=") => {
                return Err(ScramError::Malformed("mandatory extensions are not supported"));
            }
            _ => return Err(ScramError::Malformed("no user name")),
        }
        let client_nonce = attributes
            .next()
            .and_then(|attribute| attribute.strip_prefix("r="))
            .filter(|nonce| !nonce.is_empty() && nonce.bytes().all(|byte| matches!(byte, 0x21..=0x7e)))
            .ok_or(ScramError::Malformed("no nonce"))?;
        let salt = Base64::encode_string(&self.salt);
        Ok(Exchange {
            verifier: self,
            header: format!("{binding},,"),
            nonce: format!("{client_nonce}{nonce}"),
            client_first_bare: bare.to_owned(),
            server_first: format!("r={client_nonce}{nonce},s={salt},i={}", self.iterations),
        })
    }
}

/// An exchange that waits for the client's proof.
pub(super) struct Exchange<'a> {
    verifier: &'a Verifier,
    header: String,
    nonce: String,
    client_first_bare: String,
    server_first: String,
}

impl Exchange<'_> {
    /// The server's first message.
    pub(super) fn message(&self) -> &str {
        &self.server_first
    }

    /// Takes the client's last message; the server's last one proves in turn that it knows the password.
    pub(super) fn finish(self, client_final: &[u8]) -> Result<String, ScramError> {
        let text = message(client_final)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed("no proof"))?;
        let mut attributes = without_proof.split(',');
        let header = attributes.next().and_then(|attribute| attribute.strip_prefix("c="));
        if header != Some(&Base64::encode_string(self.header.as_bytes())) {
            return Err(ScramError::Malformed("another channel binding than at first"));
        }
        if attributes.next().and_then(|attribute| attribute.strip_prefix("r=")) != Some(&self.nonce) {
            return Err(ScramError::Malformed("another nonce"));
        }
        let mut proof_bytes: Key = [0; 32];
        match Base64::decode(proof, &mut proof_bytes) {
            Ok(bytes) if bytes.len() == 32 => {}
            _ => return Err(ScramError::Malformed("a proof of another form")),
        }
        let said =
            [self.client_first_bare.as_bytes(), b",", self.server_first.as_bytes(), b",", without_proof.as_bytes()];
        let signature = hmac(&*self.verifier.stored_key, &said);
        let client_key: Zeroizing<Key> = Zeroizing::new(std::array::from_fn(|at| proof_bytes[at] ^ signature[at]));
        let stored: Key = Sha256::digest(*client_key).into();
        if !bool::from(stored.ct_eq(&*self.verifier.stored_key)) {
            return Err(ScramError::WrongProof);
        }
        Ok(format!("v={}", Base64::encode_string(&hmac(&*self.verifier.server_key, &said))))
    }
}

fn message(bytes: &[u8]) -> Result<&str, ScramError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(ScramError::Malformed("a message that is too long"));
    }
    std::str::from_utf8(bytes).map_err(|_| ScramError::Malformed("a message that is not text"))
}

/// A key of any length makes an HMAC; `new_from_slice` cannot fail for this one.
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    match Hmac::new_from_slice(key) {
        Ok(hmac) => hmac,
        Err(_) => unreachable!("hmac takes keys of any length"),
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = keyed(key);
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// `Hi` of RFC 5802 §2.2: PBKDF2 with one block.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<Key> {
    let keyed = keyed(password);
    let mut mac = keyed.clone();
    mac.update(salt);
    mac.update(&1_u32.to_be_bytes());
    let mut last: Zeroizing<Key> = Zeroizing::new(mac.finalize().into_bytes().into());
    let mut sum = last.clone();
    for _ in 1..iterations {
        let mut mac = keyed.clone();
        mac.update(&*last);
        *last = mac.finalize().into_bytes().into();
        sum.iter_mut().zip(last.iter()).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;

    /// RFC 7677 §3.
    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn verifier() -> Verifier {
        let mut salt = [0; 16];
        Base64::decode("W22ZaJ0SNY7soEsUEjb6gQ==", &mut salt).unwrap();
        Verifier::new("pencil", salt)
    }

    #[test]
    fn the_example_of_the_standard() {
        let verifier = verifier();
        let exchange = verifier.begin(FIRST, NONCE).unwrap();
        assert_eq!(
            exchange.message(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        assert_eq!(exchange.finish(FINAL.as_bytes()).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_client_of_another_making_is_let_in_and_lets_us_in() {
        let verifier = Verifier::new("f00d", [7; 16]);
        for (binding, password, right) in [
            (ChannelBinding::unsupported(), "f00d", true),
            (ChannelBinding::unrequested(), "f00d", true),
            (ChannelBinding::unsupported(), "f00e", false),
            (ChannelBinding::unsupported(), "", false),
        ] {
            let mut client = ScramSha256::new(password.as_bytes(), binding);
            let exchange = verifier.begin(client.message(), "server").unwrap();
            client.update(exchange.message().as_bytes()).unwrap();
            match exchange.finish(client.message()) {
                Ok(last) => {
                    assert!(right);
                    client.finish(last.as_bytes()).unwrap();
                }
                Err(error) => assert!(!right && error == ScramError::WrongProof),
            }
        }
    }

    #[test]
    fn what_is_not_of_its_form_is_refused() {
        let verifier = verifier();
        for first in [
            &b""[..],
            b"n",
            b"n,",
            b"n,,",
            b"n,,n=",
            b"n,,n=,r=",
            b"n,,m=x,n=,r=abc",
            b"n,a=x,n=,r=abc",
            b"p=tls-server-end-point,,n=,r=abc",
            b"x,,n=,r=abc",
            b"n,,n=,r=a c",
            b"n,,n=,r=\xff",
            &[b'n'; 2000],
        ] {
            assert!(verifier.begin(first, NONCE).is_err(), "{first:?}");
        }
        for last in [
            String::new(),
            "c=biws".into(),
            FINAL.replace("c=biws", "c=eSws"),
            FINAL.replace("rOpr", "rOpR"),
            FINAL.replace("p=dHzb", "p=dHzc"),
            FINAL.replace("dVQ=", "dVQ"),
            FINAL.replace("p=", "p=AAAA"),
            FINAL.replace("biws,", "biws,x=1,"),
            FINAL.replace(",p=", ",q="),
        ] {
            assert!(verifier.begin(FIRST, NONCE).unwrap().finish(last.as_bytes()).is_err(), "{last}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_are_refused(first: Vec<u8>, last: Vec<u8>) {
            let verifier = Verifier { salt: [0; 16], iterations: 1, stored_key: Zeroizing::new([1; 32]), server_key: Zeroizing::new([2; 32]) };
            let _ = verifier.begin(&first, "x");
            prop_assert!(verifier.begin(b"n,,n=,r=a", "x").unwrap().finish(&last).is_err());
        }
    }
}
