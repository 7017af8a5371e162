//! The objects that are not sealed under an epoch key: the description and the wrapped keys.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::BackupId;
use backup_core::repository::VerifyReport;

use super::findings::{Findings, describe};
use super::listing::Listing;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Genesis;
use crate::layout;
use crate::repository::{Description, parse_key};
use crate::store::ObjectName;

/// Checks all of them against the digests that the catalog begins with.
///
/// A lost description or the loss of all wraps of an epoch makes everything unreadable for whoever does not have the keys open
/// by chance, as this process has. One wrap of several harms nobody but its recipient.
pub(super) async fn check(
    context: &Context,
    listing: &Listing,
    genesis: Option<&Genesis>,
    all: &[BackupId],
    (report, findings): (&mut VerifyReport, &mut Findings),
) -> Result<()> {
    let recorded = genesis.map(|genesis| &genesis.objects[..]).unwrap_or_default();
    let recorded: BTreeMap<&str, [u8; 32]> = recorded.iter().map(|o| (o.name.as_str(), o.digest)).collect();
    let description = layout::repository()?;
    let mut names: BTreeSet<ObjectName> = listing.keys.iter().cloned().collect();
    for name in recorded.keys() {
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
                read(context, &name, &object, recorded.get(name.as_str()))
            }
            Err(e) if e.kind() == ErrorKind::Damaged => Err(e),
            Err(e) => return Err(e),
        };
        match checked {
            Ok(()) => {
                readable.insert(folder(&name).to_owned());
            }
            Err(e) => {
                broken.insert(name, describe(e));
            }
        }
    }
    for (name, problem) in broken {
        let harmed = if readable.contains(folder(&name)) { &[][..] } else { all };
        findings.add(name.as_str(), problem, harmed.iter().copied());
    }
    Ok(())
}

fn folder(name: &ObjectName) -> &str {
    name.as_str().rsplit_once('/').map_or(name.as_str(), |(folder, _)| folder)
}

fn read(context: &Context, name: &ObjectName, object: &[u8], recorded: Option<&[u8; 32]>) -> Result<()> {
    if recorded.is_some_and(|digest| blake3::hash(object) != *digest) {
        return Err(Error::damaged("it is not what was stored when the catalog was begun"));
    }
    if *name != layout::repository()? {
        return parse_key(name.as_str(), object).map(drop);
    }
    let description = Description::parse(object)?;
    if description.id != context.keyring.repository() || description.suite != context.keyring.suite() {
        return Err(Error::damaged("it describes another repository"));
    }
    Ok(())
}
