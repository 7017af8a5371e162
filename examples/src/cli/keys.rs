//! Options that say which keys are meant, and keys as they are shown.

use backup_redis::rdb::{KeyFilter, Kind};
use clap::{Args, ValueEnum};

/// The keys. All of them unless said otherwise; of the same option given several times any may fit, different ones must all fit.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct KeyArgs {
    /// Only keys of this database; may be given several times
    #[arg(long = "database", value_name = "NUMBER")]
    databases: Vec<u64>,
    /// Only keys that begin so; may be given several times
    #[arg(long = "prefix", value_name = "TEXT")]
    prefixes: Vec<String>,
    /// Only keys that fit this pattern, as SCAN MATCH reads it; may be given several times
    #[arg(long = "match", value_name = "PATTERN")]
    patterns: Vec<String>,
    /// Only keys of this type; may be given several times
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    kinds: Vec<KindArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KindArg {
    String,
    List,
    Set,
    Zset,
    Hash,
    Stream,
    Module,
}

impl KeyArgs {
    /// The filter that is meant.
    pub(crate) fn filter(&self) -> KeyFilter {
        let mut filter = KeyFilter::all();
        for database in &self.databases {
            filter = filter.database(*database);
        }
        for prefix in &self.prefixes {
            filter = filter.prefix(prefix.as_bytes());
        }
        for pattern in &self.patterns {
            filter = filter.pattern(pattern.as_bytes());
        }
        for kind in &self.kinds {
            filter = filter.kind(match kind {
                KindArg::String => Kind::String,
                KindArg::List => Kind::List,
                KindArg::Set => Kind::Set,
                KindArg::Zset => Kind::SortedSet,
                KindArg::Hash => Kind::Hash,
                KindArg::Stream => Kind::Stream,
                KindArg::Module => Kind::Module,
            });
        }
        filter
    }
}

/// A key as one line: what is no printable character is written as `\n`, `\t`, `\\` or `\xNN`, as `redis-cli` does.
pub(crate) fn shown(key: &[u8]) -> String {
    let mut text = String::with_capacity(key.len());
    for chunk in key.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                control if control.is_control() => {
                    let mut bytes = [0; 4];
                    control.encode_utf8(&mut bytes).bytes().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
                }
                other => text.push(other),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_on_their_line_and_can_be_told_apart() {
        assert_eq!(shown("straße:1".as_bytes()), "straße:1");
        assert_eq!(shown(b"a\nb\\x\xff\x1b[2J"), "a\\nb\\\\x\\xff\\x1b[2J");
    }
}
