//! A feed that fails: both the client and whoever runs the server hear of it, and a client that comes back is served.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::env::Env;
use backup_core::{Error, ErrorKind, Result};
use backup_postgres::walsender::{DirectoryFeed, FeedIdentity, LogEnd, WalFeed, WalServer, WalServerOptions};
use backup_postgres::{Lsn, TimelineId};
use backup_testkit::{PgVersion, StopMode, require_or_skip, versions_under_test};
use bytes::Bytes;
use tokio::sync::watch;

use crate::harness::{
    Archive, PATIENCE, Vault, connect, create_ledger, ledger, options, source, two_timelines, write_ledger,
};

/// How a feed fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// Its store is away.
    Away,
    /// Its log has become shorter.
    Shrinks,
    /// It gives nothing where something was asked for.
    Nothing,
    /// It gives more than was asked for.
    TooMuch,
    /// It has a bug.
    Panics,
    /// It does not answer.
    Silent,
}

/// A feed that fails from time to time.
#[derive(Debug)]
struct Moody {
    inner: DirectoryFeed,
    mood: watch::Sender<Mood>,
}

impl Moody {
    async fn of(archive: &Archive, mood: Mood) -> Arc<Self> {
        Arc::new(Self { inner: archive.feed().await, mood: watch::Sender::new(mood) })
    }

    fn mood(&self) -> Mood {
        *self.mood.borrow()
    }

    fn here(&self) -> Result<()> {
        if self.mood() == Mood::Away {
            Err(Error::unavailable("the store is away").with_source(std::io::Error::other("no route to it")))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl WalFeed for Moody {
    fn identity(&self) -> &FeedIdentity {
        self.inner.identity()
    }

    async fn end(&self) -> Result<LogEnd> {
        self.inner.end().await
    }

    async fn grown(&self, known: LogEnd) -> Result<LogEnd> {
        let mut mood = self.mood.subscribe();
        let shrunk = async {
            let _ = mood.wait_for(|mood| *mood == Mood::Shrinks).await;
            Ok(LogEnd { position: Lsn(known.position.0 - 8192), ..known })
        };
        tokio::select! {
            grown = self.inner.grown(known) => grown,
            shrunk = shrunk => shrunk,
        }
    }

    async fn history(&self, timeline: TimelineId) -> Result<Option<Bytes>> {
        self.here()?;
        self.inner.history(timeline).await
    }

    async fn read(&self, timeline: TimelineId, at: Lsn, max: usize) -> Result<Option<Bytes>> {
        self.here()?;
        match self.mood() {
            Mood::Nothing => Ok(Some(Bytes::new())),
            Mood::TooMuch => Ok(Some(vec![0; max + 1].into())),
            Mood::Panics => panic!("a bug in a feed"),
            Mood::Silent => std::future::pending().await,
            _ => self.inner.read(timeline, at, max).await,
        }
    }
}

async fn serve(feed: &Arc<Moody>, options: WalServerOptions) -> WalServer {
    WalServer::start(Arc::clone(feed) as Arc<dyn WalFeed>, options, &Env::system()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_makes_the_restored_server_wait() {
    for version in versions_under_test() {
        let mut server = require_or_skip!(source(version).start().await);
        let client = server.connect("postgres").await.unwrap();
        create_ledger(&client).await;
        let vault = Vault::of(&server).await;
        let target = write_ledger(&client, 100).await;
        write_ledger(&client, 1).await;
        server.stop(StopMode::Fast).await.unwrap();
        let archive = Archive::new();
        archive.copy(&server, |_| true);
        let feed = Moody::of(&archive, Mood::Away).await;
        let wal = serve(&feed, options()).await;

        let mut session = connect(&wal).await.unwrap();
        assert_eq!(session.timeline_history(TimelineId::FIRST).await.unwrap_err().sqlstate(), Some("58030"));
        session.close().await;

        let restored = vault.restore(version).await;
        restored.follow(&wal.conninfo(), Some(target));
        let mut failures = wal.failures();
        failures.mark_unchanged();
        let copy = restored.open().await;
        tokio::time::timeout(PATIENCE, failures.changed()).await.unwrap().unwrap();
        let failure = wal.failure().unwrap();
        assert_eq!((failure.kind(), failure.causes()), (ErrorKind::Unavailable, vec!["no route to it".to_owned()]));
        let told =
            backup_testkit::wait::until_async(PATIENCE, || copy.log().contains("the store is away").then_some(()));
        assert!(told.await.is_some(), "{version}: {}", copy.log());
        assert_eq!(ledger(&copy.connect("postgres").await.unwrap()).await, 0, "{version}");

        feed.mood.send_replace(Mood::Well);
        copy.wait_writable(PATIENCE).await.unwrap_or_else(|e| panic!("{version}: {}", e.full()));
        assert_eq!(ledger(&copy.connect("postgres").await.unwrap()).await, 100, "{version}");
    }
}

/// Whatever a feed does, a client gets an error for it, never other bytes and never the end of the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_breaks_its_word_is_told() {
    let Some(archive) = two_timelines(PgVersion::V17).await else { return };
    for (mood, sqlstate, kind) in [
        (Mood::Away, "58030", ErrorKind::Unavailable),
        (Mood::Shrinks, "XX000", ErrorKind::Internal),
        (Mood::Nothing, "XX000", ErrorKind::Internal),
        (Mood::TooMuch, "XX000", ErrorKind::Internal),
        (Mood::Panics, "XX000", ErrorKind::Internal),
        (Mood::Silent, "58030", ErrorKind::Unavailable),
    ] {
        let feed = Moody::of(&archive, Mood::Well).await;
        let wal = serve(&feed, options().feed_timeout(Duration::from_secs(2))).await;
        let mut session = connect(&wal).await.unwrap();
        let end = session.identify_system().await.unwrap().position;
        let start = Lsn(end.0 >> 20 << 20);
        if mood != Mood::Shrinks {
            feed.mood.send_replace(mood);
        }
        let command = format!("START_REPLICATION {start} TIMELINE 2");
        let error = match session.copy_both(&command).await {
            Err(error) => error,
            Ok(mut stream) => {
                feed.mood.send_replace(mood);
                loop {
                    match stream.receive().await {
                        Ok(message) => assert!(message.is_some(), "{mood:?}"),
                        Err(error) => break error,
                    }
                }
            }
        };
        assert_eq!(error.sqlstate(), Some(sqlstate), "{mood:?}: {error}");
        assert_eq!(wal.failure().map(|failure| failure.kind()), Some(kind), "{mood:?}");
        // The session goes on, and so does the server.
        feed.mood.send_replace(Mood::Well);
        assert!(session.identify_system().await.is_ok() && connect(&wal).await.is_ok(), "{mood:?}");
    }
}
