//! The objects that are not sealed under an epoch key: the description and the wrapped keys.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::BackupId;
use backup_core::catalog::Wrap;
use backup_core::repository::VerifyReport;

use super::findings::{Findings, describe};
use super::history::History;
use super::listing::Listing;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::succession;
use crate::layout;
use crate::repository::{Description, parse_key};
use crate::store::ObjectName;

/// Checks all of them against what the catalog knows.
///
/// A lost description or the loss of all wraps of an epoch makes everything unreadable for whoever does not have the keys open
/// by chance, as this process has. One wrap of several harms nobody but its recipient.
pub(super) async fn check(
    context: &Context,
    listing: &Listing,
    history: &History,
    all: &[BackupId],
    (report, findings): (&mut VerifyReport, &mut Findings),
) -> Result<()> {
    let recorded = Recorded::of(history);
    let description = layout::repository()?;
    let mut names: BTreeSet<ObjectName> = listing.keys.iter().cloned().collect();
    for name in recorded.counting.keys() {
        names.insert(ObjectName::new(*name)?);
    }
    names.insert(description.clone());
    let mut broken = BTreeMap::new();
    // Folders of epochs that have a wrap that is as it was written.
    let mut readable = BTreeSet::new();
    for name in names {
        report.objects += 1;
        let checked = match context.store.get(&name).await {
            Ok(object) => {
                report.read_bytes += object.len() as u64;
                read(context, &name, &object, &recorded)
            }
            // It is to be gone, or was never sure to come.
            Err(e) if e.is_not_found() && !recorded.counting.contains_key(name.as_str()) && name != description => {
                continue;
            }
            Err(e) if e.kind() == ErrorKind::Damaged => Err(e),
            Err(e) => return Err(e),
        };
        match checked {
            Ok(Standing::Counts) => {
                readable.insert(folder(&name).to_owned());
            }
            Ok(Standing::Unfinished) => report.garbage_objects += 1,
            Err(e) => {
                broken.insert(name, describe(e));
            }
        }
    }
    for (name, problem) in broken {
        let counts = recorded.counting.contains_key(name.as_str()) || !recorded.whole || name == description;
        let harmed = if readable.contains(folder(&name)) || !counts { &[][..] } else { all };
        findings.add(name.as_str(), problem, harmed.iter().copied());
    }
    successions(context, listing, history, report, findings).await
}

/// What the catalog knows of the plain objects.
struct Recorded<'a> {
    counting: BTreeMap<&'a str, [u8; 32]>,
    announced: BTreeMap<&'a str, [u8; 32]>,
    gone: BTreeSet<&'a str>,
    /// Whether it knows all of them.
    whole: bool,
}

enum Standing {
    Counts,
    /// A change of the keys is under way, or has died.
    Unfinished,
}

impl<'a> Recorded<'a> {
    fn of(history: &'a History) -> Self {
        fn digests<'w>(wraps: impl Iterator<Item = &'w Wrap>) -> BTreeMap<&'w str, [u8; 32]> {
            wraps.map(|wrap| (wrap.name.as_str(), wrap.digest)).collect()
        }
        let objects = history.genesis.iter().flat_map(|genesis| &genesis.objects);
        let others = objects.filter(|object| layout::key_place(&object.name).is_none());
        let mut counting = digests(history.keys.wraps());
        counting.extend(others.map(|object| (object.name.as_str(), object.digest)));
        Self {
            counting,
            announced: digests(history.keys.announced()),
            gone: history.keys.gone().map(|wrap| wrap.name.as_str()).collect(),
            whole: history.is_whole(),
        }
    }
}

/// What tells of the succession of epochs. Without it everything can be read, as long as there is the journal.
async fn successions(
    context: &Context,
    listing: &Listing,
    history: &History,
    report: &mut VerifyReport,
    findings: &mut Findings,
) -> Result<()> {
    if !history.is_whole() {
        return Ok(());
    }
    let needed = crate::keys::needed(&history.keys);
    for epoch in &needed {
        report.objects += 1;
        let name = layout::epoch(*epoch)?;
        let said = match context.store.get(&name).await {
            Ok(object) => succession::open(&context.keyring, *epoch, &object),
            Err(e) => Err(e),
        };
        let begun = history.keys.epochs().find(|(begun, _)| *begun == epoch.0).and_then(|(_, known)| known);
        match said {
            Ok(said) if Some(said.as_bytes()) == begun => {}
            Ok(_) => findings.add(name.as_str(), "it tells of another key than the catalog", []),
            Err(e) if e.kind() == ErrorKind::Damaged => findings.add(name.as_str(), describe(e), []),
            // The key of an older epoch that this recipient does not have.
            Err(e) if e.kind() == ErrorKind::Environment => {}
            Err(e) => return Err(e),
        }
    }
    for name in &listing.epochs {
        let Some(epoch) = layout::epoch_place(name.as_str()).filter(|epoch| !needed.contains(epoch)) else { continue };
        if history.keys.next().is_ok_and(|next| epoch.0 < next) {
            report.garbage_objects += 1;
        } else {
            findings.add(name.as_str(), "it tells of an epoch that nobody has announced", []);
        }
    }
    Ok(())
}

fn folder(name: &ObjectName) -> &str {
    name.as_str().rsplit_once('/').map_or(name.as_str(), |(folder, _)| folder)
}

fn read(context: &Context, name: &ObjectName, object: &[u8], recorded: &Recorded<'_>) -> Result<Standing> {
    let digest = blake3::hash(object);
    let is_other = |known: Option<&[u8; 32]>| known.is_some_and(|known| digest != *known);
    if is_other(recorded.counting.get(name.as_str())) || is_other(recorded.announced.get(name.as_str())) {
        return Err(Error::damaged("it is not what the catalog says was stored"));
    }
    if *name == layout::repository()? {
        let description = Description::parse(object)?;
        if description.id != context.keyring.repository() || description.suite != context.keyring.suite() {
            return Err(Error::damaged("it describes another repository"));
        }
        return Ok(Standing::Counts);
    }
    parse_key(name.as_str(), object)?;
    if recorded.announced.contains_key(name.as_str()) {
        return Ok(Standing::Unfinished);
    }
    if recorded.gone.contains(name.as_str()) {
        return Err(Error::damaged("its recipient was removed or has another one, and it was not deleted"));
    }
    if recorded.whole && !recorded.counting.contains_key(name.as_str()) {
        return Err(Error::damaged("nobody who has the keys has announced it: it was put there by somebody else"));
    }
    Ok(Standing::Counts)
}
