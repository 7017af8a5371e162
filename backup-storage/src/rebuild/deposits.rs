//! The keys of what hosts that only write have deposited.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::catalog::ManifestRef;
use backup_core::{HostId, SessionId};

use super::Skipped;
use super::find::skipped;
use crate::context::Context;
use crate::deposit::genuine::{self, Found};
use crate::deposit::key::SessionKey;
use crate::error::{Error, Result};
use crate::layout;
use crate::verify::Listing;

/// A deposit whose key was found.
#[derive(Debug)]
pub(super) struct FoundDeposit {
    pub(super) host: HostId,
    pub(super) key: SessionKey,
    /// Where its manifest begins, as it said before anybody had looked.
    pub(super) root: ManifestRef,
    /// Whether somebody with the keys has adopted it.
    pub(super) adopted: bool,
}

/// Unwraps the keys of all deposits, and lets packs be opened with those of sessions that are `witnessed`.
pub(super) async fn find(
    context: &Context,
    listing: &Listing,
    witnessed: &BTreeSet<SessionId>,
    skips: &mut Vec<Skipped>,
) -> Result<BTreeMap<SessionId, FoundDeposit>> {
    let mut deposits = BTreeMap::new();
    for session in &listing.deposits {
        let object = layout::deposit(*session)?;
        let genuine = match genuine::look(context, *session).await? {
            Found::Genuine(genuine) => genuine,
            Found::Untold(error) => {
                skips.push(skipped(object.as_str(), error)?);
                continue;
            }
            Found::Foreign(text) => {
                skips.push(skipped(object.as_str(), Error::damaged(text))?);
                continue;
            }
            Found::Nothing => continue,
        };
        let key = match genuine.unwrap(&context.keyring)? {
            Ok(key) => key,
            Err(reason) => {
                skips.push(skipped(object.as_str(), Error::damaged(reason.to_string()))?);
                continue;
            }
        };
        let adopted = witnessed.contains(session);
        if adopted {
            context.keyring.add_session(*session, key.clone());
        } else {
            let text = "nobody has adopted it: add its host again, then it can be";
            skips.push(Skipped { object: object.as_str().to_owned(), reason: text.to_owned() });
        }
        deposits.insert(*session, FoundDeposit { host: genuine.said.host, key, root: genuine.said.root, adopted });
    }
    Ok(deposits)
}
