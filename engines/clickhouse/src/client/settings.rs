//! How a server is talked to.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// An address of a server's HTTP interface, and who asks there.
#[derive(Clone)]
pub struct ClientSettings {
    /// Without user and password.
    pub(super) url: Url,
    pub(super) user: Option<String>,
    pub(super) password: Option<Zeroizing<String>>,
    pub(super) roots: Option<PathBuf>,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
}

impl ClientSettings {
    /// Settings for `url`: `http://user:password@host:8123/` or `https://…`. Ten seconds for a connection, ten minutes for an answer:
    /// servers say nothing while they freeze or attach.
    ///
    /// # Errors
    /// [`Error::Settings`] when it is no such address.
    pub fn new(url: &str) -> Result<Self> {
        // The text is not repeated: it may hold a password.
        let wrong = |reason: &str| Error::Settings(format!("the url of a clickhouse server {reason}"));
        let mut url = Url::parse(url).map_err(|error| wrong(&format!("is none: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("must begin with http:// or https://: the http interface is spoken"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("names no host"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("must end after the port"));
        }
        let plain = |text: &str| {
            let text = percent_encoding::percent_decode_str(text).decode_utf8();
            text.map(std::borrow::Cow::into_owned).map_err(|_| wrong("has a user or password that is not utf-8"))
        };
        let user = Some(url.username()).filter(|user| !user.is_empty()).map(plain).transpose()?;
        let password = url.password().map(plain).transpose()?.map(Zeroizing::new);
        if url.port().is_none() {
            let port = if url.scheme() == "https" { 8443 } else { 8123 };
            url.set_port(Some(port)).map_err(|()| wrong("can have no port"))?;
        }
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| wrong("can have no user"))?;
        url.set_path("/");
        let (connect_timeout, timeout) = (Duration::from_secs(10), Duration::from_secs(600));
        Ok(Self { url, user, password, roots: None, connect_timeout, timeout })
    }

    /// Sets the PEM file with the certificates that are trusted, instead of those of the operating system.
    #[must_use]
    pub fn roots(mut self, file: Option<PathBuf>) -> Self {
        self.roots = file;
        self
    }

    /// Sets how long an answer may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The address without user and password.
    #[must_use]
    pub fn address(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        format!("{host}:{}", self.url.port_or_known_default().unwrap_or(0))
    }
}

impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSettings")
            .field("url", &self.url.as_str())
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| format_args!("..")))
            .field("roots", &self.roots)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_secrets_kept() {
        let settings = ClientSettings::new("http://al%40x:se%20cret@db.example/").unwrap();
        assert_eq!(settings.user.as_deref(), Some("al@x"));
        assert_eq!(settings.password.as_ref().unwrap().as_str(), "se cret");
        assert_eq!(settings.address(), "db.example:8123");
        assert_eq!(ClientSettings::new("https://db.example").unwrap().address(), "db.example:8443");
        assert_eq!(ClientSettings::new("https://db.example:443").unwrap().url.scheme(), "https");
        let shown = format!("{settings:?}");
        assert!(!shown.contains("cret"), "{shown}");
        for bad in ["", "db:8123", "tcp://db:9000", "http://", "http://db/path", "http://db/?query=1", "http://a:sec@"]
        {
            let error = ClientSettings::new(bad).unwrap_err();
            assert!(!error.to_string().contains("sec@"), "{error}");
        }
    }
}
