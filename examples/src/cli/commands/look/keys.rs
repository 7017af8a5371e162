//! `look redis list`: keys, in the order of the backup.

use backup_core::run;
use clap::Args;
use serde::Serialize;

use super::{KeyView, open, remark_unseen, unseen};
use crate::cli::commands::Context;
use crate::cli::failure::Failure;
use crate::cli::keys::KeyArgs;
use crate::table::Table;

/// Options of the command.
#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    /// The backup's id, as `list` shows it [default: the newest]
    backup: Option<String>,
    #[command(flatten)]
    keys: KeyArgs,
    /// At most so many keys
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    limit: usize,
}

#[derive(Debug, Serialize)]
struct ListView {
    backup: backup_core::BackupId,
    keys: Vec<KeyView>,
    /// Whether there are more keys than the limit.
    more: bool,
    /// From this byte on the snapshot could not be seen into.
    unseen_from: Option<u64>,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, args: KeysArgs) -> Result<(), Failure> {
    let repository = cx.open().await?;
    let looked = open(cx, &repository, args.backup.as_deref()).await?;
    let work = cx.work().clone();
    let mut reading = looked.look.keys(args.keys.filter());
    let (mut keys, mut more) = (Vec::new(), false);
    let listing = async {
        while let Some(entry) = work.run(reading.next(&work)).await? {
            if keys.len() == args.limit {
                more = true;
                break;
            }
            keys.push(KeyView::from(&entry));
        }
        Ok(())
    };
    run::while_reading(&repository, "look", &work, listing).await?;
    let counted = reading.counted();
    if cx.json() {
        return cx.document(&ListView { backup: looked.id, keys, more, unseen_from: unseen(counted) });
    }
    let mut table = Table::new(&["database", "key", "type", "size", "expires"]);
    for key in &keys {
        table.row(key.cells().into());
    }
    cx.table(&table)?;
    if more {
        cx.remark(&format!("there are more than {} keys; --limit shows more", args.limit));
    }
    remark_unseen(cx, counted);
    Ok(())
}
