//! A feed that fails: both the client and whoever runs the server hear of it, and a client that comes back is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use backup_core::env::Env;
use backup_core::{Error, ErrorKind, Result};
use backup_postgres::walsender::{DirectoryFeed, FeedIdentity, LogEnd, WalFeed, WalServer};
use backup_postgres::{Lsn, TimelineId};
use backup_testkit::{StopMode, require_or_skip, versions_under_test};
use bytes::Bytes;

use crate::harness::{Archive, PATIENCE, Vault, connect, create_ledger, ledger, options, source, write_ledger};

/// A feed whose store is away from time to time.
#[derive(Debug)]
struct Away {
    inner: DirectoryFeed,
    away: AtomicBool,
}

impl Away {
    fn here(&self) -> Result<()> {
        if self.away.load(Ordering::Relaxed) {
            Err(Error::unavailable("the store is away").with_source(std::io::Error::other("no route to it")))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl WalFeed for Away {
    fn identity(&self) -> &FeedIdentity {
        self.inner.identity()
    }

    async fn end(&self) -> Result<LogEnd> {
        self.inner.end().await
    }

    async fn grown(&self, known: LogEnd) -> Result<LogEnd> {
        self.inner.grown(known).await
    }

    async fn history(&self, timeline: TimelineId) -> Result<Option<Bytes>> {
        self.here()?;
        self.inner.history(timeline).await
    }

    async fn read(&self, timeline: TimelineId, at: Lsn, max: usize) -> Result<Option<Bytes>> {
        self.here()?;
        self.inner.read(timeline, at, max).await
    }
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
        let feed = Arc::new(Away { inner: archive.feed().await, away: AtomicBool::new(true) });
        let wal = WalServer::start(Arc::clone(&feed) as Arc<dyn WalFeed>, options(), &Env::system()).await.unwrap();

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

        feed.away.store(false, Ordering::Relaxed);
        copy.wait_writable(PATIENCE).await.unwrap_or_else(|e| panic!("{version}: {}", e.full()));
        assert_eq!(ledger(&copy.connect("postgres").await.unwrap()).await, 100, "{version}");
    }
}
