//! What a statement refers to.
//!
//! One pass over the tokens, with nothing but the open brackets in mind. Servers write names with their databases into what
//! they store (`AddDefaultDatabaseVisitor.h`), so a bare name is mostly one that a query made itself; those that are seen
//! to be are left out.

use std::collections::BTreeSet;
use std::ops::Range;

use super::edit::Edit;
use super::engine::arguments;
use super::head::{Head, qualified, range};
use super::{Engine, ObjectKind};
use crate::ddl::quote;
use crate::ddl::token::{Kind, Tokens};

/// A table or dictionary that a statement names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// In what role.
    pub role: Role,
    /// Its database; `None` if the statement leaves it to the session, or computes it.
    pub database: Option<String>,
    /// Its name; for [`Role::Merge`] the pattern of names.
    pub name: String,
    place: Place,
}

/// In what role something is referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// A query reads it: `FROM`, `JOIN`, `IN`.
    Read,
    /// A materialized view writes into it.
    Target,
    /// A refreshable view waits for it.
    DependsOn,
    /// The table is made like it: `CREATE TABLE a AS b`.
    Like,
    /// A dictionary, in an expression or an engine.
    Dictionary,
    /// A table of the engine `Join`, in an expression.
    Join,
    /// The table behind an engine `Distributed`; on other servers, and mostly on this one, too.
    Distributed,
    /// The table behind an engine `Buffer`.
    Buffer,
    /// Tables behind an engine or function `Merge`: all whose names match.
    Merge,
    /// The table behind an engine `Alias`.
    Alias,
    /// What a dictionary reads from this server.
    DictionarySource,
    /// A table that is read through the network, maybe from this server.
    Remote,
}

/// How it is spelled.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// As a name: `a.b`.
    Name(Range<usize>),
    /// As one string: `'a.b'`.
    String(Range<usize>),
    /// As two arguments.
    Pair(Range<usize>, Range<usize>),
    /// As settings of a dictionary's source, of which that of the database may be missing.
    Settings(Option<Range<usize>>, Range<usize>),
    /// In a query within a string, which is at this place.
    Inside(Range<usize>, Box<Self>),
}

impl Reference {
    /// The changes that let it refer elsewhere.
    pub(super) fn redirect(&self, database: &str, name: &str) -> Vec<Edit> {
        self.place.redirect(database, name)
    }

    /// The place of the string in which it stands as a part of a query; its changes are changes of that query.
    pub(super) const fn query(&self) -> Option<&Range<usize>> {
        match &self.place {
            Place::Inside(query, _) => Some(query),
            _ => None,
        }
    }
}

impl Place {
    fn redirect(&self, database: &str, name: &str) -> Vec<Edit> {
        let string = |range: &Range<usize>, value: &str| Edit::replace(range.clone(), quote::string(value));
        match self {
            Self::Name(range) => vec![Edit::replace(range.clone(), quote::qualified(database, name))],
            Self::String(range) => vec![string(range, &format!("{database}.{name}"))],
            Self::Pair(first, second) | Self::Settings(Some(first), second) => {
                vec![string(first, database), string(second, name)]
            }
            Self::Settings(None, range) => {
                let text = format!("{} DB {}", quote::string(name), quote::string(database));
                vec![Edit::replace(range.clone(), text)]
            }
            Self::Inside(_, inner) => inner.redirect(database, name),
        }
    }

    /// Where it stands.
    fn start(&self) -> usize {
        match self {
            Self::Name(range) | Self::String(range) | Self::Pair(_, range) | Self::Settings(_, range) => range.start,
            Self::Inside(query, _) => query.start,
        }
    }
}

/// All references of a statement, in the order of the text.
pub(super) fn references(tokens: &Tokens, head: &Head) -> Vec<Reference> {
    let mut finder = Finder { tokens, found: Vec::new() };
    if let Some(at) = head.to_token {
        finder.name(Role::Target, at);
    }
    let depends = (head.clauses..head.body).find(|at| tokens.are(*at, &["DEPENDS", "ON"]));
    if let (Some(depends), ObjectKind::MaterializedView) = (depends, head.kind) {
        finder.names(Role::DependsOn, depends + 2);
    }
    if let Some(at) = head.engine {
        finder.engine(at);
    }
    if head.kind == ObjectKind::Table && !tokens.is(head.body, "SELECT") && !tokens.is(head.body, "WITH") {
        finder.item(Role::Like, head.body);
    }
    if head.kind == ObjectKind::Dictionary {
        finder.source(head.clauses);
    }
    finder.queries(head.clauses);
    let own: BTreeSet<_> = common_expressions(tokens).collect();
    let is_own = |found: &Reference| found.database.is_none() && own.contains(&found.name);
    finder.columns(head.body);
    let mut found = finder.found;
    found.retain(|found| found.role == Role::Target || !is_own(found));
    found.sort_by_key(|found| found.place.start());
    found
}

