//! Which keys go where, under which name, and until when: what a restore changes.

use super::expiry::ExpiryRule;
use super::filter::KeyFilter;
use super::visitor::KeyHead;
use crate::error::{Error, Result};

/// What a restore changes. By default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rules {
    /// Which keys are wanted.
    pub filter: KeyFilter,
    /// Keys with the first beginning get the second one instead. One pair, so that no two keys become one unnoticed.
    pub rename: Option<(Vec<u8>, Vec<u8>)>,
    /// All keys go into this database. They must come from one.
    pub into_database: Option<u64>,
    /// What becomes of expiries.
    pub expiry: ExpiryRule,
}

impl Rules {
    /// Only these keys.
    #[must_use]
    pub fn filter(mut self, filter: KeyFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Keys that begin with `from` begin with `to`.
    #[must_use]
    pub fn rename(mut self, from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) -> Self {
        self.rename = Some((from.into(), to.into()));
        self
    }

    /// All keys go into this database.
    #[must_use]
    pub fn into_database(mut self, database: u64) -> Self {
        self.into_database = Some(database);
        self
    }

    /// Expiries become this.
    #[must_use]
    pub fn expiry(mut self, rule: ExpiryRule) -> Self {
        self.expiry = rule;
        self
    }

    /// Whether they change anything.
    #[must_use]
    pub fn change_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Says of each key what becomes of it, and refuses what would make two keys one.
#[derive(Debug)]
pub struct Placer {
    rules: Rules,
    /// The database that keys have come from, when all go into one.
    source: Option<u64>,
}

/// Where a key goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Into this database.
    pub database: u64,
    /// Under this name, if it is another one.
    pub renamed: Option<Vec<u8>>,
    /// It expires then.
    pub expires: Option<i64>,
}

impl Placer {
    /// A placer before the first key.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, source: None }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Where the key goes. None when it is not wanted.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when it would take another key's place, and when the name of a key is needed and too long
    /// to be kept; [`Error::Corrupt`] when the name is compressed in a way that nothing unpacks.
    pub fn place(&mut self, head: &KeyHead<'_>) -> Result<Option<Place>> {
        let Rules { filter, rename, into_database, expiry } = &self.rules;
        if !filter.wants_kind(head.database, head.kind) {
            return Ok(None);
        }
        let mut renamed = None;
        if filter.needs_names() || rename.is_some() {
            let key = head.name()?;
            if !filter.wants_name(&key) {
                return Ok(None);
            }
            if let Some((from, to)) = rename {
                match key.strip_prefix(from.as_slice()) {
                    Some(rest) => renamed = Some([to, rest].concat()),
                    None if key.starts_with(to) => {
                        let text = format!(
                            "the key {:?} begins as renamed keys will, and could be one of them",
                            String::from_utf8_lossy(&key)
                        );
                        return Err(Error::Unsupported(text));
                    }
                    None => {}
                }
            }
        }
        if into_database.is_some() && *self.source.get_or_insert(head.database) != head.database {
            let text = format!(
                "keys of the databases {} and {} cannot go into one: choose one of them",
                self.source.unwrap_or_default(),
                head.database
            );
            return Err(Error::Unsupported(text));
        }
        let database = into_database.unwrap_or(head.database);
        Ok(Some(Place { database, renamed, expires: expiry.of_key(head.expires) }))
    }
}
