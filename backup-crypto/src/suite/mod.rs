//! Cipher suites, and the implementations behind them.
//!
//! A [`Suite`] is part of the format: it is written in every object and bound into every key. A [`Backend`] is not: all backends
//! give the same bytes (RFC 8439 and NIST SP 800-38D leave no freedom), so a repository written with one is read with another.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

#[cfg(feature = "ring")]
mod ring;
mod rustcrypto;

/// Length of the keys of every suite, in bytes.
pub(crate) const KEY_LEN: usize = 32;
/// Length of the nonces of every suite, in bytes.
pub(crate) const NONCE_LEN: usize = 12;
/// Length of the authentication tag that follows every sealed segment, in bytes.
pub const TAG_LEN: usize = 16;

/// An authenticated cipher, as its number is written in object headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Suite {
    /// ChaCha20-Poly1305 (RFC 8439): constant time and fast on every processor.
    ChaCha20Poly1305 = 1,
    /// AES-256-GCM (NIST SP 800-38D): faster where the processor has AES instructions, and only there.
    Aes256Gcm = 2,
}

impl Suite {
    /// Every suite.
    pub const ALL: [Self; 2] = [Self::ChaCha20Poly1305, Self::Aes256Gcm];

    /// The suite that is fastest on this host: AES only with instructions for both AES and carry-less multiplication,
    /// because without them it is slow and its timing depends on the data.
    ///
    /// The choice is made once, when a repository is created; every host can read both suites.
    pub fn preferred_here() -> Self {
        if has_aes_instructions() { Self::Aes256Gcm } else { Self::ChaCha20Poly1305 }
    }

    /// The name used in settings and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::Aes256Gcm => "aes-256-gcm",
        }
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes_instructions() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

/// The `aes` feature of 64-bit ARM covers the polynomial multiplication too (FEAT_AES and FEAT_PMULL).
#[cfg(target_arch = "aarch64")]
fn has_aes_instructions() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes_instructions() -> bool {
    false
}

impl TryFrom<u8> for Suite {
    type Error = Error;

    fn try_from(number: u8) -> Result<Self> {
        Self::ALL.into_iter().find(|suite| *suite as u8 == number).ok_or(Error::Unsupported {
            what: "the object header",
            field: "suite",
            found: number.into(),
        })
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Suite {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|suite| suite.name() == text)
            .ok_or(Error::InvalidText { what: "suite", expected: "chacha20-poly1305 or aes-256-gcm" })
    }
}

/// An implementation of the suites. It never shows in the stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// The pure Rust implementations of the RustCrypto project: portable, wipes its key schedules.
    RustCrypto,
    /// The `ring` crate: assembly for both suites, fastest on the hosts measured (`docs/decisions/0001-crypto.md`);
    /// does not wipe its key schedules.
    #[cfg(feature = "ring")]
    Ring,
}

impl Backend {
    /// Every backend of this build.
    pub const ALL: &'static [Self] = &[
        Self::RustCrypto,
        #[cfg(feature = "ring")]
        Self::Ring,
    ];
}

impl Default for Backend {
    /// The fastest of this build.
    fn default() -> Self {
        #[cfg(feature = "ring")]
        return Self::Ring;
        #[cfg(not(feature = "ring"))]
        Self::RustCrypto
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RustCrypto => "rustcrypto",
            #[cfg(feature = "ring")]
            Self::Ring => "ring",
        })
    }
}

/// The cipher refused: on opening, the tag is wrong.
#[derive(Debug)]
pub(crate) struct Refused;

/// A keyed cipher. Everything happens in place, so the caller decides where bytes live.
pub(crate) trait Cipher: Send + Sync {
    /// Encrypts `in_out` and gives its tag. Fails only for lengths far beyond a segment's.
    fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], in_out: &mut [u8]) -> Result<[u8; TAG_LEN], Refused>;

    /// Checks the tag and decrypts `in_out`. After a refusal `in_out` holds nothing meaningful and must be wiped.
    fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], in_out: &mut [u8], tag: [u8; TAG_LEN]) -> Result<(), Refused>;
}

/// Sets up `suite` in `backend` with `key`.
pub(crate) fn cipher(suite: Suite, backend: Backend, key: &[u8; KEY_LEN]) -> Result<Box<dyn Cipher>> {
    match backend {
        Backend::RustCrypto => Ok(rustcrypto::cipher(suite, key)),
        #[cfg(feature = "ring")]
        Backend::Ring => ring::cipher(suite, key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_round_trip() {
        for suite in Suite::ALL {
            assert_eq!(Suite::try_from(suite as u8).unwrap(), suite);
            assert_eq!(suite.to_string().parse::<Suite>().unwrap(), suite);
        }
        assert!(Suite::try_from(0).is_err() && Suite::try_from(3).is_err() && "aes".parse::<Suite>().is_err());
    }

    #[test]
    fn backends_give_the_same_bytes() {
        for suite in Suite::ALL {
            for len in [0, 1, 15, 16, 17, 63, 64, 65, 255, 1024, 4099, 65_537, 300_001] {
                let plain: Vec<u8> = (0..len).map(|i: u32| (i * 31 % 251) as u8).collect();
                let key = [len as u8; KEY_LEN];
                let sealed: Vec<_> = Backend::ALL
                    .iter()
                    .map(|backend| {
                        let mut bytes = plain.clone();
                        let tag =
                            cipher(suite, *backend, &key).unwrap().seal([9; NONCE_LEN], b"aad", &mut bytes).unwrap();
                        (bytes, tag)
                    })
                    .collect();
                for backend in Backend::ALL {
                    for (bytes, tag) in &sealed {
                        assert_eq!((bytes, tag), (&sealed[0].0, &sealed[0].1), "{suite} {backend} {len}");
                        let mut opened = bytes.clone();
                        let cipher = cipher(suite, *backend, &key).unwrap();
                        cipher.open([9; NONCE_LEN], b"aad", &mut opened, *tag).unwrap();
                        assert_eq!(opened, plain);
                        assert!(cipher.open([9; NONCE_LEN], b"aae", &mut bytes.clone(), *tag).is_err());
                    }
                }
            }
        }
    }
}
