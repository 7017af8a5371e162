//! The ways back: into a running server, into files, or key by key.
//!
//! The rule of this room: nothing is touched before the whole snapshot has been read and parsed to its end once. A server
//! that is fed a broken file ends itself, and may keep the file and end again at every start.
//!
//! - [`Way::Live`]: we act as the primary of a running server. It takes the whole dataset in one step, as it would from any
//!   primary, keeps running, and becomes a primary of its own again. Until it has everything it keeps what it had.
//! - [`Way::Files`]: the snapshot becomes `dump.rdb` in a directory that a server is then started on, and with what happened
//!   behind it an append-only log.
//! - [`Way::Replay`]: every key becomes a `RESTORE` command: into a server that has other data, or into a cluster of any size.
//!
//! Every way takes [`Rules`](crate::rdb::Rules): which keys, under which names, and until when.

mod appendonly;
mod commands;
mod feed;
mod files;
mod live;
mod nodes;
mod primary;
mod release;
mod replay;
mod settings;
mod stored;
mod tail;
mod target;
mod users;
mod users_file;

use std::sync::Arc;

use backup_core::engine::{BackupSource, RestoreContext, Restored, Work};
use backup_core::{Finding, LogPosition, Result, Severity};
use futures::future::try_join_all;

use crate::stream;
pub(crate) use files::blocking;
use tail::Tail;

pub use release::released;
pub use settings::{LinkTls, LiveSettings, ReplaySettings, RestoreSettings, Way};
pub(crate) use stored::Stored;
pub(crate) use target::snapshot_version;

/// Says why a restore would be refused. Changes nothing. Into a running server it waits first for what [`released`] waits for.
///
/// # Errors
/// When the target cannot be looked at, or the backup cannot be read.
pub async fn assess(settings: &RestoreSettings, cx: &RestoreContext) -> Result<Vec<Finding>> {
    if let Some(finding) = judge_log(settings, cx) {
        return Ok(vec![finding]);
    }
    let stored = Stored::open(cx.source()).await?;
    match &settings.way {
        Way::Live(live) => {
            // What was dropped before may not meddle with what comes.
            released().await;
            live::assess(settings, live, &stored).await
        }
        Way::Files(dir) => {
            let mut findings = files::assess(dir).await?;
            if Tail::is_wanted(cx) {
                findings.push(appendonly::assess(settings, &stored).await?);
            }
            Ok(findings)
        }
        Way::Replay(replay) => replay::assess(settings, replay, &stored).await,
    }
}

/// Where a restore of `cx` stops, and whether what happened behind the snapshot is part of it.
///
/// # Errors
/// As [`restore`].
pub(crate) async fn end(cx: &RestoreContext) -> Result<(Option<LogPosition>, bool)> {
    match Tail::of(cx, &crate::rdb::Rules::default()).await? {
        Some(tail) => Ok((tail.end(), true)),
        None => Ok((cx.source().record().snapshot.stop.clone(), false)),
    }
}

/// A blocker when the target lies behind the snapshot and the way does not lead there.
fn judge_log(settings: &RestoreSettings, cx: &RestoreContext) -> Option<Finding> {
    let text = match settings.way {
        _ if !Tail::is_wanted(cx) => return None,
        // A primary lets keys expire while it is given what had happened before they did.
        Way::Replay(_) => {
            "key by key only the snapshot itself comes back, not what happened behind it: the servers would let keys expire that were \
             still changed then; name the backup itself"
                .to_owned()
        }
        Way::Live(_) | Way::Files(_) => {
            let why = stream::judge(&settings.rules)?;
            format!("what happened behind the snapshot cannot be changed on its way: {why}; name the backup itself")
        }
    };
    Some(Finding::new(Severity::Blocker, "log", text))
}

/// Restores the snapshot of the context's source, and what happened behind it, but for [`Way::Replay`].
///
/// # Cancel safety
/// A target of [`Way::Live`] has its old data or the new, whenever the future is dropped. A task of the runtime then makes it a
/// primary again and sets its settings back, which [`released`] waits for; without a runtime it is left as a replica of nobody,
/// which the same restore, or `REPLICAOF NO ONE`, ends. [`Way::Files`] leaves
/// nothing that a server would load. [`Way::Replay`] leaves
/// the keys that were restored so far.
///
/// # Errors
/// [`Damaged`](backup_core::ErrorKind::Damaged) when the stored snapshot is not what it must be: then nothing was touched.
/// What [`assess`] blocks is refused.
pub async fn restore(settings: &RestoreSettings, cx: &RestoreContext) -> Result<Restored> {
    let findings = assess(settings, cx).await?;
    if let Some(blocker) = findings.iter().find(|finding| finding.severity == Severity::Blocker) {
        return Err(blocker.refusal("the restore"));
    }
    let stored = Stored::open(cx.source()).await?;
    let mut restored = match &settings.way {
        Way::Live(live) => {
            let verified = stored.verify(&settings.rules, settings.version, cx.work()).await?;
            live::restore(settings, live, &stored, &verified, cx).await?
        }
        Way::Files(dir) => {
            let verified = stored.verify(&settings.rules, settings.version, cx.work()).await?;
            match Tail::of(cx, &settings.rules).await? {
                Some(tail) => appendonly::restore(settings, dir, &stored, &verified, &tail, cx).await?,
                None => files::restore(settings, dir, &stored, &verified, cx).await?,
            }
        }
        Way::Replay(replay) => replay::restore(settings, replay, &[stored], cx.work()).await?,
    };
    restored.findings.splice(0..0, findings);
    Ok(restored)
}

/// Restores several snapshots of which no two have the same key, key by key and together.
///
/// # Errors
/// As [`restore`]. All of them are read to their ends before the first key is sent.
pub(crate) async fn replay_all(
    settings: &RestoreSettings,
    replay: &ReplaySettings,
    sources: &[Arc<dyn BackupSource>],
    work: &Work,
) -> Result<Restored> {
    let stored = try_join_all(sources.iter().map(Stored::open)).await?;
    replay::restore(settings, replay, &stored, work).await
}
