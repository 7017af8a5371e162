//! Writes another snapshot file while one passes: other keys, other names, other expiries, its own checksum.

use std::ops::Range;

use super::crc64::Crc64;
use super::expiry::{ExpiryRule, rewrite_fields};
use super::layout::{ValueType, opcode};
use super::length;
use super::name::Name;
use super::rules::{Place, Placer, Rules};
use super::scanner::{ChecksumState, Scanner};
use super::version::{Dialect, RdbVersion};
use super::visitor::{KeyHead, Part, Visitor};
use crate::error::{Error, Result};

/// So large may be what has to be seen as a whole before it is written: hashes whose fields expire, when that changes,
/// fields about the file, metadata of modules about a key.
const HELD: usize = 64 << 20;

/// Rewrites a file that comes in chunks of any size.
///
/// What is written is complete only when [`finish`](Self::finish) has said so: a server must not be given the last bytes
/// before that. Fields that place the file in a replication stream are left out when anything changes.
#[derive(Debug)]
pub struct Rewriter {
    scanner: Scanner,
    writer: Writer,
    crc: Crc64,
    written: u64,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rewritten {
    /// Keys that were written.
    pub keys: u64,
    /// Keys that were not wanted.
    pub left_out: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// What the checksum of the file that was read said.
    pub source: ChecksumState,
}

impl Rewriter {
    /// A rewriter that changes what `rules` say, for servers that read what the source wrote.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let whole = rules.change_nothing();
        let writer = Writer {
            placer: Placer::new(rules),
            whole,
            version: RdbVersion::redis(0),
            target: None,
            out: Vec::new(),
            record: Vec::new(),
            record_open: false,
            meta: Vec::new(),
            sizes: None,
            entered: None,
            value: Value::Skip,
            held: Vec::new(),
            keys: 0,
            left_out: 0,
        };
        Self { scanner: Scanner::new(), writer, crc: Crc64::new(), written: 0 }
    }

    /// Writes a file of `version`, for servers that do not read the source's. What that version does not have is refused.
    #[must_use]
    pub fn for_version(mut self, version: RdbVersion) -> Self {
        self.writer.target = Some(version);
        self
    }

    /// Takes the next bytes, appends what they become to `out`, and returns how many of them belong to the file.
    ///
    /// # Errors
    /// [`Error::Corrupt`] as for a [`Scanner`]; [`Error::Unsupported`] when the file holds something that cannot be
    /// rewritten: what is not known, what would make two keys one, what is too large to be held.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<usize> {
        let taken = self.scanner.push(chunk, &mut self.writer)?;
        self.drain(out);
        Ok(taken)
    }

    /// Whether the file that is read is at its end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.scanner.is_complete()
    }

    /// Appends the end of the file to `out`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file that was read is not at its end.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<Rewritten> {
        let source = self.scanner.finish()?;
        self.writer.out.push(opcode::EOF);
        self.drain(out);
        out.extend_from_slice(&self.crc.value().to_le_bytes());
        let Writer { keys, left_out, .. } = self.writer;
        Ok(Rewritten { keys, left_out, bytes: self.written + 8, source })
    }

    fn drain(&mut self, out: &mut Vec<u8>) {
        self.crc.update(&self.writer.out);
        self.written += self.writer.out.len() as u64;
        if out.is_empty() {
            std::mem::swap(out, &mut self.writer.out);
        } else {
            out.append(&mut self.writer.out);
        }
    }
}

/// What becomes of the value that passes.
#[derive(Debug)]
enum Value {
    /// It is left out.
    Skip,
    /// It is written as it is.
    Pass,
    /// It is held until all of it is there.
    Hold {
        value_type: ValueType,
        /// The key as it is written.
        key: Vec<u8>,
    },
}

#[derive(Debug)]
struct Writer {
    placer: Placer,
    /// Nothing changes.
    whole: bool,
    version: RdbVersion,
    /// The version that is written, where it is another one.
    target: Option<RdbVersion>,
    out: Vec<u8>,
    /// A record that is read to its end before anybody knows whether it is written.
    record: Vec<u8>,
    record_open: bool,
    /// Metadata of modules about the next key.
    meta: Vec<u8>,
    /// What the server said about the present database, until that is entered.
    sizes: Option<(u64, u64)>,
    /// The database that is being written, as the source numbers it.
    entered: Option<u64>,
    value: Value,
    held: Vec<u8>,
    keys: u64,
    left_out: u64,
}

impl Writer {
    fn target(&self) -> RdbVersion {
        self.target.unwrap_or(self.version)
    }

    /// Writes where the next key belongs, when that is not where the last one was.
    fn enter(&mut self, source: u64, database: u64) {
        if self.entered == Some(source) {
            return;
        }
        self.entered = Some(source);
        self.out.push(opcode::SELECT_DB);
        length::write(database, &mut self.out);
        let rules = self.placer.rules();
        if let Some((keys, expires)) = self.sizes.take()
            && rules.filter.takes_whole_databases()
        {
            self.out.push(opcode::RESIZE_DB);
            length::write(keys, &mut self.out);
            length::write(if rules.expiry == ExpiryRule::Never { 0 } else { expires }, &mut self.out);
        }
    }

