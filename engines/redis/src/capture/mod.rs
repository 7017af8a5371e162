//! Capturing the replication stream: a replica that remembers.
//!
//! The server sends us what it sends a replica, and every byte is read, command by command, before it is stored. The server is told that we
//! have it when the repository says that it is durable, and never before: so a client that waits for replicas (`WAIT`) waits for that.
//!
//! The rooms: `route` decides, purely, where a node's stream continues what is stored; `intake` cuts the stream where nothing is half done
//! and notes moments; `clock` translates them into the source's time; `resume` learns from the stored log where it had come to;
//! `stream` follows one node; `lineage` is how replication ids stand in the catalog.
//!
//! What cannot be mended ends the capture: a history that is known of another deployment, a missing permission. Everything else is tried
//! again, after a moment: a failover is a lost connection and another node that goes on where the first one ended. Where the server has
//! no longer what is missing, that is written down, and the capture goes on with what there is.

mod clock;
mod intake;
mod lineage;
mod resume;
mod route;
mod stream;

use std::time::Duration;

use backup_core::engine::LogContext;
use backup_core::observe::Progress;
use backup_core::{Error, ErrorKind, Finding, Result, Severity};
use bytes::Bytes;

use crate::client::{Answer, Body, ClientSettings, Connection, Link, StreamPosition, Wish};
use crate::engine::RedisSettings;
use crate::node::{self, Node, NodeFacts, Product};
use crate::stream::{Framer, Tracker};
use intake::Intake;
use route::{Lost, Route};
pub(crate) use stream::moment;
use stream::{Appended, Follow};

