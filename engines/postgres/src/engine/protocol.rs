//! Reading a cluster through its server, by `BASE_BACKUP`.

use std::collections::BTreeMap;
use std::time::Duration;

use backup_core::engine::BackupContext;
use backup_core::{Error, Result};

use super::changed::Known;
use super::facts::Tablespace;
use super::feed::Feed;
use super::increment::{Basis, Found, Increment};
use super::probe::{self, Server};
use super::settings::{ChangeTracking, Checkpoint, PostgresSettings};
use super::{Taken, local, receive};
use crate::basebackup::{self, BaseBackup, BaseBackupOptions, Event};
use crate::conn::Settings;
use crate::wire::{Session, SessionKind};

/// How long the server may send nothing while it reads files.
const SILENCE: Duration = Duration::from_secs(300);
/// Exempts a session from what the server may have configured for idle ones.
const IDLE: &str = " -c idle_session_timeout=0";

/// Takes a backup through the server. `sql` is an ordinary session.
pub(super) async fn backup(
    cx: &BackupContext,
    sql: &mut Session,
    settings: &PostgresSettings,
    server: &Server,
    name: &str,
) -> Result<Taken> {
    let mut connection = probe::connection(settings)?;
    if server.version.major() >= 14 {
        // The session that holds the slot is idle for as long as the files take.
        connection.options = Some([connection.options.as_deref().unwrap_or_default(), IDLE].concat());
    }
    let mut log = Session::connect(&connection, SessionKind::Replication).await?;
    let found = Basis::find(cx, settings.changes, server, sql, &mut log).await?;
    if !log.is_idle() {
        log = Session::connect(&connection, SessionKind::Replication).await?;
    }
    // A slot of its own session keeps the log until it has been fetched. Whatever a server refuses to such a session costs the slot,
    // so nothing else is asked of it before that.
    let slot = format!("backup_{name}");
    let kept = receive::keep(&mut log, &slot).await?;
    let checkpoint = match settings.checkpoint {
        Checkpoint::Fast => basebackup::Checkpoint::Fast,
        Checkpoint::Spread => basebackup::Checkpoint::Spread,
    };
    let options = BaseBackupOptions::default().label(name).checkpoint(checkpoint);
    let mut run = Run { cx, sql, connection: &connection, options, session: None };
    let verify = settings.changes == ChangeTracking::Verify;
    let (mut known, mut fed, mut claimed) = (Known::Nothing, None, BTreeMap::new());
    match found {
        Found::Nothing => {}
        Found::Unclear(why) => known = Known::Unclear(why),
        Found::Basis(basis) => {
            let proof = basis.proof;
            let mut feed = Feed::whole(cx, server, BTreeMap::new());
            match run.stream(&mut feed, Some((basis, !verify))).await? {
                Streamed::Refused(why) => known = Known::Unclear(why),
                Streamed::All => {
                    known = Known::Told { verified: verify, proof };
                    let taken = feed.finish().await?;
                    if verify {
                        claimed = taken.places;
                    } else {
                        fed = Some(taken);
                    }
                }
            }
        }
    }
    let fed = match fed {
        Some(fed) => fed,
        None => {
            let mut feed = Feed::whole(cx, server, claimed);
            if let Streamed::Refused(why) = run.stream(&mut feed, None).await? {
                return Err(Error::internal(why));
            }
            feed.finish().await?
        }
    };
    if let Some(session) = run.session.take() {
        session.close().await;
    }
    let (start, timeline) = (fed.started.position, fed.started.timeline);
    let finished = fed.finished;
    if finished.timeline != timeline {
        return Err(Error::conflict(format!(
            "the server went from timeline {timeline} to {} during the backup",
            finished.timeline
        )));
    }
    receive::store(cx, log, kept.then_some(slot.as_str()), server, timeline, start, finished.end).await?;
    // One that lies in place, below pg_tblspc itself, has a relative location and is restored as it is.
    let outside = fed.started.tablespaces.iter().filter(|t| t.location.starts_with(b"/"));
    let tablespaces = outside.map(|t| Tablespace { oid: t.oid, location: text(&t.location) }).collect();
    Ok(Taken {
        known,
        read_bytes: Some(fed.received),
        witness: None,
        start,
        stop: finished.end,
        timeline,
        tablespaces: local::sorted(tablespaces),
        findings: fed.findings,
        configured: fed.configured,
    })
}

fn text(location: &[u8]) -> String {
    match std::str::from_utf8(location) {
        Ok(text) => text.to_owned(),
        Err(_) => location.escape_ascii().to_string(),
    }
}

/// How a stream went.
#[derive(Debug)]
enum Streamed {
    /// Everything came.
    All,
    /// There is no increment, and nothing was taken: why.
    Refused(String),
}

/// What streams of one backup have in common.
struct Run<'a> {
    cx: &'a BackupContext,
    sql: &'a mut Session,
    connection: &'a Settings,
    options: BaseBackupOptions,
    /// That of the last stream: a server has few to give, and takes one back only when it notices that it is gone.
    session: Option<Session>,
}

impl Run<'_> {
    /// Has the server send everything, or what changed since a basis; that is stored, or only noted.
    async fn stream(&mut self, feed: &mut Feed<'_>, basis: Option<(Box<Basis>, bool)>) -> Result<Streamed> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::connect(self.connection, SessionKind::Replication).await?,
        };
        session.set_read_timeout(None);
        let streamed = self.within(&mut session, feed, basis).await?;
        if session.is_idle() {
            self.session = Some(session);
        }
        Ok(streamed)
    }

    async fn within(
        &mut self,
        session: &mut Session,
        feed: &mut Feed<'_>,
        basis: Option<(Box<Basis>, bool)>,
    ) -> Result<Streamed> {
        if let Some((basis, _)) = &basis
            && let Err(error) = basis.upload(self.cx, session).await
        {
            return self.refused(&error);
        }
        let (version, options) = (session.version(), self.options.clone().incremental(basis.is_some()));
        let mut backup = BaseBackup::start(session, &options, version).await?;
        // Before the first event there may be a spread checkpoint and the estimate of a large cluster; then silence is death.
        let mut event = match backup.next().await {
            Err(error) if basis.is_some() => return self.refused(&error.into()),
            first => first?,
        };
        if let (Some((basis, store)), Some(Event::Started(started))) = (basis, &event) {
            match basis.resets(self.cx, self.sql, started).await {
                Ok(resets) => feed.increment(Increment::new(basis, resets), store),
                Err(error) => return self.refused(&error),
            }
        }
        while let Some(happened) = event {
            self.cx.work().checkpoint()?;
            feed.take(happened).await?;
            event = tokio::time::timeout(SILENCE, backup.next()).await.map_err(|_| {
                Error::unavailable(format!("the server sent nothing for {} seconds", SILENCE.as_secs()))
            })??;
        }
        Ok(Streamed::All)
    }

    /// An increment is only a saving: whatever is against it makes a backup of everything.
    fn refused(&self, error: &Error) -> Result<Streamed> {
        self.cx.work().checkpoint()?;
        tracing::debug!(%error, "no increment");
        Ok(Streamed::Refused(error.to_string()))
    }
}
