//! `tablespace_map`: where the links in `pg_tblspc` point.
//!
//! Source: `do_pg_backup_start` and `read_tablespace_map` of the server. One line per tablespace, `oid path`, where a
//! newline, carriage return or backslash in the path is preceded by a backslash.

use crate::error::{Error, Result};

/// Thousands of tablespaces fit; the file of a real server has some hundred bytes.
const MAX_LENGTH: usize = 16 << 20;

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceLink {
    /// The tablespace's object identifier, and the link's name.
    pub oid: u32,
    /// The directory it points to, in bytes that need not be UTF-8.
    pub location: Vec<u8>,
}

/// The content of a `tablespace_map`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TablespaceMap {
    /// The links in the file's order.
    pub links: Vec<TablespaceLink>,
}

impl TablespaceMap {
    /// Reads the file. Never panics.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a line of another form, a location that is not absolute, or an identifier twice.
    pub fn parse(content: &[u8]) -> Result<Self> {
        let wrong = |reason: String| Error::malformed("tablespace_map", reason);
        if content.len() > MAX_LENGTH {
            return Err(wrong(format!("{} bytes", content.len())));
        }
        if content.contains(&0) {
            return Err(wrong("a zero byte".to_owned()));
        }
        let mut links: Vec<TablespaceLink> = Vec::new();
        let mut line = Vec::new();
        let mut bytes = content.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => line.push(*bytes.next().ok_or_else(|| wrong("a backslash at the end".to_owned()))?),
                b'\n' | b'\r' if line.is_empty() => {}
                b'\n' | b'\r' => links
                    .push(link(&std::mem::take(&mut line)).ok_or_else(|| wrong(format!("line {}", links.len() + 1)))?),
                byte => line.push(*byte),
            }
        }
        if !line.is_empty() {
            return Err(wrong("the last line has no end".to_owned()));
        }
        let mut seen = std::collections::BTreeSet::new();
        match links.iter().find(|link| !seen.insert(link.oid)) {
            Some(twice) => Err(wrong(format!("tablespace {} stands there twice", twice.oid))),
            None => Ok(Self { links }),
        }
    }

    /// Writes the file, for a restore that puts tablespaces elsewhere.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for link in &self.links {
            out.extend_from_slice(format!("{} ", link.oid).as_bytes());
            for byte in &link.location {
                if matches!(byte, b'\n' | b'\r' | b'\\') {
                    out.push(b'\\');
                }
                out.push(*byte);
            }
            out.push(b'\n');
        }
        out
    }
}

fn link(line: &[u8]) -> Option<TablespaceLink> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let digits = std::str::from_utf8(&line[..space]).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
    let location = line[space + 1..].to_vec();
    let oid = digits.parse().ok().filter(|oid| *oid != 0)?;
    location.starts_with(b"/").then_some(TablespaceLink { oid, location })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_of_a_server() {
        let map = TablespaceMap::parse(b"16384 /srv/a b\n16385 /srv/new\\\nline\\\\x\n").unwrap();
        assert_eq!(map.links[0], TablespaceLink { oid: 16384, location: b"/srv/a b".to_vec() });
        assert_eq!(map.links[1].location, b"/srv/new\nline\\x");
        assert!(TablespaceMap::parse(b"").unwrap().links.is_empty());
        for text in [
            &b"16384\n"[..],
            b"x /a\n",
            b"1 a\n",
            b"1 /a",
            b"1 /a\\",
            b"1 /a\n1 /b\n",
            b"0 /a\n",
            b"+1 /a\n",
            b"1 /\0\n",
            b"1 /\\\0\n",
        ] {
            assert!(TablespaceMap::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn written_and_read(locations in prop::collection::vec("/[ -~\\n\\r]{0,30}", 0..5)) {
            let links = locations.iter().enumerate().map(|(at, location)| TablespaceLink {
                oid: at as u32 + 1,
                location: location.as_bytes().to_vec(),
            });
            let map = TablespaceMap { links: links.collect() };
            prop_assert_eq!(TablespaceMap::parse(&map.to_bytes()).unwrap(), map);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = TablespaceMap::parse(&bytes);
        }
    }
}
