//! Keys and passphrases as they stand in files: the first line says by its form what it is.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use backup_core::{Error, Result};
use backup_crypto::{Identity, Passphrase, RawKey, Recipient, X25519PublicKey, X25519SecretKey};

use super::passphrase;

/// The secret of `file`: `BACKUP-KEY-1…`, `BACKUP-SECRET-1…`, or a passphrase.
pub(crate) fn identity(file: &Path) -> Result<Identity> {
    let line = passphrase::line_of(file)?;
    let at = || format!("secret file {}", file.display());
    let text = std::str::from_utf8(&line).map_err(|_| Error::invalid(format!("{} is not UTF-8", at())))?;
    let wrong = |e: backup_crypto::Error| Error::invalid(at()).with_source(e);
    Ok(if text.starts_with("BACKUP-KEY-1") {
        text.parse::<RawKey>().map_err(wrong)?.into()
    } else if text.starts_with("BACKUP-SECRET-1") {
        text.parse::<X25519SecretKey>().map_err(wrong)?.into()
    } else {
        Passphrase::new(text).map_err(wrong)?.into()
    })
}

/// The one for whom keys are wrapped that `file` stands for: its secret's, or the public key `backup1…` that it holds.
pub(crate) fn recipient(file: &Path) -> Result<Recipient> {
    let line = passphrase::line_of(file)?;
    match std::str::from_utf8(&line) {
        Ok(text) if text.starts_with("backup1") => public(text),
        _ => Ok(identity(file)?.to_recipient()),
    }
}

/// Makes `file`, which must not exist, with `text` that only its owner can read.
pub(crate) fn create(file: &Path, text: &str) -> Result<()> {
    let at = |e| Error::io(format!("secret file {}", file.display()), e);
    let mut options = OpenOptions::new();
    let mut open = options.write(true).create_new(true).mode(0o600).open(file).map_err(at)?;
    open.write_all(text.as_bytes()).and_then(|()| open.sync_all()).map_err(at)
}

/// A public key.
pub(crate) fn public(text: &str) -> Result<Recipient> {
    let key: X25519PublicKey = text.parse().map_err(|e: backup_crypto::Error| Error::invalid(e.to_string()))?;
    Ok(key.into())
}

#[cfg(test)]
mod tests {
    use backup_crypto::{OsEntropy, RecipientKind};

    use super::*;

    #[test]
    fn the_first_line_says_what_it_is() {
        let (raw, pair) = (RawKey::generate(&OsEntropy), X25519SecretKey::generate(&OsEntropy));
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), format!("{text}\nmore")).unwrap();
            (identity(file.path()).map(|i| i.kind()).ok(), recipient(file.path()).map(|r| r.kind()).ok())
        };
        let both = |kind| (Some(kind), Some(kind));
        assert_eq!(read(&raw.to_secret_text()), both(RecipientKind::RawKey));
        assert_eq!(read(&pair.to_secret_text()), both(RecipientKind::X25519));
        assert_eq!(read("correct horse"), both(RecipientKind::Passphrase));
        assert_eq!(read(&pair.public_key().to_string()).1, Some(RecipientKind::X25519));
        assert_eq!(read("BACKUP-KEY-1QQQQ"), (None, None), "a typing error is no passphrase");
        assert_eq!(read(""), (None, None));
    }
}
