//! PostgreSQL on the command line.

use std::path::PathBuf;

use backup_core::{BackupEngine, DrillEngine, Error, Result};
use backup_postgres::{
    ChangeTracking, Checkpoint, LogSlot, Method, PostgresDrill, PostgresDrillSettings, PostgresEngine,
    PostgresSettings, Replay, TargetAction,
};
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};

use super::EngineKind;

#[derive(Debug)]
pub(super) struct Postgres;

/// The deployment that is read.
#[derive(Debug, Args)]
#[command(next_help_heading = "PostgreSQL options")]
#[group(skip)]
struct PostgresSource {
    /// libpq connection string or URI; PG* variables and the password file fill what it leaves open
    #[arg(long, value_name = "CONNECTION")]
    url: Option<String>,
    /// The server's data directory on this machine, when the server does not say or this machine sees it elsewhere
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How data is read: from the data directory, or through the server by its replication protocol [default: local where possible]
    #[arg(long, value_enum)]
    method: Option<MethodArg>,
    /// How the server's checkpoint before the backup is done: at once, or spread over time to spare the server
    #[arg(long, value_enum, default_value_t = CheckpointArg::Fast)]
    checkpoint: CheckpointArg,
    /// How a backup finds out which blocks changed since its parent: where that leaves no doubt from the captured log, or through the
    /// server from what it sends itself (from 17 on, with summarize_wal); by reading every block; both, to compare; or by the local way
    /// also from the server's summaries, which know its history by name only
    #[arg(long, value_enum, default_value_t = ChangesArg::Auto)]
    changes: ChangesArg,
}

/// The servers whose log is captured.
#[derive(Debug, Args)]
#[command(next_help_heading = "PostgreSQL options")]
#[group(skip)]
struct PostgresStream {
    /// libpq connection string or URI; may name several hosts, of which the primary is followed
    #[arg(long, value_name = "CONNECTION")]
    url: Option<String>,
    /// The replication slot that makes the servers keep their log until it is stored; made if it does not exist
    #[arg(long, value_name = "NAME", default_value = "backup_log", conflicts_with = "no_slot")]
    slot: String,
    /// Use no slot: log that a server removes before it is stored is lost
    #[arg(long)]
    no_slot: bool,
}

/// The data directory that is written.
#[derive(Debug, Args)]
#[command(next_help_heading = "PostgreSQL options")]
#[group(skip)]
struct PostgresTarget {
    /// Restore a tablespace elsewhere: its OID or its old path, and the new directory; may be given several times
    #[arg(long, value_name = "OLD=NEW", value_parser = tablespace)]
    tablespace: Vec<(String, PathBuf)>,
    /// Restore into an existing data directory by rewriting only what differs
    #[arg(long)]
    delta: bool,
    /// How the restored server gets the log behind its backup: as files in its pg_wal, or streamed from this process, which then waits
    /// until the server was started and has reached the target
    #[arg(long, value_enum, default_value_t = ReplayArg::Files)]
    replay: ReplayArg,
    /// What the restored server does at the target
    #[arg(long, value_enum, default_value_t = ActionArg::Promote)]
    target_action: ActionArg,
}