/// The pause before the first new attempt; it doubles up to [`LONGEST_PAUSE`]. A server keeps little of its stream, so we don't wait long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Follows the stream of the deployment until the work is cancelled.
pub(crate) async fn stream(settings: &RedisSettings, cx: &LogContext) -> Result<()> {
    let client = settings.client()?;
    let source = settings.source(&client.address);
    let capture = Capture { settings, client, source, cx, appended: Appended::default() };
    let mut known = false;
    let mut pause = SHORTEST_PAUSE;
    loop {
        let durable = cx.sink().durable();
        let error = match capture.once(&mut known).await {
            _ if cx.work().cancel().is_cancelled() => return Ok(()),
            Ok(()) => continue,
            Err(error) => error,
        };
        // A wrong address is worth an error, a lost server is worth waiting for.
        if error.kind() != ErrorKind::Unavailable || !known {
            return Err(error);
        }
        if cx.sink().durable() != durable {
            pause = SHORTEST_PAUSE;
        }
        tracing::warn!(%error, "the stream cannot be followed; trying again in {} ms", pause.as_millis());
        found(cx, Finding::new(Severity::Note, "log-interrupted", error.to_string()));
        let waited = cx.work().cancel().run_until_cancelled(cx.work().env().clock().sleep(pause)).await;
        if waited.is_none() {
            return Ok(());
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn found(cx: &LogContext, finding: Finding) {
    cx.work().observer().on(&Progress::Found(finding));
}

struct Capture<'a> {
    settings: &'a RedisSettings,
    client: ClientSettings,
    source: String,
    cx: &'a LogContext,
    appended: Appended,
}

/// A stream that has begun to come.
struct Begun {
    link: Link,
    facts: NodeFacts,
    /// Where it begins.
    at: StreamPosition,
    /// What came with the answer.
    first: Bytes,
    lost: Option<Lost>,
}

impl Capture<'_> {
    /// Chooses a node and follows it for as long as it goes.
    async fn once(&self, known: &mut bool) -> Result<()> {
        let work = self.cx.work();
        work.run(self.appended.settle(self.cx)).await?;
        let (node, route) = work.run(self.choose(known)).await?;
        let begun = work.run(self.begin(&node, route)).await?;
        work.run(lineage::declare(self.cx, &begun.facts, &self.source)).await?;
        work.run(self.report(&begun)).await?;
        report_expiry(self.cx, &begun.facts);
        let (framer, tracker) = work.run(self.state(&begun)).await?;
        let Begun { link, facts, at, first, .. } = begun;
        let fork = facts.before.filter(|before| before.id == at.id);
        let fork = fork.map(|before| StreamPosition::new(facts.position.id.clone(), before.offset));
        tracing::info!(node = %node.connection.endpoint(), id = %at.id, from = at.offset, "following the stream");
        let follow = Follow {
            cx: self.cx,
            link,
            watch: Some(node.connection),
            id: facts.position.id,
            intake: Intake::new(&at, fork, framer, tracker),
            appended: &self.appended,
            silence: self.client.silence,
        };
        stream::follow(follow, first).await
    }

    /// What a reader has come to at the beginning of the stream.
    async fn state(&self, begun: &Begun) -> Result<(Framer, Tracker)> {
        if begun.lost.is_some() {
            return Ok((Framer::new(begun.at.offset), Tracker::new(None)));
        }
        resume::resume(self.cx, &begun.at).await
    }

    /// The node that continues best what is stored.
    async fn choose(&self, known: &mut bool) -> Result<(Node, Route)> {
        let ledger = self.cx.sink().ledger();
        let nodes = node::all(&self.client, self.settings.prefer).await?;
        *known = true;
        let routed = nodes.into_iter().filter(|node| node.facts.is_ready()).map(|node| {
            let route = route::route(&ledger, self.cx.backup(), &node.facts);
            (node, route)
        });
        let worth = |(node, route): &(Node, Route)| {
            let kind = match route {
                Route::From { lost: None, .. } => 4,
                // Another node may have what this one has lost.
                Route::Fork { .. } => 3,
                Route::From { .. } => 2,
                Route::Begin { .. } => 1,
                Route::Behind { .. } => 0,
            };
            (kind, node::rank(&node.facts, self.settings.prefer))
        };
        let Some((node, route)) = routed.max_by_key(worth) else {
            return Err(Error::unavailable("no node is ready: all are loading, or not connected to their primary"));
        };
        if let Route::Behind { stored } = &route {
            return Err(Error::unavailable(format!(
                "{} has {} of history {}, but stored is {} of {}",
                node.connection.endpoint(),
                node.facts.position.offset,
                node.facts.position.id,
                stored.offset,
                stored.id
            )));
        }
        Ok((node, route))
    }

    /// Lets the stream begin.
    async fn begin(&self, node: &Node, route: Route) -> Result<Begun> {
        let facts = node.facts.clone();
        let (wish, lost) = match route {
            Route::From { at, lost } => (Some(at), lost),
            Route::Fork { at } => {
                let text = format!("the server went on by itself from {}, before the end of what is stored", at.offset);
                found(self.cx, Finding::new(Severity::Note, "log-forked", text));
                (Some(at), None)
            }
            // What the server keeps ends here, if it keeps anything.
            Route::Begin { lost } => (facts.backlog.map(|_| facts.position.clone()), lost),
            Route::Behind { .. } => return Err(Error::internal("a node that is behind was chosen")),
        };
        let connection = Connection::open(&self.client, node.connection.endpoint()).await?;
        let (link, answer) = connection.replicate(Wish::Stream, wish.as_ref()).await?;
        match (answer, wish) {
            (Answer::Continue { id }, Some(at)) if id == facts.position.id => {
                Ok(Begun { link, facts, at, first: Bytes::new(), lost })
            }
            (Answer::Continue { id }, _) => {
                Err(Error::unavailable(format!("the node went over to another history, {id}, while it was asked")))
            }
            (Answer::Full { position, framing, .. }, wish) => {
                // What is stored was to be had a moment ago: it is worth looking again.
                if wish.is_some_and(|at| at != facts.position) {
                    return Err(Error::unavailable("the server has removed what was asked for while it was asked"));
                }
                let (mut link, first) = drain(link, Body::new(framing)).await?;
                // The server begins to send when it hears that the snapshot has come.
                link.acknowledge(position.offset).await?;
                let before = facts.before.clone().filter(|_| facts.position.id == position.id);
                let facts = NodeFacts { position: position.clone(), before, ..facts };
                Ok(Begun { link, facts, at: position, first, lost })
            }
        }
    }

    /// Writes down what was lost, and says what is to be done.
    async fn report(&self, begun: &Begun) -> Result<()> {
        let Begun { at, facts, lost, .. } = begun;
        let Some(lost) = lost else {
            if route::stored(&self.cx.sink().ledger()).is_none()
                && self.cx.backup().is_none_or(|end| lineage::position_of(end) != *at)
            {
                let text = format!("the log begins at {}: take a backup, which it then leads on from", at.offset);
                found(self.cx, Finding::new(Severity::Note, "log-begins", text));
            }
            return Ok(());
        };
        let reason = "the server had removed it before it was stored, or is of another history";
        for range in route::missing(lost, at, facts) {
            let text = if range.is_empty() {
                format!(
                    "the server has no history in common with what is stored, which ends at {}: take a new backup",
                    range.end
                )
            } else {
                format!("{range} is lost: take a new backup")
            };
            self.cx.sink().gap(range, reason).await?;
            found(self.cx, Finding::new(Severity::Warning, "log-hole", text));
        }
        Ok(())
    }
}

/// Says what the stream of an old server does not tell: until when keys live. Its replicas count anew, and so does a restore.
fn report_expiry(cx: &LogContext, facts: &NodeFacts) {
    if facts.product == Product::Redis && facts.line() < (7, 0) {
        let text = format!(
            "redis {} logs how long keys live, not until when: restored ones live that long again",
            facts.version
        );
        found(cx, Finding::new(Severity::Note, "log-relative-expiry", text));
    }
}

/// Lets a snapshot pass that nobody wants, up to the stream behind it.
async fn drain(mut link: Link, mut body: Body) -> Result<(Link, Bytes)> {
    loop {
        let bytes = link.bytes().await?;
        if bytes.is_empty() {
            return Err(Error::unavailable("the server hung up while it sent a snapshot"));
        }
        if let Some(rest) = body.push(bytes)?.rest {
            body.finish()?;
            return Ok((link, rest));
        }
    }
}
