//! A `CREATE` or `ATTACH` statement: what it makes, and changes of it that leave the rest as it is.

mod edit;
mod engine;
mod head;
mod reference;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use edit::Edit;
pub use engine::{Argument, Engine, Replication};
use head::Head;
pub use reference::{Reference, Role};

use super::token::{Kind, Tokens};
use super::{Error, Result, quote};

/// The word that a statement begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `CREATE`: what a client says.
    Create,
    /// `ATTACH`: what servers write into their metadata. The object is there already.
    Attach,
}

impl Verb {
    const fn word(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Attach => "ATTACH",
        }
    }
}

/// What a statement makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ObjectKind {
    /// A database.
    Database,
    /// A table with an engine, or with a table function in its place.
    Table,
    /// A view: a query with a name.
    View,
    /// A view whose result is kept: in a table that [`Statement::target`] names, or in an inner one.
    MaterializedView,
    /// A view that tells its watchers of changes.
    LiveView,
    /// A view over windows of time.
    WindowView,
    /// A dictionary.
    Dictionary,
    /// A function of SQL.
    Function,
    /// A collection of settings that has a name.
    NamedCollection,
}

/// What a table loses by the passing of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing.
    Nothing,
    /// Rows.
    Rows,
    /// Values, in rows that stay: by a `TTL` of a column, or one that groups.
    Values,
}

/// Where a materialized view keeps its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// In a table that was made for itself.
    Table {
        /// Its database; `None` if the statement leaves it to the session.
        database: Option<String>,
        /// Its name.
        name: String,
    },
    /// In a table of its own: `.inner_id.UUID` in a database with UUIDs, else `.inner.NAME`.
    Inner {
        /// The table's UUID, if the statement says it.
        uuid: Option<String>,
    },
}

/// A statement, read by its tokens.
///
/// ```
/// use backup_clickhouse::ddl::{ObjectKind, Statement};
///
/// # fn main() -> backup_clickhouse::ddl::Result<()> {
/// let table = Statement::parse(
///     "CREATE TABLE d.t UUID '0a0b' (`x` UInt8) ENGINE = ReplicatedMergeTree('/t/{uuid}', '{replica}') ORDER BY x",
/// )?;
/// assert_eq!((table.kind(), table.database(), table.name()), (ObjectKind::Table, Some("d"), "t"));
/// let plain = table.renamed(Some("copy"), "t")?.without_uuid()?.unreplicated()?;
/// assert_eq!(plain.text(), "CREATE TABLE `copy`.`t` (`x` UInt8) ENGINE = MergeTree ORDER BY x");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    tokens: Tokens,
    head: Head,
}

