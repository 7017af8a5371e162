//! The registry of engines. An engine is one file here and one line in [`ENGINES`].

pub(crate) mod clickhouse;
mod clickhouse_cluster;
mod postgres;
mod redis;
mod redis_cluster;

use std::fmt::Debug;
use std::marker::PhantomData;

use backup_core::{BackupEngine, DrillEngine, Error, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};
use futures::future::BoxFuture;

/// Every engine that can be named on the command line.
static ENGINES: &[&dyn EngineKind] = &[
    &clickhouse::ClickHouse,
    &clickhouse_cluster::ClickHouseCluster,
    &postgres::Postgres,
    &redis::Redis,
    &redis_cluster::RedisCluster,
];

/// What the command line has to know of an engine: its options, and how they become a handle on a deployment.
pub(crate) trait EngineKind: Debug + Send + Sync {
    /// Its name: that of its descriptor and of its backups.
    fn name(&self) -> &'static str;

    /// One line of help.
    fn about(&self) -> &'static str;

    /// Adds the options of a deployment that is backed up.
    fn source_options(&self, command: Command) -> Command;

    /// Adds the options of a deployment that is restored into.
    fn target_options(&self, command: Command) -> Command;

    /// Adds the options of a deployment whose change stream is captured.
    fn stream_options(&self, command: Command) -> Command;

    /// The deployment to back up.
    fn source(&self, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>>;

    /// The deployment whose change stream is captured.
    fn stream(&self, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>>;

    /// The deployment to restore into.
    fn target(&self, into: &str, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>>;

    /// Waits until what was given up in the midst of a restore is in order again.
    fn settle(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// An engine that checks stored backups and has no deployment.
    fn checker(&self) -> Result<Box<dyn BackupEngine>>;

    /// Adds the options of a scratch instance.
    fn drill_options(&self, command: Command) -> Command {
        command
    }

    /// What proves its backups in a scratch instance.
    ///
    /// # Errors
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when that cannot be done here.
    fn drill(&self, _matches: &ArgMatches) -> Result<Box<dyn DrillEngine>> {
        Err(Error::invalid(format!(
            "drills of {} are not known here; verify --level engine checks its backups",
            self.name()
        )))
    }
}

/// The engine of this name.
pub(crate) fn find(name: &str) -> Option<&'static dyn EngineKind> {
    ENGINES.iter().copied().find(|kind| kind.name() == name)
}

/// What an engine is used for, which decides about its options.
pub(crate) trait Role: Debug + Send + Sync + 'static {
    /// Adds the options of `kind` in this role.
    fn options(kind: &dyn EngineKind, command: Command) -> Command;
}

/// A deployment that is read.
#[derive(Debug)]
pub(crate) struct Source;

/// A deployment whose change stream is captured.
#[derive(Debug)]
pub(crate) struct Stream;

/// A deployment that is written.
#[derive(Debug)]
pub(crate) struct Target;

/// A scratch instance.
#[derive(Debug)]
pub(crate) struct Scratch;

impl Role for Scratch {
    fn options(kind: &dyn EngineKind, command: Command) -> Command {
        kind.drill_options(command)
    }
}

impl Role for Source {
    fn options(kind: &dyn EngineKind, command: Command) -> Command {
        kind.source_options(command)
    }
}

impl Role for Stream {
    fn options(kind: &dyn EngineKind, command: Command) -> Command {
        kind.stream_options(command)
    }
}

impl Role for Target {
    fn options(kind: &dyn EngineKind, command: Command) -> Command {
        kind.target_options(command)
    }
}

/// `ENGINE [engine options] [options of the command]`: one subcommand for every engine of the registry.
#[derive(Debug)]
pub(crate) struct OnEngine<R, X> {
    kind: &'static dyn EngineKind,
    matches: ArgMatches,
    /// The options of the command itself.
    pub(crate) options: X,
    role: PhantomData<R>,
}

impl<X> OnEngine<Source, X> {
    /// The deployment to back up.
    pub(crate) fn source(&self) -> Result<Box<dyn BackupEngine>> {
        self.kind.source(&self.matches)
    }
}

impl<X> OnEngine<Stream, X> {
    /// The deployment whose change stream is captured.
    pub(crate) fn source(&self) -> Result<Box<dyn BackupEngine>> {
        self.kind.stream(&self.matches)
    }
}

impl<X> OnEngine<Target, X> {
    /// The deployment to restore into.
    pub(crate) fn target(&self, into: &str) -> Result<Box<dyn BackupEngine>> {
        self.kind.target(into, &self.matches)
    }

    /// Waits until what was given up in the midst of a restore is in order again.
    pub(crate) async fn settle(&self) {
        self.kind.settle().await;
    }
}

impl<X> OnEngine<Scratch, X> {
    /// What proves its backups in a scratch instance.
    pub(crate) fn drill(&self) -> Result<Box<dyn DrillEngine>> {
        self.kind.drill(&self.matches)
    }
}

impl<R: Role, X: Args> FromArgMatches for OnEngine<R, X> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let (kind, matches) = matches
            .subcommand()
            .and_then(|(name, matches)| Some((find(name)?, matches)))
            .ok_or_else(|| clap::Error::new(clap::error::ErrorKind::MissingSubcommand))?;
        let options = X::from_arg_matches(matches)?;
        Ok(Self { kind, matches: matches.clone(), options, role: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<R: Role, X: Args> Subcommand for OnEngine<R, X> {
    fn augment_subcommands(command: Command) -> Command {
        let command = ENGINES.iter().fold(command, |command, kind| {
            // The command's own options first, which have no heading; then the description, because every group of
            // options brings its own.
            let engine = R::options(*kind, X::augment_args(Command::new(kind.name())));
            command.subcommand(engine.about(kind.about()).long_about(None))
        });
        command.subcommand_value_name("ENGINE").subcommand_help_heading("Engines")
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        find(name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_have_the_names_of_their_backups() {
        for kind in ENGINES {
            let engine = kind.checker().unwrap();
            assert_eq!(engine.descriptor().name, kind.name());
        }
    }
}
