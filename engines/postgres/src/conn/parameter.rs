//! The two spellings of a connection string, as pairs of keyword and value.
//!
//! Source: manual, "Connection Strings" (libpq): `keyword = value` pairs, where a value may be quoted with `'` and `\`
//! escapes the next character in either form; and URIs `postgresql://user:password@host:port,host:port/db?keyword=value`
//! with percent-encoding in every component.

use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// A keyword and its value. Any value may be a password, so all of them are wiped.
pub(super) type Pair = (String, Zeroizing<String>);

pub(super) fn pairs(text: &str) -> Result<Vec<Pair>> {
    match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        Some(rest) => uri(rest),
        None => keywords(text),
    }
}

fn keywords(text: &str) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest
            .find('=')
            .ok_or_else(|| Error::settings(format!("a keyword without \"=\" after {} settings", pairs.len())))?;
        let keyword = rest[..end].trim_end();
        if keyword.is_empty() || keyword.contains(char::is_whitespace) {
            return Err(Error::settings(format!("a keyword without \"=\" after {} settings", pairs.len())));
        }
        let (value, after) = value(rest[end + 1..].trim_start())
            .ok_or_else(|| Error::settings(format!("the quoted value of {keyword} has no end")))?;
        pairs.push((keyword.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// A value at the front of `text`, quoted or not, and what follows it.
fn value(text: &str) -> Option<(Zeroizing<String>, &str)> {
    let quoted = text.starts_with('\'');
    let body = if quoted { &text[1..] } else { text };
    let mut value = Zeroizing::new(String::with_capacity(body.len().min(256)));
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' if quoted => return Some((value, &body[at + 1..])),
            c if !quoted && c.is_whitespace() => return Some((value, &body[at..])),
            '\\' => match chars.next() {
                Some((_, escaped)) => value.push(escaped),
                None if quoted => return None,
                None => {}
            },
            c => value.push(c),
        }
    }
    (!quoted).then_some((value, ""))
}

fn uri(rest: &str) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let (authority, database) = match rest.split_once('/') {
        Some((authority, database)) => (authority, Some(database)),
        None => (rest, None),
    };
    let hosts = match authority.rsplit_once('@') {
        Some((user, hosts)) => {
            let (user, password) = match user.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (user, None),
            };
            if !user.is_empty() {
                pairs.push(("user".to_owned(), decode("user", user)?));
            }
            if let Some(password) = password.filter(|p| !p.is_empty()) {
                pairs.push(("password".to_owned(), decode("password", password)?));
            }
            hosts
        }
        None => authority,
    };
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = if let Some(rest) = host.strip_prefix('[') {
            let (name, after) =
                rest.split_once(']').ok_or_else(|| Error::settings("an ipv6 address in the uri has no \"]\""))?;
            if !after.is_empty() && !after.starts_with(':') {
                return Err(Error::settings("only a port can follow \"]\" in the uri"));
            }
            (name, after.strip_prefix(':').unwrap_or(""))
        } else {
            host.split_once(':').unwrap_or((host, ""))
        };
        names.push(decode("host", name)?);
        ports.push(decode("port", port)?);
    }
    if names.iter().any(|name| !name.is_empty()) {
        pairs.push(("host".to_owned(), joined(&names)));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        pairs.push(("port".to_owned(), joined(&ports)));
    }
    if let Some(database) = database.filter(|d| !d.is_empty()) {
        pairs.push(("dbname".to_owned(), decode("dbname", database)?));
    }
    for part in query.unwrap_or("").split('&').filter(|part| !part.is_empty()) {
        let (keyword, value) =
            part.split_once('=').ok_or_else(|| Error::settings("a parameter of the uri has no \"=\""))?;
        let keyword = decode("a keyword", keyword)?;
        // The one alias that libpq takes in a URI, for JDBC's sake.
        match (keyword.as_str(), value) {
            ("ssl", "true") => pairs.push(("sslmode".to_owned(), Zeroizing::new("require".to_owned()))),
            _ => pairs.push((keyword.to_string(), decode(&keyword, value)?)),
        }
    }
    Ok(pairs)
}

