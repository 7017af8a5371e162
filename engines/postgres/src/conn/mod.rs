//! Connection settings: the same strings, environment variables and files that libpq reads.
//!
//! Source: manual, chapter libpq: "Parameter Key Words", "Environment Variables", "The Password File". Two rules are
//! kept: what an operator can write for `pg_basebackup` works here with the same meaning, and a parameter that asks for a
//! protection which this client cannot give is refused, never ignored.
//!
//! ```
//! use backup_postgres::conn::Settings;
//! let settings = Settings::parse("host=db1,db2 port=5432 user=backup sslmode=verify-full sslrootcert=ca.pem", |_| None)?;
//! assert_eq!(settings.hosts.len(), 2);
//! # Ok::<(), backup_postgres::Error>(())
//! ```

mod host;
mod parameter;
mod passfile;
mod secret;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

pub use self::host::Host;
pub use self::secret::Secret;
pub use self::tls::{ChannelBinding, RootCertificates, SslMode, TlsSettings};
use crate::error::{Error, Result};

/// `target_session_attrs`: which of several hosts will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TargetSession {
    /// Whichever answers first.
    #[default]
    Any,
    /// One that takes writes by default.
    ReadWrite,
    /// One that does not.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is in recovery.
    Standby,
    /// A standby if there is one, else any.
    PreferStandby,
}

/// Everything that is needed to open a session. `Debug` shows no password.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The addresses, tried in order.
    pub hosts: Vec<Host>,
    /// The role.
    pub user: String,
    /// The database; the role's name when not given. A physical replication session has none.
    pub database: Option<String>,
    /// The password, if it was given; else the password file is asked per host.
    pub password: Option<Secret>,
    /// The password file.
    pub passfile: Option<PathBuf>,
    /// `application_name`: what `pg_stat_activity` and `synchronous_standby_names` know this session by.
    pub application_name: String,
    /// `options`: command-line options for the server's session, for example `-c wal_sender_timeout=60s`.
    pub options: Option<String>,
    /// `target_session_attrs`.
    pub target_session: TargetSession,
    /// The limit for connecting to one address, name resolution, TLS and authentication included.
    pub connect_timeout: Option<Duration>,
    /// How long a server may stay silent while an answer is expected. Not a libpq parameter.
    pub read_timeout: Option<Duration>,
    /// The largest message that is accepted from the server, in bytes. Not a libpq parameter.
    pub max_message: usize,
    /// What is asked of TLS.
    pub tls: TlsSettings,
}

/// A spread checkpoint at the start of a backup keeps a server silent for up to its `checkpoint_timeout`, five minutes by
/// default: longer than that, shorter than an operator's patience.
const DEFAULT_READ_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// libpq waits for ever by default; an embedded library should not.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Parameters that change nothing that this client does, or only tune what it leaves to the operating system.
const IGNORED: &[&str] = &[
    "client_encoding",
    "fallback_application_name",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "sslcompression",
    "sslsni",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
    "sslcertmode",
    "replication",
];

