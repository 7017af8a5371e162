//! Options that say which moment a restore is to reach, and which entries.

use backup_core::entry::Selector;
use backup_core::{Goal, RecoveryTarget, Result};
use clap::Args;
use jiff::Timestamp;

/// The moment. The newest stored state unless said otherwise.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TargetArgs {
    #[command(flatten)]
    goal: GoalArgs,
    /// Stop just before a change that lies exactly on the target
    #[arg(long, conflicts_with_all = ["latest", "backup"])]
    exclusive: bool,
}

#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
struct GoalArgs {
    /// The newest stored state (the default)
    #[arg(long)]
    latest: bool,
    /// The end of this backup
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
    /// The last change committed by this moment
    #[arg(long, value_name = "RFC3339")]
    time: Option<Timestamp>,
    /// This position of the change stream, in the engine's notation
    #[arg(long, value_name = "TEXT")]
    position: Option<String>,
    /// A restore point named in the engine
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// The end of this transaction, by the engine's name for it
    #[arg(long, value_name = "ID")]
    transaction: Option<String>,
}

impl TargetArgs {
    /// The target that is meant.
    pub(crate) fn target(&self) -> Result<RecoveryTarget> {
        let goal = match &self.goal {
            GoalArgs { backup: Some(id), .. } => Goal::Backup(id.parse()?),
            GoalArgs { time: Some(time), .. } => Goal::Time(*time),
            GoalArgs { position: Some(text), .. } => Goal::Position(text.clone()),
            GoalArgs { name: Some(text), .. } => Goal::Named(text.clone()),
            GoalArgs { transaction: Some(id), .. } => Goal::Transaction(id.clone()),
            GoalArgs { .. } => Goal::Latest,
        };
        let target = RecoveryTarget::new(goal);
        Ok(if self.exclusive { target.exclusive() } else { target })
    }
}

/// The entries. All of them unless said otherwise.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct OnlyArgs {
    /// Only entries at or below this path of the backup; may be given several times
    #[arg(long, value_name = "SELECTOR")]
    only: Vec<String>,
}

impl OnlyArgs {
    /// The selector that is meant.
    pub(crate) fn selector(&self) -> Result<Selector> {
        Selector::parse(self.only.iter().map(String::as_str))
    }
}
