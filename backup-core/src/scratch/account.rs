//! The account that a server runs as.

use std::path::Path;

use crate::error::{Error, Result};

/// A user of this host, with its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// The number of the user.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

impl Account {
    /// The account `name`, as `/etc/passwd` has it (`name:password:uid:gid:…`, passwd(5)).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when it is not there.
    pub fn find(name: &str) -> Result<Self> {
        let path = Path::new("/etc/passwd");
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(format!("read {}", path.display()), e))?;
        find(&text, name).ok_or_else(|| Error::invalid(format!("account {name:?} is not in {}", path.display())))
    }
}

fn find(text: &str, name: &str) -> Option<Account> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let mut ids = (fields.next()? == name).then_some(fields)?.skip(1);
        Some(Account { name: name.to_owned(), uid: ids.next()?.parse().ok()?, gid: ids.next()?.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_exact_name() {
        let text = "root:x:0:0:root:/root:/bin/sh\npostgres2:x:7:8::/:\npostgres:x:26:27:p:/:/bin/false\nbroken\n";
        let found = find(text, "postgres").unwrap();
        assert_eq!((found.uid, found.gid), (26, 27));
        assert_eq!((find(text, "broken"), find(text, "nobody-here")), (None, None));
    }
}
