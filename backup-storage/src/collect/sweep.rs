//! Deleting what was condemned.

use backup_core::catalog::{Catalog, Condemned};
use backup_core::{Finding, Severity};
use futures::stream::{self, StreamExt};
use futures::{Stream, TryStreamExt};
use jiff::Timestamp;

use super::plan;
use super::survey::Survey;
use crate::context::Context;
use crate::error::{ErrorKind, Result};
use crate::layout::{self, SessionObject};
use crate::store::ObjectName;

/// So many names are gathered before they are deleted.
const AT_ONCE: usize = 4096;

/// What became of what was condemned.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    pub(crate) deleted: u64,
    /// Why something is left. None when nothing is.
    pub(crate) refused: Option<Finding>,
    /// How many objects stay on purpose.
    pub(crate) kept: u64,
}

/// Says of an object, which was stored at that time if that was listed, whether it stays on purpose.
pub(crate) type Stays<'a> = dyn Fn(&ObjectName, Option<Timestamp>) -> bool + Send + Sync + 'a;

/// Deletes what was `condemned`, but for what `stays`. What is gone already is gone.
///
/// # Errors
/// Those of the store, but for a refusal.
pub(crate) async fn sweep(
    context: &Context,
    catalog: &Catalog,
    condemned: &Condemned,
    stays: &Stays<'_>,
) -> Result<Swept> {
    let mut swept = Swept::default();
    for packs in &condemned.packs {
        let mut names = Vec::new();
        if packs.whole {
            // What says that a backup was committed goes before what the backup was made of.
            let objects: Vec<_> = context.store.list(&layout::session(packs.session)).try_collect().await?;
            let all = objects.len();
            let free = objects.into_iter().filter(|object| !stays(&object.name, Some(object.last_modified)));
            names.extend(free.map(|object| object.name));
            swept.kept += (all - names.len()) as u64;
            let is_pack =
                |name: &ObjectName| matches!(layout::session_object(name.as_str()), Some(SessionObject::Pack(_)));
            names.sort_by_key(|name| is_pack(name));
        } else {
            for pack in packs.packs() {
                let name = layout::pack(pack)?;
                match stays(&name, None) {
                    true => swept.kept += 1,
                    false => names.push(name),
                }
            }
        }
        for chunk in names.chunks(AT_ONCE) {
            delete(context, stream::iter(chunk.to_vec()), &mut swept).await?;
            if swept.refused.is_some() {
                return Ok(swept);
            }
        }
    }
    if !condemned.log.is_empty() {
        let survey = Survey::read(&context.store).await?;
        for (lineage, before) in &condemned.log {
            let mut names = Vec::new();
            for listed in plan::expired(catalog, &survey, lineage, *before) {
                let name = listed.piece.name(lineage)?;
                match stays(&name, Some(listed.at)) {
                    true => swept.kept += 1,
                    false => names.push(name),
                }
            }
            delete(context, stream::iter(names), &mut swept).await?;
        }
    }
    Ok(swept)
}

async fn delete(
    context: &Context,
    names: impl Stream<Item = ObjectName> + Send + Unpin + 'static,
    swept: &mut Swept,
) -> Result<()> {
    let mut outcomes = context.store.delete_many(names);
    while let Some((name, outcome)) = outcomes.next().await {
        match outcome {
            Ok(()) => swept.deleted += 1,
            Err(error) if error.kind() == ErrorKind::Environment => {
                let text = format!("what nobody needs is kept, because it cannot be deleted: {error}");
                let finding = Finding::new(Severity::Warning, "delete-refused", text);
                swept.refused = Some(finding.about(name.as_str()).in_surroundings());
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
