//! Where a server is, and who we are there: the URL.
//!
//! `redis://[user[:password]@]host[:port][,host[:port]…][/]`, `rediss://…` with TLS, `unix://[user[:password]@]/path/of/socket`.
//! `redis+sentinel://[user[:password]@]sentinel[:port][,sentinel[:port]…]/name` (and `rediss+sentinel://`) is the deployment that these
//! sentinels watch under this name, as several clients write it; user and password are those of its nodes, those of the sentinels
//! stand behind a question mark: `?sentinel_username=…&sentinel_password=…`.
//!
//! What is special in a URL is written as `%xx` in user and password. Several hosts are nodes of one deployment, of which one is a
//! primary and the others follow it. A database number after the slash is refused: a backup is of all databases.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::secret::Secret;
use crate::error::{Error, Result};

/// The port that servers listen on when nobody says otherwise.
const PORT: u16 = 6379;
/// The port of sentinels.
const SENTINEL: u16 = 26379;

/// Where one server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A name or address, and a port.
    Tcp {
        /// The name or address; an IPv6 address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// A server that listens on `port` of `host`.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp { host: host.into(), port }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// One deployment: its nodes, and who we are there. `Display` shows neither user nor password.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Address {
    /// The nodes, at least one; the sentinels where these say which nodes there are.
    pub nodes: Vec<Endpoint>,
    /// Where sentinels say which nodes there are: which deployment of theirs is meant.
    pub watched: Option<Watched>,
    /// Whether the connection is encrypted by TLS.
    pub tls: bool,
    /// The user; the default one if none.
    pub user: Option<String>,
    /// The password; none where the server asks for none.
    pub password: Option<Secret>,
}

/// A deployment that sentinels watch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Watched {
    /// Its name.
    pub name: String,
    /// Who we are for the sentinels; the default user if none.
    pub user: Option<String>,
    /// The password for the sentinels; none where they ask for none.
    pub password: Option<Secret>,
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it does not begin with redis://"))?;
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let (user, password) =
            match login.map(|login| login.split_once(':').map_or((login, None), |(u, p)| (u, Some(p)))) {
                Some((user, password)) => (
                    Some(decode(user)?).filter(|user| !user.is_empty()),
                    password.map(decode).transpose()?.map(Secret::new),
                ),
                None => (None, None),
            };
        if let Some(plain) = scheme.strip_suffix("+sentinel") {
            let tls = match plain {
                "redis" | "valkey" => false,
                "rediss" | "valkeys" => true,
                _ => return Err(wrong("sentinels are named behind redis+sentinel:// or rediss+sentinel://")),
            };
            let (nodes, watched) = sentinels(place)?;
            return Ok(Self { nodes, watched: Some(watched), tls, user, password });
        }
        let tls = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            "unix" | "redis+unix" => {
                let path = decode(place)?;
                if !path.starts_with('/') {
                    return Err(wrong("the path of a unix socket begins with a slash"));
                }
                return Ok(Self {
                    nodes: vec![Endpoint::Unix(path.into())],
                    watched: None,
                    tls: false,
                    user,
                    password,
                });
            }
            _ => return Err(wrong("it begins with none of redis://, rediss:// and unix://")),
        };
        let hosts = match place.split_once('/') {
            Some((hosts, "")) => hosts,
            Some(_) => return Err(wrong("nothing may follow the host: a backup is of all databases")),
            None => place,
        };
        let nodes = hosts.split(',').map(|text| endpoint(text, PORT)).collect::<Result<_>>()?;
        Ok(Self { nodes, watched: None, tls, user, password })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unix = matches!(self.nodes.first(), Some(Endpoint::Unix(_)));
        f.write_str(match (unix, self.tls, &self.watched) {
            (true, ..) => "unix://",
            (_, true, None) => "rediss://",
            (_, false, None) => "redis://",
            (_, true, Some(_)) => "rediss+sentinel://",
            (_, false, Some(_)) => "redis+sentinel://",
        })?;
        for (number, node) in self.nodes.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            write!(f, "{node}")?;
        }
        match &self.watched {
            Some(watched) => write!(f, "/{}", watched.name),
            None => Ok(()),
        }
    }
}

/// The text is never part of the error: it may hold a password.
fn wrong(why: &str) -> Error {
    Error::Settings(format!("the url cannot be read: {why}"))
}

