//! The account that a server runs as.

use std::path::Path;

use backup_core::{Error, Result};

/// User and group of the account `name`, as `/etc/passwd` has them (`name:password:uid:gid:…`, passwd(5)).
pub(super) fn ids(name: &str) -> Result<(u32, u32)> {
    let path = Path::new("/etc/passwd");
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(format!("read {}", path.display()), e))?;
    find(&text, name).ok_or_else(|| Error::invalid(format!("account {name:?} is not in {}", path.display())))
}

fn find(text: &str, name: &str) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let ids = (fields.next()? == name).then_some(fields)?;
        let mut ids = ids.skip(1);
        Some((ids.next()?.parse().ok()?, ids.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_exact_name() {
        let text = "root:x:0:0:root:/root:/bin/sh\npostgres2:x:7:8::/:\npostgres:x:26:27:p:/:/bin/false\nbroken\n";
        assert_eq!(find(text, "postgres"), Some((26, 27)));
        assert_eq!((find(text, "broken"), find(text, "nobody-here")), (None, None));
    }
}
