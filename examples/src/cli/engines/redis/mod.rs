//! Redis and Valkey on the command line.

pub(super) mod target;

use std::path::PathBuf;

use backup_core::{BackupEngine, DrillEngine, Error, Result};
use backup_redis::client::{TlsSettings, Trust};
use backup_redis::node::Prefer;
use backup_redis::{Method, RedisDrill, RedisDrillSettings, RedisEngine, RedisSettings};
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use futures::future::BoxFuture;
use target::RedisTarget;

use super::EngineKind;

#[derive(Debug)]
pub(super) struct Redis;

/// Where the deployment is, and how it is talked to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Redis options")]
#[group(skip)]
pub(super) struct RedisPlace {
    /// redis://[user:password@]host[:port][,host…], rediss:// with TLS, unix:///path/of/socket, or
    /// redis+sentinel://[user:password@]sentinel[:port][,sentinel…]/name; also read from REDIS_URL, which keeps the password out of the
    /// list of processes
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// By what the deployment is known, whatever its address [default: the address]
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Which node is asked, where there are several
    #[arg(long, value_enum, default_value_t = PreferArg::Primary)]
    prefer: PreferArg,
    #[command(flatten)]
    tls: TlsArgs,
}

/// How TLS is spoken with a server.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct TlsArgs {
    /// PEM file of the roots that are trusted [default: those of the system, where that was built in]
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// PEM file of the certificate by which we prove who we are
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// How much the server's certificate is judged
    #[arg(long, value_enum, default_value_t = TrustArg::Full)]
    tls_trust: TrustArg,
}

/// The deployment that is read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Redis options")]
#[group(skip)]
struct RedisSource {
    #[command(flatten)]
    place: RedisPlace,
    /// How data are read: as a replica, from the file that the server saves, or key by key [default: as a replica, where that is allowed]
    #[arg(long, value_enum)]
    method: Option<MethodArg>,
    /// The server's data directory on this machine, for the file
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MethodArg {
    Replication,
    File,
    /// Key by key, for servers that allow nothing else: then the backup is of no single moment
    Scan,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PreferArg {
    Primary,
    Replica,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TrustArg {
    /// A trusted root issued it, for this very host
    Full,
    /// A trusted root issued it, for whomever
    Issuer,
    /// Not at all
    Nobody,
}

/// The scratch instance that a drill starts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Redis options")]
#[group(skip)]
struct RedisScratch {
    /// The program, redis-server or valkey-server [default: that of this host]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// A module that the server has to load, because there are data of its own; may be given several times
    #[arg(long, value_name = "FILE")]
    module: Vec<PathBuf>,
}

impl TlsArgs {
    pub(super) fn settings(self) -> TlsSettings {
        let mut tls = TlsSettings::default();
        tls.roots = self.tls_ca;
        tls.identity = self.tls_cert.zip(self.tls_key);
        tls.trust = match self.tls_trust {
            TrustArg::Full => Trust::Full,
            TrustArg::Issuer => Trust::Issuer,
            TrustArg::Nobody => Trust::Nobody,
        };
        tls
    }
}

impl RedisPlace {
    pub(super) fn settings(self) -> RedisSettings {
        let mut settings = RedisSettings::default();
        settings.url = self.url.or_else(|| std::env::var("REDIS_URL").ok());
        settings.identity = self.identity;
        settings.tls = self.tls.settings();
        settings.prefer = match self.prefer {
            PreferArg::Primary => Prefer::Primary,
            PreferArg::Replica => Prefer::Replica,
        };
        settings
    }
}

impl EngineKind for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn about(&self) -> &'static str {
        "Redis 6.2 to 8 and Valkey: snapshots and the stream behind them, as a replica gets them"
    }

    fn source_options(&self, command: Command) -> Command {
        RedisSource::augment_args(command)
    }

    fn target_options(&self, command: Command) -> Command {
        RedisTarget::augment_args(command)
    }

    fn stream_options(&self, command: Command) -> Command {
        RedisPlace::augment_args(command)
    }

    fn stream(&self, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>> {
        let place = RedisPlace::from_arg_matches(matches).map_err(misread)?;
        Ok(Box::new(RedisEngine::new(place.settings())?))
    }

    fn source(&self, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>> {
        let args = RedisSource::from_arg_matches(matches).map_err(misread)?;
        let mut settings = args.place.settings();
        settings.method = args.method.map(|method| match method {
            MethodArg::Replication => Method::Replication,
            MethodArg::File => Method::File,
            MethodArg::Scan => Method::Scan,
        });
        settings.data_dir = args.data_dir;
        Ok(Box::new(RedisEngine::new(settings)?))
    }

    fn target(&self, into: &str, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>> {
        // A running server is named by its URL, which is nothing that a folder is called.
        if looks_like_a_server(into) {
            let text =
                format!("{into:?} is no URL, and hardly a folder: write redis://host:port, or ./{into} for a folder");
            return Err(Error::invalid(text));
        }
        let args = RedisTarget::from_arg_matches(matches).map_err(misread)?;
        Ok(Box::new(RedisEngine::new(RedisSettings::default())?.with_restore(args.settings(into)?)))
    }

    fn settle(&self) -> BoxFuture<'static, ()> {
        Box::pin(backup_redis::restore::released())
    }

    fn checker(&self) -> Result<Box<dyn BackupEngine>> {
        Ok(Box::new(RedisEngine::new(RedisSettings::default())?))
    }

    fn drill_options(&self, command: Command) -> Command {
        RedisScratch::augment_args(command)
    }

    fn drill(&self, matches: &ArgMatches) -> Result<Box<dyn DrillEngine>> {
        let args = RedisScratch::from_arg_matches(matches).map_err(misread)?;
        let mut settings = RedisDrillSettings::default();
        (settings.server, settings.modules) = (args.server, args.module);
        Ok(Box::new(RedisDrill::new(settings)))
    }
}

/// Whether a server was meant by what is no URL. A folder would be made of it, and the server would stay what it is.
pub(super) fn looks_like_a_server(into: &str) -> bool {
    if into.contains("://") {
        return false;
    }
    let is_scheme = |word: &str| matches!(word, "redis" | "rediss" | "unix" | "valkey" | "valkeys");
    into.split_once(':').is_some_and(|(before, rest)| {
        let is_port = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
        is_scheme(before) || (is_port && !before.contains('/'))
    })
}

/// The matches are of the very command that was parsed with these options.
pub(super) fn misread(error: clap::Error) -> Error {
    Error::internal("options of redis cannot be read back").with_source(error)
}
