//! Entries of the journal.

use backup_core::catalog::Catalog;
use backup_core::repository::Damage;
use backup_crypto::ObjectKind;
use bytes::Bytes;

use super::{LeftDamaged, Repaired};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Journal;
use crate::store::{ObjectName, Store};
use crate::{envelope, layout};

/// Puts back the entries that are missing or damaged here and that `there` has, also those behind the end.
///
/// # Errors
/// Conflict when the two have gone different ways. Those of both stores.
pub(super) async fn mend(
    context: &Context,
    journal: &Journal<Catalog>,
    there: &Store,
    done: &mut Repaired,
) -> Result<()> {
    let region = Journal::<Catalog>::new(there.clone(), context.keyring.apart(), context.env.clone());
    let (here, copied) = (journal.listing().await?, region.listing().await?);
    let newest = |listing: &std::collections::BTreeMap<u32, Vec<u64>>| listing.keys().next_back().copied();
    let Some(generation) = newest(&here).max(newest(&copied)) else { return Ok(()) };
    let last = |listing: &std::collections::BTreeMap<u32, Vec<u64>>| {
        listing.get(&generation).and_then(|numbers| numbers.last().copied()).unwrap_or(0)
    };
    let end = last(&here).max(last(&copied));
    agree(context, there, generation, last(&here).min(last(&copied))).await?;
    // The digest of the entry before, where it is known.
    let mut before = Some([0; 32]);
    for number in 1..=end {
        let name = layout::entry(generation, number)?;
        if let Some(own) = readable(context, &context.store, &name).await? {
            before = Some(*blake3::hash(&own).as_bytes());
            continue;
        }
        let Some(candidate) = readable(context, there, &name).await? else {
            before = None;
            continue;
        };
        let entry = journal.open(&name, &candidate)?;
        let digest = *blake3::hash(&candidate).as_bytes();
        let next = readable(context, &context.store, &layout::entry(generation, number + 1)?).await?;
        let next = next.map(|next| journal.open(&layout::entry(generation, number + 1)?, &next)).transpose()?;
        let fits = before.is_none_or(|before| entry.previous == before);
        if !fits || next.is_some_and(|next| next.previous != digest) {
            return Err(apart(&name));
        }
        match super::put(&context.store, &name, candidate).await? {
            Ok(len) => {
                done.mended.push(name.as_str().to_owned());
                done.bytes += len;
                before = Some(digest);
            }
            Err(reason) => {
                let damage = Damage::new(name.as_str(), "it is missing or damaged", Vec::new());
                done.left.push(LeftDamaged { damage, reason });
                before = None;
            }
        }
    }
    Ok(())
}

/// Makes sure that both have the same history: the last entry that can be read on both sides speaks for all before it.
async fn agree(context: &Context, there: &Store, generation: u32, last: u64) -> Result<()> {
    for number in (1..=last).rev() {
        let name = layout::entry(generation, number)?;
        let here = readable(context, &context.store, &name).await?;
        let there = readable(context, there, &name).await?;
        match (here, there) {
            (Some(here), Some(there)) if here == there => return Ok(()),
            (Some(_), Some(_)) => return Err(apart(&name)),
            _ => {}
        }
    }
    Ok(())
}

fn apart(name: &ObjectName) -> Error {
    Error::conflict(format!(
        "object {name} of the region does not fit to what is stored here: the two have gone different ways"
    ))
}

/// The object, if it is there and opens.
async fn readable(context: &Context, store: &Store, name: &ObjectName) -> Result<Option<Bytes>> {
    let object = match store.get(name).await {
        Ok(object) => object,
        Err(error) if error.is_not_found() || error.kind() == ErrorKind::Damaged => return Ok(None),
        Err(error) => return Err(error),
    };
    let opened = envelope::open(&context.keyring, ObjectKind::Journal, name, &object);
    match opened {
        Ok(_) => Ok(Some(object)),
        // A header that names an epoch which nobody has begun is a damaged one as well.
        Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment) => Ok(None),
        Err(error) => Err(error),
    }
}