fn joined(parts: &[Zeroizing<String>]) -> Zeroizing<String> {
    Zeroizing::new(parts.iter().map(|part| part.as_str()).collect::<Vec<_>>().join(","))
}

/// Percent-decodes a component; `%00` is refused as by libpq, and the result must be UTF-8.
fn decode(what: &str, text: &str) -> Result<Zeroizing<String>> {
    let wrong = || Error::settings(format!("{what} is not percent-encoded rightly"));
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at_checked(2).ok_or_else(wrong)?;
            let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
            let byte = digits.and_then(|d| u8::from_str_radix(d, 16).ok()).filter(|b| *b != 0).ok_or_else(wrong)?;
            bytes.push(byte);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(text: &str) -> Vec<(String, String)> {
        pairs(text).unwrap().into_iter().map(|(k, v)| (k, v.to_string())).collect()
    }

    fn expect(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn keyword_strings() {
        assert_eq!(plain(""), expect(&[]));
        assert_eq!(plain(" host=a  port = 5433 "), expect(&[("host", "a"), ("port", "5433")]));
        assert_eq!(plain(r"password='it\'s \\ a b' user=x"), expect(&[("password", r"it's \ a b"), ("user", "x")]));
        assert_eq!(plain(r"password=a\ b dbname=''"), expect(&[("password", "a b"), ("dbname", "")]));
        assert_eq!(plain("options='-c a=b'"), expect(&[("options", "-c a=b")]));
        assert_eq!(plain("a='x'b=y"), expect(&[("a", "x"), ("b", "y")]));
        for text in ["host", "host a=b", "=x", "password='open", r"password='open\'"] {
            assert!(pairs(text).is_err(), "{text}");
        }
    }

    #[test]
    fn uris_of_the_manual() {
        assert_eq!(plain("postgresql://"), expect(&[]));
        assert_eq!(plain("postgresql://localhost"), expect(&[("host", "localhost")]));
        assert_eq!(plain("postgres://localhost:5433"), expect(&[("host", "localhost"), ("port", "5433")]));
        assert_eq!(plain("postgresql://localhost/mydb"), expect(&[("host", "localhost"), ("dbname", "mydb")]));
        assert_eq!(
            plain("postgresql://user:secret@localhost"),
            expect(&[("user", "user"), ("password", "secret"), ("host", "localhost")])
        );
        assert_eq!(
            plain("postgresql://other@localhost/otherdb?connect_timeout=10&application_name=myapp"),
            expect(&[
                ("user", "other"),
                ("host", "localhost"),
                ("dbname", "otherdb"),
                ("connect_timeout", "10"),
                ("application_name", "myapp")
            ])
        );
        assert_eq!(
            plain("postgresql://host1:123,host2:456/somedb?target_session_attrs=any"),
            expect(&[
                ("host", "host1,host2"),
                ("port", "123,456"),
                ("dbname", "somedb"),
                ("target_session_attrs", "any")
            ])
        );
        assert_eq!(
            plain("postgresql://user@localhost:5433/mydb?options=-c%20synchronous_commit%3Doff").last().unwrap().1,
            "-c synchronous_commit=off"
        );
        assert_eq!(plain("postgresql://[2001:db8::1234]/database")[0], ("host".into(), "2001:db8::1234".into()));
        assert_eq!(
            plain("postgresql:///dbname?host=/var/lib/postgresql"),
            expect(&[("dbname", "dbname"), ("host", "/var/lib/postgresql")])
        );
        assert_eq!(plain("postgresql://%2Fvar%2Flib%2Fpostgresql/dbname")[0].1, "/var/lib/postgresql");
        assert_eq!(plain("postgresql://u:p%40ss@h")[1].1, "p@ss");
        for text in
            ["postgresql://[::1", "postgresql://[::1]x", "postgresql://a%2", "postgresql://a%00", "postgresql://h?x"]
        {
            assert!(pairs(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(postgresql://)?.*") {
            let _ = pairs(&text);
        }

        #[test]
        fn quoting_keeps_any_value(value: String) {
            let quoted = format!("password='{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
            prop_assert_eq!(plain(&quoted), vec![("password".to_owned(), value)]);
        }
    }
}
