//! What drills that died have left.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::process::Identity;
use super::{SERVER, at, is_of_a_drill, remove};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::id::DrillId;

/// How long a server that was left may take to obey before it is killed, and then to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Ends the servers of drills below `root` that are over, and removes their directories. The root is locked.
pub(super) async fn clear(root: &Path, _lock: &File, env: &Env) -> Result<Vec<DrillId>> {
    let mut cleared = Vec::new();
    for entry in at(root, fs::read_dir(root))? {
        let dir = at(root, entry)?.path();
        let Some(drill) = is_of_a_drill(&dir) else { continue };
        for entry in at(&dir, fs::read_dir(&dir))? {
            let path = at(&dir, entry)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(SERVER)
                && !name.contains('.')
                && let Some(server) = Identity::read(&path)
            {
                end(&server, env).await?;
            }
        }
        remove(&dir)?;
        cleared.push(drill);
    }
    Ok(cleared)
}

async fn end(server: &Identity, env: &Env) -> Result<()> {
    for signal in [Signal::QUIT, Signal::KILL] {
        server.signal(signal);
        let begun = env.clock().monotonic();
        while server.is_alive() {
            if env.clock().monotonic().saturating_sub(begun) >= PATIENCE {
                break;
            }
            env.clock().sleep(LOOK).await;
        }
    }
    match server.is_alive() {
        true => Err(Error::environment(format!("process {} of a drill that died cannot be ended", server.pid))),
        false => Ok(()),
    }
}