/// Names that a query gives to its own parts: `WITH name AS (SELECT …)`.
fn common_expressions(tokens: &Tokens) -> impl Iterator<Item = String> {
    let is_query = |at| tokens.is(at, "SELECT") || tokens.is(at, "WITH") || tokens.symbol(at, b'(');
    let named = move |at: &usize| tokens.is(at + 1, "AS") && tokens.symbol(at + 2, b'(') && is_query(at + 3);
    (0..tokens.len()).filter(named).filter_map(|at| tokens.name(at)).map(std::borrow::Cow::into_owned)
}

/// What is known between two brackets.
#[derive(Clone, Copy, Default)]
struct Level {
    /// A query began here, so `FROM` is its, and not that of a function like `trim(BOTH 'x' FROM y)`.
    select: bool,
    /// The tables of the query are being named.
    from: bool,
}

/// Words after which no more tables are named.
const BEHIND_TABLES: [&str; 14] = [
    "WHERE",
    "PREWHERE",
    "GROUP",
    "ORDER",
    "HAVING",
    "LIMIT",
    "OFFSET",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "SETTINGS",
    "WINDOW",
    "QUALIFY",
    "ARRAY",
];

struct Finder<'a> {
    tokens: &'a Tokens,
    found: Vec<Reference>,
}