impl Statement {
    /// Reads a statement.
    ///
    /// # Errors
    /// [`Error::Syntax`] if it is no `CREATE` or `ATTACH` of something that is known here, or a quote or a bracket has no
    /// end; [`Error::TooLong`] above 4 MiB.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let tokens = Tokens::read(text.into())?;
        let head = Head::read(&tokens)?;
        Ok(Self { tokens, head })
    }

    /// The statement.
    #[must_use]
    pub fn text(&self) -> &str {
        self.tokens.text()
    }

    /// The word that it begins with.
    #[must_use]
    pub const fn verb(&self) -> Verb {
        self.head.verb
    }

    /// What it makes.
    #[must_use]
    pub const fn kind(&self) -> ObjectKind {
        self.head.kind
    }

    /// The database of what it makes; `None` if it leaves that to the session, and for databases and functions.
    #[must_use]
    pub fn database(&self) -> Option<&str> {
        self.head.database.as_deref()
    }

    /// The name of what it makes. In metadata files it is `_`, and the name is that of the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.head.name
    }

    /// The UUID that it gives to what it makes.
    #[must_use]
    pub fn uuid(&self) -> Option<&str> {
        self.head.uuid.as_ref().map(|(uuid, _)| uuid.as_str())
    }

    /// Where a materialized view keeps its rows; `None` for anything else.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        if self.kind() != ObjectKind::MaterializedView {
            return None;
        }
        Some(match &self.head.to {
            Some((database, name)) => Target::Table { database: database.clone(), name: name.clone() },
            None => Target::Inner { uuid: self.head.inner_uuid.as_ref().map(|(uuid, _)| uuid.clone()) },
        })
    }

    /// The engine of a table or database, or of the inner table of a view; `None` if the statement names none.
    #[must_use]
    pub fn engine(&self) -> Option<Engine> {
        Engine::read(&self.tokens, self.head.engine?)
    }

    /// Where a replicated table is in Keeper; `None` if it is not replicated.
    #[must_use]
    pub fn replication(&self) -> Option<Replication> {
        self.engine()?.replication()
    }

    /// What happens to a table by the passing of time: what its `TTL` says, as far as words tell. A column that is called `TTL` counts, too.
    #[must_use]
    pub fn expiry(&self) -> Expiry {
        let (mut depth, mut found) = (0_usize, Expiry::Nothing);
        for at in 0..self.tokens.len() {
            let word = |word| self.tokens.is(at, word);
            match self.tokens.get(at).map(|token| token.kind) {
                Some(Kind::Symbol(b'(')) => depth += 1,
                Some(Kind::Symbol(b')')) => depth = depth.saturating_sub(1),
                _ if word("TTL") && depth > 0 => return Expiry::Values,
                _ if word("TTL") => found = Expiry::Rows,
                _ if word("GROUP") && depth == 0 && found == Expiry::Rows => return Expiry::Values,
                _ => {}
            }
        }
        found
    }

    /// What the `SETTINGS` of a table say of `name`, if it is a string and they do.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<String> {
        let mut depth = 0_usize;
        let mut inside = false;
        for at in 0..self.tokens.len() {
            match self.tokens.get(at).map(|token| token.kind) {
                Some(Kind::Symbol(b'(')) => depth += 1,
                Some(Kind::Symbol(b')')) => depth = depth.saturating_sub(1),
                // Behind it there may be a query with settings of its own.
                _ if depth == 0 && self.tokens.is(at, "AS") && inside => return None,
                _ if depth == 0 && self.tokens.is(at, "SETTINGS") => inside = true,
                _ if depth == 0 && inside && self.tokens.is(at, name) && self.tokens.symbol(at + 1, b'=') => {
                    return self.tokens.string(at + 2).map(std::borrow::Cow::into_owned);
                }
                _ => {}
            }
        }
        None
    }

    /// What it refers to, as far as tokens say it, in the order of the text: each place once for each time. What the
    /// server says itself of dependencies is to be joined with it; names that only a query's result has may be among them.
    #[must_use]
    pub fn references(&self) -> Vec<Reference> {
        reference::references(&self.tokens, &self.head)
    }

    /// The same for another name. What the statement refers to stays; see [`Self::redirected`].
    ///
    /// # Errors
    /// [`Error::Unsupported`] if a database is given for something that has none.
    pub fn renamed(&self, database: Option<&str>, name: &str) -> Result<Self> {
        let has_database =
            !matches!(self.kind(), ObjectKind::Database | ObjectKind::Function | ObjectKind::NamedCollection);
        let name = match database {
            Some(_) if !has_database => return Err(Error::Unsupported("what it makes is in no database")),
            Some(database) => quote::qualified(database, name),
            None => quote::identifier(name),
        };
        self.edited(vec![Edit::replace(self.head.name_range.clone(), name)])
    }

    /// The same with another UUID.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for functions and named collections, which have none.
    pub fn with_uuid(&self, uuid: &str) -> Result<Self> {
        let edit = match &self.head.uuid {
            Some((_, range)) => Edit::replace(range.clone(), format!("UUID {}", quote::string(uuid))),
            None if matches!(self.kind(), ObjectKind::Function | ObjectKind::NamedCollection) => {
                return Err(Error::Unsupported("what it makes has no uuid"));
            }
            None => Edit::insert(self.head.name_range.end, format!(" UUID {}", quote::string(uuid))),
        };
        self.edited(vec![edit])
    }

    /// The same without a UUID, so that the server gives one; that of an inner table goes, too.
    ///
    /// # Errors
    /// None that a statement that was read can have.
    pub fn without_uuid(&self) -> Result<Self> {
        let ranges = [&self.head.uuid, &self.head.inner_uuid].into_iter().flatten().map(|(_, range)| range.clone());
        self.edited(ranges.map(|range| Edit::remove_word(self.text(), range)).collect())
    }

    /// The same as `CREATE` or `ATTACH`. A server takes `ATTACH` of a whole statement only with a UUID, or in databases
    /// without UUIDs.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for `CREATE OR REPLACE`, which cannot be attached.
    pub fn with_verb(&self, verb: Verb) -> Result<Self> {
        if verb == Verb::Attach && self.head.or_replace {
            return Err(Error::Unsupported("what replaces something cannot be attached"));
        }
        self.edited(vec![Edit::replace(self.head.verb_range.clone(), verb.word().to_owned())])
    }

    /// The same with another engine, given as it has to stand in the statement: `Atomic`, `MergeTree`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it names none.
    pub fn with_engine(&self, engine: &str) -> Result<Self> {
        let place = self.head.engine.ok_or(Error::Unsupported("it names no engine"))?;
        let range = Engine::range(&self.tokens, place).ok_or(Error::Unsupported("it names no engine"))?;
        self.edited(vec![Edit::replace(range, engine.to_owned())])
    }

    /// The same without its list of columns, which the server then finds itself: it shows tables of the engine `Alias` with
    /// one and does not take them so. Without a list it is the same.
    ///
    /// # Errors
    /// None that a statement that was read can have.
    pub fn without_columns(&self) -> Result<Self> {
        let list = self.head.columns.clone().map(|range| Edit::remove_word(self.text(), range));
        self.edited(list.into_iter().collect())
    }

    /// The same replicated elsewhere. An engine whose path was left to the server gets one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is not replicated.
    pub fn replicated_at(&self, path: &str, replica: &str) -> Result<Self> {
        let engine = self.engine().filter(Engine::is_replicated);
        let engine = engine.ok_or(Error::Unsupported("it is not replicated"))?;
        let own = [quote::string(path), quote::string(replica)];
        self.with_engine(&engine.spelled(&engine.name, &own))
    }

    /// The same on one server only: `ReplicatedSummingMergeTree('/path', '{replica}', x)` is `SummingMergeTree(x)`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is not replicated.
    pub fn unreplicated(&self) -> Result<Self> {
        let engine = self.engine().filter(Engine::is_replicated);
        let engine = engine.ok_or(Error::Unsupported("it is not replicated"))?;
        self.with_engine(&engine.spelled(engine.plain_name(), &[]))
    }

    /// The same referring elsewhere: for each reference `to` says the database and name that it has to be, or nothing if
    /// it stays. So whole databases come back under other names, with their views and dictionaries. A query that calls a
    /// column by the bare name of its table, `t.x`, needs the table to keep its name.
    ///
    /// # Errors
    /// [`Error::TooLong`] if what comes of it is.
    pub fn redirected(&self, mut to: impl FnMut(&Reference) -> Option<(String, String)>) -> Result<Self> {
        let (mut edits, mut queries) = (Vec::new(), BTreeMap::<_, Vec<Edit>>::new());
        for reference in self.references() {
            let Some((database, name)) = to(&reference) else { continue };
            let changes = reference.redirect(&database, &name);
            match reference.query() {
                Some(query) => queries.entry((query.start, query.end)).or_default().extend(changes),
                None => edits.extend(changes),
            }
        }
        for ((start, end), changes) in queries {
            let query = self.text().get(start..end).and_then(quote::unquote).unwrap_or_default();
            edits.push(Edit::replace(start..end, quote::string(&edit::apply(&query, changes))));
        }
        self.edited(edits)
    }

    fn edited(&self, edits: Vec<Edit>) -> Result<Self> {
        Self::parse(edit::apply(self.text(), edits))
    }
}

impl std::fmt::Display for Statement {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.text())
    }
}