impl Settings {
    /// Reads a connection string, in either form, and fills what it leaves open from the variables that `environment`
    /// looks up (`PGHOST`, `PGUSER`, `HOME`, …) and then from defaults.
    ///
    /// Nothing but the presence of files under `HOME` is looked at; password and certificate files are read at connecting.
    ///
    /// # Errors
    /// [`Error::Settings`] for unknown parameters, values of another form, and protections that this client cannot give.
    pub fn parse(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut given = parameter::pairs(text)?;
        let mut take = |keyword: &str, variable: &str| {
            let mut found = None;
            // The last one wins, as in libpq.
            given.retain_mut(|(name, value)| {
                let same = name == keyword;
                if same {
                    found = Some(std::mem::take(value));
                }
                !same
            });
            found
                .or_else(|| (!variable.is_empty()).then(|| environment(variable).map(Zeroizing::new)).flatten())
                .filter(|value| !value.is_empty())
        };

        for (keyword, variable, harmless) in [
            ("service", "PGSERVICE", ""),
            ("servicefile", "", ""),
            ("sslpassword", "", ""),
            ("sslcrl", "PGSSLCRL", ""),
            ("sslcrldir", "PGSSLCRLDIR", ""),
            ("requirepeer", "PGREQUIREPEER", ""),
            ("require_auth", "PGREQUIREAUTH", ""),
            ("requiressl", "", "0"),
            ("load_balance_hosts", "PGLOADBALANCEHOSTS", "disable"),
            ("oauth_issuer", "", ""),
            ("oauth_client_id", "", ""),
        ] {
            if take(keyword, variable).is_some_and(|value| value.as_str() != harmless) {
                return Err(Error::settings(format!("{keyword} is not supported")));
            }
        }
        if take("gssencmode", "PGGSSENCMODE").is_some_and(|mode| mode.as_str() == "require") {
            return Err(Error::settings("gssencmode=require is not supported: there is no gssapi here"));
        }
        for keyword in IGNORED {
            take(keyword, "");
        }

        let hosts = hosts(
            take("host", "PGHOST").as_deref().map(String::as_str),
            take("hostaddr", "PGHOSTADDR").as_deref().map(String::as_str),
            take("port", "PGPORT").as_deref().map(String::as_str),
        )?;
        let home = environment("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let user = take("user", "PGUSER")
            .map(|user| user.to_string())
            .or_else(|| environment("USER").or_else(|| environment("LOGNAME")).filter(|user| !user.is_empty()))
            .ok_or_else(|| Error::settings("no user is given, and the environment names none"))?;
        let text_of = |value: Option<Zeroizing<String>>| value.map(|value| value.to_string());
        let mut tls = TlsSettings {
            mode: take("sslmode", "PGSSLMODE").map_or(Ok(SslMode::default()), |mode| SslMode::parse(&mode))?,
            channel_binding: take("channel_binding", "PGCHANNELBINDING")
                .map_or(Ok(ChannelBinding::default()), |binding| ChannelBinding::parse(&binding))?,
            direct: match take("sslnegotiation", "PGSSLNEGOTIATION").as_deref().map(String::as_str) {
                None | Some("postgres") => false,
                Some("direct") => true,
                Some(other) => return Err(Error::settings(format!("sslnegotiation {other:?} is unknown"))),
            },
            only_tls13: match take("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION").as_deref().map(String::as_str)
            {
                None | Some("TLSv1" | "TLSv1.1" | "TLSv1.2") => false,
                Some("TLSv1.3") => true,
                Some(other) => return Err(Error::settings(format!("ssl_min_protocol_version {other:?} is unknown"))),
            },
            ..TlsSettings::default()
        };
        if let Some(other) =
            take("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION").filter(|v| v.as_str() != "TLSv1.3")
        {
            return Err(Error::settings(format!("ssl_max_protocol_version {:?} is not supported", other.as_str())));
        }
        let explicit_mode = tls.mode != SslMode::default();
        tls.complete(
            take("sslrootcert", "PGSSLROOTCERT").as_deref().map(String::as_str),
            text_of(take("sslcert", "PGSSLCERT")),
            text_of(take("sslkey", "PGSSLKEY")),
            home.as_deref(),
            explicit_mode,
        )?;

        let settings = Self {
            hosts,
            user,
            database: text_of(take("dbname", "PGDATABASE")),
            password: take("password", "PGPASSWORD").map(|password| Secret::new(password.as_str())),
            passfile: text_of(take("passfile", "PGPASSFILE"))
                .map(PathBuf::from)
                .or_else(|| home.map(|home| home.join(".pgpass"))),
            application_name: text_of(take("application_name", "PGAPPNAME")).unwrap_or_else(|| "backup".to_owned()),
            options: text_of(take("options", "PGOPTIONS")),
            target_session: target_session(take("target_session_attrs", "PGTARGETSESSIONATTRS").as_deref())?,
            connect_timeout: connect_timeout(take("connect_timeout", "PGCONNECT_TIMEOUT").as_deref())?,
            read_timeout: Some(DEFAULT_READ_TIMEOUT),
            max_message: crate::wire::DEFAULT_MAX_MESSAGE,
            tls,
        };
        match given.first() {
            None => Ok(settings),
            Some((keyword, _)) => Err(Error::settings(format!("the parameter {keyword:?} is unknown"))),
        }
    }

    /// [`Settings::parse`] with the environment of this process.
    ///
    /// # Errors
    /// As [`Settings::parse`].
    pub fn from_env(text: &str) -> Result<Self> {
        Self::parse(text, |name| std::env::var(name).ok())
    }

    /// The password for a session with `database` at `host`: the given one, else from the password file.
    pub(crate) fn password_for(&self, host: &Host, database: &str) -> Option<Secret> {
        self.password.clone().or_else(|| {
            let wanted =
                passfile::Wanted { host: &host.passfile_name(), port: host.port(), database, user: &self.user };
            passfile::look_up(self.passfile.as_deref()?, wanted)
        })
    }
}

impl TlsSettings {
    /// Fills in the files under `~/.postgresql` and applies the rules that tie modes and roots together.
    fn complete(
        &mut self,
        roots: Option<&str>,
        certificate: Option<String>,
        key: Option<String>,
        home: Option<&std::path::Path>,
        explicit_mode: bool,
    ) -> Result<()> {
        let under_home = |name: &str| home.map(|home| home.join(".postgresql").join(name)).filter(|path| path.exists());
        self.roots = match roots {
            Some("system") => Some(RootCertificates::System),
            Some(file) => Some(RootCertificates::File(file.into())),
            None => under_home("root.crt").map(RootCertificates::File),
        };
        if self.roots == Some(RootCertificates::System) {
            // The manual, sslrootcert: any other mode with the system's roots would accept every public certificate.
            if explicit_mode && self.mode != SslMode::VerifyFull {
                return Err(Error::settings("sslrootcert=system needs sslmode=verify-full"));
            }
            self.mode = SslMode::VerifyFull;
        }
        if self.mode >= SslMode::VerifyCa && self.roots.is_none() {
            return Err(Error::settings("verifying the server's certificate needs sslrootcert"));
        }
        if self.direct && self.mode < SslMode::Require {
            return Err(Error::settings("sslnegotiation=direct needs sslmode=require or stronger"));
        }
        let certificate = certificate.map(PathBuf::from).or_else(|| under_home("postgresql.crt"));
        let key = key.map(PathBuf::from).or_else(|| under_home("postgresql.key"));
        self.identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(certificate), None) => {
                return Err(Error::settings(format!("certificate {} has no sslkey", certificate.display())));
            }
            _ => None,
        };
        Ok(())
    }
}

