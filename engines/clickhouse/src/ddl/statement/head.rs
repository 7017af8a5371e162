//! The clauses in front of a statement, and where its body begins.
//!
//! Sources: `ParserCreateQuery.cpp`, `ASTCreateQuery.cpp` (how servers write it).

use std::ops::Range;

use super::{ObjectKind, Verb};
use crate::ddl::token::{Kind, Tokens};
use crate::ddl::{Error, Result};

/// What was read, with its place in the text.
type Placed = Option<(String, Range<usize>)>;
/// A name with its database.
pub(super) type Qualified = (Option<String>, String);

/// The clauses of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) verb: Verb,
    pub(super) verb_range: Range<usize>,
    pub(super) or_replace: bool,
    pub(super) kind: ObjectKind,
    pub(super) database: Option<String>,
    pub(super) name: String,
    pub(super) name_range: Range<usize>,
    pub(super) uuid: Placed,
    pub(super) inner_uuid: Placed,
    /// What stands behind `TO`, and its token.
    pub(super) to: Option<Qualified>,
    pub(super) to_token: Option<usize>,
    /// The list of columns, with its brackets.
    pub(super) columns: Option<Range<usize>>,
    /// The token of the engine's name.
    pub(super) engine: Option<usize>,
    /// The token behind the name and its UUID.
    pub(super) clauses: usize,
    /// The token behind `AS`, or behind the last one.
    pub(super) body: usize,
}

/// How each kind is called.
const KINDS: [(&[&str], ObjectKind); 9] = [
    (&["DATABASE"], ObjectKind::Database),
    (&["TABLE"], ObjectKind::Table),
    (&["VIEW"], ObjectKind::View),
    (&["MATERIALIZED", "VIEW"], ObjectKind::MaterializedView),
    (&["LIVE", "VIEW"], ObjectKind::LiveView),
    (&["WINDOW", "VIEW"], ObjectKind::WindowView),
    (&["DICTIONARY"], ObjectKind::Dictionary),
    (&["FUNCTION"], ObjectKind::Function),
    (&["NAMED", "COLLECTION"], ObjectKind::NamedCollection),
];

impl Head {
    pub(super) fn read(tokens: &Tokens) -> Result<Self> {
        let verb = match tokens.word(0) {
            Some(word) if word.eq_ignore_ascii_case("CREATE") => Verb::Create,
            Some(word) if word.eq_ignore_ascii_case("ATTACH") => Verb::Attach,
            _ => return Err(Error::syntax(0, "it begins with neither CREATE nor ATTACH")),
        };
        let (or_replace, mut at) = if tokens.are(1, &["OR", "REPLACE"]) { (true, 3) } else { (false, 1) };
        at += usize::from(tokens.is(at, "TEMPORARY"));
        let found = KINDS.iter().find(|(words, _)| tokens.are(at, words));
        let (words, kind) = found.ok_or_else(|| syntax(tokens, at, "what it makes is not known"))?;
        at += words.len();
        if tokens.are(at, &["IF", "NOT", "EXISTS"]) {
            at += 3;
        }
        let ((database, name), behind) =
            qualified(tokens, at).ok_or_else(|| syntax(tokens, at, "the name of what it makes is not there"))?;
        if tokens.symbol(behind, b'.') {
            return Err(syntax(tokens, behind, "a name has a database and nothing more"));
        }
        let mut head = Self {
            verb,
            verb_range: range(tokens, 0, 1),
            or_replace,
            kind: *kind,
            database,
            name,
            name_range: range(tokens, at, behind),
            uuid: None,
            inner_uuid: None,
            to: None,
            to_token: None,
            columns: None,
            engine: None,
            clauses: behind,
            body: tokens.len(),
        };
        if let Some(uuid) = uuid(tokens, behind) {
            head.uuid = Some((uuid, range(tokens, behind, behind + 2)));
            head.clauses += 2;
        }
        head.clauses(tokens)?;
        Ok(head)
    }

