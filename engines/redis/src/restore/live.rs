//! A running server takes the snapshot from us, as a replica does from its primary.
//!
//! What the server has stays what it is until it has loaded all of the new: it writes the snapshot to its own disk first
//! (`repl-diskless-load disabled`, which is set for the time of the restore). When we die before that, it keeps the old
//! data; when we die later, it has the new. In both cases it follows nobody that is there, and `REPLICAOF NO ONE`, or the
//! next restore, ends that.

use std::time::Duration;

use backup_core::engine::{Extracted, RestoreContext, Restored, Work};
use backup_core::observe::{Phase, Unit};
use backup_core::{Error as CoreError, ErrorKind, Finding, Result as CoreResult, Severity};

use super::feed::Feed;
use super::primary::{Loaded, Primary};
use super::settings::{LiveSettings, RestoreSettings};
use super::stored::{Stored, Verified};
use super::tail::Tail;
use super::target::{self, Target};
use super::users;
use crate::client::{Connection, Secret};
use crate::error::{Error, Result};

/// How our passwords begin: a server that has one was left behind by a restore.
const TOKEN: &str = "backup-restore-";
/// A server that loads answers nothing else; it is asked again after so long.
const AGAIN: Duration = Duration::from_millis(100);

pub(super) async fn assess(
    settings: &RestoreSettings,
    live: &LiveSettings,
    stored: &Stored,
) -> CoreResult<Vec<Finding>> {
    let mut connection = target::connect(&live.target).await?;
    let found = Target::of(&mut connection).await?;
    let mut findings = Vec::new();
    let mut block = |code, text: String| findings.push(Finding::new(Severity::Blocker, code, text));
    if found.cluster {
        block("cluster-node", "a node of a cluster takes no primary from outside: restore key by key".into());
    }
    if let Some(primary) = &found.follows
        && !is_left_behind(&mut connection, live).await?
    {
        block("replica", format!("the server follows {primary}: restore into that, or end it first"));
    }
    let version = match settings.version {
        Some(version) => version,
        None => stored.version().await?,
    };
    findings.extend(found.judge_version(version));
    Ok(findings)
}

/// Whether the server follows a restore that is not there any more.
async fn is_left_behind(connection: &mut Connection, live: &LiveSettings) -> Result<bool> {
    let info = crate::node::info(connection).await?;
    let token = target::config(connection, "masterauth").await?.unwrap_or_default();
    let down = info.get("master_link_status") == Some("down");
    let ours = info.get("master_host") == Some(advertised(live).as_str());
    Ok(down && ours && (token.starts_with(TOKEN) || !live.authenticate))
}

fn advertised(live: &LiveSettings) -> String {
    live.advertise.clone().unwrap_or_else(|| live.listen.to_string())
}

pub(super) async fn restore(
    settings: &RestoreSettings,
    live: &LiveSettings,
    stored: &Stored,
    verified: &Verified,
    cx: &RestoreContext,
) -> CoreResult<Restored> {
    let work = cx.work();
    let mut connection = target::connect(&live.target).await?;
    Target::of(&mut connection).await?.judge(&verified.summary)?;
    let tail = Tail::of(cx).await?;
    let token = live.authenticate.then(|| Secret::new(format!("{TOKEN}{}", hex(&work.env().random::<24>()))));
    let primary = Primary::listen(live.listen, token.clone(), hex(&work.env().random::<20>())).await?;
    let mut changed = Changed::default();
    let outcome = match changed.apply(&mut connection, token.as_ref()).await {
        Ok(()) => {
            let goods =
                Goods { feed: Feed::new(stored, &settings.rules, settings.version), verified, tail: tail.as_ref() };
            serve(live, goods, &primary, &mut connection, work).await
        }
        Err(error) => Err(error.into()),
    };
    // Whatever happened: the server follows nobody, and is set as it was.
    let ended = end(live, work).await;
    let mut findings = Vec::new();
    match (outcome, ended) {
        (Ok(loaded), Ok(mut connection)) => {
            drop(loaded);
            changed.undo(&mut connection).await?;
            if settings.users {
                findings.extend(users::restore(&mut connection, stored).await?);
            }
        }
        (Err(error), Ok(mut connection)) => {
            changed.undo(&mut connection).await?;
            return Err(error);
        }
        (Ok(_), Err(error)) => {
            let text = format!("the data is restored, but the server was not released; {}", changed.left());
            return Err(CoreError::from(error).context(text));
        }
        (Err(error), Err(also)) => {
            return Err(error.context(format!("{also}; {}", changed.left())));
        }
    }
    let len = verified.summary.len + tail.as_ref().map_or(0, Tail::len);
    let mut extracted = Extracted::default();
    (extracted.entries, extracted.bytes, extracted.written_bytes) = (1, len, len);
    let mut restored = Restored::new(extracted);
    restored.findings = verified.findings.iter().cloned().chain(findings).collect();
    Ok(restored)
}

