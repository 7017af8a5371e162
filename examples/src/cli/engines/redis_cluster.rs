//! Clusters of Redis and Valkey on the command line.

use std::num::NonZeroUsize;

use backup_core::{BackupEngine, Error, Result};
use backup_redis::restore::{ReplaySettings, Way};
use backup_redis::{RedisCluster as Engine, RedisSettings, RestoreSettings};
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::EngineKind;
use super::redis::target::RuleArgs;
use super::redis::{RedisPlace, TlsArgs, looks_like_a_server, misread};

#[derive(Debug)]
pub(super) struct RedisCluster;

/// The cluster that is read; its address names one of its nodes, or several.
#[derive(Debug, Args)]
#[command(next_help_heading = "Redis options")]
#[group(skip)]
struct ClusterSource {
    #[command(flatten)]
    place: RedisPlace,
    /// So many members are read at a time; what waits is of another moment [default: all]
    #[arg(long, value_name = "NUMBER")]
    parallel: Option<NonZeroUsize>,
}

/// The cluster, or the folder, that is restored into.
#[derive(Debug, Args)]
#[command(next_help_heading = "Redis options")]
#[group(skip)]
struct ClusterTarget {
    /// Keys that exist in the target are replaced; without it the restore ends at the first one
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    rules: RuleArgs,
    /// Into servers, bring the users and their passwords as well: those of the first member, to every node. Into a folder they always come
    #[arg(long)]
    with_users: bool,
    #[command(flatten)]
    tls: TlsArgs,
}

impl EngineKind for RedisCluster {
    fn name(&self) -> &'static str {
        "redis-cluster"
    }

    fn about(&self) -> &'static str {
        "Redis and Valkey Cluster: every primary a member of one backup, restored into a cluster of any size"
    }

    fn source_options(&self, command: Command) -> Command {
        ClusterSource::augment_args(command)
    }

    fn target_options(&self, command: Command) -> Command {
        ClusterTarget::augment_args(command)
    }

    fn stream_options(&self, command: Command) -> Command {
        RedisPlace::augment_args(command)
    }

    fn stream(&self, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>> {
        let place = RedisPlace::from_arg_matches(matches).map_err(misread)?;
        Ok(Box::new(Engine::new(place.settings())?))
    }

    fn source(&self, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>> {
        let args = ClusterSource::from_arg_matches(matches).map_err(misread)?;
        let engine = Engine::new(args.place.settings())?;
        Ok(Box::new(match args.parallel {
            Some(members) => engine.parallel(members),
            None => engine,
        }))
    }

    fn target(&self, into: &str, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>> {
        let args = ClusterTarget::from_arg_matches(matches).map_err(misread)?;
        let restore = if into.contains("://") {
            let servers = RedisSettings::default().url(into).tls(args.tls.settings()).client()?;
            let replay = ReplaySettings::new(servers).replace(args.replace);
            RestoreSettings::new(Way::Replay(replay)).users(args.with_users)
        } else if looks_like_a_server(into) {
            let text =
                format!("{into:?} is no URL, and hardly a folder: write redis://host:port, or ./{into} for a folder");
            return Err(Error::invalid(text));
        } else {
            RestoreSettings::files(into)
        };
        let restore = restore.rules(args.rules.rules()?);
        Ok(Box::new(Engine::new(RedisSettings::default())?.with_restore(restore)))
    }

    fn checker(&self) -> Result<Box<dyn BackupEngine>> {
        Ok(Box::new(Engine::new(RedisSettings::default())?))
    }
}
