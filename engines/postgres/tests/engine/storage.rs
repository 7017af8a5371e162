//! Over the encrypted repository, on memory and on local disk; and a restore that is killed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::engine::Work;
use backup_core::entry::Selector;
use backup_core::env::Env;
use backup_core::observe::{Observer, Phase, Progress};
use backup_core::repository::VerifyLevel;
use backup_core::{RecoveryTarget, ServiceId, run};
use backup_crypto::{Identity, RawKey};
use backup_postgres::{Method, PostgresEngine, PostgresSettings};
use backup_storage::store::{Store, StoreSettings};
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use backup_testkit::pgbench::Dataset;
use backup_testkit::{PgVersion, Postgres, require_or_skip, unprivileged};

use crate::harness::{METHODS, Target, Vault, digest, digest_of, engine, work};

fn service() -> ServiceId {
    ServiceId::new("shop").unwrap()
}

fn key() -> RawKey {
    RawKey::take(&mut [7; 32])
}

pub(crate) async fn create(store: &Store) -> Vault {
    let (options, settings) = (CreateOptions::default(), RepositorySettings::default());
    let made = Repository::create(store, service(), vec![key().into()], options, &settings, Env::system()).await;
    Vault(Arc::new(made.unwrap()))
}

pub(crate) async fn open(store: &Store) -> Vault {
    let settings = RepositorySettings::default();
    let opened = Repository::open(store, service(), Identity::from(key()), &settings, Env::system()).await;
    Vault(Arc::new(opened.unwrap()))
}

pub(crate) fn on_disk(dir: &Path) -> Store {
    Store::open(&format!("file://{}", dir.display()), &StoreSettings::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_go_through_the_real_repository() {
    let disk = tempfile::tempdir().unwrap();
    for (store, method) in [(Store::memory(), METHODS[0]), (on_disk(disk.path()), METHODS[1])] {
        let server = require_or_skip!(Postgres::builder(PgVersion::V17).start().await);
        let client = server.connect("postgres").await.unwrap();
        client
            .batch_execute("create table t as select i, md5(i::text) from generate_series(1, 200000) i")
            .await
            .unwrap();
        let vault = create(&store).await;
        let (first, before) = (vault.backup(&engine(&server, method)).await, digest(&server).await);
        client.batch_execute("update t set md5 = 'x' where i % 1000 = 0; create table u as select 1").await.unwrap();
        let (second, after) = (vault.backup(&engine(&server, method)).await, digest(&server).await);
        assert_eq!(second.parent, Some(first.id));
        assert!(second.new_bytes < first.new_bytes / 2, "{second:?}");

        let vault = open(&store).await;
        assert!(vault.0.verify(VerifyLevel::Full, &work()).await.unwrap().is_sound());
        for (record, expected) in [(&first, &before), (&second, &after)] {
            let report = vault.check(&engine(&server, method), record).await;
            assert!(report.findings.is_empty(), "{:?}", report.findings);
            let target = Target::new(PgVersion::V17);
            target.restore(&vault, record).await.unwrap();
            assert_eq!(&digest_of(&target).await, expected);
            // From one backup to the other and back, in place.
            let (other, expected) = if record.id == first.id { (&second, &after) } else { (&first, &before) };
            let rewriting = PostgresEngine::new(target.settings().delta(true)).unwrap();
            let extracted = vault.restore(&rewriting, other).await.unwrap().extracted;
            assert!(extracted.written_bytes < extracted.bytes * 2 / 3, "{extracted:?}");
            assert_eq!(&digest_of(&target).await, expected);
        }
    }
}

/// Says when so many bytes have been written, and holds.
#[derive(Debug)]
struct Hold {
    after: u64,
    written: AtomicU64,
}

impl Observer for Hold {
    fn on(&self, progress: &Progress) {
        if let Progress::Advanced { phase: Phase::Write, by } = progress
            && self.written.fetch_add(*by, Ordering::Relaxed) + by >= self.after
        {
            // Past the capture of the test harness: another process reads it.
            let _ = writeln!(std::io::stdout(), "{HELD}");
            loop {
                std::thread::park();
            }
        }
    }
}

const HELD: &str = "enough has been written";

/// The process that is killed. Does nothing unless another test has started it.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_restores() {
    let Ok(order) = std::env::var("KILLED_RESTORE") else { return };
    let mut parts = order.split('\n');
    let (vault, data, after) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let vault = open(&on_disk(Path::new(vault))).await;
    let engine = PostgresEngine::new(PostgresSettings::default().data_dir(data)).unwrap();
    let hold = Hold { after: after.parse().unwrap(), written: AtomicU64::new(0) };
    let work = Work::new(Env::system()).with_observer(Arc::new(hold));
    let plan = run::plan_restore(vault.0.as_ref(), &engine, RecoveryTarget::latest(), Selector::all(), &work).await;
    let outcome = run::restore(&engine, &plan.unwrap(), &work).await;
    panic!("it was to be killed before its end: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_killed_is_resumed() {
    let server = require_or_skip!(Postgres::builder(PgVersion::V17).start().await);
    Dataset::realistic(60 << 20, 1).load(&server, "postgres").await.unwrap();
    let disk = tempfile::tempdir().unwrap();
    let vault = create(&on_disk(disk.path())).await;
    let record = vault.backup(&engine(&server, Method::Local)).await;
    let source = digest(&server).await;
    let target = Target::new(PgVersion::V17);
    let mut had = 0;
    for after in [1, 20 << 20, 30 << 20] {
        let order = format!("{}\n{}\n{after}", disk.path().display(), target.data().display());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "storage::child_that_restores", "--nocapture", "--test-threads=1"])
            .env("KILLED_RESTORE", order)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let held = lines.map_while(Result::ok).any(|line| line.contains(HELD));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(held, "the child ended by itself");
        had += after;
        unprivileged().own_tree(target.data()).unwrap();
        Postgres::open(PgVersion::V17, target.data()).await.unwrap_err();
    }
    let extracted = target.restore(&vault, &record).await.unwrap().extracted;
    // What was held back by the killed processes' last moments is not counted on.
    assert!(extracted.bytes - extracted.written_bytes > had / 2, "{extracted:?} after {had}");
    assert_eq!(digest_of(&target).await, source);
}
