//! The words of a statement.
//!
//! Source: `src/Parsers/Lexer.cpp`. Only what is needed to find a way through a definition: where names, strings and
//! comments begin and end, so that nothing in them is taken for a word.

use std::borrow::Cow;
use std::ops::Range;

use super::{Error, Result, quote};

/// A definition above this is none; servers take 256 KiB unless they are told otherwise.
pub(super) const MAX_STATEMENT: usize = 4 << 20;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword, a bare name, a number.
    Word,
    /// A name in back quotes or double quotes.
    Quoted,
    /// A string.
    String,
    /// Anything else, byte by byte.
    Symbol(u8),
}

/// A token and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    pub(super) const fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

/// A text and its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    text: String,
    tokens: Vec<Token>,
}

impl Tokens {
    /// Takes a text apart.
    pub(super) fn read(text: String) -> Result<Self> {
        if text.len() > MAX_STATEMENT {
            return Err(Error::TooLong { length: text.len(), limit: MAX_STATEMENT });
        }
        let (mut tokens, mut position) = (Vec::new(), 0);
        while let Some(rest) = text.get(position..).filter(|rest| !rest.is_empty()) {
            let (kind, length) = first(rest).map_err(|reason| Error::syntax(position, reason))?;
            if let Some(kind) = kind {
                tokens.push(Token { kind, start: position, end: position + length });
            }
            position += length;
        }
        Ok(Self { text, tokens })
    }

    /// The text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// A token; behind the end there is none.
    pub(super) fn get(&self, at: usize) -> Option<Token> {
        self.tokens.get(at).copied()
    }

    /// The text of a token.
    pub(super) fn slice(&self, token: Token) -> &str {
        self.text.get(token.range()).unwrap_or_default()
    }

    /// Whether the token is this word, in whatever case.
    pub(super) fn is(&self, at: usize, word: &str) -> bool {
        self.get(at).is_some_and(|token| token.kind == Kind::Word && self.slice(token).eq_ignore_ascii_case(word))
    }

    /// Whether the tokens from `at` on are these words.
    pub(super) fn are(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(more, word)| self.is(at + more, word))
    }

    /// Whether the token is this symbol.
    pub(super) fn symbol(&self, at: usize, symbol: u8) -> bool {
        self.get(at).is_some_and(|token| token.kind == Kind::Symbol(symbol))
    }

    /// The bare word there.
    pub(super) fn word(&self, at: usize) -> Option<&str> {
        self.get(at).filter(|token| token.kind == Kind::Word).map(|token| self.slice(token))
    }

    /// The name there, bare or quoted.
    pub(super) fn name(&self, at: usize) -> Option<Cow<'_, str>> {
        let token = self.get(at)?;
        match token.kind {
            Kind::Word => Some(Cow::Borrowed(self.slice(token))),
            Kind::Quoted => quote::unquote(self.slice(token)),
            _ => None,
        }
    }

    /// The string there.
    pub(super) fn string(&self, at: usize) -> Option<Cow<'_, str>> {
        let token = self.get(at).filter(|token| token.kind == Kind::String)?;
        let text = self.slice(token);
        if text.starts_with('$') {
            // From tag to tag, nothing is escaped in between.
            let tag = text.get(1..)?.find('$')? + 2;
            return text.get(tag..text.len().checked_sub(tag)?).map(Cow::Borrowed);
        }
        quote::unquote(text)
    }

    /// Behind the bracket that closes the one at `at`.
    pub(super) fn behind_bracket(&self, at: usize) -> Option<usize> {
        let mut depth = 0usize;
        for (offset, token) in self.tokens.get(at..)?.iter().enumerate() {
            match token.kind {
                Kind::Symbol(b'(' | b'[' | b'{') => depth += 1,
                Kind::Symbol(b')' | b']' | b'}') => depth = depth.checked_sub(1)?,
                _ => {}
            }
            if depth == 0 {
                return Some(at + offset + 1);
            }
        }
        None
    }
}

