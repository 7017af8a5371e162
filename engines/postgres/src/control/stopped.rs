//! Where the log of a cluster ends that has stopped.

use std::path::Path;

use backup_core::{Error, LogPosition, Result};

use super::{ClusterState, ControlFile};
use crate::capture::lineage_of;

/// Where the log of the cluster in `data_dir` ends, if it was shut down cleanly: the beginning of its last record, which is the
/// checkpoint of the shutdown and changes nothing. Whoever has the log up to there has every change. `None` while it runs, after a crash,
/// and for a standby.
///
/// # Errors
/// [`Environment`](backup_core::ErrorKind::Environment) when the control file cannot be read, and
/// [`Damaged`](backup_core::ErrorKind::Damaged) when it is none.
pub fn stopped_at(data_dir: &Path) -> Result<Option<LogPosition>> {
    let path = data_dir.join("global/pg_control");
    let bytes = std::fs::read(&path).map_err(|error| Error::io(format!("read {}", path.display()), error))?;
    let control = ControlFile::parse(&bytes)?;
    let clean = control.state == ClusterState::ShutDown;
    let end = control.checkpoint;
    Ok(clean.then(|| LogPosition::new(lineage_of(control.timeline), end.0, end.to_string())))
}
