//! What a restore is told.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::client::ClientSettings;
use crate::rdb::{RdbVersion, Rules};

/// How a backup comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// Into a running server, as a whole.
    Live(LiveSettings),
    /// Into this directory, for a server that is started later.
    Files(PathBuf),
    /// Into running servers, key by key.
    Replay(ReplaySettings),
}

/// What a restore is told. Data, not components.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreSettings {
    /// How the backup comes back.
    pub way: Way,
    /// What changes on the way.
    pub rules: Rules,
    /// Whether users and their passwords come back, too. They do: a backup that comes back without them locks out whoever used it.
    /// Key by key they do not: what is restored beside other data finds users there.
    pub users: bool,
    /// Write the snapshot in this version instead of the source's, for servers that do not read that.
    pub version: Option<RdbVersion>,
}

impl RestoreSettings {
    /// A restore by `way` that changes nothing.
    #[must_use]
    pub fn new(way: Way) -> Self {
        let users = !matches!(way, Way::Replay(_));
        Self { way, rules: Rules::default(), users, version: None }
    }

    /// A restore into a running server.
    #[must_use]
    pub fn live(target: ClientSettings) -> Self {
        Self::new(Way::Live(LiveSettings::new(target)))
    }

    /// A restore into a directory.
    #[must_use]
    pub fn files(dir: impl Into<PathBuf>) -> Self {
        Self::new(Way::Files(dir.into()))
    }

    /// A restore key by key.
    #[must_use]
    pub fn replay(target: ClientSettings) -> Self {
        Self::new(Way::Replay(ReplaySettings::new(target)))
    }

    /// Sets what changes on the way.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Sets whether users come back.
    #[must_use]
    pub fn users(mut self, users: bool) -> Self {
        self.users = users;
        self
    }

    /// Writes the snapshot in another version.
    #[must_use]
    pub fn version(mut self, version: RdbVersion) -> Self {
        self.version = Some(version);
        self
    }
}

/// How the link is protected over which a running server gets its data.
///
/// A server whose `tls-replication` is on speaks TLS with its primary. It accepts a certificate that an authority of its own
/// `tls-ca-cert-file` or `tls-ca-cert-dir` has signed, for whatever name: what the servers of a deployment have for each other
/// is right. One that is made here would be none of these, so it has to be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkTls {
    /// As the server has it. One that speaks TLS with its primary is refused then: there is no certificate for it.
    #[default]
    Keep,
    /// By TLS with this certificate. A server that does not speak TLS with its primary does so for the time of the restore.
    Certificate {
        /// PEM file of the certificate, with those between it and the authority.
        certificate: PathBuf,
        /// PEM file of its key.
        key: PathBuf,
    },
    /// Not at all, even with a server that speaks TLS with its primary: for the time of the restore that is switched off.
    Plain,
}

/// How a running server is given a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveSettings {
    /// The server, and who we are there. The user needs `REPLICAOF`, `CONFIG GET`, `CONFIG SET` and `INFO`.
    pub target: ClientSettings,
    /// Where we listen. Loopback: for a server elsewhere, an address that it reaches.
    pub listen: IpAddr,
    /// The name by which the server finds us, where it is another than the address we listen on.
    pub advertise: Option<String>,
    /// Whether the server must show a password made for this one restore. It must: whoever gets our port would get the data.
    /// Without it `masterauth` and `masteruser` are left alone, for servers that let nobody set them.
    pub authenticate: bool,
    /// How the link is protected over which the server gets its data.
    pub link: LinkTls,
    /// The server has to come for the snapshot within this time. One minute.
    pub patience: Duration,
    /// When the restore is over the server has to be a primary again within this time. Five minutes: a server that was left in
    /// the midst of loading answers nothing else until it has loaded.
    pub release: Duration,
}

impl LiveSettings {
    /// Settings for a server on this host; everything else as said at the fields.
    #[must_use]
    pub fn new(target: ClientSettings) -> Self {
        Self {
            target,
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            advertise: None,
            authenticate: true,
            link: LinkTls::default(),
            patience: Duration::from_secs(60),
            release: Duration::from_secs(300),
        }
    }

    /// Sets where we listen.
    #[must_use]
    pub fn listen(mut self, address: IpAddr) -> Self {
        self.listen = address;
        self
    }

    /// Sets the name by which the server finds us.
    #[must_use]
    pub fn advertise(mut self, host: impl Into<String>) -> Self {
        self.advertise = Some(host.into());
        self
    }

    /// Sets whether the server must show a password.
    #[must_use]
    pub fn authenticate(mut self, authenticate: bool) -> Self {
        self.authenticate = authenticate;
        self
    }

    /// Sets how the link is protected.
    #[must_use]
    pub fn link(mut self, link: LinkTls) -> Self {
        self.link = link;
        self
    }

    /// Sets how long the server may take to come.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets how long the server may take to become a primary again.
    #[must_use]
    pub fn release(mut self, limit: Duration) -> Self {
        self.release = limit;
        self
    }
}

/// How keys are restored one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplaySettings {
    /// The server, or nodes of a cluster, and who we are there.
    pub target: ClientSettings,
    /// Whether keys that exist are replaced. They are not: the restore ends at the first one.
    pub replace: bool,
    /// Whether libraries of functions are loaded, too. They are, unless only some keys are wanted.
    pub functions: Option<bool>,
}

impl ReplaySettings {
    /// Settings for these servers; everything else as said at the fields.
    #[must_use]
    pub fn new(target: ClientSettings) -> Self {
        Self { target, replace: false, functions: None }
    }

    /// Sets whether keys that exist are replaced.
    #[must_use]
    pub fn replace(mut self, replace: bool) -> Self {
        self.replace = replace;
        self
    }

    /// Sets whether functions are loaded.
    #[must_use]
    pub fn functions(mut self, functions: bool) -> Self {
        self.functions = Some(functions);
        self
    }
}
