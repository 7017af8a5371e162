//! What a server is told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ahead::Depth;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Listen {
    /// On 127.0.0.1. Everybody on this host can reach it, nobody else.
    Loopback {
        /// The port; 0 for any free one.
        port: u16,
    },
    /// On a Unix socket in a directory of its own, which nobody but its owner may enter. The server makes the directory and
    /// removes it when it ends.
    Unix {
        /// Where the directory is made. With the socket's name in it the path must not be longer than about 100 bytes.
        parent: PathBuf,
        /// The user and the group that the restored server runs as, if they are not ours. Only root can give files away.
        owner: Option<(u32, u32)>,
    },
    /// On this address. Who follows is proven, but nothing is encrypted: anybody on the way can read the log.
    Exposed {
        /// The address of an interface, and a port.
        address: SocketAddr,
    },
}

/// What a [`WalServer`](super::WalServer) is told. Data, not components.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct WalServerOptions {
    /// Where it listens.
    pub listen: Listen,
    /// The role name that receivers give.
    pub user: String,
    /// Sessions at the same time; a further one is refused with 53300.
    pub max_connections: usize,
    /// The longest message that is taken from a client, in bytes.
    pub max_message: usize,
    /// How long a client may take until it has proven itself.
    pub handshake_timeout: Duration,
    /// How long a client may be silent between commands.
    pub idle_timeout: Duration,
    /// How long a client that streams may take nothing or say nothing, as `wal_sender_timeout`. After half of it the client
    /// is asked for a sign of life.
    pub client_timeout: Duration,
    /// How long the feed may take for one answer.
    pub feed_timeout: Duration,
    /// How often a receiver that has all of the log but has not replayed it is asked how far it is.
    pub progress_interval: Duration,
    /// Bytes that are read from the feed at once.
    pub fetch: usize,
    /// Bytes that are held for a connection ahead of what is being sent, at most.
    pub read_ahead: usize,
}

impl Default for WalServerOptions {
    fn default() -> Self {
        Self {
            listen: Listen::Loopback { port: 0 },
            user: "walreceiver".to_owned(),
            // The restored server, and somebody who looks on.
            max_connections: 8,
            // A command with a name of 63 bytes is far below it, and nothing else that comes is longer.
            max_message: 64 << 10,
            handshake_timeout: Duration::from_secs(30),
            // A receiver waits between two timelines until the startup process has told it where to go on.
            idle_timeout: Duration::from_secs(15 * 60),
            // `wal_sender_timeout` and `wal_receiver_timeout` of a server that says nothing else.
            client_timeout: Duration::from_secs(60),
            // A store may have to fetch an object from cold storage, and retries by itself.
            feed_timeout: Duration::from_secs(5 * 60),
            // A receiver tells by itself every 10 s only (`wal_receiver_status_interval`), which would be most of the time
            // that a short replay takes.
            progress_interval: Duration::from_secs(1),
            // Large enough that an object store's latency does not show, small enough that the first byte comes soon.
            fetch: 1 << 20,
            // One segment of the usual size.
            read_ahead: 16 << 20,
        }
    }
}

/// The unit in which the log is read and sent: the largest message that a server makes (`MAX_SEND_SIZE`).
pub(super) const MAX_SEND: u64 = 128 << 10;

impl WalServerOptions {
    /// Listens there.
    #[must_use]
    pub fn listen(mut self, listen: Listen) -> Self {
        self.listen = listen;
        self
    }

    /// Receivers come under this name.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// Serves that many sessions at once.
    #[must_use]
    pub fn max_connections(mut self, count: usize) -> Self {
        self.max_connections = count;
        self
    }

    /// Leaves a streaming client that is stuck for so long.
    #[must_use]
    pub fn client_timeout(mut self, timeout: Duration) -> Self {
        self.client_timeout = timeout;
        self
    }

    /// Waits so long for the feed.
    #[must_use]
    pub fn feed_timeout(mut self, timeout: Duration) -> Self {
        self.feed_timeout = timeout;
        self
    }

    /// Asks so often how far a receiver has replayed.
    #[must_use]
    pub fn progress_interval(mut self, interval: Duration) -> Self {
        self.progress_interval = interval;
        self
    }

    /// Reads `fetch` bytes at once and up to `ahead` in advance.
    #[must_use]
    pub fn read_ahead(mut self, fetch: usize, ahead: usize) -> Self {
        self.fetch = fetch;
        self.read_ahead = ahead;
        self
    }

    pub(super) fn depth(&self) -> Depth {
        Depth {
            fetch: (self.fetch as u64).max(MAX_SEND).next_multiple_of(MAX_SEND),
            ahead: self.read_ahead as u64,
            patience: self.feed_timeout,
        }
    }
}
