//! The keys of a repository that is in use: who can open it, and how that changes.
//!
//! Wrapped keys are announced in the journal, then stored, then made to count by a second entry; so what is stored is told from what
//! somebody else put there, and whoever dies in between leaves nothing that counts. An epoch begins by an entry of its own, for exactly
//! those who were recipients of the one before; everything behind that entry is sealed in it. Whoever is removed is removed by the
//! same entry that begins the next epoch, and the wraps are deleted after it.
//!
//! ```text
//! add       announce wraps of all epochs · store them · added
//! rotate    announce wraps of the next epoch · store them · store its succession · epoch begun
//! remove    rotate, without the one who is removed · delete the wraps of the one who was removed
//! ```
//!
//! What a change has left behind, its own or another's, is deleted by the next change: names that the journal knows as gone, and no others.

mod change;
mod cover;
mod holder;
mod report;
pub(crate) mod succession;
mod tidy;
mod unlock;

pub(crate) use change::Changes;
pub use change::{AddRecipient, ChangedKeys};
pub use holder::KeyHolder;
pub(crate) use holder::wrap;
pub(crate) use report::report;
pub use report::{EpochInfo, KeyReport, RecipientInfo};
pub use tidy::LeftObject;
pub(crate) use tidy::{needed, tidy};
pub use unlock::Unlock;
pub(crate) use unlock::Unlocker;

use backup_core::catalog::{KeyState, Wrap};
use backup_crypto::RecipientId;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::store::Store;

/// The object of `wrap`, when it is there as it was stored.
///
/// # Errors
/// Damaged when it is not; those of the store.
pub(crate) async fn stored(store: &Store, wrap: &Wrap) -> Result<backup_crypto::WrappedKey> {
    let name = crate::store::ObjectName::new(wrap.name.as_str())?;
    let object = store.get(&name).await?;
    if *blake3::hash(&object).as_bytes() != wrap.digest {
        return Err(Error::damaged(format!("object {name} is not what was stored")));
    }
    crate::repository::parse_key(name.as_str(), &object)
}

/// Which recipient `holder` is, if it is one.
///
/// # Errors
/// Those of the store.
pub(crate) async fn recipient(context: &Context, keys: &KeyState, holder: &KeyHolder) -> Result<Option<RecipientId>> {
    cover::Cover { store: &context.store, repository: context.keyring.repository(), keys }.find(holder).await
}
