//! Users and their passwords: `ACL LIST` of the source, one line each.

use backup_core::{Error, Finding, Result, Severity};

use super::stored::Stored;
use crate::client::Connection;
use crate::engine::facts;

/// A user out of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    rules: Vec<String>,
}

/// Reads the record.
///
/// # Errors
/// [`Damaged`](backup_core::ErrorKind::Damaged) for a line that is no user.
pub(super) fn parse(record: &[u8]) -> Result<Vec<User>> {
    let wrong = || Error::damaged("the stored users are not what ACL LIST says");
    let text = std::str::from_utf8(record).map_err(|_| wrong())?;
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let mut words = line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned);
            match (words.next().as_deref(), words.next()) {
                (Some("user"), Some(name)) => Ok(User { name, rules: words.collect() }),
                _ => Err(wrong()),
            }
        })
        .collect()
}

/// Makes the users what they were. Users that the target has beside them stay, and a default user that needs no password in
/// the backup stays what it is in the target: a restore must not open a server that is closed.
pub(super) async fn restore(connection: &mut Connection, stored: &Stored) -> Result<Vec<Finding>> {
    let Some(record) = stored.record(facts::USERS).await? else { return Ok(Vec::new()) };
    let mut users = parse(&record)?;
    // The default user comes last: we may be that one.
    users.sort_by_key(|user| user.name == "default");
    let mut findings = Vec::new();
    users.retain(|user| {
        let opens = user.name == "default" && user.rules.iter().any(|rule| rule == "nopass");
        if opens {
            let text = "in the backup it needs no password: it stays what it is in the target";
            findings.push(Finding::new(Severity::Note, "default-user-kept", text).about("default"));
        }
        !opens
    });
    for User { name, rules } in users {
        let words = ["ACL", "SETUSER", &name, "reset"].into_iter().chain(rules.iter().map(String::as_str));
        match connection.call(&words.collect::<Vec<_>>()).await {
            Ok(_) => {}
            Err(crate::Error::Server { message, .. }) => {
                // An older server may not know a rule of a newer one.
                findings.push(Finding::new(Severity::Warning, "user-refused", message).about(name));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read() {
        let record = b"user default on nopass ~* &* +@all\nuser bob off #5e88 ~a (~x +get)\n";
        let users = parse(record).unwrap();
        assert_eq!(users[1].name, "bob");
        assert_eq!(users[1].rules, ["off", "#5e88", "~a", "(~x", "+get)"]);
        assert!(parse(b"something else\n").is_err());
        assert_eq!(parse(b"").unwrap(), []);
    }
}
