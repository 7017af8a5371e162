//! The server as a whole: it listens, lets receivers in, and ends with its handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backup_core::env::Env;
use backup_core::{Error, ErrorKind, Result};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::command::error;
use super::endpoint::{Endpoint, Listener, quote};
use super::feed::WalFeed;
use super::options::WalServerOptions;
use super::progress::{Board, Progress};
use super::scram::Verifier;
use super::session;
use super::slots::Slots;
use crate::conn::Secret;
use crate::error::ServerError;
use crate::version::ServerVersion;

/// Clients that have not proven themselves yet. They cost a socket and a few kilobytes, and must not keep those out that can.
const MAX_STRANGERS: usize = 64;
/// How long accepting rests when the system has no sockets left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server that hands a write-ahead log to whoever knows its token.
///
/// It ends, with its connections, when this value is dropped; [`WalServer::shutdown`] tells the clients first. No stream is
/// ever ended as if the log were complete: a receiver waits, or comes back.
#[derive(Debug)]
pub struct WalServer {
    endpoint: Endpoint,
    user: String,
    version: Option<ServerVersion>,
    token: Secret,
    board: Arc<Board>,
    failures: watch::Receiver<Option<Arc<Error>>>,
    cancel: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// What all sessions share.
pub(super) struct Shared {
    pub(super) feed: Arc<dyn WalFeed>,
    pub(super) options: WalServerOptions,
    pub(super) env: Env,
    pub(super) verifier: Verifier,
    pub(super) slots: Arc<Slots>,
    pub(super) board: Arc<Board>,
    pub(super) sessions: Semaphore,
    pub(super) cancel: CancellationToken,
    streams: AtomicU64,
    failures: watch::Sender<Option<Arc<Error>>>,
}

impl Shared {
    /// A number for a stream.
    pub(super) fn number(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    /// Microseconds since 2000-01-01, as times are in the protocol.
    pub(super) fn time(&self) -> i64 {
        const EPOCH: i64 = 946_684_800_000_000;
        self.env.now().as_microsecond().saturating_sub(EPOCH)
    }

    /// Tells whoever runs the server that the feed failed. What the client is told.
    pub(super) fn failed(&self, failure: Error) -> Box<ServerError> {
        tracing::warn!(error = %failure, causes = ?failure.causes(), "the feed failed");
        let sqlstate = match failure.kind() {
            ErrorKind::Damaged => "XX001",
            ErrorKind::Unavailable | ErrorKind::Environment => "58030",
            _ => "XX000",
        };
        let told = error(sqlstate, failure.to_string());
        self.failures.send_replace(Some(Arc::new(failure)));
        told
    }

    /// Waits for an answer of the feed, as long as it may take.
    pub(super) async fn ask<T>(&self, what: &str, answer: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.options.feed_timeout;
        tokio::time::timeout(limit, answer)
            .await
            .unwrap_or_else(|_| Err(Error::unavailable(format!("the feed did not tell {what} within {limit:?}"))))
    }
}

impl WalServer {
    /// Starts to listen and to serve `feed`. The token is minted from the entropy of `env`.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when the address cannot be listened on, [`ErrorKind::InvalidInput`] for options that
    /// cannot be.
    pub async fn start(feed: Arc<dyn WalFeed>, options: WalServerOptions, env: &Env) -> Result<Self> {
        if options.user.is_empty() || options.user.contains('\0') {
            return Err(Error::invalid("the user of a wal server needs a name"));
        }
        if options.max_connections == 0 || options.max_connections > Semaphore::MAX_PERMITS {
            return Err(Error::invalid(format!("{} connections cannot be served", options.max_connections)));
        }
        let listener = Listener::bind(&options.listen, env).await?;
        let endpoint = listener.endpoint.clone();
        let token: String = env.random::<32>().iter().map(|byte| format!("{byte:02x}")).collect();
        let token = Secret::new(token);
        let cancel = CancellationToken::new();
        let board = Arc::new(Board::new());
        let (failing, failures) = watch::channel(None);
        let user = options.user.clone();
        let version = ServerVersion::from_parameter(&feed.identity().server_version).ok();
        let shared = Arc::new(Shared {
            feed,
            env: env.clone(),
            verifier: Verifier::new(token.reveal(), env.random()),
            slots: Arc::default(),
            board: Arc::clone(&board),
            sessions: Semaphore::new(options.max_connections),
            cancel: cancel.clone(),
            streams: AtomicU64::new(1),
            failures: failing,
            options,
        });
        let task = AbortOnDropHandle::new(tokio::spawn(accept(listener, shared)));
        Ok(Self { endpoint, user, version, token, board, failures, cancel, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The role name that receivers give.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password of that role.
    #[must_use]
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// A connection string for `primary_conninfo`, with the token in it: keep it where only the server can read it.
    ///
    /// A receiver of version 16 or newer is told to insist on a proof that we know the token, too. Before that it would
    /// also follow somebody else who listens on the port after us and asks for nothing; a [Unix
    /// socket](super::Listen::Unix) does not have this weakness.
    #[must_use]
    pub fn conninfo(&self) -> String {
        let user = quote(&self.user);
        let insist = match self.version {
            Some(version) if version.major() >= 16 => " require_auth=scram-sha-256",
            _ => "",
        };
        format!(
            "{} user={user} password={} sslmode=disable gssencmode=disable{insist}",
            self.endpoint.keywords(),
            self.token.reveal()
        )
    }

    /// How far receivers have come, as it changes. `wait_for` on it tells when a restored server has replayed a position.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.board.subscribe()
    }

    /// The last failure of the feed, if any. Receivers come back after one, so that it may be over.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<Error>> {
        self.failures.borrow().clone()
    }

    /// The failures of the feed, as they happen.
    #[must_use]
    pub fn failures(&self) -> watch::Receiver<Option<Arc<Error>>> {
        self.failures.clone()
    }

    /// Stops listening, tells every client that the server is shut down, and waits until all are gone. A client that
    /// takes nothing is left after a second.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the server ended badly");
        }
    }
}

/// Takes connections until the server is shut down. The sessions end with this future.
async fn accept(listener: Listener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    loop {
        tokio::select! {
            () = shared.cancel.cancelled() => break,
            Some(ended) = sessions.join_next(), if !sessions.is_empty() => ending(&shared, ended),
            accepted = listener.accept(shared.options.max_message) => match accepted {
                Ok((inlet, outlet)) => {
                    let Ok(stranger) = Arc::clone(&strangers).try_acquire_owned() else { continue };
                    sessions.spawn(session::serve(Arc::clone(&shared), inlet, outlet, stranger));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    shared.env.clock().sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // Nobody can come any more while the last ones are being told.
    drop(listener);
    while let Some(ended) = sessions.join_next().await {
        ending(&shared, ended);
    }
}

fn ending(shared: &Shared, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        shared.failed(Error::internal("a session of the wal server panicked").with_source(error));
    }
}
