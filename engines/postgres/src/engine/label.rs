//! Starting and stopping a backup in a server's session.

use backup_core::{Error, Result};

use super::probe::Server;
use super::settings::Checkpoint;
use crate::lsn::Lsn;
use crate::wire::Session;

/// What the server gives at the end of a backup.
#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) stop: Lsn,
    pub(super) backup_label: String,
    pub(super) tablespace_map: String,
}

/// Begins a backup. It lasts until [`stop`] or the end of the session.
///
/// Before, a temporary slot is made on the same session, so that the server keeps the log that the backup needs; it ends
/// with the session. Its name is returned. Without a free slot the backup goes on and finds out at its end whether the log
/// was kept.
pub(super) async fn start(
    session: &mut Session,
    server: &Server,
    label: &str,
    checkpoint: Checkpoint,
) -> Result<Option<String>> {
    let slot = format!("backup_{label}");
    let created = format!("SELECT pg_create_physical_replication_slot('{slot}', true, true)");
    let slot = match session.query(&created).await {
        Ok(_) => Some(slot),
        Err(error) if error.sqlstate().is_some() => {
            tracing::warn!(%error, "no temporary replication slot: the log may be removed while the backup runs");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let fast = checkpoint == Checkpoint::Fast;
    let start = if server.version.major() >= 15 {
        format!("SELECT pg_backup_start('{label}', {fast})")
    } else {
        format!("SELECT pg_start_backup('{label}', {fast}, false)")
    };
    // A spread checkpoint may take as long as checkpoint_timeout.
    session.set_read_timeout(None);
    session.query_one(&start).await.map_err(|e| Error::from(e).context("the server did not start a backup"))?;
    Ok(slot)
}

/// Ends the backup.
pub(super) async fn stop(session: &mut Session, server: &Server) -> Result<Stopped> {
    // The archiver is not waited for: the log is in the backup, and waiting can hang on a standby.
    let stop = if server.version.major() >= 15 {
        "SELECT lsn, labelfile, spcmapfile FROM pg_backup_stop(false)"
    } else {
        "SELECT lsn, labelfile, spcmapfile FROM pg_stop_backup(false, false)"
    };
    let row = session.query_one(stop).await.map_err(|e| Error::from(e).context("the server did not end the backup"))?;
    Ok(Stopped {
        stop: row.required("lsn")?.parse()?,
        backup_label: row.required("labelfile")?.to_owned(),
        tablespace_map: row.text("spcmapfile")?.unwrap_or_default().to_owned(),
    })
}
