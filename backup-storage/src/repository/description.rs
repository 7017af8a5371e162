//! The plain objects of a repository: what must be readable before any key is.
//!
//! `repository` is text of two lines: a JSON object, and the BLAKE3 digest of that line in hex. Wrapped keys have a digest of
//! their own. The digests are no protection against an attacker — the first journal entry holds authenticated copies — but
//! they tell damage from a wrong passphrase.

use std::str::FromStr;

use backup_crypto::{ObjectHeader, RepositoryId, Suite, WrappedKey};
use futures::TryStreamExt;

use crate::error::{Error, Result};
use crate::journal::FORMAT;
use crate::layout;
use crate::store::Store;

/// What `repository` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) format: u32,
    pub(crate) id: RepositoryId,
    pub(crate) suite: Suite,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Text {
    format: u32,
    repository: String,
    suite: String,
}

impl Description {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let text = Text { format: self.format, repository: self.id.to_string(), suite: self.suite.to_string() };
        let mut line = serde_json::to_string(&text)
            .map_err(|e| Error::internal("a repository description cannot be encoded").with_source(e))?;
        let digest = blake3::hash(line.as_bytes()).to_hex();
        line.push('\n');
        line.push_str(&digest);
        line.push('\n');
        Ok(line.into_bytes())
    }

    /// Reads a description. Pure.
    ///
    /// # Errors
    /// Damaged, or Environment for a format that is too new.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::damaged("object repository is damaged");
        let text = std::str::from_utf8(bytes).map_err(|_| damaged())?;
        let (line, digest) = text.split_once('\n').ok_or_else(damaged)?;
        if digest.strip_suffix('\n') != Some(blake3::hash(line.as_bytes()).to_hex().as_str()) {
            return Err(damaged());
        }
        let text: Text = serde_json::from_str(line).map_err(|e| damaged().with_source(e))?;
        if text.format > FORMAT {
            return Err(Error::environment(format!(
                "the repository has format {}, this library reads up to {FORMAT}",
                text.format
            )));
        }
        let id = RepositoryId::from_str(&text.repository).map_err(|e| damaged().with_source(e))?;
        let suite = Suite::from_str(&text.suite).map_err(|e| damaged().with_source(e))?;
        Ok(Self { format: text.format, id, suite })
    }
}

/// What a lost description must have said: wrapped keys name the repository, and every pack its suite.
pub(super) async fn derive(store: &Store) -> Result<Description> {
    let mut id = None;
    let mut keys = store.list(layout::KEYS);
    while let Some(object) = keys.try_next().await? {
        if let Ok(wrap) = parse_key(object.name.as_str(), &store.get(&object.name).await?) {
            id = Some(wrap.repository());
            break;
        }
    }
    let id = id.ok_or_else(|| Error::damaged("no wrapped key is readable: nothing can be rebuilt without one"))?;
    let mut suite = None;
    let mut packs = store.list(layout::PACKS);
    while let Some(object) = packs.try_next().await? {
        let header = store.get_range(&object.name, 0..ObjectHeader::LEN as u64).await;
        if let Ok(header) = header.and_then(|bytes| Ok(ObjectHeader::parse(&bytes)?)) {
            suite = Some(header.suite);
            break;
        }
    }
    // Without a pack there is no backup, and any suite will do.
    Ok(Description { format: FORMAT, id, suite: suite.unwrap_or_else(Suite::preferred_here) })
}

/// Reads a wrapped key. Pure.
///
/// # Errors
/// Damaged.
pub(crate) fn parse_key(name: &str, object: &[u8]) -> Result<WrappedKey> {
    WrappedKey::parse(object).map_err(|e| Error::damaged(format!("object {name} is damaged")).with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn any_flipped_bit_of_a_description_is_noticed() {
        let description =
            Description { format: FORMAT, id: RepositoryId::from_bytes([7; 16]), suite: Suite::ChaCha20Poly1305 };
        let bytes = description.encode().unwrap();
        assert_eq!(Description::parse(&bytes).unwrap(), description);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(Description::parse(&flipped).unwrap_err().kind(), ErrorKind::Damaged, "{at}.{bit}");
            }
        }
        let newer = Description { format: FORMAT + 1, ..description }.encode().unwrap();
        assert_eq!(Description::parse(&newer).unwrap_err().kind(), ErrorKind::Environment);
    }
}