/// What the server is given.
struct Goods<'a> {
    feed: Feed<'a>,
    verified: &'a Verified,
    tail: Option<&'a Tail>,
}

/// Has the server follow us until it has everything.
async fn serve(
    live: &LiveSettings,
    goods: Goods<'_>,
    primary: &Primary,
    connection: &mut Connection,
    work: &Work,
) -> CoreResult<Loaded> {
    let Goods { feed, verified, tail } = goods;
    let len = verified.summary.len;
    work.started(Phase::Write, Some(len), Unit::Bytes);
    let port = primary.address()?.port().to_string();
    connection.call(&["REPLICAOF", &advertised(live), &port]).await?;
    let given = async {
        let replica = primary.wait(live.patience, live.target.silence).await?;
        replica.give(feed, len, work).await
    };
    let mut loaded = work.run(given).await?;
    work.ended(Phase::Write);
    check_counts(connection, verified).await?;
    if let Some(tail) = tail {
        work.started(Phase::Replay, Some(tail.len()), Unit::Bytes);
        work.run(loaded.follow(tail, work)).await?;
        work.ended(Phase::Replay);
    }
    Ok(loaded)
}

/// Compares what the server has loaded with what it was given. As a replica it has not yet removed what has expired.
async fn check_counts(connection: &mut Connection, verified: &Verified) -> CoreResult<()> {
    let info = crate::node::info(connection).await?;
    // `db0:keys=3,expires=1,…`
    let count = |value: &str| value.strip_prefix("keys=")?.split(',').next()?.parse::<u64>().ok();
    let has = |number| info.numbered("db").find(|(known, _)| *known == number).and_then(|(_, value)| count(value));
    for database in &verified.summary.databases {
        let keys = has(database.number).unwrap_or(0);
        if keys != database.keys && verified.summary.counted == crate::rdb::Counted::All {
            let text =
                format!("the server has {keys} keys in database {}, and was given {}", database.number, database.keys);
            return Err(CoreError::damaged(text));
        }
    }
    Ok(())
}

/// Makes the server a primary again. While it loads it answers nothing, so it is asked until it does, at most for the time of
/// [`LiveSettings::release`].
async fn end(live: &LiveSettings, work: &Work) -> Result<Connection> {
    let clock = work.env().clock();
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

impl Changed {
    /// Sets what a restore needs.
    async fn apply(&mut self, connection: &mut Connection, token: Option<&Secret>) -> Result<()> {
        // Only so does the server keep what it has until it has everything.
        self.set(connection, "repl-diskless-load", "disabled").await?;
        self.set(connection, "tls-replication", "no").await?;
        if let Some(token) = token {
            self.set(connection, "masteruser", "").await?;
            self.set(connection, "masterauth", token.reveal()).await?;
        }
        Ok(())
    }

    async fn set(&mut self, connection: &mut Connection, name: &'static str, value: &str) -> Result<()> {
        match target::config(connection, name).await? {
            // One that the server does not have, or that is right.
            None => Ok(()),
            Some(before) if before == value => Ok(()),
            Some(before) => {
                target::set_config(connection, name, value).await?;
                // The password of a restore that died is nobody's any more.
                let before = if name == "masterauth" && before.starts_with(TOKEN) { String::new() } else { before };
                self.0.push((name, Secret::new(before)));
                Ok(())
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
