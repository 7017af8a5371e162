//! Where nobody may replicate: the server saves its own file, which is then read.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use backup_core::engine::{BackupContext, Work};
use backup_core::{Error, ErrorKind, Result};

use super::receive::{self, Received};
use super::settings::RedisSettings;
use crate::client::Connection;
use crate::node::{self, Node};

/// How often the server is asked whether it is done.
const PAUSE: Duration = Duration::from_millis(100);

/// Lets the server save its file and stores it.
///
/// # Errors
/// [`Environment`](ErrorKind::Environment) when the server cannot save, or its file cannot be read here; as [`receive::file`].
pub(super) async fn backup(cx: &BackupContext, settings: &RedisSettings, node: &mut Node) -> Result<Received> {
    let connection = &mut node.connection;
    let path = location(settings, connection).await?;
    begin(cx.work(), connection).await?;
    loop {
        let info = node::info(connection).await?;
        if !info.is_set("rdb_bgsave_in_progress") {
            match info.get("rdb_last_bgsave_status") {
                Some("ok") => break,
                _ => return Err(Error::environment("the server could not save its file; its log says why")),
            }
        }
        cx.work().env().clock().sleep(PAUSE).await;
    }
    // The next save puts another file in its place, and leaves this one as it is.
    let file = File::open(&path)
        .map_err(|error| Error::new(ErrorKind::Environment, format!("{} cannot be read: {error}", path.display())))?;
    receive::file(cx, file).await
}

/// Begins a save of ours, after one that is under way.
async fn begin(work: &Work, connection: &mut Connection) -> Result<()> {
    loop {
        match connection.call(&["BGSAVE"]).await {
            Ok(_) => return Ok(()),
            Err(crate::Error::Server { message, .. }) if message.contains("in progress") => {
                work.env().clock().sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The file that the server writes: in the folder that we were told, under the name that it says.
async fn location(settings: &RedisSettings, connection: &mut Connection) -> Result<PathBuf> {
    let dir = settings.data_dir.clone().ok_or_else(|| Error::invalid("no data directory is named"))?;
    let name = match connection.call(&["CONFIG", "GET", "dbfilename"]).await {
        Ok(reply) => reply.pairs().next().and_then(|(_, value)| value.text()),
        Err(crate::Error::Server { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(dir.join(name.unwrap_or_else(|| "dump.rdb".to_owned())))
}
