//! Options of a restore of Redis: by which way it comes back, and what changes on it.

use std::net::IpAddr;
use std::path::PathBuf;

use backup_core::{Error, Result};
use backup_redis::rdb::{ExpiryRule, RdbVersion, Rules};
use backup_redis::restore::{LinkTls, LiveSettings, ReplaySettings, Way};
use backup_redis::{RedisSettings, RestoreSettings};
use clap::{Args, ValueEnum};
use jiff::SignedDuration;

use super::TlsArgs;
use crate::cli::keys::KeyArgs;

/// How the backup comes back. Into a folder when TARGET is one, into the running server that a URL names.
#[derive(Debug, Args)]
#[command(next_help_heading = "Redis options")]
#[group(skip)]
pub(super) struct RedisTarget {
    /// Key by key, beside what the servers have: also into a cluster, and into servers of other versions
    #[arg(long)]
    key_by_key: bool,
    /// Key by key, replace keys that exist; without it the restore ends at the first one
    #[arg(long, requires = "key_by_key")]
    replace: bool,
    /// Key by key, also load the libraries of functions, or don't [default: only when all keys are wanted]
    #[arg(long, value_name = "YES|NO", requires = "key_by_key", action = clap::ArgAction::Set, value_parser = yes_or_no)]
    functions: Option<bool>,
    #[command(flatten)]
    rules: RuleArgs,
    /// Write the snapshot in this version of the format, for servers that do not read that of the source: a number of Redis such as
    /// 11, or valkey-80
    #[arg(long, value_name = "VERSION")]
    rdb_version: Option<String>,
    /// Leave the users and their passwords of the target as they are
    #[arg(long, conflicts_with = "with_users")]
    without_users: bool,
    /// Key by key, bring the users and their passwords as well
    #[arg(long)]
    with_users: bool,
    /// Into a running server: where we listen for it [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<IpAddr>,
    /// Into a running server: the name by which it finds us [default: the address that we listen on]
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Into a running server that speaks TLS with its primary: PEM file of a certificate that its authority has signed
    #[arg(long, value_name = "FILE", requires = "link_key")]
    link_cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", requires = "link_cert")]
    link_key: Option<PathBuf>,
    /// Into a running server that speaks TLS with its primary: do without TLS on the link to us
    #[arg(long, conflicts_with = "link_cert")]
    plain_link: bool,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Which keys come back, and what changes on them.
#[derive(Debug, Args)]
#[group(skip)]
pub(in crate::cli::engines) struct RuleArgs {
    #[command(flatten)]
    keys: KeyArgs,
    /// Keys that begin with FROM begin with TO instead
    #[arg(long, value_name = "FROM=TO")]
    rename: Option<String>,
    /// All keys go into this database; they must come from one
    #[arg(long, value_name = "NUMBER")]
    into_database: Option<u64>,
    /// What becomes of expiries: they stay as they are, come later or earlier by --shift-by, or are dropped
    #[arg(long, value_enum, default_value_t = ExpiryArg::Keep)]
    expiry: ExpiryArg,
    /// By how much expiries are shifted, for example 36h, or -90m
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    shift_by: Option<SignedDuration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExpiryArg {
    Keep,
    Shift,
    Drop,
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("it is yes or no".to_owned()),
    }
}

impl RedisTarget {
    /// How a backup comes back into `into`.
    pub(super) fn settings(self, into: &str) -> Result<RestoreSettings> {
        let rules = self.rules.rules()?;
        let version = self.rdb_version.as_deref().map(version_of).transpose()?;
        let client = |tls: TlsArgs| RedisSettings::default().url(into).tls(tls.settings()).client();
        let folder = !into.contains("://");
        let way = match (folder, self.key_by_key) {
            (true, true) => {
                return Err(Error::invalid("key by key a backup comes into servers: name them by their url"));
            }
            (true, false) => Way::Files(into.into()),
            (false, true) => {
                let mut replay = ReplaySettings::new(client(self.tls)?).replace(self.replace);
                replay.functions = self.functions;
                Way::Replay(replay)
            }
            (false, false) => {
                let mut live = LiveSettings::new(client(self.tls)?);
                live.advertise = self.advertise;
                live.listen = self.listen.unwrap_or(live.listen);
                live.link = match (self.link_cert, self.link_key) {
                    (Some(certificate), Some(key)) => LinkTls::Certificate { certificate, key },
                    _ if self.plain_link => LinkTls::Plain,
                    _ => LinkTls::Keep,
                };
                Way::Live(live)
            }
        };
        let mut settings = RestoreSettings::new(way).rules(rules);
        settings.version = version;
        settings.users = (settings.users || self.with_users) && !self.without_users;
        Ok(settings)
    }
}

impl RuleArgs {
    pub(in crate::cli::engines) fn rules(&self) -> Result<Rules> {
        let mut rules = Rules::default().filter(self.keys.filter());
        if let Some(text) = &self.rename {
            let pair = text.split_once('=').ok_or_else(|| Error::invalid("--rename is written as FROM=TO"))?;
            rules = rules.rename(pair.0, pair.1);
        }
        if let Some(database) = self.into_database {
            rules = rules.into_database(database);
        }
        let expiry = match (self.expiry, self.shift_by) {
            (ExpiryArg::Shift, Some(by)) => {
                let millis = i64::try_from(by.as_millis()).map_err(|_| Error::invalid("--shift-by is too long"))?;
                ExpiryRule::Shift(millis)
            }
            (ExpiryArg::Shift, None) => return Err(Error::invalid("--expiry shift needs --shift-by")),
            (_, Some(_)) => return Err(Error::invalid("--shift-by goes with --expiry shift")),
            (ExpiryArg::Keep, None) => ExpiryRule::Keep,
            (ExpiryArg::Drop, None) => ExpiryRule::Never,
        };
        Ok(rules.expiry(expiry))
    }
}

/// `11`, `redis-11`, `valkey-80`.
fn version_of(text: &str) -> Result<RdbVersion> {
    let (valkey, number) = match text.split_once('-') {
        Some(("valkey", number)) => (true, number),
        Some(("redis", number)) => (false, number),
        _ => (false, text),
    };
    let number = number.parse().ok();
    let version = number.map(|number| if valkey { RdbVersion::valkey(number) } else { RdbVersion::redis(number) });
    version.filter(|version| version.is_known()).ok_or_else(|| {
        Error::invalid(format!("{text:?} is no version of a snapshot that is known: 9 to 16, or valkey-80"))
    })
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    fn parsed(args: &[&str]) -> RedisTarget {
        let command = RedisTarget::augment_args(Command::new("restore"));
        RedisTarget::from_arg_matches(&command.get_matches_from(["restore"].iter().chain(args))).unwrap()
    }

    #[test]
    fn options_become_settings() {
        let settings = parsed(&[]).settings("/srv/data").unwrap();
        assert_eq!(settings, RestoreSettings::files("/srv/data"));
        let args = [
            "--key-by-key",
            "--replace",
            "--prefix",
            "a:",
            "--rename",
            "a:=b:",
            "--expiry",
            "shift",
            "--shift-by",
            "-90m",
        ];
        let settings = parsed(&args).settings("redis://h").unwrap();
        let Way::Replay(replay) = &settings.way else { panic!("{settings:?}") };
        assert!(replay.replace && !settings.users);
        assert_eq!(settings.rules.expiry, ExpiryRule::Shift(-5_400_000));
        assert_eq!(settings.rules.rename, Some((b"a:".to_vec(), b"b:".to_vec())));
        assert!(settings.rules.filter.wants_name(b"a:1") && !settings.rules.filter.wants_name(b"b:1"));
        let args = ["--link-cert", "c", "--link-key", "k", "--rdb-version", "valkey-80", "--expiry", "drop"];
        let settings = parsed(&args).settings("rediss://h").unwrap();
        assert_eq!(settings.version, Some(RdbVersion::valkey(80)));
        let Way::Live(live) = &settings.way else { panic!("{settings:?}") };
        assert!(matches!(live.link, LinkTls::Certificate { .. }));
        for (args, into) in [
            (&["--key-by-key"][..], "/srv/data"),
            (&["--expiry", "shift"], "redis://h"),
            (&["--shift-by", "1h"], "redis://h"),
            (&["--rename", "a"], "redis://h"),
            (&["--rdb-version", "99"], "redis://h"),
        ] {
            assert!(parsed(args).settings(into).is_err(), "{args:?}");
        }
    }
}