    /// Writes what stands before the type of a key.
    fn write_head(&mut self, head: &KeyHead<'_>, expires: Option<i64>) {
        if let Some(at) = expires {
            self.out.push(opcode::EXPIRE_MS);
            self.out.extend_from_slice(&at.to_le_bytes());
        }
        if let Some(seconds) = head.idle {
            self.out.push(opcode::IDLE);
            length::write(seconds, &mut self.out);
        }
        if let Some(often) = head.frequency {
            self.out.extend_from_slice(&[opcode::FREQ, often]);
        }
        if !self.meta.is_empty() {
            self.out.push(opcode::KEY_META);
            self.out.append(&mut self.meta);
        }
    }

    /// Whether the version that is written has this type with the same meaning.
    fn check_type(&self, value_type: ValueType) -> Result<()> {
        let target = self.target();
        let known = value_type.0 <= 21 || target.dialect == self.version.dialect;
        if target == self.version || known && value_type.since(self.version) <= target.number {
            return Ok(());
        }
        Err(Error::Unsupported(format!("{target} has no values of the type {} of {}", value_type.0, self.version)))
    }

    fn write_key(&mut self, head: &KeyHead<'_>, place: &Place) -> Result<()> {
        let mut key = Vec::new();
        match &place.renamed {
            Some(renamed) => length::write_string(renamed, &mut key),
            None => head.whole_key()?.write(&mut key),
        }
        self.enter(head.database, place.database);
        self.write_head(head, place.expires);
        let rule = self.placer.rules().expiry;
        if head.value_type.has_field_expiry() && rule != ExpiryRule::Keep {
            self.value = Value::Hold { value_type: head.value_type, key };
            return Ok(());
        }
        self.check_type(head.value_type)?;
        self.out.push(head.value_type.0);
        self.out.append(&mut key);
        self.value = Value::Pass;
        Ok(())
    }

    /// Writes a record whose bytes are here.
    fn flush_record(&mut self, code: u8) {
        self.out.push(code);
        self.out.append(&mut self.record);
    }

    fn is_wanted(&self, field: &str) -> bool {
        // Where the file stood in a replication stream is no longer true of a changed one, nor how many keys slots hold.
        let bound = ["repl-id", "repl-offset", "repl-stream-db", "slot-info"];
        (self.whole && self.target.is_none()) || !bound.contains(&field)
    }
}

fn hold(held: &mut Vec<u8>, bytes: &[u8], what: &str) -> Result<()> {
    if held.len() + bytes.len() > HELD {
        return Err(Error::Unsupported(format!("{what} of more than {HELD} bytes")));
    }
    held.extend_from_slice(bytes);
    Ok(())
}

impl Visitor for Writer {
    fn version(&mut self, version: RdbVersion) -> Result<()> {
        self.version = version;
        self.out.extend_from_slice(&self.target().magic());
        Ok(())
    }

    fn aux(&mut self, name: &Name, _value: &Name) -> Result<()> {
        if self.is_wanted(&name.text()) {
            self.flush_record(opcode::AUX);
        }
        self.record.clear();
        Ok(())
    }

    fn database(&mut self, _database: u64) -> Result<()> {
        self.sizes = None;
        self.entered = None;
        Ok(())
    }

    fn sizes(&mut self, keys: u64, expires: u64) -> Result<()> {
        self.sizes = Some((keys, expires));
        Ok(())
    }

    fn function(&mut self, _code: &Name) -> Result<()> {
        self.record_open = false;
        Ok(())
    }

    fn module_aux(&mut self, _module: u64) -> Result<()> {
        self.record_open = false;
        Ok(())
    }

    fn key(&mut self, head: &KeyHead<'_>) -> Result<()> {
        match self.placer.place(head)? {
            Some(place) => {
                self.keys += 1;
                self.write_key(head, &place)
            }
            None => {
                self.left_out += 1;
                self.meta.clear();
                self.value = Value::Skip;
                Ok(())
            }
        }
    }

    fn piece(&mut self, part: Part, bytes: &[u8]) -> Result<()> {
        match part {
            Part::Value => match &self.value {
                Value::Skip => {}
                Value::Pass => self.out.extend_from_slice(bytes),
                Value::Hold { .. } => hold(&mut self.held, bytes, "a hash with expiring fields")?,
            },
            Part::KeyMeta => hold(&mut self.meta, bytes, "metadata about a key")?,
            Part::Record(opcode::AUX) => hold(&mut self.record, bytes, "a field about the file")?,
            // Slots that were on their way into the source are not on their way into what is restored.
            Part::Record(opcode::SLOT_IMPORT) if self.version.dialect == Dialect::Valkey => {}
            Part::Record(code) => {
                if !self.record_open {
                    self.out.push(code);
                    self.record_open = true;
                }
                self.out.extend_from_slice(bytes);
            }
        }
        Ok(())
    }

    fn value_end(&mut self, range: Range<u64>) -> Result<()> {
        let Value::Hold { value_type, mut key } = std::mem::replace(&mut self.value, Value::Skip) else {
            return Ok(());
        };
        let rule = self.placer.rules().expiry;
        let (value_type, value) = rewrite_fields(self.version, value_type, &self.held, rule, range.start)?;
        self.held.clear();
        self.check_type(value_type)?;
        self.out.push(value_type.0);
        self.out.append(&mut key);
        self.out.extend_from_slice(&value);
        Ok(())
    }

    fn unknown(&mut self, offset: u64, what: u8) -> Result<()> {
        Err(Error::Unsupported(format!("at byte {offset} stands the type {what}, which is not known here")))
    }
}
