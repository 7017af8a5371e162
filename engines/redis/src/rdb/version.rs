//! The first nine bytes: whose file it is, and of which version.

use std::fmt;

/// Whose file it is. Both started from one format and give some bytes different meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// `REDIS` and four digits: every Redis, and Valkey before version 9.
    Redis,
    /// `VALKEY` and three digits: Valkey from version 9 on.
    Valkey,
}

/// The version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RdbVersion {
    /// Whose numbers these are.
    pub dialect: Dialect,
    /// The number. Redis: 9 is 5 and 6, 10 is 7.0, 11 is 7.2, 12 is 7.4 to 8.4, 13 is 8.6. Valkey: 11 is 7.2 to 8, 80 is 9.
    pub number: u16,
}

impl RdbVersion {
    /// Bytes that the magic and the version take.
    pub const LEN: usize = 9;
    /// The oldest that is read: older ones have no checksum.
    pub const OLDEST: u16 = 5;
    /// The newest of Redis whose bytes are known.
    pub const NEWEST_REDIS: u16 = 16;
    /// The one of Valkey whose bytes are known.
    pub const VALKEY: u16 = 80;

    /// A version of Redis, or of Valkey before its version 9.
    #[must_use]
    pub const fn redis(number: u16) -> Self {
        Self { dialect: Dialect::Redis, number }
    }

    /// A version of Valkey from its version 9 on.
    #[must_use]
    pub const fn valkey(number: u16) -> Self {
        Self { dialect: Dialect::Valkey, number }
    }

    /// Reads the first nine bytes. None when this is no snapshot file.
    #[must_use]
    pub fn parse(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let (dialect, digits) = match bytes {
            [b'R', b'E', b'D', b'I', b'S', digits @ ..] => (Dialect::Redis, &digits[..]),
            [b'V', b'A', b'L', b'K', b'E', b'Y', digits @ ..] => (Dialect::Valkey, &digits[..]),
            _ => return None,
        };
        let number = digits
            .iter()
            .try_fold(0_u16, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u16::from(digit - b'0')))?;
        Some(Self { dialect, number })
    }

    /// The first nine bytes of a file of this version.
    #[must_use]
    pub fn magic(self) -> Vec<u8> {
        match self.dialect {
            Dialect::Redis => format!("REDIS{:04}", self.number),
            Dialect::Valkey => format!("VALKEY{:03}", self.number),
        }
        .into_bytes()
    }

    /// Whether what follows is understood. What is too old is refused; what is too new is not counted.
    #[must_use]
    pub fn is_known(self) -> bool {
        match self.dialect {
            Dialect::Redis => (Self::OLDEST..=Self::NEWEST_REDIS).contains(&self.number),
            Dialect::Valkey => self.number == Self::VALKEY,
        }
    }
}

impl fmt::Display for RdbVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = match self.dialect {
            Dialect::Redis => "redis",
            Dialect::Valkey => "valkey",
        };
        write!(f, "{whose} rdb {}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_goes_both_ways() {
        for version in [RdbVersion::redis(5), RdbVersion::redis(11), RdbVersion::redis(16), RdbVersion::valkey(80)] {
            let magic: [u8; 9] = version.magic().try_into().unwrap();
            assert_eq!(RdbVersion::parse(&magic), Some(version));
            assert!(version.is_known());
        }
        assert_eq!(RdbVersion::redis(9).magic(), b"REDIS0009");
        assert_eq!(RdbVersion::valkey(80).magic(), b"VALKEY080");
        for bytes in [b"REDIS00a9", b"VALKEY 80", b"redis0009", b"RODIS0009"] {
            assert_eq!(RdbVersion::parse(bytes), None);
        }
        for version in [RdbVersion::redis(4), RdbVersion::redis(17), RdbVersion::valkey(11), RdbVersion::valkey(81)] {
            assert!(!version.is_known(), "{version}");
        }
    }
}
