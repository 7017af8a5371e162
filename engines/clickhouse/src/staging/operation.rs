//! A `BACKUP` or `RESTORE` that the server runs by itself, and that is asked for how far it is.

use std::time::Duration;

use backup_core::engine::Work;
use serde::Deserialize;

use crate::client::Client;
use crate::ddl::quote;
use crate::error::Error;
use crate::server::Server;

/// How often it is asked for at first, and at most.
const ASK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// So long one that is to stop may take.
const STOP: Duration = Duration::from_secs(60);

/// An operation of the server, by the id that it was given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation<'a> {
    pub(crate) client: &'a Client,
    pub(crate) server: &'a Server,
    pub(crate) work: &'a Work,
    pub(crate) id: &'a str,
}

#[derive(Debug, Deserialize)]
struct Row {
    status: String,
    error: String,
}

impl Row {
    fn is_running(&self) -> bool {
        matches!(self.status.as_str(), "CREATING_BACKUP" | "RESTORING")
    }
}

impl Operation<'_> {
    /// Runs `statement`, with `settings`, to its end. `what` says in a few words what it is for.
    ///
    /// # Cancel safety
    /// Dropped, the server goes on; whoever comes next [stops](Self::stop) it.
    ///
    /// # Errors
    /// What the server says went wrong; cancelled, when the work was and the server has stopped; those of the connection.
    pub(crate) async fn run(&self, what: &str, statement: &str, settings: &str) -> backup_core::Result<()> {
        let sql = format!("{statement} SETTINGS id = {}, {settings} ASYNC", quote::string(self.id));
        self.client.execute(what, &sql).await?;
        let clock = self.work.env().clock();
        let mut pause = ASK.0;
        loop {
            let Some(row) = self.row().await? else {
                let text = format!("the server knows nothing of {what} any more: it was started anew in the middle");
                return Err(backup_core::Error::unavailable(text));
            };
            match row.status.as_str() {
                _ if row.is_running() => {}
                "BACKUP_CREATED" | "RESTORED" => return Ok(()),
                _ => return Err(failure(what, &row).into()),
            }
            if self.work.cancel().run_until_cancelled(clock.sleep(pause)).await.is_none() {
                self.stop().await?;
                return Err(backup_core::Error::cancelled());
            }
            pause = (pause * 2).min(ASK.1);
        }
    }

    /// Has the server stop it, if it runs, and waits until it has.
    ///
    /// # Errors
    /// Conflict, when it goes on; those of the connection.
    pub(crate) async fn stop(&self) -> backup_core::Result<()> {
        let clock = self.work.env().clock();
        let begun = clock.monotonic();
        let mut asked = false;
        while self.row().await?.is_some_and(|row| row.is_running()) {
            if !asked && self.server.has("backups", "query_id") {
                let sql = format!(
                    "KILL QUERY WHERE query_id IN (SELECT query_id FROM system.backups WHERE id = {}) ASYNC",
                    quote::string(self.id)
                );
                self.client.execute("stopping what is not wanted any more", &sql).await?;
            }
            asked = true;
            if clock.monotonic().saturating_sub(begun) >= STOP {
                let text = format!("the server still works on {}, which nobody waits for: see system.backups", self.id);
                return Err(backup_core::Error::conflict(text));
            }
            clock.sleep(ASK.0).await;
        }
        Ok(())
    }

    async fn row(&self) -> crate::Result<Option<Row>> {
        let sql = format!(
            "SELECT toString(status) AS status, error FROM system.backups WHERE id = {}",
            quote::string(self.id)
        );
        Ok(self.client.rows("how far it is", &sql).await?.into_iter().next())
    }
}

/// The server's words, without where in its code it was.
fn failure(what: &str, row: &Row) -> Error {
    let message = row.error.split(", Stack trace").next().unwrap_or_default();
    let code = message.strip_prefix("Code: ").and_then(|rest| rest.split('.').next()?.parse().ok());
    let message = if message.is_empty() { row.status.clone() } else { message.to_owned() };
    Error::Server { what: what.to_owned(), code: code.unwrap_or(0), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_an_error() {
        let error = "Code: 60. DB::Exception: Table d.x was not found. (UNKNOWN_TABLE), Stack trace (when copying this";
        let row = Row { status: "BACKUP_FAILED".to_owned(), error: error.to_owned() };
        let error = failure("a backup", &row);
        assert!(error.is_gone(), "{error:?}");
        assert_eq!(
            error.to_string(),
            "a backup was refused with code 60: Code: 60. DB::Exception: Table d.x was not found. (UNKNOWN_TABLE)"
        );
        let row = Row { status: "BACKUP_CANCELLED".to_owned(), error: String::new() };
        assert_eq!(failure("a backup", &row).to_string(), "a backup was refused with code 0: BACKUP_CANCELLED");
    }
}