fn endpoint(text: &str, default: u16) -> Result<Endpoint> {
    let port =
        |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| wrong("a port is no number"));
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| wrong("a bracket is not closed"))?;
        return match rest.strip_prefix(':') {
            Some(number) => Ok(Endpoint::tcp(host, port(number)?)),
            None if rest.is_empty() => Ok(Endpoint::tcp(host, default)),
            None => Err(wrong("something follows the bracket")),
        };
    }
    let (host, number) = match text.split_once(':') {
        Some((host, number)) => (host, port(number)?),
        None => (text, default),
    };
    if host.is_empty() {
        return Err(wrong("a host is missing"));
    }
    Ok(Endpoint::tcp(decode(host)?, number))
}

/// The sentinels, and what they watch: `host[:port][,…]/name[?…]`.
fn sentinels(place: &str) -> Result<(Vec<Endpoint>, Watched)> {
    let (place, query) = place.split_once('?').unwrap_or((place, ""));
    let (hosts, name) = place.split_once('/').ok_or_else(|| wrong("the name behind the sentinels is missing"))?;
    let name = name.strip_suffix('/').unwrap_or(name);
    if name.is_empty() || name.contains('/') {
        return Err(wrong("behind the sentinels stands one name: a backup is of all databases"));
    }
    let mut watched = Watched { name: decode(name)?, user: None, password: None };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sentinel_username", user)) => watched.user = Some(decode(user)?),
            Some(("sentinel_password", password)) => watched.password = Some(Secret::new(decode(password)?)),
            _ => return Err(wrong("behind the name only sentinel_username and sentinel_password may stand")),
        }
    }
    Ok((hosts.split(',').map(|text| endpoint(text, SENTINEL)).collect::<Result<_>>()?, watched))
}

/// Undoes `%xx` (RFC 3986, section 2.1).
fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit =
            || rest.next().and_then(|byte| char::from(byte).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push(high * 16 + low),
            _ => return Err(wrong("a percent sign is not followed by two hexadecimal digits")),
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong("it is not utf-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let full: Address = "rediss://bob:p%40ss%3A@one:7000,[::1]:7001,two/".parse().unwrap();
        assert_eq!(full.nodes, [Endpoint::tcp("one", 7000), Endpoint::tcp("::1", 7001), Endpoint::tcp("two", 6379)]);
        assert!(full.tls);
        assert_eq!(full.user.as_deref(), Some("bob"));
        assert_eq!(full.password.as_ref().unwrap().reveal(), "p@ss:");
        assert_eq!(full.to_string(), "rediss://one:7000,[::1]:7001,two:6379");
        assert!(!format!("{full:?}").contains("p@ss"));

        let plain: Address = "redis://:secret@host".parse().unwrap();
        assert_eq!((plain.user, plain.password.unwrap().reveal()), (None, "secret"));
        let unix: Address = "unix:///run/redis%20s/sock".parse().unwrap();
        assert_eq!(unix.nodes, [Endpoint::Unix("/run/redis s/sock".into())]);
        assert_eq!(unix.to_string(), "unix:///run/redis s/sock");

        let url = "rediss+sentinel://bob:secret@one,two:7000/my%20master?sentinel_password=other";
        let watched: Address = url.parse().unwrap();
        assert_eq!(watched.nodes, [Endpoint::tcp("one", 26379), Endpoint::tcp("two", 7000)]);
        assert_eq!(watched.to_string(), "rediss+sentinel://one:26379,two:7000/my master");
        let Some(Watched { name, user: None, password: Some(password) }) = watched.watched else { panic!() };
        assert_eq!(
            (name.as_str(), password.reveal(), watched.password.unwrap().reveal()),
            ("my master", "other", "secret")
        );
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_shown() {
        for text in [
            "",
            "host",
            "http://secret",
            "redis://",
            "redis://secret:x",
            "redis://secret:0",
            "redis://host/1",
            "redis://[::1",
            "redis://[::1]x",
            "unix://secret",
            "redis://a%4@h",
            "redis://host,",
            "redis://%ff@h",
            "redis+sentinel://secret",
            "redis+sentinel://secret/",
            "redis+sentinel://secret/name/0",
            "redis+sentinel://host/name?db=secret",
            "http+sentinel://secret/name",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{text}: {error}");
        }
    }
}
