//! A server is let go: it follows nobody, and is set as it was.
//!
//! A restore does so at its end. When it is dropped before, nobody is there to wait, so a task of the runtime does it, with the
//! same limit on its time.

use std::sync::LazyLock;
use std::time::Duration;

use backup_core::ErrorKind;
use backup_core::env::Env;
use tokio_util::task::TaskTracker;

use super::settings::LiveSettings;
use super::target;
use crate::client::{Connection, Secret};
use crate::error::{Error, Result};

/// How our passwords begin: a server that has one was left behind by a restore.
pub(super) const TOKEN: &str = "backup-restore-";
/// A server that loads answers nothing else; it is asked again after so long.
const AGAIN: Duration = Duration::from_millis(100);

/// Servers that are being let go. They outlive the restores that were dropped, so they are kept for the whole process.
static UNDER_WAY: LazyLock<TaskTracker> = LazyLock::new(TaskTracker::new);

/// Waits until no server is being let go any more after a restore into it was dropped. A program that ends before leaves such a
/// server as a replica of nobody. Each takes at most the time of [`LiveSettings::release`].
///
/// # Cancel safety
/// Dropping the future changes nothing.
pub async fn released() {
    while !UNDER_WAY.is_empty() {
        // It has to be closed to be waited for; more may come while we wait.
        UNDER_WAY.close();
        UNDER_WAY.wait().await;
    }
}

/// Makes the server a primary again. While it loads it answers nothing, so it is asked until it does, at most for the time of
/// [`LiveSettings::release`].
pub(super) async fn end(live: &LiveSettings, env: &Env) -> Result<Connection> {
    let clock = env.clock();
    let begun = clock.monotonic();
    loop {
        let mut connection = target::connect(&live.target).await?;
        match connection.call(&["REPLICAOF", "NO", "ONE"]).await {
            Ok(_) => return Ok(connection),
            Err(error @ Error::Server { .. }) if error.kind() == ErrorKind::Unavailable => {
                let waited = clock.monotonic().saturating_sub(begun);
                if waited >= live.release {
                    return Err(Error::LeftBehind { after: waited, said: error.to_string() });
                }
                clock.sleep(AGAIN).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What was set for the time of the restore, and what it was before.
#[derive(Debug, Default)]
struct Changed(Vec<(&'static str, Secret)>);

/// Lets the server go when it is dropped before that was done.
#[derive(Debug)]
pub(super) struct Release {
    /// None when there is nothing left to do.
    due: Option<(LiveSettings, Env)>,
    changed: Changed,
}

impl Release {
    /// Nothing is set yet.
    pub(super) fn new(live: LiveSettings, env: Env) -> Self {
        Self { due: Some((live, env)), changed: Changed::default() }
    }

    /// Sets what a restore needs.
    pub(super) async fn set_up(&mut self, connection: &mut Connection, wanted: &[(&'static str, &str)]) -> Result<()> {
        for (name, value) in wanted {
            self.changed.set(connection, name, value).await?;
        }
        Ok(())
    }

    /// Sets everything back. The server follows nobody any more.
    pub(super) async fn set_back(&mut self, connection: &mut Connection) -> Result<()> {
        self.changed.undo(connection).await?;
        self.due = None;
        Ok(())
    }

    /// Leaves the server as it is, and says what stays changed there.
    pub(super) fn give_up(&mut self) -> String {
        self.due = None;
        self.changed.left()
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        let Some((live, env)) = self.due.take() else { return };
        let changed = std::mem::take(&mut self.changed);
        let address = live.target.address.to_string();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            tracing::warn!(%address, "a restore was dropped; the server follows nobody until it is restored into again");
            return;
        };
        let task = async move {
            let outcome = match end(&live, &env).await {
                Ok(mut connection) => changed.undo(&mut connection).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => tracing::info!(%address, "a restore was dropped, and the server is a primary again"),
                Err(error) => {
                    let left = changed.left();
                    tracing::warn!(%address, %error, %left, "a restore was dropped, and the server was not let go");
                }
            }
        };
        UNDER_WAY.spawn_on(task, &runtime);
    }
}

impl Changed {
    async fn set(&mut self, connection: &mut Connection, name: &'static str, value: &str) -> Result<()> {
        match target::config(connection, name).await? {
            // One that the server does not have, or that is right.
            None => Ok(()),
            Some(before) if before == value => Ok(()),
            Some(before) => {
                // The password of a restore that died is nobody's any more.
                let before = if name == "masterauth" && before.starts_with(TOKEN) { String::new() } else { before };
                // Noted before: nobody knows whether it was set when we are dropped meanwhile.
                self.0.push((name, Secret::new(before)));
                target::set_config(connection, name, value).await.inspect_err(|_| drop(self.0.pop()))
            }
        }
    }

    /// What stays changed when the server cannot be asked any more.
    fn left(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|(name, _)| *name).collect();
        format!("not set back there: {}", if names.is_empty() { "nothing".into() } else { names.join(", ") })
    }

    /// Sets everything back.
    async fn undo(&self, connection: &mut Connection) -> Result<()> {
        for (name, before) in self.0.iter().rev() {
            target::set_config(connection, name, before.reveal()).await?;
        }
        Ok(())
    }
}
