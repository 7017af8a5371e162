//! The manifest's own grammar over JSON tokens, and its checksum over itself.

use sha2::{Digest, Sha256};

use super::checksum::{Checksum, ChecksumAlgorithm};
use super::json::{Token, Tokenizer, wrong};
use crate::error::Result;
use crate::lsn::{Lsn, TimelineId};

/// A line describes one file.
const MAX_LINE: usize = 128 << 10;

/// One file of the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestFile {
    /// The path below the data directory, in bytes that need not be UTF-8; files of tablespaces are under
    /// `pg_tblspc/<oid>/`.
    pub path: Vec<u8>,
    /// Its size in bytes.
    pub size: u64,
    /// Its checksum, unless the backup was made without.
    pub checksum: Option<Checksum>,
    /// When it was last modified: `YYYY-MM-DD HH:MM:SS GMT`.
    pub modified: String,
}

/// A range of the log that recovery needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalRange {
    /// Its timeline.
    pub timeline: TimelineId,
    /// Its first byte.
    pub start: Lsn,
    /// The byte after its last.
    pub end: Lsn,
}

/// A manifest without its files.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestSummary {
    /// 1, or 2 from servers of version 17 on.
    pub version: u32,
    /// The cluster's identifier; version 2 only.
    pub system_id: Option<u64>,
    /// What recovery needs, newest timeline first.
    pub wal_ranges: Vec<WalRange>,
    /// How many files there were.
    pub files: u64,
    /// The sum of their sizes.
    pub bytes: u64,
}

/// A whole manifest in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// All but the files.
    pub summary: ManifestSummary,
    /// The files in the manifest's order.
    pub files: Vec<ManifestFile>,
}

impl Manifest {
    /// Reads a whole manifest. Never panics.
    ///
    /// # Errors
    /// As [`ManifestReader::push`] and [`ManifestReader::finish`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut files = Vec::new();
        let mut reader = ManifestReader::new();
        reader.push(bytes, &mut |file| files.push(file))?;
        Ok(Self { summary: reader.finish()?, files })
    }
}

/// Reads a manifest as it comes.
///
/// Files are handed out before the manifest's own checksum is known to be right: believe them after
/// [`ManifestReader::finish`].
#[derive(Debug)]
pub struct ManifestReader {
    tokenizer: Tokenizer,
    grammar: Grammar,
    digest: Sha256,
    /// The last line so far, with its end; the manifest's checksum covers all lines but the last.
    line: Vec<u8>,
    failed: bool,
}

impl Default for ManifestReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ManifestReader {
    /// A reader at the start of a manifest.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tokenizer: Tokenizer::new(),
            grammar: Grammar::default(),
            digest: Sha256::new(),
            line: Vec::new(),
            failed: false,
        }
    }

    /// Takes the manifest's next bytes and hands every complete file to `each`.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] when it is not a manifest of version 1 or 2; from then on every call fails.
    pub fn push(&mut self, bytes: &[u8], each: &mut impl FnMut(ManifestFile)) -> Result<()> {
        if self.failed {
            return Err(wrong("it was refused before"));
        }
        self.failed = true;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.last() == Some(&b'\n') {
                self.digest.update(&self.line);
                self.line.clear();
            }
            if self.line.len() + part.len() > MAX_LINE {
                return Err(wrong("a line is too long"));
            }
            self.line.extend_from_slice(part);
        }
        let grammar = &mut self.grammar;
        self.tokenizer.push(bytes, &mut |token| grammar.token(token, each))?;
        self.failed = false;
        Ok(())
    }

    /// Declares the manifest's end and verifies its checksum over itself.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] when it is not complete or its checksum is wrong.
    pub fn finish(self) -> Result<ManifestSummary> {
        if self.failed || !self.tokenizer.is_between() || self.grammar.place != Place::End {
            return Err(wrong("it ends before its end"));
        }
        if self.line.last() != Some(&b'\n') || !self.line.starts_with(b"\"Manifest-Checksum\"") {
            return Err(wrong("its last line is not its checksum"));
        }
        let computed = self.digest.finalize();
        if self.grammar.checksum.as_deref() != Some(computed.as_slice()) {
            return Err(wrong("its checksum over itself is wrong"));
        }
        let version = self.grammar.version.unwrap_or_default();
        if self.grammar.system_id.is_some() != (version == 2) {
            return Err(wrong(format!("version {version} with or without a system identifier")));
        }
        if !self.grammar.has_files || !self.grammar.has_ranges {
            return Err(wrong("files or wal ranges are missing"));
        }
        Ok(ManifestSummary {
            version,
            system_id: self.grammar.system_id,
            wal_ranges: self.grammar.ranges,
            files: self.grammar.files,
            bytes: self.grammar.bytes,
        })
    }
}