fn hosts(names: Option<&str>, addresses: Option<&str>, ports: Option<&str>) -> Result<Vec<Host>> {
    fn list(text: Option<&str>) -> Option<Vec<&str>> {
        text.map(|text| text.split(',').map(str::trim).collect())
    }
    let (names, addresses, ports) = (list(names), list(addresses), list(ports));
    if let (Some(names), Some(addresses)) = (&names, &addresses)
        && names.len() != addresses.len()
    {
        return Err(Error::settings(format!("{} hosts but {} hostaddrs", names.len(), addresses.len())));
    }
    let ports = ports
        .unwrap_or_default()
        .into_iter()
        .map(|port| match port {
            "" => Ok(5432),
            port => port.parse().ok().filter(|p| *p != 0).ok_or_else(|| Error::settings(format!("port {port:?}"))),
        })
        .collect::<Result<Vec<u16>>>()?;
    let count = names.as_ref().or(addresses.as_ref()).map_or(0, Vec::len);
    if ports.len() > 1 && ports.len() != count {
        return Err(Error::settings(format!("{} ports for {count} hosts", ports.len())));
    }
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    if count == 0 {
        return Ok(host::default_directories().map(|directory| Host::Unix { directory, port: port(0) }).into());
    }
    (0..count)
        .map(|index| {
            let part = |list: &Option<Vec<&str>>| list.as_ref().map_or(String::new(), |list| list[index].to_owned());
            Host::new(&part(&names), &part(&addresses), port(index))
        })
        .collect()
}

fn connect_timeout(text: Option<&String>) -> Result<Option<Duration>> {
    let Some(text) = text else { return Ok(Some(DEFAULT_CONNECT_TIMEOUT)) };
    let seconds: i32 = text.trim().parse().map_err(|_| Error::settings(format!("connect_timeout {text:?}")))?;
    // The manual: zero and negative wait for ever.
    Ok(u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs))
}

fn target_session(text: Option<&String>) -> Result<TargetSession> {
    Ok(match text.map(String::as_str) {
        None | Some("any") => TargetSession::Any,
        Some("read-write") => TargetSession::ReadWrite,
        Some("read-only") => TargetSession::ReadOnly,
        Some("primary") => TargetSession::Primary,
        Some("standby") => TargetSession::Standby,
        Some("prefer-standby") => TargetSession::PreferStandby,
        Some(other) => return Err(Error::settings(format!("target_session_attrs {other:?} is unknown"))),
    })
}

#[cfg(test)]
mod tests;
