//! The password file (`~/.pgpass` or `PGPASSFILE`).
//!
//! Source: manual, "The Password File": lines `hostname:port:database:username:password`, where each of the first four
//! is literal text or `*`, `:` and `\` are escaped by `\`, `#` starts a comment line, and the first match wins. For a
//! Unix socket the host is `localhost` when it is the default directory, else the directory; a replication session
//! without a database matches the database name `replication`. A file that others can read is ignored.

use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use super::Secret;

/// Files over this size are not password files.
const MAX_FILE: u64 = 1 << 20;

/// What a line must match.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
}

/// The password for `wanted` in the file at `path`; nothing when there is no file, no match, or the file is readable by
/// others (which is logged as a warning, as libpq prints it).
pub(crate) fn look_up(path: &Path, wanted: Wanted<'_>) -> Option<Secret> {
    let mut file = std::fs::File::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() {
        tracing::warn!(path = %path.display(), "the password file is not a plain file and is ignored");
        return None;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if metadata.permissions().mode() & 0o077 != 0 {
            tracing::warn!(
                path = %path.display(),
                "the password file is open to group or others and is ignored; its permissions must be 0600 or less"
            );
            return None;
        }
    }
    let mut text = Zeroizing::new(Vec::new());
    file.by_ref().take(MAX_FILE).read_to_end(&mut text).ok()?;
    find(&String::from_utf8_lossy(&text), wanted)
}

fn find(text: &str, wanted: Wanted<'_>) -> Option<Secret> {
    let port = wanted.port.to_string();
    text.lines().find_map(|line| {
        if line.starts_with('#') {
            return None;
        }
        let rest = matching(line, wanted.host)?;
        let rest = matching(rest, &port)?;
        let rest = matching(rest, wanted.database)?;
        let rest = matching(rest, wanted.user)?;
        // The password runs to the end of the line; an unescaped colon in it is taken as it is.
        let mut password = Zeroizing::new(String::with_capacity(rest.len()));
        let mut chars = rest.chars();
        while let Some(c) = chars.next() {
            password.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
        }
        (!password.is_empty()).then(|| Secret::new(password.as_str()))
    })
}

/// What follows the first field of `line` when that field is `*` or unescapes to `wanted`.
fn matching<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut wanted = wanted.chars();
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ':' => return wanted.next().is_none().then(|| &line[at + 1..]),
            '\\' => {
                if wanted.next()? != chars.next()?.1 {
                    return None;
                }
            }
            c => {
                if wanted.next()? != c {
                    return None;
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WANTED: Wanted<'static> = Wanted { host: "db", port: 5432, database: "replication", user: "me" };

    fn password(text: &str) -> Option<String> {
        find(text, WANTED).map(|s| s.reveal().to_owned())
    }

    #[test]
    fn the_first_match_wins() {
        let text = "# db:5432:*:me:comment\nother:*:*:*:no\ndb:5432:replication:me:yes\n*:*:*:*:late\n";
        assert_eq!(password(text).unwrap(), "yes");
        assert_eq!(password("*:*:*:*:star\r\n").unwrap(), "star");
        assert_eq!(password("db:5433:*:*:no\ndb:*:x:*:no"), None);
        assert_eq!(password("db:*:*:*:"), None);
        assert_eq!(password("db:*:*"), None);
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        let wanted = Wanted { host: "::1", user: r"a\b", ..WANTED };
        assert_eq!(find(r"\:\:1:*:*:a\\b:p\:q\\r:s", wanted).unwrap().reveal(), r"p:q\r:s");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_ignored() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "*:*:*:*:secret\n").unwrap();
        let mode = |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o640);
        assert!(look_up(file.path(), WANTED).is_none());
        mode(0o600);
        assert_eq!(look_up(file.path(), WANTED).unwrap().reveal(), "secret");
        assert!(look_up(Path::new("/nowhere/at/all"), WANTED).is_none());
        assert!(look_up(Path::new("/"), WANTED).is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_searched(text: String) {
            let _ = find(&text, WANTED);
        }
    }
}
