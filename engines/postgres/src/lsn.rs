//! Positions in the write-ahead log: [`Lsn`] and [`TimelineId`].
//!
//! Text forms as the server prints and reads them (`src/backend/utils/adt/pg_lsn.c`): two hexadecimal halves of at most
//! eight digits, `0/16B3740`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A byte position in the write-ahead log of one timeline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The value that the server uses for "no position".
    pub const INVALID: Self = Self(0);

    /// Whether this is a position at all.
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.0 != 0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let half = |part: &str| {
            if part.is_empty() || part.len() > 8 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            u64::from_str_radix(part, 16).ok()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| Error::malformed("lsn", format!("{text:?} is not of the form X/X")))
    }
}

/// The number of a timeline; the first one of a cluster is 1, and 0 never exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineId(u32);

impl TimelineId {
    /// The timeline that `initdb` makes.
    pub const FIRST: Self = Self(1);

    /// The timeline with `number`, or nothing for 0.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for TimelineId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // `u32::from_str` takes a sign, the server never writes one.
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse().ok())
            .flatten()
            .and_then(Self::new)
            .ok_or_else(|| Error::malformed("timeline", format!("{text:?} is not a positive number")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_what_the_server_prints() {
        assert_eq!(Lsn(0x016B_3740).to_string(), "0/16B3740");
        assert_eq!(Lsn(0xA_0000_0028).to_string(), "A/28");
        assert_eq!("16/B374D848".parse::<Lsn>().unwrap(), Lsn(0x16_B374_D848));
        assert_eq!("ffffffff/FFFFFFFF".parse::<Lsn>().unwrap(), Lsn(u64::MAX));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "/", "0/", "/0", "0/0/0", "+1/0", "100000000/0", "0/123456789", "0x1/0", " 0/0", "0/0 "] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
        for text in ["", "0", "-1", "+1", "4294967296", "1 "] {
            assert!(text.parse::<TimelineId>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back(value: u64) {
            prop_assert_eq!(Lsn(value).to_string().parse::<Lsn>().unwrap(), Lsn(value));
        }
    }
}
