//! Names and strings in quotes.
//!
//! Source: `writeAnyQuotedString`, `readAnyQuotedStringInto` and `parseComplexEscapeSequence` of
//! `src/IO/{Write,Read}Helpers`.

use std::borrow::Cow;

/// A name in back quotes, as servers write it where it has to be quoted. It is always quoted here.
///
/// ```
/// # use backup_clickhouse::ddl::quote;
/// assert_eq!(quote::identifier("a`b"), r"`a\`b`");
/// ```
#[must_use]
pub fn identifier(name: &str) -> String {
    quoted(name, '`')
}

/// A name with its database, both in back quotes.
#[must_use]
pub fn qualified(database: &str, name: &str) -> String {
    format!("{}.{}", identifier(database), identifier(name))
}

/// A string literal.
///
/// ```
/// # use backup_clickhouse::ddl::quote;
/// assert_eq!(quote::string("it's\n"), r"'it\'s\n'");
/// ```
#[must_use]
pub fn string(value: &str) -> String {
    quoted(value, '\'')
}

fn quoted(value: &str, quote: char) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push(quote);
    for character in value.chars() {
        let escape = match character {
            '\u{8}' => 'b',
            '\u{c}' => 'f',
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\0' => '0',
            '\\' => '\\',
            _ if character == quote => quote,
            _ => {
                out.push(character);
                continue;
            }
        };
        out.push('\\');
        out.push(escape);
    }
    out.push(quote);
    out
}

/// How many bytes the quoted text has that `text` begins with, its quotes included; `None` if it does not begin with a
/// quote or has no end.
#[must_use]
pub fn length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let quote = *bytes.first().filter(|byte| matches!(byte, b'\'' | b'"' | b'`'))?;
    let mut position = 1;
    loop {
        let byte = *bytes.get(position)?;
        let doubled = byte == quote && bytes.get(position + 1) == Some(&quote);
        match byte {
            b'\\' => position += 2,
            _ if doubled => position += 2,
            _ if byte == quote => return Some(position + 1),
            _ => position += 1,
        }
    }
}

/// What stands in quotes: `text` is one quoted text, from quote to quote. `None` if it is not, or if escapes in it make
/// something that is not UTF-8.
///
/// ```
/// # use backup_clickhouse::ddl::quote;
/// assert_eq!(quote::unquote("`a``b`").as_deref(), Some("a`b"));
/// assert_eq!(quote::unquote(r"'\x41\n'").as_deref(), Some("A\n"));
/// ```
#[must_use]
pub fn unquote(text: &str) -> Option<Cow<'_, str>> {
    if length(text)? != text.len() {
        return None;
    }
    let quote = *text.as_bytes().first()?;
    let inside = text.get(1..text.len() - 1)?;
    if !inside.bytes().any(|byte| byte == b'\\' || byte == quote) {
        return Some(Cow::Borrowed(inside));
    }
    let (mut out, mut bytes) = (Vec::with_capacity(inside.len()), inside.bytes());
    while let Some(byte) = bytes.next() {
        if byte == quote {
            // The first of two.
            bytes.next();
            out.push(byte);
        } else if byte == b'\\' {
            unescape(&mut bytes, &mut out)?;
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// What follows a backslash.
fn unescape(bytes: &mut std::str::Bytes<'_>, out: &mut Vec<u8>) -> Option<()> {
    let byte = bytes.next()?;
    let plain = match byte {
        b'x' => {
            let digits = [bytes.next()?, bytes.next()?].map(|digit| char::from(digit).to_digit(16));
            let [Some(high), Some(low)] = digits else { return None };
            u8::try_from(high * 16 + low).ok()?
        }
        // What stands for no value in text formats is an empty string.
        b'N' => return Some(()),
        b'a' => 7,
        b'b' => 8,
        b'e' => 0x1b,
        b'f' => 0xc,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0xb,
        b'0' => 0,
        b'\\' | b'\'' | b'"' | b'`' | b'/' | b'=' => byte,
        // An escape of nothing special is no escape: patterns like `\d` stay as they are.
        _ => {
            out.push(b'\\');
            byte
        }
    };
    out.push(plain);
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{identifier, length, qualified, string, unquote};

    #[test]
    fn quotes_are_those_of_servers() {
        assert_eq!(qualified("d", "t.1"), "`d`.`t.1`");
        assert_eq!(unquote(r#""a""b\"c""#).unwrap(), r#"a"b"c"#);
        assert_eq!(unquote(r"'\d\N\x4a\\'").unwrap(), r"\dJ\");
        assert_eq!(length("'a' 'b'"), Some(3));
        for text in ["", "a", "'", r"'\'", "'a'b", "'a''", r"'\x4'", r"'\xff'", r"'\xzz'"] {
            assert_eq!(unquote(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_unquoted(value in any::<String>(), rest in "[^'`\"]{0,5}") {
            for text in [identifier(&value), string(&value)] {
                prop_assert_eq!(length(&format!("{text}{rest}")), Some(text.len()));
                let read = unquote(&text);
                prop_assert_eq!(read.as_deref(), Some(value.as_str()));
            }
        }

        #[test]
        fn nothing_is_too_strange(text in "['`\"\\\\xN0a-cä]{0,12}") {
            if let Some(value) = unquote(&text) {
                let again = identifier(&value);
                prop_assert_eq!(unquote(&again).unwrap(), value);
            }
        }
    }
}
