//! A running server takes the snapshot from us, as a replica does from its primary.
//!
//! What the server has stays what it is until it has loaded all of the new: it writes the snapshot to its own disk first
//! (`repl-diskless-load disabled`, which is set for the time of the restore). When we die before that, it keeps the old
//! data; when we die later, it has the new. In both cases it follows nobody that is there, and `REPLICAOF NO ONE`, or the
//! next restore, ends that. A restore that is only given up, not killed, ends that itself (`release`).

use backup_core::engine::{Extracted, RestoreContext, Restored, Work};
use backup_core::observe::{Phase, Unit};
use backup_core::{Error as CoreError, Finding, Result as CoreResult, Severity};

use super::feed::Feed;
use super::primary::{Loaded, Primary};
use super::release::{self, Release, TOKEN};
use super::settings::{LinkTls, LiveSettings, RestoreSettings};
use super::stored::{Stored, Verified};
use super::tail::Tail;
use super::target::{self, Target};
use super::users;
use crate::client::{Connection, Secret, acceptor};
use crate::error::Result;

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
    findings.extend(judge_link(&live.link, target::config(&mut connection, LINK).await?.as_deref()));
    Ok(findings)
}

/// Whether a server speaks TLS with its primary.
const LINK: &str = "tls-replication";

/// A blocker when the link cannot be as it is wished, or would be less than the server's owner wants it to be.
fn judge_link(link: &LinkTls, has: Option<&str>) -> Option<Finding> {
    let text = match (link, has) {
        (LinkTls::Keep, Some("yes")) => {
            "the server speaks TLS with its primary (tls-replication), and there is no certificate to show it: give one that its \
             authority has signed, or say that the link may be plain"
        }
        (LinkTls::Certificate { .. }, None) => {
            "the link is to be protected by TLS, and the server was built without it"
        }
        _ => return None,
    };
    Some(Finding::new(Severity::Blocker, "replication-tls", text))
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
    let tail = Tail::of(cx, &settings.rules).await?;
    let token = live.authenticate.then(|| Secret::new(format!("{TOKEN}{}", hex(&work.env().random::<24>()))));
    let mut primary = Primary::listen(live.listen, token.clone(), hex(&work.env().random::<20>())).await?;
    let mut wanted = Vec::new();
    match &live.link {
        LinkTls::Keep => {}
        LinkTls::Certificate { certificate, key } => {
            primary = primary.with_tls(acceptor(certificate, key)?);
            wanted.push((LINK, "yes"));
        }
        LinkTls::Plain => wanted.push((LINK, "no")),
    }
    // Only so does the server keep what it has until it has everything.
    wanted.push(("repl-diskless-load", "disabled"));
    if let Some(token) = &token {
        wanted.extend([("masteruser", ""), ("masterauth", token.reveal())]);
    }
    // From here on the server is released whatever happens, also when nobody waits for us any more.
    let mut release = Release::new(live.clone(), work.env().clone());
    let outcome = match release.set_up(&mut connection, &wanted).await {
        Ok(()) => {
            let goods =
                Goods { feed: Feed::new(stored, &settings.rules, settings.version), verified, tail: tail.as_ref() };
            serve(live, goods, &primary, &mut connection, work).await
        }
        Err(error) => Err(error.into()),
    };
    let ended = release::end(live, work.env()).await;
    let mut findings = Vec::new();
    match (outcome, ended) {
        (Ok(loaded), Ok(mut connection)) => {
            drop(loaded);
            release.set_back(&mut connection).await?;
            if settings.users {
                findings.extend(users::restore(&mut connection, stored).await?);
            }
        }
        (Err(error), Ok(mut connection)) => {
            release.set_back(&mut connection).await?;
            return Err(error);
        }
        (Ok(_), Err(error)) => {
            let text = format!("the data is restored, but the server was not released; {}", release.give_up());
            return Err(CoreError::from(error).context(text));
        }
        (Err(error), Err(also)) => {
            return Err(error.context(format!("{also}; {}", release.give_up())));
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_never_made_less_than_it_is_unasked() {
        let given = || LinkTls::Certificate { certificate: "c".into(), key: "k".into() };
        for (link, has, refused) in [
            (LinkTls::Keep, Some("yes"), true),
            (LinkTls::Keep, Some("no"), false),
            (LinkTls::Keep, None, false),
            (LinkTls::Plain, Some("yes"), false),
            (given(), Some("yes"), false),
            (given(), Some("no"), false),
            (given(), None, true),
        ] {
            assert_eq!(judge_link(&link, has).is_some(), refused, "{link:?} {has:?}");
        }
    }
}