/// Where in the manifest the next token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Start,
    /// Before a key of the outer object, or its end if nothing stands there yet.
    Key,
    /// After a key.
    Colon,
    Value,
    AfterValue,
    /// Inside `Files` or `WAL-Ranges`: before the first object or the end.
    FirstItem,
    Item,
    AfterItem,
    /// Inside such an object.
    ItemKey,
    ItemColon,
    ItemValue,
    AfterItemValue,
    End,
}

#[derive(Debug, Default)]
struct Grammar {
    place: Place,
    key: String,
    item_key: String,
    /// The pairs of the current object; a file has five and a range three.
    item: Vec<(String, Token)>,
    version: Option<u32>,
    system_id: Option<u64>,
    ranges: Vec<WalRange>,
    has_files: bool,
    has_ranges: bool,
    files: u64,
    bytes: u64,
    checksum: Option<Vec<u8>>,
}

impl Grammar {
    fn token(&mut self, token: Token, each: &mut impl FnMut(ManifestFile)) -> Result<()> {
        use Place::{
            AfterItem, AfterItemValue, AfterValue, Colon, End, FirstItem, Item, ItemColon, ItemKey, ItemValue, Key,
            Start, Value,
        };
        self.place = match (self.place, token) {
            (Start, Token::Punctuation(b'{')) => Key,
            (Key, Token::String(key)) => {
                self.key = key;
                Colon
            }
            (Colon, Token::Punctuation(b':')) => Value,
            (Value, Token::Punctuation(b'[')) => {
                let seen = match self.key.as_str() {
                    "Files" => &mut self.has_files,
                    "WAL-Ranges" => &mut self.has_ranges,
                    key => return Err(wrong(format!("unexpected list {key:?}"))),
                };
                if std::mem::replace(seen, true) {
                    return Err(wrong(format!("{} stands there twice", self.key)));
                }
                if self.version.is_none() {
                    return Err(wrong("its version is not its first word"));
                }
                FirstItem
            }
            (Value, token @ (Token::String(_) | Token::Number(_))) => {
                self.scalar(token)?;
                AfterValue
            }
            (AfterValue, Token::Punctuation(b',')) => Key,
            (AfterValue, Token::Punctuation(b'}')) => End,
            (FirstItem, Token::Punctuation(b']')) => AfterValue,
            (FirstItem | Item, Token::Punctuation(b'{')) => ItemKey,
            (ItemKey, Token::String(key)) => {
                self.item_key = key;
                ItemColon
            }
            (ItemColon, Token::Punctuation(b':')) => ItemValue,
            (ItemValue, token @ (Token::String(_) | Token::Number(_))) => {
                let key = std::mem::take(&mut self.item_key);
                if self.item.len() == 8 || self.item.iter().any(|(known, _)| *known == key) {
                    return Err(wrong(format!("{key:?} stands there twice or once too often")));
                }
                self.item.push((key, token));
                AfterItemValue
            }
            (AfterItemValue, Token::Punctuation(b',')) => ItemKey,
            (AfterItemValue, Token::Punctuation(b'}')) => {
                let item = ItemFields(std::mem::take(&mut self.item));
                if self.key == "Files" {
                    let file = item.file()?;
                    self.files += 1;
                    self.bytes = self.bytes.saturating_add(file.size);
                    each(file);
                } else if self.ranges.len() < 100_000 {
                    self.ranges.push(item.range()?);
                } else {
                    return Err(wrong("too many wal ranges"));
                }
                AfterItem
            }
            (AfterItem, Token::Punctuation(b',')) => Item,
            (AfterItem, Token::Punctuation(b']')) => AfterValue,
            (place, token) => return Err(wrong(format!("unexpected {token:?} ({place:?})"))),
        };
        Ok(())
    }

