//! The file that a host that only writes is given: all it needs besides the way to the store.

use std::fmt;

use backup_core::{HostId, ServiceId};
use backup_crypto::{EpochId, HostSecret, RepositoryId, Suite, X25519PublicKey};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};

/// The version of the file.
const FORMAT: u32 = 1;

/// What a host that only writes has in place of keys. It opens nothing that is stored.
///
/// Its text is JSON. Whoever has it can deposit backups in the host's name until the host is [removed](crate::Repository::remove_host), so it is as
/// secret as a password: mode 0600, in one place.
#[derive(Clone)]
pub struct HostFile {
    pub(crate) repository: RepositoryId,
    pub(crate) service: ServiceId,
    pub(crate) suite: Suite,
    pub(crate) host: HostId,
    pub(crate) label: String,
    pub(crate) epoch: EpochId,
    pub(crate) public: X25519PublicKey,
    pub(crate) secret: HostSecret,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Text {
    format: u32,
    repository: String,
    service: String,
    suite: String,
    host: String,
    label: String,
    epoch: u32,
    public: String,
    secret: String,
}

impl Drop for Text {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl HostFile {
    /// The secret text form.
    ///
    /// # Errors
    /// Internal only.
    pub fn to_text(&self) -> Result<Zeroizing<String>> {
        let text = Text {
            format: FORMAT,
            repository: self.repository.to_string(),
            service: self.service.to_string(),
            suite: self.suite.to_string(),
            host: self.host.to_string(),
            label: self.label.clone(),
            epoch: self.epoch.0,
            public: self.public.to_string(),
            secret: self.secret.to_secret_text().to_string(),
        };
        let mut text = Zeroizing::new(
            serde_json::to_string_pretty(&text)
                .map_err(|e| Error::internal("a file for a host cannot be encoded").with_source(e))?,
        );
        text.push('\n');
        Ok(text)
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput), without repeating anything of the text; [`Environment`](crate::error::ErrorKind::Environment) for a
    /// file of a later version.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::invalid("this is not the file of a host that only writes");
        // The parser's own message repeats what it read.
        let text: Text = serde_json::from_str(text).map_err(|_| wrong())?;
        if text.format != FORMAT {
            let found = text.format;
            return Err(Error::environment(format!(
                "the file of the host has format {found}, this library reads {FORMAT}"
            )));
        }
        let crypto = |e: backup_crypto::Error| wrong().with_source(e);
        Ok(Self {
            repository: text.repository.parse().map_err(crypto)?,
            service: ServiceId::new(text.service.as_str())?,
            suite: text.suite.parse().map_err(crypto)?,
            host: text.host.parse().map_err(|_| wrong())?,
            label: text.label.clone(),
            epoch: EpochId(text.epoch),
            public: text.public.parse().map_err(crypto)?,
            secret: text.secret.parse().map_err(crypto)?,
        })
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> HostId {
        self.host
    }

    /// What people call it.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whose backups it deposits.
    #[must_use]
    pub fn service(&self) -> &ServiceId {
        &self.service
    }
}

impl fmt::Debug for HostFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostFile").field("host", &self.host).field("label", &self.label).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use backup_crypto::EpochKey;

    #[test]
    fn the_text_comes_back_and_an_error_repeats_nothing_of_it() {
        let (key, repository) = (EpochKey::take(&mut [1; 32]), RepositoryId::from_bytes([2; 16]));
        let host = HostId::from_bytes([3; 16]);
        let file = HostFile {
            repository,
            service: ServiceId::new("svc").unwrap(),
            suite: Suite::ChaCha20Poly1305,
            host,
            label: "web 1".to_owned(),
            epoch: EpochId(1),
            public: key.deposit_key(repository, EpochId(1)).public_key(),
            secret: HostSecret::derive(&key, repository, EpochId(1), &host.to_bytes()),
        };
        let text = file.to_text().unwrap();
        let back = HostFile::parse(&text).unwrap();
        assert_eq!((&back.secret, back.public, back.host), (&file.secret, file.public, file.host));
        assert_eq!(back.to_text().unwrap(), text);
        assert!(!format!("{file:?}").contains("BACKUP-HOST"));
        let secret = file.secret.to_secret_text();
        for broken in ["", "{}", &text.replace("BACKUP-HOST-1", "BACKUP-HOST-"), &text[..text.len() - 3]] {
            let error = HostFile::parse(broken).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(!format!("{error:?}").contains(&secret[20..40]), "{error:?}");
        }
        assert_eq!(HostFile::parse(&text.replacen('1', "2", 1)).unwrap_err().kind(), ErrorKind::Environment);
    }
}