/// The scratch instance that a drill starts.
#[derive(Debug, Args)]
#[command(next_help_heading = "PostgreSQL options")]
#[group(skip)]
struct PostgresScratch {
    /// Where postgres is [default: the usual place of the backup's version]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// A superuser of the cluster
    #[arg(long, value_name = "NAME", default_value = "postgres")]
    role: String,
    /// A library that the server has to load, because the log has records of its own (shared_preload_libraries); may be given several times
    #[arg(long, value_name = "LIBRARY")]
    preload: Vec<String>,
    /// Do not check tables and indexes by the server's amcheck
    #[arg(long)]
    no_amcheck: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ReplayArg {
    Files,
    Serve,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ActionArg {
    Promote,
    Pause,
    Shutdown,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MethodArg {
    Local,
    Protocol,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CheckpointArg {
    Fast,
    Spread,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ChangesArg {
    Auto,
    Never,
    Verify,
    Summaries,
}

/// A pair `OLD=NEW`. `\=` stands for an equals sign inside of a path, as in `pg_basebackup`.
fn tablespace(text: &str) -> Result<(String, PathBuf), String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&'=') => {
                chars.next();
                parts.last_mut().expect("never empty").push('=');
            }
            '=' => parts.push(String::new()),
            c => parts.last_mut().expect("never empty").push(c),
        }
    }
    match <[String; 2]>::try_from(parts) {
        Ok([old, new]) if !old.is_empty() && new.starts_with('/') => Ok((old, new.into())),
        _ => Err("must be OLD=NEW, where NEW is an absolute path".to_owned()),
    }
}

impl EngineKind for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn about(&self) -> &'static str {
        "PostgreSQL 13 to 18: the whole cluster, physically"
    }

    fn source_options(&self, command: Command) -> Command {
        PostgresSource::augment_args(command)
    }

    fn target_options(&self, command: Command) -> Command {
        PostgresTarget::augment_args(command)
    }

    fn stream_options(&self, command: Command) -> Command {
        PostgresStream::augment_args(command)
    }

    fn stream(&self, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>> {
        let args = PostgresStream::from_arg_matches(matches).map_err(misread)?;
        let mut settings = PostgresSettings::default();
        settings.url = args.url;
        settings.slot = if args.no_slot { LogSlot::None } else { LogSlot::Named(args.slot) };
        Ok(Box::new(PostgresEngine::new(settings)?))
    }

    fn source(&self, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>> {
        let args = PostgresSource::from_arg_matches(matches).map_err(misread)?;
        let mut settings = PostgresSettings::default();
        settings.url = args.url;
        settings.data_dir = args.data_dir;
        settings.method = args.method.map(|method| match method {
            MethodArg::Local => Method::Local,
            MethodArg::Protocol => Method::Protocol,
        });
        settings.checkpoint = match args.checkpoint {
            CheckpointArg::Fast => Checkpoint::Fast,
            CheckpointArg::Spread => Checkpoint::Spread,
        };
        settings.changes = match args.changes {
            ChangesArg::Auto => ChangeTracking::Auto,
            ChangesArg::Never => ChangeTracking::Never,
            ChangesArg::Verify => ChangeTracking::Verify,
            ChangesArg::Summaries => ChangeTracking::Summaries,
        };
        Ok(Box::new(PostgresEngine::new(settings)?))
    }

    fn target(&self, into: &str, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>> {
        let args = PostgresTarget::from_arg_matches(matches).map_err(misread)?;
        let mut settings = PostgresSettings::default();
        settings.data_dir = Some(into.into());
        settings.tablespaces = args.tablespace;
        settings.delta = args.delta;
        settings.replay = match args.replay {
            ReplayArg::Files => Replay::Files,
            ReplayArg::Serve => Replay::Serve,
        };
        settings.target_action = match args.target_action {
            ActionArg::Promote => TargetAction::Promote,
            ActionArg::Pause => TargetAction::Pause,
            ActionArg::Shutdown => TargetAction::Shutdown,
        };
        Ok(Box::new(PostgresEngine::new(settings)?))
    }

    fn checker(&self) -> Result<Box<dyn BackupEngine>> {
        Ok(Box::new(PostgresEngine::new(PostgresSettings::default())?))
    }

    fn drill_options(&self, command: Command) -> Command {
        PostgresScratch::augment_args(command)
    }

    fn drill(&self, matches: &ArgMatches) -> Result<Box<dyn DrillEngine>> {
        let args = PostgresScratch::from_arg_matches(matches).map_err(misread)?;
        let mut settings = PostgresDrillSettings::default().role(args.role).preload(args.preload);
        settings.bin_dir = args.bin_dir;
        settings.amcheck = !args.no_amcheck;
        Ok(Box::new(PostgresDrill::new(settings)))
    }
}

/// The matches are of the very command that was parsed with these options.
fn misread(error: clap::Error) -> Error {
    Error::internal("options of postgres cannot be read back").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tablespaces_are_pairs_of_old_and_new() {
        let pair = |old: &str, new: &str| Ok((old.to_owned(), PathBuf::from(new)));
        assert_eq!(tablespace("16385=/new"), pair("16385", "/new"));
        assert_eq!(tablespace("/old=/new"), pair("/old", "/new"));
        assert_eq!(tablespace(r"/o\=ld=/n\=ew"), pair("/o=ld", "/n=ew"));
        for bad in ["", "=", "/old", "/old=", "=/new", "/old=new", "/a=/b=/c"] {
            assert!(tablespace(bad).is_err(), "{bad}");
        }
    }
}
