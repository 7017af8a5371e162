//! Backups of several members as one: each sees a sink or a source of its own, which is a folder of the whole.
//!
//! An engine of a clustered service gives each member a context made by [`member_backup`] and lets them all work at the same time
//! ([`each_member`]). What comes of it is one backup with one [`Group`](crate::Group) in its header, so members become visible
//! together or not at all. A restore or a check goes the other way ([`member_restore`], [`member_check`]): the code of a single
//! server works on a member as on a backup of its own.

mod parallel;
mod sink;
mod source;

use std::sync::Arc;

pub use parallel::each_member;
pub use sink::MemberSink;
pub use source::MemberSource;

use super::context::{BackupContext, CheckContext, RestoreContext};
use super::source::BackupSource;
use crate::error::{Error, Result};
use crate::member::MemberName;
use crate::snapshot::Snapshot;

/// The context in which the member `name` is backed up. Its parent is the same member of the parent, where that has it.
///
/// # Errors
/// Those of reading the parent.
pub async fn member_backup(cx: &BackupContext, name: &MemberName) -> Result<BackupContext> {
    let sink = MemberSink::new(Arc::clone(cx.sink()), name)?;
    let parent = match cx.parent_source() {
        Some(source) if has(&source.record().snapshot, name) => Some(MemberSource::open(source, name).await?),
        _ => None,
    };
    let record = parent.as_ref().map(|source| source.record().clone());
    let source = parent.map(|source| Arc::new(source) as Arc<dyn BackupSource>);
    Ok(BackupContext::new(cx.work().clone(), Arc::new(sink), record)
        .with_parent_source(source)
        .with_log(cx.log().cloned()))
}

/// The context in which the member `name` is restored. None when the selection leaves it out.
///
/// It is without a log: what a group's log is to a member is for its engine to say.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the backup has no such member; those of reading it.
pub async fn member_restore(cx: &RestoreContext, name: &MemberName) -> Result<Option<RestoreContext>> {
    let Some(selector) = cx.selector().inside(&name.folder()?) else { return Ok(None) };
    let source = Arc::new(MemberSource::open(cx.source(), name).await?);
    Ok(Some(RestoreContext::new(cx.work().clone(), source, cx.target().clone()).with_selector(selector)))
}

/// The members that the selection wants, each with the context in which it is restored.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) when it wants none of them, and when the backup is none of a group; those of
/// reading it.
pub async fn wanted_members(cx: &RestoreContext) -> Result<Vec<(MemberName, RestoreContext)>> {
    let mut members = Vec::new();
    for name in member_names(&**cx.source())? {
        if let Some(member) = member_restore(cx, &name).await? {
            members.push((name, member));
        }
    }
    if members.is_empty() {
        return Err(Error::invalid("the selection names no member of the backup"));
    }
    Ok(members)
}

/// The context in which the member `name` is checked.
///
/// # Errors
/// As [`member_restore`].
pub async fn member_check(cx: &CheckContext, name: &MemberName) -> Result<CheckContext> {
    let source = Arc::new(MemberSource::open(cx.source(), name).await?);
    Ok(CheckContext::new(cx.work().clone(), source))
}

/// The names of the members of a backup.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) when it is none of a group.
pub fn member_names(source: &dyn BackupSource) -> Result<Vec<MemberName>> {
    let record = source.record();
    let group = record.snapshot.group.as_ref();
    let group = group.ok_or_else(|| Error::invalid(format!("backup {} is not of a group of members", record.id)))?;
    Ok(group.members.iter().map(|member| member.name.clone()).collect())
}

fn has(snapshot: &Snapshot, name: &MemberName) -> bool {
    snapshot.group.as_ref().is_some_and(|group| group.member(name).is_some())
}
