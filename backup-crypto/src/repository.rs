//! The identity of a repository, bound into every key that is derived for it.

use std::fmt;
use std::str::FromStr;

use crate::entropy::{Entropy, draw};
use crate::error::{Error, Result};

/// Identity of one repository: 16 random bytes, written as 32 lower-case hexadecimal digits.
///
/// It is not secret. It is bound into every derived key, so an object or a wrapped key of one repository is worthless in
/// another even under the same epoch key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryId([u8; 16]);

impl RepositoryId {
    /// Length in bytes.
    pub const LEN: usize = 16;

    /// Mints a new identity.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(draw(entropy))
    }

    /// The identity with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes as they are bound into keys.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepositoryId({self})")
    }
}

impl FromStr for RepositoryId {
    type Err = Error;

    /// Reads exactly 32 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::InvalidText { what: "repository id", expected: "32 lower-case hexadecimal digits" };
        let digits = text.as_bytes();
        let mut bytes = [0; 16];
        if digits.len() != 2 * bytes.len() {
            return Err(invalid());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = match (lower_hex(pair[0]), lower_hex(pair[1])) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(invalid()),
            };
        }
        Ok(Self(bytes))
    }
}

fn lower_hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let id = RepositoryId::from_bytes(std::array::from_fn(|i| i as u8 * 17));
        assert_eq!(id.to_string(), "00112233445566778899aabbccddeeff");
        assert_eq!(id.to_string().parse::<RepositoryId>().unwrap(), id);
    }

    #[test]
    fn only_the_canonical_text_is_accepted() {
        for text in [
            "",
            "00",
            "00112233445566778899AABBCCDDEEFF",
            "00112233445566778899aabbccddeefg",
            "0011223344556677é99aabbccddeef",
        ] {
            assert!(text.parse::<RepositoryId>().is_err(), "{text}");
        }
    }
}