    fn scalar(&mut self, token: Token) -> Result<()> {
        let twice = || wrong("a word stands there twice");
        match (self.key.as_str(), token) {
            ("PostgreSQL-Backup-Manifest-Version", Token::Number(number)) => {
                let version = number.parse().ok().filter(|v| matches!(v, 1 | 2));
                let version = version.ok_or_else(|| wrong(format!("version {number}")))?;
                if self.version.replace(version).is_some() {
                    return Err(twice());
                }
            }
            ("System-Identifier", Token::Number(number)) => {
                let id = number.parse().map_err(|_| wrong(format!("system identifier {number}")))?;
                if self.system_id.replace(id).is_some() {
                    return Err(twice());
                }
            }
            ("Manifest-Checksum", Token::String(text)) => {
                let value =
                    hex(&text).filter(|v| v.len() == 32).ok_or_else(|| wrong("its checksum is not of its form"))?;
                if self.checksum.replace(value).is_some() {
                    return Err(twice());
                }
            }
            (key, _) => return Err(wrong(format!("unexpected word {key:?}"))),
        }
        Ok(())
    }
}

struct ItemFields(Vec<(String, Token)>);

impl ItemFields {
    fn take(&mut self, key: &str) -> Option<Token> {
        let at = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.swap_remove(at).1)
    }

    fn text(&mut self, key: &str) -> Result<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Token::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(format!("{key} is not text"))),
        }
    }

    fn number<T: std::str::FromStr>(&mut self, key: &str) -> Result<T> {
        match self.take(key) {
            Some(Token::Number(text)) => text.parse().map_err(|_| wrong(format!("{key} is {text}"))),
            _ => Err(wrong(format!("{key} is missing or not a number"))),
        }
    }

    fn end(self) -> Result<()> {
        self.0.first().map_or(Ok(()), |(key, _)| Err(wrong(format!("unexpected word {key:?}"))))
    }

    fn file(mut self) -> Result<ManifestFile> {
        let path = match (self.text("Path")?, self.text("Encoded-Path")?) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(encoded)) => hex(&encoded).ok_or_else(|| wrong("an encoded path is not hexadecimal"))?,
            _ => return Err(wrong("a file has no path or two")),
        };
        if path.is_empty() || path.contains(&0) {
            return Err(wrong("a file's path is empty or holds a zero byte"));
        }
        let shown = String::from_utf8_lossy(&path).into_owned();
        let checksum = match (self.text("Checksum-Algorithm")?, self.text("Checksum")?) {
            (None, None) => None,
            (Some(name), Some(value)) => Some(
                ChecksumAlgorithm::from_name(&name)
                    .zip(hex(&value))
                    .and_then(|(algorithm, value)| Checksum::new(algorithm, value))
                    .ok_or_else(|| wrong(format!("the checksum of {shown} is not of its form")))?,
            ),
            _ => return Err(wrong(format!("{shown} has half a checksum"))),
        };
        let file = ManifestFile {
            path,
            size: self.number("Size")?,
            checksum,
            modified: self.text("Last-Modified")?.unwrap_or_default(),
        };
        self.end()?;
        Ok(file)
    }

    fn range(mut self) -> Result<WalRange> {
        let timeline: u32 = self.number("Timeline")?;
        let mut lsn = |key: &str| self.text(key)?.ok_or_else(|| wrong(format!("{key} is missing")))?.parse::<Lsn>();
        let (start, end) = (lsn("Start-LSN")?, lsn("End-LSN")?);
        self.end()?;
        if start > end {
            return Err(wrong(format!("a wal range from {start} to {end}")));
        }
        Ok(WalRange { timeline: TimelineId::new(timeline).ok_or_else(|| wrong("timeline 0"))?, start, end })
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
