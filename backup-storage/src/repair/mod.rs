//! Putting back what is damaged or missing from a region that has it.
//!
//! An object bears its name in its key, so what a region holds under a name is what was written under that name, or does not open. Each is
//! opened and decoded before it is put here, and read back afterwards; what the region has in no better state stays as it is.
//!
//! The journal comes first: it says what else there has to be. Its entries are a chain, so one that is missing here is taken only where
//! it fits between its neighbours, and what lies behind the end only where it goes on from there: a store that has brought back an
//! older state is found out by that.
//!
//! Nothing is deleted. What is there and damaged is replaced in one step; who may only add is told that this was refused.

mod chain;
mod genuine;

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::catalog::{Actor, Catalog, Event, PackId, Role};
use backup_core::engine::Work;
use backup_core::observe::{Phase, Unit};
use backup_core::repository::{Damage, VerifyLevel, VerifyReport};
use bytes::Bytes;

use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Journal;
use crate::layout::{self, SessionObject};
use crate::log::LogCache;
use crate::log::stored::Stored;
use crate::repository::Description;
use crate::store::{Created, ObjectName, Store};
use crate::verify;
use genuine::Genuine;

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Repaired {
    /// Names of objects that were put back.
    pub mended: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
    /// What is still damaged, and why.
    pub left: Vec<LeftDamaged>,
    /// What the verification found with which it began.
    pub found: VerifyReport,
}

/// Something that could not be put back.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct LeftDamaged {
    /// What is wrong.
    pub damage: Damage,
    /// Why it could not be put back.
    pub reason: String,
}

/// Puts back from `there` what a verification at `level` finds damaged here.
///
/// # Errors
/// Conflict when something else lies there. Those of both stores.
pub(crate) async fn repair(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    log: &Arc<LogCache>,
    there: &Store,
    level: VerifyLevel,
    work: &Work,
) -> Result<Repaired> {
    // Boxed: it holds the futures of nearly everything else.
    let repairing = Box::pin(run(context, journal, log, there, level, work));
    work.cancel().run_until_cancelled(repairing).await.unwrap_or_else(|| Err(Error::cancelled()))
}

async fn run(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    log: &Arc<LogCache>,
    there: &Store,
    level: VerifyLevel,
    work: &Work,
) -> Result<Repaired> {
    let same = Description::parse(&there.get(&layout::repository()?).await?)?;
    if same.id != context.keyring.repository() {
        return Err(Error::conflict(format!("what lies in {there} is another repository")));
    }
    let mut done = Repaired::default();
    chain::mend(context, journal, there, &mut done).await?;
    done.found = verify::whole(context, journal, log, level, work).await?;
    let catalog = match journal.refresh().await {
        Ok(catalog) => catalog,
        Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment) => {
            let reason = "without the catalog it is not known what else there has to be";
            done.leave(done.found.damages.clone(), reason);
            return Ok(done);
        }
        Err(error) => return Err(error),
    };
    let missing = missing_log(context, journal, there).await?;
    let genuine = Genuine::new(context, &catalog, log);
    let repair = Repair { context, there, genuine };
    work.started(Phase::Upload, Some((done.found.damages.len() + missing.len()) as u64), Unit::Items);
    let (mut packs, mut pieces) = (Vec::new(), Vec::new());
    for damage in done.found.damages.clone() {
        work.checkpoint()?;
        // The chain was mended as far as it could be.
        let outcome = match layout::entry_place(&damage.object) {
            Some(_) => Err("the region has no entry that fits there".to_owned()),
            None => repair.one(&damage.object).await?,
        };
        match outcome {
            Ok(len) => {
                match layout::session_object(&damage.object) {
                    Some(SessionObject::Pack(pack)) => packs.push(pack),
                    _ if crate::log::name::parse(&damage.object).is_some() => pieces.push(damage.object.clone()),
                    _ => {}
                }
                done.mended.push(damage.object);
                done.bytes += len;
            }
            Err(reason) => done.left.push(LeftDamaged { damage, reason }),
        }
        work.advanced(Phase::Upload, 1);
    }
    for name in missing {
        work.checkpoint()?;
        match repair.one(name.as_str()).await? {
            Ok(len) => {
                done.mended.push(name.as_str().to_owned());
                done.bytes += len;
            }
            Err(reason) => {
                let damage = Damage::new(name.as_str(), "it is missing", Vec::new());
                done.left.push(LeftDamaged { damage, reason });
            }
        }
        work.advanced(Phase::Upload, 1);
    }
    tell(context, journal, packs, pieces).await?;
    work.ended(Phase::Upload);
    Ok(done)
}

