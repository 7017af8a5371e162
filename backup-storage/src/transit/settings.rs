//! Which key of which Vault.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use backup_crypto::RecipientId;
use url::Url;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Where the key is, and how it may be asked. The token is never printed, and wiped when dropped.
#[derive(Clone)]
#[non_exhaustive]
pub struct TransitSettings {
    /// The address of the server, such as `https://vault.example:8200`.
    pub(super) url: Url,
    pub(super) key: String,
    pub(super) token: Zeroizing<String>,
    /// Where the engine is mounted. `transit`, as Vault does it.
    pub(super) mount: String,
    /// Namespace of an enterprise server.
    pub(super) namespace: Option<String>,
    /// A file with root certificates in PEM.
    pub(super) roots: Option<PathBuf>,
    /// The key is derived from a context.
    pub(super) derived: bool,
    /// A request may take so long, from the connection to the last byte: 15 s, as a restore waits for it.
    pub(super) timeout: Duration,
}

impl TransitSettings {
    /// The key `key` of the server at `url`, asked with `token`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) for an address that is none, for one of plain http on another host, and for a name
    /// that cannot stand in a path.
    pub fn new(url: &str, key: impl Into<String>, token: Zeroizing<String>) -> Result<Self> {
        let mut url =
            Url::parse(url).map_err(|e| Error::invalid("the address of Vault is not valid").with_source(e))?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return Err(Error::invalid("the address of Vault must be of http or https, without a user"));
        }
        if url.scheme() == "http" && !is_loopback(&url) {
            let text =
                "the keys of a repository go to Vault by https only, unless it is on this host (http://127.0.0.1:8200)";
            return Err(Error::invalid(text));
        }
        url.set_query(None);
        url.set_fragment(None);
        let (mount, timeout) = ("transit".to_owned(), Duration::from_secs(15));
        let settings =
            Self { url, key: key.into(), token, mount, namespace: None, roots: None, derived: false, timeout };
        named("key", &settings.key)?;
        Ok(settings)
    }

    /// Sets where the engine is mounted.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) for what no mount can be.
    pub fn mount(mut self, mount: impl Into<String>) -> Result<Self> {
        self.mount = mount.into();
        self.mount.split('/').try_for_each(|part| named("mount", part))?;
        Ok(self)
    }

    /// Sets the namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Sets a file with the root certificates that are trusted. `https` needs it.
    #[must_use]
    pub fn roots(mut self, file: impl Into<PathBuf>) -> Self {
        self.roots = Some(file.into());
        self
    }

    /// The key was created with `derived=true`: a context comes with every request.
    #[must_use]
    pub fn derived(mut self) -> Self {
        self.derived = true;
        self
    }

    /// Sets how long a request may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The path of an action.
    pub(super) fn path(&self, action: &str) -> String {
        format!("v1/{}/{action}/{}", self.mount, self.key)
    }

    /// The public name of the key.
    pub(super) fn recipient(&self) -> Result<RecipientId> {
        let mut digest = blake3::Hasher::new_derive_key("backup-storage v1 recipient of a transit key");
        for part in [self.namespace.as_deref().unwrap_or_default(), &self.mount, &self.key] {
            digest.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        let name = format!("vault-{}", &digest.finalize().to_hex()[..16]);
        Ok(name.parse::<RecipientId>()?)
    }
}

/// Whether an agent of this host is asked, who may do without encryption.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        // Resolved to this host by everything that keeps to RFC 6761.
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn named(what: &str, name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 128 || name.starts_with('.') || !name.bytes().all(allowed) {
        return Err(Error::invalid(format!("{name:?} cannot be the {what} of a transit engine")));
    }
    Ok(())
}

impl fmt::Debug for TransitSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransitSettings")
            .field("url", &self.url.as_str())
            .field("mount", &self.mount)
            .field("key", &self.key)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_leave_this_host_encrypted_or_not_at_all() {
        let settings = |url: &str| TransitSettings::new(url, "backup", Zeroizing::new("s.token".to_owned()));
        for safe in
            ["https://vault.example:8200", "http://127.0.0.1:8200", "http://[::1]:8200", "http://localhost:8200/"]
        {
            assert!(settings(safe).is_ok(), "{safe}");
        }
        for refused in
            ["http://vault.example:8200", "http://10.0.0.1", "http://localhost.example", "ftp://127.0.0.1", "vault"]
        {
            assert!(settings(refused).is_err(), "{refused}");
        }
    }
}