impl Finder<'_> {
    /// Queries and expressions, wherever they are.
    fn queries(&mut self, from: usize) {
        let (tokens, mut levels) = (self.tokens, vec![Level::default()]);
        for at in from..tokens.len() {
            let Some(token) = tokens.get(at) else { break };
            let depth = levels.len();
            let Some(level) = levels.last_mut() else { break };
            match token.kind {
                Kind::Symbol(b'(' | b'[' | b'{') => levels.push(Level::default()),
                Kind::Symbol(b')' | b']' | b'}') if depth > 1 => {
                    levels.pop();
                }
                Kind::Symbol(b',') if level.from => self.item(Role::Read, at + 1),
                Kind::Word if !follows_dot(tokens, at) => self.word(at, level),
                _ => {}
            }
        }
    }

    fn word(&mut self, at: usize, level: &mut Level) {
        let tokens = self.tokens;
        let array = at > 0 && tokens.is(at - 1, "ARRAY");
        if tokens.is(at, "SELECT") {
            *level = Level { select: true, from: false };
        } else if level.select && (tokens.is(at, "FROM") || tokens.is(at, "JOIN") && !array) {
            level.from = true;
            self.item(Role::Read, at + 1);
        } else if tokens.is(at, "IN") {
            let bracket = usize::from(tokens.symbol(at + 1, b'('));
            let named = qualified(tokens, at + 1 + bracket).filter(|((database, _), _)| database.is_some());
            if let Some((_, behind)) = named
                && (bracket == 0 || tokens.symbol(behind, b')'))
            {
                self.name(Role::Read, at + 1 + bracket);
            }
        } else if BEHIND_TABLES.iter().any(|word| tokens.is(at, word)) {
            level.from = false;
        } else if tokens.symbol(at + 1, b'(') {
            match tokens.word(at) {
                Some(name) if is_of_dictionary(name) => self.string_or_name(Role::Dictionary, at + 2),
                Some("joinGet" | "joinGetOrNull") => self.string_or_name(Role::Join, at + 2),
                _ => {}
            }
        }
    }

    /// A table in a query, or a function in its place.
    fn item(&mut self, role: Role, at: usize) {
        let tokens = self.tokens;
        let Some((_, behind)) = qualified(tokens, at) else { return };
        if !tokens.symbol(behind, b'(') {
            return self.name(role, at);
        }
        match tokens.word(at) {
            Some("dictionary") => self.string_or_name(Role::Dictionary, behind + 1),
            Some("merge") => self.pair(Role::Merge, behind + 1),
            Some("remote" | "remoteSecure" | "cluster" | "clusterAllReplicas") if tokens.symbol(behind + 2, b',') => {
                match qualified(tokens, behind + 3) {
                    Some(((Some(_), _), _)) => self.name(Role::Remote, behind + 3),
                    _ => self.pair(Role::Remote, behind + 3),
                }
            }
            _ => {}
        }
    }

    /// A list of names.
    fn names(&mut self, role: Role, mut at: usize) {
        while let Some((_, behind)) = qualified(self.tokens, at) {
            self.name(role, at);
            if !self.tokens.symbol(behind, b',') {
                break;
            }
            at = behind + 1;
        }
    }

    /// A name with or without its database.
    fn name(&mut self, role: Role, at: usize) {
        if let Some(((database, name), behind)) = qualified(self.tokens, at) {
            let place = Place::Name(range(self.tokens, at, behind));
            self.found.push(Reference { role, database, name, place });
        }
    }

    /// The first argument of a function: `'a.b'` or `a.b`.
    fn string_or_name(&mut self, role: Role, at: usize) {
        let Some(text) = self.tokens.string(at) else { return self.name(role, at) };
        let (database, name) = match text.split_once('.') {
            Some((database, name)) => (Some(database.to_owned()), name.to_owned()),
            None => (None, text.into_owned()),
        };
        self.found.push(Reference { role, database, name, place: Place::String(range(self.tokens, at, at + 1)) });
    }

    /// Two arguments, each one token: a database and a table.
    fn pair(&mut self, role: Role, at: usize) {
        let value = |at| self.tokens.string(at).or_else(|| self.tokens.name(at));
        let (Some(database), true, Some(name)) = (value(at), self.tokens.symbol(at + 1, b','), value(at + 2)) else {
            return;
        };
        let (database, name) = (Some(database.into_owned()), name.into_owned());
        let place = Place::Pair(range(self.tokens, at, at + 1), range(self.tokens, at + 2, at + 3));
        self.found.push(Reference { role, database, name, place });
    }

    /// Columns with the whole name of a table that is read, `a.b.column`: the table is named once more.
    fn columns(&mut self, from: usize) {
        let tokens = self.tokens;
        let read = self.found.iter().filter(|found| found.role == Role::Read);
        let read: BTreeSet<_> = read.map(|found| (found.database.clone(), found.name.clone())).collect();
        for at in from..tokens.len() {
            let is_third = tokens.symbol(at + 1, b'.') && tokens.symbol(at + 3, b'.');
            if is_third
                && !follows_dot(tokens, at)
                && qualified(tokens, at).is_some_and(|(name, _)| read.contains(&name))
            {
                self.name(Role::Read, at);
            }
        }
    }

    /// The tables behind an engine.
    fn engine(&mut self, at: usize) {
        let Some(engine) = Engine::read(self.tokens, at) else { return };
        let (role, first) = match engine.name.as_str() {
            "Distributed" => (Role::Distributed, 1),
            "Buffer" => (Role::Buffer, 0),
            "Merge" => (Role::Merge, 0),
            "Alias" => (Role::Alias, 0),
            "Dictionary" => return self.string_or_name(Role::Dictionary, at + 2),
            _ => return,
        };
        let places = arguments(self.tokens, at + 1);
        let (Some(database), Some(name)) = (engine.arguments.get(first), engine.arguments.get(first + 1)) else {
            return;
        };
        let (Some(&from), Some(&to), Some(value)) = (places.get(first), places.get(first + 1), &name.value) else {
            return;
        };
        let place = Place::Pair(range(self.tokens, from.0, from.1), range(self.tokens, to.0, to.1));
        let (database, name) = (database.value.clone(), value.clone());
        self.found.push(Reference { role, database, name, place });
    }

    /// `SOURCE(CLICKHOUSE(… TABLE 't' DB 'd'))` of a dictionary.
    fn source(&mut self, from: usize) {
        let tokens = self.tokens;
        let found = (from..tokens.len()).find(|at| tokens.is(*at, "SOURCE") && tokens.is(at + 2, "CLICKHOUSE"));
        let Some(end) = found.and_then(|at| tokens.behind_bracket(at + 3)) else { return };
        let (mut database, mut table, mut query, mut remote) = (None, None, None, false);
        let mut at = found.unwrap_or_default() + 4;
        while at + 1 < end {
            let value = tokens.string(at + 1).or_else(|| tokens.name(at + 1));
            let setting = value.map(|value| (value.into_owned(), range(tokens, at + 1, at + 2)));
            match tokens.word(at).map(str::to_ascii_uppercase).as_deref() {
                Some("DB" | "DATABASE") => database = setting,
                Some("TABLE") => table = setting,
                Some("QUERY") => query = setting,
                Some("HOST") => {
                    let here = ["localhost", "127.0.0.1", "::1"];
                    remote = setting.is_some_and(|(host, _)| !here.contains(&host.as_str()));
                }
                _ => {}
            }
            at += 2;
        }
        let role = if remote { Role::Remote } else { Role::DictionarySource };
        if let Some((name, place)) = table {
            let (database, other) = database.unzip();
            self.found.push(Reference { role, database, name, place: Place::Settings(other, place) });
        }
        let Some((query, place)) = query else { return };
        let Ok(tokens) = Tokens::read(query) else { return };
        let mut inner = Finder { tokens: &tokens, found: Vec::new() };
        inner.queries(0);
        inner.columns(0);
        let inside = |found: Reference| {
            let place = Place::Inside(place.clone(), Box::new(found.place));
            Reference { role, place, ..found }
        };
        self.found.extend(inner.found.into_iter().map(inside));
    }
}

/// Whether a token is the further part of a name.
fn follows_dot(tokens: &Tokens, at: usize) -> bool {
    at.checked_sub(1).is_some_and(|before| tokens.symbol(before, b'.'))
}

/// Whether a function takes a dictionary's name (`FunctionsExternalDictionaries.h`).
fn is_of_dictionary(function: &str) -> bool {
    function.starts_with("dictGet") || matches!(function, "dictHas" | "dictIsIn")
}
