//! What no file system can be made to do in a test: run full, and have room again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use backup_core::ServiceId;
use backup_core::catalog::Catalog;
use backup_core::engine::{LogOptions, LogSink};
use backup_core::env::Env;
use backup_core::log::{LineageRecord, LogRange, Notation};

use super::*;
use crate::error::ErrorKind;
use crate::journal::{FORMAT, Genesis, Journal};
use crate::keyring::tests::keyring;
use crate::log::LogCache;
use crate::log::writer::{LogWriter, open};
use crate::settings::RepositorySettings;

async fn writer(dir: &std::path::Path) -> LogWriter {
    let (keyring, env, store) = (keyring(1), Env::seeded(2), Store::memory());
    let service = ServiceId::new("svc").unwrap();
    let journal = Journal::<Catalog>::new(store.clone(), keyring.clone(), env.clone());
    let genesis = Genesis {
        format: FORMAT,
        repository: *keyring.repository().as_bytes(),
        service: service.clone(),
        suite: keyring.suite() as u8,
        created_at: env.now(),
        objects: Vec::new(),
        epochs: None,
    };
    journal.begin(1, genesis, vec![]).await.unwrap();
    let shape = RepositorySettings::default().workers(1).shape();
    let context = Context { service, store, keyring, env: env.clone(), shape };
    let cache = Arc::new(LogCache::new(Arc::new(context)));
    let writer = open(cache, Arc::new(journal), LogOptions::default().spool(dir)).await.unwrap();
    writer.declare(LineageRecord::new(Lineage::new("1"), "source", Notation::Decimal, env.now())).await.unwrap();
    writer
}

fn fill(writer: &LogWriter, full: bool) {
    writer.shared.spool.as_ref().unwrap().folder.full.store(full, Ordering::Relaxed);
}

async fn append(writer: &LogWriter, start: u64, end: u64) {
    let (range, bytes) = (LogRange::new(Lineage::new("1"), start..end), vec![7; (end - start) as usize]);
    writer.append(range, bytes.into(), &[]).await.unwrap();
    writer.flush();
}

#[tokio::test]
async fn a_full_disk_is_waited_out() {
    let temp = tempfile::tempdir().unwrap();
    let writer = writer(temp.path()).await;
    append(&writer, 0, 1000).await;
    let known = writer.advanced(None).await.unwrap();
    fill(&writer, true);
    let since = writer.shared.now();
    append(&writer, 1000, 2000).await;
    let mut waiting = std::pin::pin!(writer.advanced(known.as_ref()));
    while writer.shared.now() - since < Duration::from_secs(3600) {
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    fill(&writer, false);
    assert_eq!(waiting.await.unwrap().unwrap().offset, 2000);
    writer.close().await.unwrap();
}

#[tokio::test]
async fn closing_does_not_wait_for_a_full_disk() {
    let temp = tempfile::tempdir().unwrap();
    let writer = writer(temp.path()).await;
    append(&writer, 0, 1000).await;
    writer.advanced(None).await.unwrap();
    fill(&writer, true);
    append(&writer, 1000, 2000).await;
    let error = writer.close().await.unwrap_err();
    assert_eq!(error.kind(), backup_core::ErrorKind::Environment, "{error}");
    assert!(error.to_string().contains(&temp.path().display().to_string()), "{error}");
    assert_eq!(writer.durable().map(|position| position.offset), Some(1000), "it was not acknowledged");
}

#[tokio::test]
async fn what_lies_there_is_read_back_or_said_to_be_damaged() {
    let temp = tempfile::tempdir().unwrap();
    let folder = Arc::new(Folder::lock(temp.path()).unwrap());
    let spool = Spool::new(Arc::clone(&folder), 1, u64::MAX);
    let piece = Piece { epoch: backup_core::log::LogEpoch(1), sequence: 1, start: 0, end: 10 };
    let (lineage, bytes) = (Lineage::new("1"), Bytes::from_static(b"sealed"));
    let digest = *blake3::hash(&bytes).as_bytes();
    let sealed = Sealed { name: piece.name(&lineage).unwrap(), bytes: bytes.clone(), digest };
    let kept = Kept::of(lineage, piece, &sealed);
    let file = spool.file(&kept.lineage, piece).unwrap();
    folder.write(&file, &bytes).unwrap();
    assert_eq!(spool.read(&kept).await.unwrap().bytes, bytes);
    std::fs::write(temp.path().join(&file), b"seal").unwrap();
    let error = spool.read(&kept).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(error.to_string().contains("0..10 of lineage 1"), "{error}");
    std::fs::remove_file(temp.path().join(&file)).unwrap();
    assert_eq!(spool.read(&kept).await.unwrap_err().kind(), ErrorKind::Damaged);
}
