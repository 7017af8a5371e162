//! Where a server can be reached.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use backup_core::env::Env;
use backup_core::{Error, Result};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

use super::link::{Inlet, Outlet};
use super::options::Listen;

/// The port in the name of a Unix socket. Each socket has a directory of its own, so that none is taken.
const UNIX_PORT: u16 = 5432;
/// `sun_path` has 108 bytes on Linux and 104 elsewhere, one of them for the end.
const MAX_SOCKET_PATH: usize = 103;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// On a TCP port.
    Tcp(SocketAddr),
    /// On a Unix socket.
    Unix {
        /// The directory of the socket, what `host` is in a connection string.
        dir: PathBuf,
        /// The port in the socket's name.
        port: u16,
    },
}

impl Endpoint {
    /// The parameters `host` and `port` of a connection string.
    #[must_use]
    pub fn keywords(&self) -> String {
        match self {
            Self::Tcp(address) => {
                let host = match address.ip() {
                    any if any.is_unspecified() && any.is_ipv6() => "::1".to_owned(),
                    any if any.is_unspecified() => "127.0.0.1".to_owned(),
                    ip => ip.to_string(),
                };
                format!("host={host} port={}", address.port())
            }
            Self::Unix { dir, port } => format!("host={} port={port}", quote(&dir.to_string_lossy())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { dir, port } => write!(f, "{}/.s.PGSQL.{port}", dir.display()),
        }
    }
}

/// A value of a connection string (libpq, "Connection Strings").
pub(super) fn quote(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':');
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A socket that takes connections, and what is removed with it.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    pub(super) endpoint: Endpoint,
    _dir: Option<SocketDir>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

/// The directory of a Unix socket, which goes with this value.
#[derive(Debug)]
struct SocketDir(PathBuf);

impl Drop for SocketDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(dir = %self.0.display(), %error, "the directory of a socket stays behind");
        }
    }
}

impl Listener {
    pub(super) async fn bind(listen: &Listen, env: &Env) -> Result<Self> {
        match listen {
            Listen::Loopback { port } => Self::tcp(SocketAddr::from(([127, 0, 0, 1], *port))).await,
            Listen::Exposed { address } => Self::tcp(*address).await,
            Listen::Unix { parent, owner } => Self::unix(parent, *owner, env),
        }
    }

    async fn tcp(address: SocketAddr) -> Result<Self> {
        let bound = async {
            let socket = TcpListener::bind(address).await?;
            let endpoint = Endpoint::Tcp(socket.local_addr()?);
            io::Result::Ok(Self { socket: Socket::Tcp(socket), endpoint, _dir: None })
        };
        bound.await.map_err(|error| Error::io(format!("listening on {address}"), error))
    }

    #[cfg(unix)]
    fn unix(parent: &Path, owner: Option<(u32, u32)>, env: &Env) -> Result<Self> {
        use std::os::unix::fs::{DirBuilderExt, chown};
        let name: String = env.random::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
        let dir = parent.join(format!("wal-{name}"));
        let path = dir.join(format!(".s.PGSQL.{UNIX_PORT}"));
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(Error::invalid(format!("{} is too long for the path of a socket", path.display())));
        }
        let at = |error| Error::io(dir.display(), error);
        DirBuilder::new().mode(0o700).create(&dir).map_err(at)?;
        let guard = SocketDir(dir.clone());
        let socket = UnixListener::bind(&path).map_err(at)?;
        // To connect is to write. The directory keeps everybody else out, and goes to its owner when all is in it.
        if let Some((user, group)) = owner {
            chown(&path, Some(user), Some(group)).map_err(at)?;
            chown(&dir, Some(user), Some(group)).map_err(at)?;
        }
        let endpoint = Endpoint::Unix { dir: dir.clone(), port: UNIX_PORT };
        Ok(Self { socket: Socket::Unix(socket), endpoint, _dir: Some(guard) })
    }

    #[cfg(not(unix))]
    fn unix(_: &Path, _: Option<(u32, u32)>, _: &Env) -> Result<Self> {
        Err(Error::environment("this system has no unix sockets"))
    }

    /// The next connection.
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection.
    pub(super) async fn accept(&self, max_message: usize) -> io::Result<(Inlet, Outlet)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let (reader, writer) = stream.into_split();
                Ok((Inlet::new(reader, max_message), Outlet::new(writer)))
            }
            #[cfg(unix)]
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let (reader, writer) = stream.into_split();
                Ok((Inlet::new(reader, max_message), Outlet::new(writer)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_owner_may_enter_and_nothing_is_left() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let listen = Listen::Unix { parent: parent.path().to_owned(), owner: None };
        let listener = Listener::bind(&listen, &Env::seeded(1)).await.unwrap();
        let Endpoint::Unix { dir, port } = &listener.endpoint else { panic!("no unix socket") };
        assert_eq!(fs::metadata(dir).unwrap().permissions().mode() & 0o7777, 0o700);
        assert!(dir.join(format!(".s.PGSQL.{port}")).exists());
        drop(listener);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);

        let deep = parent.path().join("x".repeat(80));
        let listen = Listen::Unix { parent: deep, owner: None };
        assert_eq!(
            Listener::bind(&listen, &Env::seeded(1)).await.unwrap_err().kind(),
            backup_core::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn connection_strings_are_read_back() {
        let unix = |dir: &str| Endpoint::Unix { dir: dir.into(), port: 5432 }.keywords();
        assert_eq!(unix("/tmp/wal-1"), "host=/tmp/wal-1 port=5432");
        for dir in ["/tmp/with blank", "/tmp/it's", r"/tmp/back\slash", "/tmp/=x"] {
            let settings = crate::conn::Settings::parse(&format!("{} user=u", unix(dir)), |_| None).unwrap();
            assert_eq!(settings.hosts[0].socket().unwrap(), Path::new(dir).join(".s.PGSQL.5432"));
        }
        assert_eq!(Endpoint::Tcp(([0, 0, 0, 0], 7).into()).keywords(), "host=127.0.0.1 port=7");
        assert_eq!(Endpoint::Tcp("[::1]:7".parse().unwrap()).keywords(), "host=::1 port=7");
    }
}