/// What the text begins with and how long that is; no kind for what means nothing.
fn first(text: &str) -> Result<(Option<Kind>, usize), &'static str> {
    let bytes = text.as_bytes();
    let quoted = |kind| quote::length(text).map(|length| (Some(kind), length)).ok_or("a quote has no end");
    match bytes {
        [b'\'', ..] => quoted(Kind::String),
        [b'"' | b'`', ..] => quoted(Kind::Quoted),
        [b'-', b'-', ..] | [b'#', b' ' | b'!', ..] => Ok((None, text.find('\n').unwrap_or(text.len()))),
        [b'/', b'*', rest @ ..] => {
            let end = rest.windows(2).position(|pair| pair == b"*/").ok_or("a comment has no end")?;
            Ok((None, end + 4))
        }
        [b'$', ..] => match heredoc(text) {
            Some(length) => Ok((Some(Kind::String), length)),
            None => Ok((Some(Kind::Symbol(b'$')), 1)),
        },
        [byte, ..] if is_word(*byte) => Ok((Some(Kind::Word), bytes.iter().take_while(|byte| is_word(**byte)).count())),
        _ => {
            let character = text.chars().next().unwrap_or_default();
            let kind = match u8::try_from(u32::from(character)) {
                Ok(byte) if byte.is_ascii() && !character.is_whitespace() => Some(Kind::Symbol(byte)),
                _ if character.is_whitespace() => None,
                // No name and no operator has these, but a tolerant reader goes on.
                _ => Some(Kind::Symbol(0xff)),
            };
            Ok((kind, character.len_utf8()))
        }
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// How long the string between two equal tags, `$tag$…$tag$`, is.
fn heredoc(text: &str) -> Option<usize> {
    let tag_end = text.get(1..)?.bytes().position(|byte| !is_word(byte))? + 1;
    let tag = text.get(..tag_end + 1).filter(|tag| tag.ends_with('$'))?;
    let inside = text.get(tag.len()..)?.find(tag)?;
    Some(tag.len() * 2 + inside)
}

#[cfg(test)]
mod tests {
    use super::{Kind, MAX_STATEMENT, Tokens};

    fn slices(text: &str) -> Vec<String> {
        let tokens = Tokens::read(text.to_owned()).unwrap();
        (0..tokens.len()).map(|at| tokens.slice(tokens.get(at).unwrap()).to_owned()).collect()
    }

    #[test]
    fn nothing_in_quotes_and_comments_is_a_word() {
        let text =
            "SELECT 'it''s -- no' /* FROM x */ -- FROM y\n,`a``b`, \"c\\\"d\" # FROM z\n FROM t.1 $x$ 'q $$ $x$ ä";
        let expected =
            ["SELECT", "'it''s -- no'", ",", "`a``b`", ",", "\"c\\\"d\"", "FROM", "t", ".", "1", "$x$ 'q $$ $x$", "ä"];
        assert_eq!(slices(text), expected);
        let tokens = Tokens::read(text.to_owned()).unwrap();
        assert_eq!(tokens.string(10).unwrap(), " 'q $$ ");
        assert_eq!(tokens.string(1).unwrap(), "it's -- no");
        assert_eq!(tokens.get(0).unwrap().kind, Kind::Word);
    }

    #[test]
    fn what_has_no_end_is_an_error_with_its_place() {
        for (text, offset) in [("a 'b", 2), ("ab /* c", 3), ("`\\`", 0), ("x \"", 2)] {
            let error = Tokens::read(text.to_owned()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("statement at byte {offset}:")), "{error}");
        }
        Tokens::read(" ".repeat(MAX_STATEMENT + 1)).unwrap_err();
        assert_eq!(slices("$a b$ $"), ["$", "a", "b", "$", "$"]);
    }

    #[test]
    fn brackets_are_counted_without_a_stack() {
        let deep = "(".repeat(1 << 20);
        let tokens = Tokens::read(format!("{deep}{}x", ")".repeat(1 << 20))).unwrap();
        assert_eq!(tokens.behind_bracket(0), Some(2 << 20));
        let tokens = Tokens::read(deep).unwrap();
        assert_eq!(tokens.behind_bracket(0), None);
        assert_eq!(Tokens::read(")(".to_owned()).unwrap().behind_bracket(0), None);
    }
}