impl Repaired {
    fn leave(&mut self, damages: Vec<Damage>, reason: &str) {
        let left = damages.into_iter().map(|damage| LeftDamaged { damage, reason: reason.to_owned() });
        self.left.extend(left);
    }
}

/// Tells the catalog what of the damage that it knows is mended.
async fn tell(context: &Context, journal: &Journal<Catalog>, packs: Vec<PackId>, log: Vec<String>) -> Result<()> {
    let (by, at) = (Actor::new(Role::Platform, "repair"), context.env.now());
    journal
        .commit_by(|_, catalog| {
            let known: BTreeSet<_> = catalog.damaged_packs().map(|(pack, _)| pack).collect();
            let packs: Vec<_> = packs.iter().filter(|pack| known.contains(pack)).copied().collect();
            let log = log.iter().filter(|name| catalog.log().damages().contains_key(*name)).cloned();
            let log: Vec<_> = log.collect();
            if packs.is_empty() && log.is_empty() {
                return Ok(Vec::new());
            }
            Ok(vec![Event::Mended { packs, log, by: by.clone(), at }])
        })
        .await?;
    Ok(())
}

/// Objects of log that the region has, and of which something is nowhere here. One that is damaged here is not missing.
async fn missing_log(context: &Context, journal: &Journal<Catalog>, there: &Store) -> Result<Vec<ObjectName>> {
    let here = Stored::survey(&context.store, journal, None).await?;
    let region = Stored::survey(there, journal, None).await?;
    let covered = here.covered();
    let mut missing = Vec::new();
    for (lineage, listed) in region.counting() {
        let piece = &listed.piece;
        let present = here.pieces.get(lineage).is_some_and(|pieces| pieces.iter().any(|own| own.piece == *piece));
        let ranges = covered.get(lineage).map(Vec::as_slice).unwrap_or_default();
        let held = piece.is_empty() || ranges.iter().any(|range| range.start <= piece.start && piece.end <= range.end);
        if !present && !held {
            missing.push(piece.name(lineage)?);
        }
    }
    Ok(missing)
}

struct Repair<'a> {
    context: &'a Arc<Context>,
    there: &'a Store,
    genuine: Genuine,
}

impl Repair<'_> {
    /// Puts one object back. Its length, or why it could not be.
    async fn one(&self, name: &str) -> Result<Result<u64, String>> {
        let name = ObjectName::new(name)?;
        let object = match self.there.get(&name).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() => return Ok(Err("the region does not have it".to_owned())),
            Err(error) if error.kind() == ErrorKind::Damaged => {
                return Ok(Err(format!("in the region it cannot be read: {}", verify::describe(error))));
            }
            Err(error) => return Err(error),
        };
        match self.genuine.check(&name, object.clone()).await {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment) => {
                return Ok(Err(format!("in the region it is no better: {}", verify::describe(error))));
            }
            Err(error) => return Err(error),
        }
        put(&self.context.store, &name, object).await
    }
}

/// Makes `object` what lies under `name`. Its length, or why that could not be.
async fn put(store: &Store, name: &ObjectName, object: Bytes) -> Result<Result<u64, String>> {
    let len = object.len() as u64;
    let put = match store.create(name, object.clone()).await {
        Ok(Created::New | Created::AlreadyOurs) => Ok(()),
        Ok(Created::Conflict) => store.replace(name, object.clone()).await,
        // What is there cannot even be read.
        Err(error) if error.kind() == ErrorKind::Damaged => store.replace(name, object.clone()).await,
        Err(error) => Err(error),
    };
    match put {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::Environment => {
            return Ok(Err(format!("it could not be put: {}", verify::describe(error))));
        }
        Err(error) => return Err(error),
    }
    match store.get(name).await {
        Ok(back) if back == object => Ok(Ok(len)),
        Ok(_) => Ok(Err("it was put, and reads back as something else".to_owned())),
        Err(error) if error.kind() == ErrorKind::Damaged => {
            Ok(Err(format!("it was put, and cannot be read: {}", verify::describe(error))))
        }
        Err(error) => Err(error),
    }
}
