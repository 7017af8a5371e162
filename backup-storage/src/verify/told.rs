//! A whole verification, and what the catalog is told of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::BackupId;
use backup_core::catalog::{Actor, Catalog, Event, PackDamage, Role, Verification};
use backup_core::engine::Work;
use backup_core::repository::{Damage, VerifyLevel, VerifyReport};

use super::{Choice, Seen};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Journal;
use crate::log::{self, LogCache};

/// Checks what is stored, the log as well.
///
/// Whoever may only read is told what was found, and the catalog is not; neither is that of a region, which would go another way then.
///
/// # Errors
/// When checking itself was not possible: the store cannot be reached, the work was cancelled, or something was written by
/// a newer version.
pub(crate) async fn whole(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    log: &Arc<LogCache>,
    level: VerifyLevel,
    work: &Work,
) -> Result<VerifyReport> {
    let began = context.env.now();
    let catalog = match journal.refresh().await {
        Ok(catalog) => catalog,
        // Without it a pass begins at the beginning, and is not remembered. What is wrong with it is found out below.
        Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment) => Arc::default(),
        Err(error) => return Err(error),
    };
    let mut choice = Choice::of(level, &catalog, began, context.env.random());
    let Seen { mut report, damaged, mended, examined, catalog: readable } =
        super::stored(context, journal, (level, &mut choice), work).await?;
    let seen = log::verify::verify(log, journal, (level, &mut choice), work);
    let (mut events, mut healed) = (Vec::new(), Vec::new());
    match work.cancel().run_until_cancelled(seen).await.unwrap_or_else(|| Err(Error::cancelled())) {
        Ok(seen) => {
            report.objects += seen.objects;
            report.read_bytes += seen.read_bytes;
            report.garbage_objects += seen.garbage_objects;
            report.garbage_bytes += seen.garbage_bytes;
            report.damages.extend(seen.damages.into_iter().map(|d| Damage::new(d.object, d.problem, d.backups)));
            (events, healed) = (seen.events, seen.mended);
        }
        // Without a catalog nobody knows which log counts; what is wrong with the catalog is in the report.
        Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment) && !report.is_sound() => {}
        Err(error) => return Err(error),
    }
    report.read_since = catalog.read_since();
    if !readable || journal.is_region().await? {
        return Ok(report);
    }
    let at = context.env.now();
    let by = Actor::new(Role::Platform, "verify");
    if !mended.is_empty() || !healed.is_empty() {
        events.push(Event::Mended { packs: mended, log: healed, by, at });
    }
    if level.reads() {
        let mut verification = Verification::new(level.name(), began, at);
        verification.objects = report.objects;
        verification.read_bytes = report.read_bytes;
        verification.problems = report.damages.len() as u64;
        verification.pass = choice.pass();
        events.push(Event::Verified { verification: Box::new(verification) });
    }
    let told = journal.commit_by(|_, catalog| {
        let news = news(catalog, &damaged, &examined);
        let damage = (!news.is_empty()).then_some(Event::PacksDamaged { packs: news, at });
        Ok(damage.into_iter().chain(events.iter().cloned()).collect())
    });
    match told.await {
        Ok((_, catalog)) => report.read_since = catalog.read_since(),
        Err(error) if error.kind() == ErrorKind::Environment => {
            tracing::warn!(%error, "what was found cannot be written down");
        }
        Err(error) => return Err(error),
    }
    Ok(report)
}

/// What of `damaged` `catalog` does not know yet.
fn news(catalog: &Catalog, damaged: &[PackDamage], examined: &BTreeSet<BackupId>) -> Vec<PackDamage> {
    let mut news = Vec::new();
    for damage in damaged {
        let sessions: BTreeSet<_> = catalog
            .moves()
            .filter(|moved| catalog.locate(moved.from).is_some_and(|found| found.to == damage.pack))
            .map(|moved| moved.from.session)
            .chain([damage.pack.session])
            .collect();
        // A backup that was committed meanwhile, and that may refer to it: the next verification knows better.
        let unseen = catalog.backups().filter(|backup| !examined.contains(&backup.id)).filter(|backup| {
            sessions.contains(&backup.session) || backup.reused.iter().any(|session| sessions.contains(session))
        });
        let kept = damage.backups.iter().filter(|backup| catalog.backup(**backup).is_some()).copied();
        let backups: BTreeSet<_> = kept.chain(unseen.map(|backup| backup.id)).collect();
        let known = catalog.damaged_packs().find(|(pack, _)| *pack == damage.pack);
        if known.is_some_and(|(_, harm)| harm.problem == damage.problem && harm.backups == backups) {
            continue;
        }
        news.push(PackDamage { backups: backups.into_iter().collect(), ..damage.clone() });
    }
    news
}