    /// Goes through the clauses up to the body; what is in brackets is none of them.
    fn clauses(&mut self, tokens: &Tokens) -> Result<()> {
        let mut at = self.clauses;
        while let Some(token) = tokens.get(at) {
            if matches!(token.kind, Kind::Symbol(b'(' | b'[' | b'{')) {
                let end = tokens.behind_bracket(at).ok_or_else(|| syntax(tokens, at, "a bracket has no end"))?;
                if self.columns.is_none() && self.engine.is_none() {
                    self.columns = Some(range(tokens, at, end));
                }
                at = end;
                continue;
            }
            if matches!(token.kind, Kind::Symbol(b')' | b']' | b'}')) {
                return Err(syntax(tokens, at, "a bracket has no beginning"));
            }
            let engine = self.engine.is_none();
            if tokens.are(at, &["TO", "INNER"]) && self.inner_uuid.is_none() {
                let uuid = uuid(tokens, at + 2);
                self.inner_uuid = uuid.map(|uuid| (uuid, range(tokens, at, at + 4)));
                at += 1;
            } else if tokens.is(at, "TO") && engine && self.to.is_none() && self.is_view() {
                self.to = qualified(tokens, at + 1).map(|(name, _)| name);
                self.to_token = self.to.is_some().then_some(at + 1);
                // The name behind it may be spelled as a clause.
                at = qualified(tokens, at + 1).map_or(at, |(_, behind)| behind - 1);
            } else if tokens.is(at, "ENGINE") && engine {
                let name = at + 1 + usize::from(tokens.symbol(at + 1, b'='));
                // Words that mean something else are in quotes: `Null`.
                self.engine = tokens.name(name).map(|_| name);
                at = name;
            } else if tokens.is(at, "AS") {
                self.body = at + 1;
                return self.balanced(tokens);
            }
            at += 1;
        }
        Ok(())
    }

    /// Whether every bracket of the body has its other half.
    fn balanced(&self, tokens: &Tokens) -> Result<()> {
        let mut at = self.body;
        while let Some(token) = tokens.get(at) {
            at = match token.kind {
                Kind::Symbol(b'(' | b'[' | b'{') => {
                    tokens.behind_bracket(at).ok_or_else(|| syntax(tokens, at, "a bracket has no end"))?
                }
                Kind::Symbol(b')' | b']' | b'}') => return Err(syntax(tokens, at, "a bracket has no beginning")),
                _ => at + 1,
            };
        }
        Ok(())
    }

    const fn is_view(&self) -> bool {
        matches!(self.kind, ObjectKind::MaterializedView | ObjectKind::WindowView)
    }
}

/// `a` or `a.b` from a token on, and the token behind it.
pub(super) fn qualified(tokens: &Tokens, at: usize) -> Option<(Qualified, usize)> {
    let first = tokens.name(at)?.into_owned();
    match tokens.symbol(at + 1, b'.').then(|| tokens.name(at + 2)).flatten() {
        Some(second) => Some(((Some(first), second.into_owned()), at + 3)),
        None => Some(((None, first), at + 1)),
    }
}

/// The UUID behind the word.
fn uuid(tokens: &Tokens, at: usize) -> Option<String> {
    if tokens.is(at, "UUID") { tokens.string(at + 1).map(std::borrow::Cow::into_owned) } else { None }
}

/// The place of the tokens from one to before another.
pub(super) fn range(tokens: &Tokens, from: usize, to: usize) -> Range<usize> {
    let start = tokens.get(from).map_or(tokens.text().len(), |token| token.start);
    let end = to.checked_sub(1).and_then(|last| tokens.get(last)).map_or(start, |token| token.end);
    start..end.max(start)
}

fn syntax(tokens: &Tokens, at: usize, reason: &'static str) -> Error {
    Error::syntax(tokens.get(at).map_or(tokens.text().len(), |token| token.start), reason)
}
