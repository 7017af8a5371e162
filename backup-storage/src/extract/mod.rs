//! Writing entries into directories.

use backup_core::engine::{Extract, Extracted, Work};

use crate::error::{Error, Result};
use crate::reader::BackupReader;

/// Writes what `order` asks for.
pub(crate) async fn extract(reader: &BackupReader, order: Extract, work: &Work) -> Result<Extracted> {
    let _ = (reader, order, work);
    Err(Error::internal("extraction is not available"))
}
