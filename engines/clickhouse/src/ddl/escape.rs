//! Names as names of files.
//!
//! Source: `src/Common/escapeForFileName.cpp`: letters, digits and `_` of ASCII stay, every other byte becomes `%XX`.

use std::fmt::Write as _;

/// The name of the file or folder in which a server keeps what is called `name`: a database, a table, a column.
///
/// ```
/// # use backup_clickhouse::ddl::escape_for_file_name;
/// assert_eq!(escape_for_file_name("nest.x"), "nest%2Ex");
/// ```
#[must_use]
pub fn escape_for_file_name(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            escaped.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// What is called by the name of a file or folder; `None` if no server gives such a name: an escape that is cut off, one
/// of a byte that stays as it is, bytes that are not UTF-8.
///
/// Servers read more than they write, and so two files could mean one name; here the two functions are inverse.
#[must_use]
pub fn unescape_for_file_name(file: &str) -> Option<String> {
    let mut name = Vec::with_capacity(file.len());
    let mut bytes = file.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            name.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?].map(|digit| char::from(digit).to_digit(16));
        let [Some(high), Some(low)] = digits else { return None };
        name.push(u8::try_from(high * 16 + low).ok()?);
    }
    let name = String::from_utf8(name).ok()?;
    (escape_for_file_name(&name) == file).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{escape_for_file_name, unescape_for_file_name};

    #[test]
    fn names_become_files_as_servers_write_them() {
        assert_eq!(escape_for_file_name("we.ird na/me"), "we%2Eird%20na%2Fme");
        assert_eq!(escape_for_file_name("ä-1_"), "%C3%A4%2D1_");
        for file in ["%", "%2", "%2e", "%41", "a.b", "%FF", "%zz", "a/b", ".."] {
            assert_eq!(unescape_for_file_name(file), None, "{file}");
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in any::<String>()) {
            let file = escape_for_file_name(&name);
            prop_assert!(!file.contains(['/', '.', '\0']));
            prop_assert_eq!(unescape_for_file_name(&file), Some(name));
        }
    }
}
