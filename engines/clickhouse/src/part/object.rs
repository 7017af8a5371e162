//! Metadata files of object disks: a file of a part that only says in which objects its bytes are.
//!
//! Source: `src/Disks/ObjectStorages/DiskObjectStorageMetadata.cpp`. Lines of text: the version; how many objects, a tab,
//! how many bytes in all; for each object its bytes, a tab, its key; how many names of the file there are beside this one;
//! from version 3 on whether the file is read-only; in version 4 and later data that is in no object.

use super::{Error, Result};

const FILE: &str = "metadata of an object disk";
/// A part of a few gigabytes has files of a few objects; a megabyte names ten thousand.
const MAX_FILE: usize = 16 << 20;
const ABSOLUTE: u32 = 1;
const READ_ONLY: u32 = 3;
const INLINE: u32 = 4;
const FULL_KEY: u32 = 5;

/// How a key in the file is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyScope {
    /// The whole key in the bucket: versions 1 and 5.
    Full,
    /// Behind the prefix of the disk: versions 2 to 4.
    BehindPrefix,
}

/// One object of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectPart {
    /// How many bytes it has.
    pub size: u64,
    /// Its key, as [`ObjectMetadata::scope`] says.
    pub key: String,
}

/// What a metadata file says.
///
/// ```
/// use backup_clickhouse::part::object::{KeyScope, ObjectMetadata};
///
/// # fn main() -> backup_clickhouse::part::Result<()> {
/// let metadata = ObjectMetadata::parse(b"3\n1\t120\n120\tabc/defgh\n0\n0\n")?;
/// assert_eq!((metadata.size, metadata.scope()), (120, KeyScope::BehindPrefix));
/// assert_eq!(metadata.key_of(&metadata.objects[0], "disk/prefix/"), "disk/prefix/abc/defgh");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectMetadata {
    /// The version, 1 to 5.
    pub version: u32,
    /// How many bytes its objects have together. Without objects, how many are inline, or nought.
    pub size: u64,
    /// The objects, in the order in which their bytes follow each other.
    pub objects: Vec<ObjectPart>,
    /// How many other names the same objects have: hard links, such as FREEZE makes.
    pub references: u64,
    /// Whether a server must not delete the objects.
    pub read_only: bool,
    /// The bytes of a file that is too small for an object of its own.
    pub inline: Vec<u8>,
}

impl ObjectMetadata {
    /// Reads a whole metadata file.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for versions that are not known; [`Error::Corrupt`] if it is not what the format says, its
    /// lengths do not add up, or a key cannot be one; [`Error::TooLarge`] above 16 MiB.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_FILE {
            return Err(Error::TooLarge { file: FILE, limit: MAX_FILE as u64 });
        }
        let mut reader = Reader { bytes, position: 0 };
        let said = reader.number(b'\n')?;
        let version = u32::try_from(said).ok().filter(|version| (ABSOLUTE..=FULL_KEY).contains(version));
        let Some(version) = version else {
            return Err(Error::Unsupported { file: FILE, reason: format!("version {said} is not known") });
        };
        let (count, size) = (reader.number(b'\t')?, reader.number(b'\n')?);
        if count > bytes.len() as u64 / 4 {
            return Err(reader.corrupt("it cannot have that many objects"));
        }
        let mut objects = Vec::new();
        for _ in 0..count {
            let (size, key) = (reader.number(b'\t')?, reader.key(scope(version))?);
            objects.push(ObjectPart { size, key });
        }
        let references = reader.number(b'\n')?;
        let read_only = version >= READ_ONLY && reader.flag()?;
        let inline = if version >= INLINE { reader.escaped()? } else { Vec::new() };
        if reader.position != bytes.len() {
            return Err(reader.corrupt("something follows"));
        }
        let sum = objects.iter().try_fold(0u64, |sum, object| sum.checked_add(object.size));
        // Of data inline some servers count the bytes and some do not.
        let counts_inline = objects.is_empty() && size == inline.len() as u64;
        if sum != Some(size) && !counts_inline {
            return Err(reader.corrupt("its objects have another length together than it says"));
        }
        Ok(Self { version, size, objects, references, read_only, inline })
    }

    /// How keys in it are to be read.
    #[must_use]
    pub const fn scope(&self) -> KeyScope {
        scope(self.version)
    }

    /// The whole key of one of its objects, on a disk whose keys begin with `prefix`, written as the server is configured
    /// with it: with a slash at its end, if there is one.
    #[must_use]
    pub fn key_of(&self, object: &ObjectPart, prefix: &str) -> String {
        match self.scope() {
            KeyScope::Full => object.key.clone(),
            KeyScope::BehindPrefix if prefix.is_empty() || prefix.ends_with('/') => format!("{prefix}{}", object.key),
            KeyScope::BehindPrefix => format!("{prefix}/{}", object.key),
        }
    }
}

