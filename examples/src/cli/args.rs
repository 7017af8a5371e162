//! What can be asked for.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::commands::{
    adopt, backup, collect, compact, drill, expire, export, hold, key, log, look, plan, rebuild, repair, replicate,
    restore, service, show, verify,
};
use super::engines::{OnEngine, Scratch, Source, Stream, Target};

const EXIT_CODES: &str = "\
Exit codes:
   0 done               10 invalid input     13 damaged data     70 internal error
   2 wrong usage        11 environment       14 conflict
                        12 unavailable       15 cancelled

Examples:
  backupctl --vault file:///backups --service shop init
  backupctl --vault file:///backups --service shop backup postgres --url 'host=localhost user=postgres'
  backupctl --vault file:///backups --service shop log postgres --url 'host=localhost user=postgres'
  backupctl --vault file:///backups --service shop restore postgres --into /srv/restored --time 2026-11-26T09:59:59Z";

/// Encrypted, incremental backups of databases in any object store.
#[derive(Debug, Parser)]
#[command(name = "backupctl", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Where backups are: file:///absolute/dir, s3://bucket/prefix, gs://…, az://…, memory:///, for reading https://… [env: BACKUP_VAULT]
    #[arg(long, value_name = "URL", global = true)]
    pub(crate) vault: Option<String>,
    /// Whose backups [env: BACKUP_SERVICE]
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) service: Option<String>,
    /// File whose first line is the passphrase [env: BACKUP_PASSPHRASE is the passphrase itself]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// File whose first line is a key (BACKUP-SECRET-1…, BACKUP-KEY-1…) to open the repository with, instead of the passphrase
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) key_file: Option<PathBuf>,
    /// Print exactly one JSON document; errors are a JSON object on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress and no remarks
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create the service's repository
    Init,
    /// Take a backup, incremental against the newest one of the same source unless --full
    #[command(subcommand)]
    Backup(OnEngine<Source, backup::BackupArgs>),
    /// Capture the change stream until interrupted, or store collected pieces of it
    #[command(subcommand)]
    Log(OnEngine<Stream, log::LogArgs>),
    /// Make backups of what hosts that only write have deposited; a collection does the same
    Adopt(adopt::AdoptArgs),
    /// Merge the small objects of the log into large ones; safe beside a capture
    Compact(compact::CompactArgs),
    /// Take away what nobody needs: condemn what backups let go have left, and delete what was condemned long enough ago
    Collect(collect::CollectArgs),
    /// Show what a collection would take away, and run it with --execute
    Gc(collect::GcArgs),
    /// Keep a backup again that was let go, as long as nothing of it is deleted
    Reinstate(collect::ReinstateArgs),
    /// Copy to another vault what it lacks: a further region, opened like the first one when that is gone
    Replicate(replicate::ReplicateArgs),
    /// Put back from a further region what is missing or damaged here
    Repair(repair::RepairArgs),
    /// Build the catalog again from packs, keys and log, when it is damaged beyond reading
    Rebuild(rebuild::RebuildArgs),
    /// Show what a plan keeps and why, and let go of the rest with --execute
    Expire(expire::ExpireArgs),
    /// Keep a backup whatever its age, or stop that
    #[command(subcommand)]
    Hold(hold::HoldCommand),
    /// Show and change who can open the repository
    #[command(subcommand, visible_alias = "keys")]
    Key(key::KeyCommand),
    /// List the backups, oldest first
    List,
    /// Show what can be restored, to which moments, and the holes of the log
    Windows,
    /// Show one backup with its entries
    Show(show::ShowArgs),
    /// Look at the keys inside backups, without a server
    #[command(subcommand)]
    Look(look::LookCommand),
    /// Show what a restore would do; nothing is written
    #[command(subcommand)]
    Plan(OnEngine<Target, plan::PlanArgs>),
    /// Restore
    #[command(subcommand)]
    Restore(OnEngine<Target, restore::RestoreArgs>),
    /// Prove that a backup can be restored: restore it into a scratch instance, look at everything in it, record what that has shown
    #[command(subcommand)]
    Drill(OnEngine<Scratch, drill::DrillArgs>),
    /// Write a table of a backup into a file of another format
    #[command(subcommand)]
    Export(export::ExportCommand),
    /// Check what is stored
    Verify(verify::VerifyArgs),
    /// Services under management: PostgreSQL servers of this host, their plans, and their whole life
    Service(service::ServiceArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn passphrases_have_no_option() {
        let command = Cli::command();
        assert!(command.get_arguments().all(|arg| arg.get_long() != Some("passphrase")));
    }
}
