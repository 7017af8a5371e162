//! The text that `INFO` answers with.

use std::collections::BTreeMap;

/// What a server says about itself: names and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    text: String,
    values: BTreeMap<String, String>,
}

impl Info {
    /// Reads the text. What is no pair of name and value is passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(':'));
        let values = pairs.map(|(name, value)| (name.to_owned(), value.trim_end().to_owned())).collect();
        Self { text: text.to_owned(), values }
    }

    /// The text as it came.
    #[must_use]
    pub fn text(&self) -> String {
        self.text.clone()
    }

    /// A value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// A number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// Whether a value is `1` or `yes`.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "yes"))
    }

    /// The names that begin with `prefix` and go on with a number, with their values: `db0`, `slave0`.
    pub fn numbered<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (u64, &'a str)> {
        self.values
            .iter()
            .filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?.parse().ok()?, value.as_str())))
    }
}

/// A field of a value such as `keys=3,expires=1`.
pub(super) fn field<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    value.split(',').filter_map(|pair| pair.split_once('=')).find(|(known, _)| *known == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read() {
        let info = Info::parse(
            "# Server\r\nredis_version:7.4.1\r\n\r\nloading:0\r\ndb0:keys=3,expires=1\r\ndb15:keys=1\r\nx\r\n",
        );
        assert_eq!(info.get("redis_version"), Some("7.4.1"));
        assert_eq!(info.number("loading"), Some(0));
        assert!(!info.is_set("loading"));
        let databases: Vec<_> = info.numbered("db").collect();
        assert_eq!(databases, [(0, "keys=3,expires=1"), (15, "keys=1")]);
        assert_eq!(field(databases[0].1, "expires"), Some("1"));
    }
}
