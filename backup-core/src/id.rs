//! Names of things: services, sessions and backups.

use std::fmt;
use std::str::FromStr;

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};
use ulid::Ulid;

use crate::env::Env;
use crate::error::{Error, Result};

/// One logical database deployment under management. Lower-case letters, digits and `-`, 1 to 63 characters, first and
/// last a letter or digit: it is a folder of an object store and often a host name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct ServiceId(String);

impl ServiceId {
    /// Checks `name` against the alphabet of service ids.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) that names the rule.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let alphabet = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let edge = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
        let bytes = name.as_bytes();
        if bytes.len() > 63 || !bytes.iter().all(|b| alphabet(*b)) || !edge(bytes.first()) || !edge(bytes.last()) {
            return Err(Error::invalid(format!(
                "service name {name:?} must be 1 to 63 of a-z, 0-9 and -, and neither start nor end with -"
            )));
        }
        Ok(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ServiceId {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::new(s)
    }
}

impl<C> Encode<C> for ServiceId {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> std::result::Result<(), EncodeError<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for ServiceId {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> std::result::Result<Self, DecodeError> {
        Self::new(d.str()?).map_err(DecodeError::custom)
    }
}

macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// A new id: the time of `env` and 80 random bits.
            #[must_use]
            pub fn mint(env: &Env) -> Self {
                let millis = u64::try_from(env.now().as_millisecond()).unwrap_or(0);
                let random = u128::from_be_bytes(env.random::<16>());
                Self(Ulid::from_parts(millis, random))
            }

            /// When it was minted, by the clock of who did, in milliseconds since 1970 UTC.
            #[must_use]
            pub fn minted_ms(self) -> u64 {
                self.0.timestamp_ms()
            }

            /// The 16 bytes, big-endian, so that byte order is age order.
            #[must_use]
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.to_bytes()
            }

            /// From the 16 bytes of [`to_bytes`](Self::to_bytes).
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Ulid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Lower case: object names use one case only, because some file systems fold it.
                let mut text = [0; ulid::ULID_LEN];
                let text = self.0.array_to_str(&mut text);
                text.make_ascii_lowercase();
                f.pad(text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(s: &str) -> Result<Self> {
                Ulid::from_string(s).map(Self).map_err(|e| {
                    Error::invalid(format!(concat!("{:?} is not a ", $what, " id"), s)).with_source(e)
                })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> std::result::Result<(), EncodeError<W::Error>> {
                e.bytes(&self.to_bytes())?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> std::result::Result<Self, DecodeError> {
                let bytes = d.bytes()?.try_into().map_err(|_| DecodeError::message("an id has 16 bytes"))?;
                Ok(Self::from_bytes(bytes))
            }
        }
    };
}

ulid_id! {
    /// One committed backup. A ULID: sorts by the time of its session.
    BackupId, "backup"
}
ulid_id! {
    /// One attempt to write into a repository, committed or not. A ULID.
    SessionId, "session"
}
ulid_id! {
    /// One host that only writes. A ULID: sorts by the time at which it was added.
    HostId, "host"
}
ulid_id! {
    /// One restore drill. A ULID: sorts by the time at which it began.
    DrillId, "drill"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_keep_to_the_alphabet() {
        for good in ["a", "pg-1", "0", &"x".repeat(63)] {
            assert_eq!(ServiceId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a/b", "a.b", "ä", "a b", &"x".repeat(64)] {
            assert_eq!(ServiceId::new(bad).unwrap_err().kind(), crate::ErrorKind::InvalidInput, "{bad}");
        }
    }

    #[test]
    fn ids_are_lower_case_text_and_come_back() {
        let env = Env::seeded(1);
        let id = BackupId::mint(&env);
        let text = id.to_string();
        assert_eq!(text.len(), 26);
        assert_eq!(text, text.to_lowercase());
        assert_eq!(text.parse::<BackupId>().unwrap(), id);
        assert_ne!(BackupId::mint(&env), id);
        assert!("nonsense".parse::<BackupId>().is_err());
    }
}
