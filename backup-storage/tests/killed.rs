//! Backups of a real process that is killed with SIGKILL at twenty moments, on local disk.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use backup_core::engine::{LocalFile, Work};
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_core::repository::{ParentChoice, Repository as _, VerifyLevel};
use backup_core::{BackupSinkExt, Consistency, ServiceId, Snapshot};
use backup_crypto::{Identity, RawKey};
use backup_storage::store::Store;
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use backup_testkit::wait;
use futures::TryStreamExt;

const VAULT: &str = "BACKUP_TEST_KILLED_VAULT";
const SOURCE: &str = "BACKUP_TEST_KILLED_SOURCE";
const FILES: usize = 24;
const FILE_BYTES: usize = 3 << 20;

fn settings() -> RepositorySettings {
    // Small packs: many moments to be killed at.
    RepositorySettings::default().workers(2).pack_size(4 << 20)
}

async fn open(vault: &Path) -> Repository {
    let store = Store::local(vault).unwrap();
    let identity = Identity::from(RawKey::take(&mut [5; 32]));
    Repository::open(&store, ServiceId::new("svc").unwrap(), identity, &settings(), Env::system()).await.unwrap()
}

async fn backup(vault: &Path, source: &Path) -> backup_core::catalog::BackupRecord {
    let repository = open(vault).await;
    let work = Work::default();
    let session = repository.begin(ParentChoice::Newest, &work).await.unwrap();
    let files = (0..FILES).map(|n| {
        LocalFile::new(source.join(n.to_string()), EntryMeta::file(EntryPath::new(format!("dir/{n:02}")).unwrap()))
    });
    session.sink().put_files(files, |_, _| Ok(())).await.unwrap();
    let now = Env::system().now();
    let snapshot = Snapshot::new("test", "1", "source", "local", Consistency::PointInTime, (now, now));
    session.commit(snapshot).await.unwrap()
}

/// The process that is killed. Does nothing when it is run as an ordinary test.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    if let (Some(vault), Some(source)) = (std::env::var_os(VAULT), std::env::var_os(SOURCE)) {
        backup(&PathBuf::from(vault), &PathBuf::from(source)).await;
    }
}

fn objects(vault: &Path) -> usize {
    let Ok(sessions) = std::fs::read_dir(vault.join("svc/packs")) else { return 0 };
    sessions.flatten().filter_map(|s| std::fs::read_dir(s.path()).ok()).map(Iterator::count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_leave_known_garbage_and_nothing_is_sent_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, source) = (dir.path().join("vault"), dir.path().join("source"));
    std::fs::create_dir_all(&source).unwrap();
    for n in 0..FILES {
        let mut content = vec![0; FILE_BYTES];
        blake3::Hasher::new().update(&[n as u8]).finalize_xof().fill(&mut content);
        std::fs::write(source.join(n.to_string()), content).unwrap();
    }
    let store = Store::local(&vault).unwrap();
    let recipients = vec![RawKey::take(&mut [5; 32]).into()];
    let service = ServiceId::new("svc").unwrap();
    Repository::create(&store, service, recipients, CreateOptions::default(), &settings(), Env::system())
        .await
        .unwrap();

    let mut killed = 0;
    for round in 0..20 {
        let before = objects(&vault);
        // Later and later: right after the start, after one more pack, …
        let moment = before + round % 4;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--test-threads", "1"])
            .env(VAULT, &vault)
            .env(SOURCE, &source)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (path, pid) = (vault.clone(), &mut child);
        wait::until(Duration::from_secs(60), || {
            (objects(&path) >= moment || pid.try_wait().unwrap().is_some()).then_some(())
        })
        .expect("the process neither works nor ends");
        killed += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();

        let repository = open(&vault).await;
        let report = repository.verify(VerifyLevel::Full, &Work::default()).await.unwrap();
        assert!(report.is_sound(), "round {round}: {:?}", report.damages);
    }
    assert!(killed >= 10, "only {killed} of 20 processes were killed while they worked");

    let record = backup(&vault, &source).await;
    assert_eq!(record.data_bytes, (FILES * FILE_BYTES) as u64);
    let repository = open(&vault).await;
    let report = repository.verify(VerifyLevel::Full, &Work::default()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.damages);
    // What landed is never sent again. What had not landed when its process died is a staging file of the local store, which is
    // no object: nothing refers to it, and the store sweeps it.
    let stored: u64 = store
        .at("svc")
        .unwrap()
        .list("packs")
        .map_ok(|object| object.size)
        .try_fold(0, |sum, size| std::future::ready(Ok(sum + size)))
        .await
        .unwrap();
    let content = (FILES * FILE_BYTES) as u64;
    assert!(stored < content + content / 20, "{stored} bytes are stored for {content} bytes of content");
}
