//! Writes a snapshot file out of payloads of `DUMP`: a value in the file is the payload without its frame. Pure.

use super::crc64::Crc64;
use super::layout::{ValueType, opcode};
use super::length;
use super::payload::Opened;
use super::version::RdbVersion;
use crate::error::{Error, Result};

/// Writes a file piece by piece. What it gives has to be taken with [`drain`](Self::drain).
#[derive(Debug)]
pub(crate) struct Builder {
    version: RdbVersion,
    out: Vec<u8>,
    crc: Crc64,
    database: Option<u64>,
}

impl Builder {
    /// A file of `version` without anything in it.
    pub(crate) fn new(version: RdbVersion) -> Self {
        Self { version, out: version.magic(), crc: Crc64::new(), database: None }
    }

    /// Bytes that wait to be taken.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// Gives what was written.
    pub(crate) fn drain(&mut self) -> Vec<u8> {
        self.crc.update(&self.out);
        std::mem::take(&mut self.out)
    }

    /// A named field about the file.
    pub(crate) fn aux(&mut self, name: &str, value: &str) {
        self.out.push(opcode::AUX);
        length::write_string(name.as_bytes(), &mut self.out);
        length::write_string(value.as_bytes(), &mut self.out);
    }

    /// Libraries of functions, as `FUNCTION DUMP` gives them: that is what stands in a file, in a frame of its own.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the frame does not fit.
    pub(crate) fn functions(&mut self, dump: &[u8]) -> Result<()> {
        let (version, body) = super::payload::unframe(dump)?;
        self.check_version(version)?;
        self.out.extend_from_slice(body);
        Ok(())
    }

    /// A key with its payload. Keys of one database have to come together.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the frame does not fit; [`Error::Unsupported`] for a type that the file's version does not have.
    pub(crate) fn key(&mut self, database: u64, key: &[u8], expires: Option<i64>, payload: &[u8]) -> Result<()> {
        let Opened { version, value_type, value } = Opened::of(payload)?;
        self.check_version(version)?;
        self.check_type(value_type)?;
        if self.database != Some(database) {
            self.out.push(opcode::SELECT_DB);
            length::write(database, &mut self.out);
            self.database = Some(database);
        }
        if let Some(at) = expires {
            self.out.push(opcode::EXPIRE_MS);
            self.out.extend_from_slice(&at.to_le_bytes());
        }
        self.out.push(value_type.0);
        length::write_string(key, &mut self.out);
        self.out.extend_from_slice(value);
        Ok(())
    }

    /// Ends the file and gives the rest of it.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.out.push(opcode::EOF);
        let mut rest = self.drain();
        rest.extend_from_slice(&self.crc.value().to_le_bytes());
        rest
    }

    /// The payload says which version its server writes. That is no newer than the file's, or one that differs from it in types only,
    /// which are checked one by one.
    fn check_version(&self, version: u16) -> Result<()> {
        let valkey = (RdbVersion::VALKEY..).contains(&version);
        let known = if valkey { RdbVersion::valkey(version) } else { RdbVersion::redis(version) }.is_known();
        if known && (valkey || version <= self.version.number) {
            return Ok(());
        }
        Err(Error::Unsupported(format!("a payload of version {version}, for a file of {}", self.version)))
    }

    fn check_type(&self, value_type: ValueType) -> Result<()> {
        let known = value_type.kind(self.version).is_some() && value_type.since(self.version) <= self.version.number;
        if known {
            return Ok(());
        }
        Err(Error::Unsupported(format!("{} has no values of type {}", self.version, value_type.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::{Counter, Payload};

    #[test]
    fn what_is_written_is_a_file() {
        let version = RdbVersion::redis(11);
        let mut builder = Builder::new(version);
        builder.aux("redis-ver", "7.2.4");
        let code = [&[opcode::FUNCTION, 17][..], b"#!lua name=mylib\n", &11_u16.to_le_bytes()].concat();
        builder.functions(&[&code[..], &Crc64::of(&code).to_le_bytes()].concat()).unwrap();
        builder.key(0, b"a", None, &Payload::of(version, ValueType(0), b"\x01x")).unwrap();
        let mut file = builder.drain();
        builder.key(0, b"b", Some(1_900_000_000_000), &Payload::of(version, ValueType(2), b"\x01\x01x")).unwrap();
        builder.key(5, b"b", None, &Payload::of(version, ValueType(0), b"\xc0\x07")).unwrap();
        file.extend(builder.finish());
        let mut counter = Counter::new();
        assert_eq!(counter.push(&file).unwrap(), file.len());
        let summary = counter.finish().unwrap();
        assert_eq!((summary.keys(), summary.expires(), summary.databases.len()), (3, 1, 2));
        assert_eq!(summary.functions, ["mylib"]);
    }

    #[test]
    fn what_is_broken_or_unknown_is_refused() {
        let version = RdbVersion::redis(11);
        let mut builder = Builder::new(version);
        let good = Payload::of(version, ValueType(0), b"\x01x");
        let mut flipped = good.clone();
        flipped[1] ^= 1;
        for bad in [&flipped[..], &good[..5], b""] {
            assert!(matches!(builder.key(0, b"a", None, bad), Err(Error::Protocol(_))), "{bad:?}");
        }
        for payload in [
            Payload::of(RdbVersion::redis(12), ValueType(24), b"12345678\0"),
            Payload::of(RdbVersion::valkey(80), ValueType(22), b"\0"),
            Payload::of(RdbVersion::redis(16), ValueType(99), b"\0"),
        ] {
            assert!(matches!(builder.key(0, b"a", None, &payload), Err(Error::Unsupported(_))), "{payload:?}");
        }
        assert_eq!(builder.finish().len(), 9 + 1 + 8, "nothing of it is in the file");
    }
}