const fn scope(version: u32) -> KeyScope {
    match version {
        ABSOLUTE | FULL_KEY => KeyScope::Full,
        _ => KeyScope::BehindPrefix,
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// What stands before the next `end`.
    fn until(&mut self, end: u8) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| *byte == end) else { return Err(self.corrupt("it is cut off")) };
        self.position += length + 1;
        Ok(rest.get(..length).unwrap_or_default())
    }

    fn number(&mut self, end: u8) -> Result<u64> {
        let digits = self.until(end)?;
        let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| self.corrupt("a number is none"))
    }

    fn flag(&mut self) -> Result<bool> {
        match self.until(b'\n')? {
            b"0" => Ok(false),
            b"1" => Ok(true),
            _ => Err(self.corrupt("what is read-only is said by neither 0 nor 1")),
        }
    }

    /// A key. A whole one may begin with a slash: that of a disk of objects in a file system is a path.
    fn key(&mut self, scope: KeyScope) -> Result<String> {
        let key = String::from_utf8(self.escaped()?).ok().filter(|key| !key.is_empty());
        let inside = |key: &String| !key.split('/').any(|step| matches!(step, "." | ".."));
        let key = key.filter(|key| inside(key) && (scope == KeyScope::Full || !key.starts_with('/')));
        key.ok_or_else(|| self.corrupt("a key is empty, not utf-8, or leads out of the disk"))
    }

    /// The rest of a line, its escapes undone (`writeAnyEscapedString`).
    fn escaped(&mut self) -> Result<Vec<u8>> {
        let mut bytes = self.until(b'\n')?.iter();
        let mut out = Vec::new();
        while let Some(byte) = bytes.next() {
            out.push(match (byte, if *byte == b'\\' { bytes.next() } else { None }) {
                (b'\\', None) => return Err(self.corrupt("an escape is cut off")),
                (b'\\', Some(b'b')) => 8,
                (b'\\', Some(b'f')) => 0xc,
                (b'\\', Some(b'n')) => b'\n',
                (b'\\', Some(b'r')) => b'\r',
                (b'\\', Some(b't')) => b'\t',
                (b'\\', Some(b'0')) => 0,
                (b'\\', Some(other @ (b'\\' | b'\''))) => *other,
                (b'\\', Some(_)) => return Err(self.corrupt("an escape is not known")),
                (plain, _) => *plain,
            });
        }
        Ok(out)
    }

    fn corrupt(&self, reason: &str) -> Error {
        Error::corrupt(FILE, self.position, reason)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{KeyScope, ObjectMetadata};
    use crate::part::Error;

    fn parse(text: &str) -> Result<ObjectMetadata, Error> {
        ObjectMetadata::parse(text.as_bytes())
    }

    #[test]
    fn every_version_is_read() {
        let first = parse("1\n1\t5\n5\tdata/ab/cd\n0\n").unwrap();
        assert_eq!((first.scope(), first.objects[0].key.as_str()), (KeyScope::Full, "data/ab/cd"));
        let second = parse("2\n2\t12\n5\tab\n7\tcd\n3\n").unwrap();
        assert_eq!((second.references, second.scope(), second.objects[1].size), (3, KeyScope::BehindPrefix, 7));
        assert_eq!(second.key_of(&second.objects[0], "disk"), "disk/ab");
        assert!(parse("3\n1\t5\n5\tab\n0\n1\n").unwrap().read_only);
        let fourth = parse("4\n0\t3\n0\n0\na\\nb\n").unwrap();
        assert_eq!((fourth.objects.len(), fourth.inline.as_slice()), (0, b"a\nb".as_slice()));
        let fifth = parse("5\n1\t5\n5\tbucket/a\\tb\n0\n0\n\n").unwrap();
        assert_eq!((fifth.scope(), fifth.key_of(&fifth.objects[0], "p/")), (KeyScope::Full, "bucket/a\tb".to_owned()));
        assert_eq!(parse("3\n0\t0\n0\n0\n").unwrap().size, 0);
        assert_eq!(parse("4\n0\t0\n0\n0\nabc\n").unwrap().inline, b"abc");
        // Of a frozen part of 26.9, on a disk whose objects are files.
        let frozen = parse("5\n1\t4\n4\t/blob/bdc/rzcuczzpmlvhipcrzkmyjvcamvuxx\n1\n1\n\n").unwrap();
        assert_eq!((frozen.references, frozen.read_only, frozen.size), (1, true, 4));
    }

    #[test]
    fn what_no_server_writes_is_refused() {
        for text in ["0\n", "6\n0\t0\n0\n0\n\n", "18446744073709551616\n"] {
            parse(text).unwrap_err();
        }
        let broken = [
            "3\n1\t5\n5\tab\n0\n2\n",
            "3\n1\t6\n5\tab\n0\n0\n",
            "3\n2\t5\n5\tab\n0\n0\n",
            "3\n1\t5\n5\tab\n0\n0\nx",
            "3\n1\t5\n5\t../ab\n0\n0\n",
            "3\n1\t5\n5\t/ab\n0\n0\n",
            "3\n1\t5\n5\t\n0\n0\n",
            "3\n1\t5\n5\ta\\q\n0\n0\n",
            "3\n-1\t5\n0\n0\n",
            "3\n4294967295\t0\n0\n0\n",
            "3\n2\t18446744073709551615\n18446744073709551615\ta\n1\tb\n0\n0\n",
            "4\n0\t4\n0\n0\nabc\n",
        ];
        for text in broken {
            let error = parse(text).expect_err(text);
            assert!(matches!(error, Error::Corrupt { .. }), "{text}: {error}");
        }
        let whole = "5\n1\t5\n5\tbucket/a\n0\n0\n\n";
        for end in 0..whole.len() {
            parse(&whole[..end]).expect_err("cut off");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(text in "[0-5]\n[0-3]\t[0-9]{1,2}\n([0-9]\t[a/.\\\\n]{0,4}\n){0,3}[0-9\n\\\\x]{0,8}") {
            if let Ok(read) = parse(&text) {
                let sum: u64 = read.objects.iter().map(|object| object.size).sum();
                prop_assert!(read.size == sum || read.size == read.inline.len() as u64);
            }
        }
    }
}
