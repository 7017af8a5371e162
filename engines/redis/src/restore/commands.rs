//! Keys as `RESTORE` commands, while the snapshot passes. Pure.

use std::ops::Range;

use bytes::Bytes;

use super::target::Target;
use crate::error::{Error, Result};
use crate::rdb::{
    ExpiryRule, KeyHead, Name, Part, Payload, Place, Placer, RdbVersion, Rules, ValueType, Visitor, rewrite_fields,
};

/// Values up to this size are sent with others; larger ones one by one, out of a second reading.
const SMALL: usize = 1 << 20;
/// So large may be a hash whose fields expire, when that changes: it has to be seen as a whole.
const HELD: usize = 64 << 20;

/// One command to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Load a library of functions.
    Function(Bytes),
    /// Restore a key whose payload is here.
    Small { head: Head, payload: Bytes },
    /// Restore a key whose value stands there in the snapshot.
    Large { head: Head, value_type: ValueType, range: Range<u64> },
}

/// All of a `RESTORE` but its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) database: u64,
    pub(super) key: Vec<u8>,
    expires: Option<i64>,
    idle: Option<u64>,
    frequency: Option<u8>,
}

impl Head {
    /// The words before the payload.
    pub(super) fn before(&self) -> [Vec<u8>; 3] {
        // Zero means that it does not expire.
        [b"RESTORE".to_vec(), self.key.clone(), self.expires.unwrap_or(0).max(0).to_string().into_bytes()]
    }

    /// The words behind the payload.
    pub(super) fn behind(&self, replace: bool) -> Vec<Vec<u8>> {
        let mut words = vec![b"ABSTTL".to_vec()];
        if replace {
            words.push(b"REPLACE".to_vec());
        }
        // A server takes one of both.
        if let Some(seconds) = self.idle {
            words.extend([b"IDLETIME".to_vec(), seconds.to_string().into_bytes()]);
        } else if let Some(often) = self.frequency {
            words.extend([b"FREQ".to_vec(), often.to_string().into_bytes()]);
        }
        words
    }
}

/// Makes orders of what passes.
#[derive(Debug)]
pub(super) struct Commands {
    placer: Placer,
    target: Target,
    /// The longest argument that the server takes.
    longest: u64,
    functions: bool,
    version: RdbVersion,
    present: Option<(Head, ValueType)>,
    held: Vec<u8>,
    /// Whether the value is too large to be held.
    large: bool,
    /// What is to be sent.
    pub(super) orders: Vec<Order>,
    /// Keys that were wanted.
    pub(super) keys: u64,
}

impl Commands {
    pub(super) fn new(rules: Rules, target: Target, longest: u64, functions: bool) -> Self {
        Self {
            placer: Placer::new(rules),
            target,
            longest,
            functions,
            version: RdbVersion::redis(0),
            present: None,
            held: Vec::new(),
            large: false,
            orders: Vec::new(),
            keys: 0,
        }
    }

    fn rewrites(&self, value_type: ValueType) -> bool {
        value_type.has_field_expiry() && self.placer.rules().expiry != ExpiryRule::Keep
    }

    /// Whether the server takes a value of this type.
    fn check(&self, key: &[u8], value_type: ValueType, len: u64) -> Result<()> {
        let key = || String::from_utf8_lossy(key).into_owned();
        if !self.target.takes(self.version, value_type) {
            let text = format!("{} takes no values of type {} (key {:?})", self.target.version, value_type.0, key());
            return Err(Error::Unsupported(text));
        }
        let len = len + Payload::OVERHEAD;
        if len > self.longest {
            let text = format!(
                "the value of {:?} has {len} bytes, the server takes {} (proto-max-bulk-len)",
                key(),
                self.longest
            );
            return Err(Error::Unsupported(text));
        }
        Ok(())
    }
}

impl Visitor for Commands {
    fn version(&mut self, version: RdbVersion) -> Result<()> {
        self.version = version;
        Ok(())
    }

    fn function(&mut self, code: &Name) -> Result<()> {
        if self.functions {
            let text = "a library of functions that is too large to be loaded by a command";
            let code = code.bytes().filter(|_| code.is_whole()).ok_or_else(|| Error::Unsupported(text.into()))?;
            self.orders.push(Order::Function(Bytes::copy_from_slice(&code)));
        }
        Ok(())
    }

    fn key(&mut self, head: &KeyHead<'_>) -> Result<()> {
        self.held.clear();
        self.large = false;
        self.present = match self.placer.place(head)? {
            None => None,
            Some(Place { database, renamed, expires }) => {
                let key = match renamed {
                    Some(key) => key,
                    None => head.name()?.into_owned(),
                };
                if self.target.cluster && database != 0 {
                    let text = format!("a cluster has only the database 0, not {database}");
                    return Err(Error::Unsupported(text));
                }
                self.keys += 1;
                let value_type = head.value_type;
                Some((Head { database, key, expires, idle: head.idle, frequency: head.frequency }, value_type))
            }
        };
        Ok(())
    }

    fn piece(&mut self, part: Part, bytes: &[u8]) -> Result<()> {
        let Some((head, value_type)) = self.present.as_ref().filter(|_| part == Part::Value) else {
            return match part {
                Part::KeyMeta => {
                    Err(Error::Unsupported("metadata of modules about a key, which no command restores".into()))
                }
                _ => Ok(()),
            };
        };
        let limit = if self.rewrites(*value_type) { HELD } else { SMALL };
        if self.large {
            return Ok(());
        }
        if self.held.len() + bytes.len() <= limit {
            self.held.extend_from_slice(bytes);
        } else if limit == SMALL {
            self.large = true;
            self.held = Vec::new();
        } else {
            let key = String::from_utf8_lossy(&head.key);
            return Err(Error::Unsupported(format!(
                "the hash {key:?} with expiring fields has more than {HELD} bytes"
            )));
        }
        Ok(())
    }

    fn value_end(&mut self, range: Range<u64>) -> Result<()> {
        let Some((head, value_type)) = self.present.take() else { return Ok(()) };
        if self.large {
            self.check(&head.key, value_type, range.end - range.start)?;
            self.orders.push(Order::Large { head, value_type, range });
            return Ok(());
        }
        let rule = self.placer.rules().expiry;
        let payload = if self.rewrites(value_type) {
            let (value_type, value) = rewrite_fields(self.version, value_type, &self.held, rule, range.start)?;
            self.check(&head.key, value_type, value.len() as u64)?;
            Payload::of(self.version, value_type, &value)
        } else {
            self.check(&head.key, value_type, self.held.len() as u64)?;
            Payload::of(self.version, value_type, &self.held)
        };
        self.orders.push(Order::Small { head, payload: payload.into() });
        Ok(())
    }

    fn unknown(&mut self, offset: u64, what: u8) -> Result<()> {
        Err(Error::Unsupported(format!("at byte {offset} stands the type {what}, which is not known here")))
    }
}
