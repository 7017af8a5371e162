//! What a copy of packs says of itself, so that a catalog that was lost can be told of it again.

use backup_core::catalog::{PackId, PackMove};

use crate::error::{Error, Result};

/// The plaintext of the segment that names what was copied into a pack.
///
/// # Errors
/// Internal only.
pub(crate) fn encode(moves: &[PackMove]) -> Result<Vec<u8>> {
    minicbor::to_vec(moves).map_err(|e| Error::internal("a list of copied packs cannot be encoded").with_source(e))
}

/// What was copied into `pack`, by the plaintext of its segment.
///
/// # Errors
/// Damaged.
pub(crate) fn decode(pack: PackId, bytes: &[u8]) -> Result<Vec<PackMove>> {
    let moves: Vec<PackMove> = minicbor::decode(bytes).map_err(|e| {
        Error::damaged(format!("the list of what was copied into pack {pack} is not readable")).with_source(e)
    })?;
    match moves.iter().find(|moved| moved.to != pack) {
        None => Ok(moves),
        Some(other) => Err(Error::damaged(format!("pack {pack} says what was copied into pack {}", other.to))),
    }
}
