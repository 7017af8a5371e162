//! The engine of a table or database.

use std::ops::Range;

use super::head::range;
use crate::ddl::token::{Kind, Tokens};

/// An engine and what is in its brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<Argument>,
}

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// As it stands in the statement.
    pub text: String,
    /// What it says, if it is a string or a name and nothing else.
    pub value: Option<String>,
    /// Whether it is a string.
    pub is_string: bool,
}

/// Where a replicated table is in Keeper, as the statement says it: with macros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replication {
    /// The path; `None` if it is left to the server's `default_replica_path`.
    pub path: Option<String>,
    /// The name of the replica; `None` if it is left to the server's `default_replica_name`.
    pub replica: Option<String>,
}

impl Engine {
    /// Reads the engine whose name is the token `at`.
    pub(super) fn read(tokens: &Tokens, at: usize) -> Option<Self> {
        let name = tokens.name(at)?.into_owned();
        let arguments = arguments(tokens, at + 1).into_iter().map(|(from, to)| Argument::read(tokens, from, to));
        Some(Self { name, arguments: arguments.collect() })
    }

    /// Where it stands.
    pub(super) fn range(tokens: &Tokens, at: usize) -> Option<Range<usize>> {
        let brackets = tokens.symbol(at + 1, b'(').then(|| tokens.behind_bracket(at + 1)).flatten();
        tokens.name(at).map(|_| range(tokens, at, brackets.unwrap_or(at + 1)))
    }

    /// Whether it is a table that is replicated through Keeper.
    #[must_use]
    pub fn is_replicated(&self) -> bool {
        self.plain_name() != self.name
    }

    /// Its name without what makes it replicated.
    #[must_use]
    pub fn plain_name(&self) -> &str {
        let plain = self.name.strip_prefix("Replicated").or_else(|| self.name.strip_prefix("Shared"));
        plain.filter(|plain| plain.ends_with("MergeTree")).unwrap_or(&self.name)
    }

    /// Where it is in Keeper; `None` if it is not replicated.
    #[must_use]
    pub fn replication(&self) -> Option<Replication> {
        if !self.is_replicated() {
            return None;
        }
        let mut own = self.arguments.iter().take(self.own_arguments()).map(|argument| argument.value.clone());
        Some(Replication { path: own.next().flatten(), replica: own.next().flatten() })
    }

    /// How many arguments in front are those of replication: path and replica are strings, and there are both or none.
    fn own_arguments(&self) -> usize {
        let both = matches!(self.arguments.as_slice(), [path, replica, ..] if path.is_string && replica.is_string);
        if both && self.is_replicated() { 2 } else { 0 }
    }

    /// The engine as it stands in a statement, with another name and other arguments in the place of those of replication.
    pub(super) fn spelled(&self, name: &str, own: &[String]) -> String {
        let rest = self.arguments.iter().skip(self.own_arguments()).map(|argument| argument.text.as_str());
        let arguments: Vec<_> = own.iter().map(String::as_str).chain(rest).collect();
        if arguments.is_empty() { name.to_owned() } else { format!("{name}({})", arguments.join(", ")) }
    }
}

impl Argument {
    fn read(tokens: &Tokens, from: usize, to: usize) -> Self {
        let text = tokens.text().get(range(tokens, from, to)).unwrap_or_default().to_owned();
        let single = (to == from + 1).then(|| tokens.get(from)).flatten();
        let is_string = single.is_some_and(|token| token.kind == Kind::String);
        let value = single.and_then(|_| tokens.string(from).or_else(|| tokens.name(from)));
        Self { text, value: value.map(std::borrow::Cow::into_owned), is_string }
    }
}

/// The tokens of each argument, `from` and `to`, in the brackets that begin at `at`; none if none begin there.
pub(super) fn arguments(tokens: &Tokens, at: usize) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let Some(end) = tokens.symbol(at, b'(').then(|| tokens.behind_bracket(at)).flatten() else { return found };
    let (mut from, mut next) = (at + 1, at + 1);
    while next + 1 < end {
        match tokens.get(next).map(|token| token.kind) {
            Some(Kind::Symbol(b'(' | b'[' | b'{')) => {
                next = tokens.behind_bracket(next).unwrap_or(end);
                continue;
            }
            Some(Kind::Symbol(b',')) => {
                found.push((from, next));
                from = next + 1;
            }
            _ => {}
        }
        next += 1;
    }
    if from + 1 < end {
        found.push((from, end - 1));
    }
    found
}
