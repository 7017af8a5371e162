//! What a writer does with what an earlier one has left.

use std::sync::Arc;

use backup_core::ErrorKind;
use backup_core::engine::{LogOptions, LogSink, Work};
use backup_core::log::{LogPurpose, Mark};
use backup_core::repository::Repository as _;
use futures::TryStreamExt;

use crate::host::{Vault, append, files, keep, lineage, log, range};

/// A host that has acknowledged all of this, a piece each, and died while the vault was away.
async fn died(vault: &Vault, host: &str, edges: &[u64]) {
    let sink = vault.writer(vault.options(host)).await;
    vault.leave();
    for piece in edges.windows(2) {
        let mark = Mark::Commit { offset: piece[1], at: vault.env.now() };
        keep(sink.as_ref(), piece[0], piece[1], &[mark]).await;
    }
    drop(sink);
    // Its tasks end when it is their turn.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    vault.come_back();
}

#[tokio::test]
async fn what_a_dead_process_has_left_is_sent_first() {
    let vault = Vault::new().await;
    let edges: Vec<u64> = (0..40).map(|number| number * 1000).collect();
    died(&vault, "a", &edges).await;
    assert_eq!(files(&vault.spool("a")).len(), 39);
    let next = vault.writer(vault.options("a")).await;
    assert_eq!(next.ledger().covered(&lineage()).as_slice(), [0..39_000]);
    assert!(files(&vault.spool("a")).is_empty());
    // Under their own names, by the writer that was given its end behind them.
    let catalog = vault.repository().await.catalog().await.unwrap();
    let (first, writer) = catalog.log().writers().next().unwrap();
    assert_eq!((first.0, writer.ends.as_ref().unwrap()[&lineage()]), (1, 39_000));
    assert_eq!(catalog.log().writers().count(), 2, "nobody had to import");
    keep(next.as_ref(), 39_000, 40_000, &[]).await;
    next.close().await.unwrap();
    vault.assert_reads(range(0, 40_000)).await;
    vault.guard.assert_clean();
}

#[tokio::test]
async fn what_lies_beyond_the_end_that_another_host_has_given_is_stored_again() {
    let vault = Vault::new().await;
    died(&vault, "a", &[0, 1000, 2000, 3000, 4000]).await;
    // The other host begins anew, and its pieces end elsewhere.
    let other = vault.writer(vault.options("b")).await;
    append(other.as_ref(), 500, 2500).await.unwrap();
    other.close().await.unwrap();
    assert_eq!(vault.covered().await, [500..2500]);

    let next = vault.writer(vault.options("a")).await;
    assert_eq!(next.ledger().covered(&lineage()).as_slice(), [0..4000]);
    assert_eq!(vault.covered().await, [0..4000]);
    assert!(files(&vault.spool("a")).is_empty());
    vault.assert_reads(range(0, 4000)).await;
    let catalog = vault.repository().await.catalog().await.unwrap();
    let imports = catalog.log().writers().filter(|(_, writer)| writer.purpose == LogPurpose::Import).count();
    assert_eq!(imports, 1);
    // With the moments that were noticed in it.
    let told: Vec<_> = vault.source().await.index(range(0, 4000)).try_collect().await.unwrap();
    let moments: Vec<_> = told.iter().flat_map(|(_, index)| &index.samples).map(|sample| sample.offset).collect();
    assert!(moments.contains(&4000) && moments.contains(&1000), "{moments:?}");
    // The next one has nothing to do.
    next.close().await.unwrap();
    let objects = vault.objects().await;
    vault.writer(vault.options("a")).await.close().await.unwrap();
    assert_eq!(vault.objects().await, objects);
    vault.guard.assert_clean();
}

#[tokio::test]
async fn what_is_stored_already_is_compared_and_let_go() {
    let vault = Vault::new().await;
    died(&vault, "a", &[0, 1000, 2000]).await;
    let other = vault.writer(LogOptions::default()).await;
    append(other.as_ref(), 0, 5000).await.unwrap();
    other.close().await.unwrap();
    let objects = vault.objects().await;
    let next = vault.writer(vault.options("a")).await;
    assert_eq!((vault.objects().await, files(&vault.spool("a")).len()), (objects, 0));
    assert_eq!(next.ledger().covered(&lineage()).as_slice(), [0..5000]);
}

#[tokio::test]
async fn two_histories_are_a_conflict_and_nothing_is_removed() {
    let vault = Vault::new().await;
    died(&vault, "a", &[0, 1000, 2000]).await;
    let other = vault.writer(LogOptions::default()).await;
    let stored = range(0x100, 1500);
    let mut bytes = log(&stored).to_vec();
    bytes[1100 - 0x100] ^= 1;
    other.append(stored, bytes.into(), &[]).await.unwrap();
    other.close().await.unwrap();
    for _ in 0..2 {
        let error = vault.try_writer(vault.options("a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        let text = error.to_string();
        assert!(text.contains("0/3E8") && text.contains("0/5DC") && text.contains("0000000002"), "{text}");
        assert!(!files(&vault.spool("a")).is_empty());
    }
    assert!(files(&vault.spool("a")).iter().any(|file| file.to_str().unwrap().contains("0000000002")));
}

#[tokio::test]
async fn a_torn_file_is_set_aside_and_the_rest_counts() {
    let vault = Vault::new().await;
    let edges: Vec<u64> = (0..7).map(|number| number * 1000).collect();
    died(&vault, "a", &edges).await;
    let found = files(&vault.spool("a"));
    let torn = std::fs::read(&found[1]).unwrap();
    std::fs::write(&found[1], &torn[..torn.len() / 2]).unwrap();
    std::fs::write(&found[3], vec![0; torn.len()]).unwrap();
    for _ in 0..2 {
        let next = vault.writer(vault.options("a")).await;
        assert_eq!(next.ledger().covered(&lineage()).as_slice(), [0..1000, 2000..3000, 4000..6000]);
        let aside = files(&vault.spool("a"));
        assert_eq!(aside.len(), 2, "{aside:?}");
        assert!(aside.iter().all(|file| file.to_str().unwrap().ends_with(".damaged")), "{aside:?}");
        assert_eq!(std::fs::read(&aside[0]).unwrap(), torn[..torn.len() / 2]);
    }
    assert_eq!(vault.covered().await, [0..1000, 2000..3000, 4000..6000]);
    vault.assert_reads(range(4000, 6000)).await;
}

#[tokio::test]
async fn one_writer_for_a_folder() {
    let vault = Vault::new().await;
    let first = vault.writer(vault.options("a")).await;
    let error = vault.try_writer(vault.options("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("is used by another log writer"), "{error}");
    // The one that was refused has disturbed nobody.
    keep(first.as_ref(), 0, 1000, &[]).await;
    first.close().await.unwrap();
    let second = vault.writer(vault.options("a")).await;
    drop(second);
    vault.writer(vault.options("a")).await.close().await.unwrap();
    assert_eq!(vault.covered().await, [0..1000]);
}

#[tokio::test]
async fn the_spool_of_somebody_else_is_refused() {
    let (vault, other) = (Vault::new().await, Vault::seeded(2, 1).await);
    vault.create("other").await;
    died(&vault, "a", &[0, 1000]).await;
    let before = files(&vault.spool("a"));
    let work = Work::new(vault.env.clone());
    let service = vault.repository_of("other").await.unwrap();
    for opened in [service.open_log(vault.options("a"), &work).await, other.try_writer(vault.options("a")).await] {
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains("belongs to service svc of repository"), "{error}");
    }
    assert_eq!(files(&vault.spool("a")), before);
    let catalog = other.repository().await.catalog().await.unwrap();
    assert_eq!(catalog.log().writers().count(), 0, "nobody was fenced");
}

#[tokio::test]
async fn strangers_are_left_alone() {
    let vault = Vault::new().await;
    died(&vault, "a", &[0, 1000]).await;
    let stranger = vault.spool("a").join("notes.txt");
    std::fs::write(&stranger, "mine").unwrap();
    vault.writer(vault.options("a")).await.close().await.unwrap();
    assert_eq!(files(&vault.spool("a")), std::slice::from_ref(&stranger));
    assert_eq!(std::fs::read(stranger).unwrap(), b"mine");
}

#[tokio::test]
async fn an_end_in_the_middle_of_sending_loses_nothing() {
    let vault = Vault::new().await;
    let edges: Vec<u64> = (0..40).map(|number| number * 1000).collect();
    died(&vault, "a", &edges).await;
    // The next process comes half-way, and then another host takes over.
    vault.faults.script(backup_storage::fault::FaultOp::Put, "log/", 20, backup_storage::fault::Fault::FullDisk);
    let error = vault.try_writer(vault.options("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
    assert_eq!(files(&vault.spool("a")).len(), 39, "nothing is removed before it counts");
    let other = vault.writer(LogOptions::default()).await;
    let end = other.ledger().covered(&lineage()).end().unwrap();
    assert!((10_000..=30_000).contains(&end), "{end}");
    other.close().await.unwrap();
    let next = vault.writer(vault.options("a")).await;
    assert_eq!(next.ledger().covered(&lineage()).as_slice(), [0..39_000]);
    vault.assert_reads(range(0, 39_000)).await;
    vault.guard.assert_clean();
}

#[tokio::test]
async fn a_rebuilt_catalog_gets_it_with_its_lineage() {
    let vault = Vault::new().await;
    died(&vault, "a", &[0, 1000, 2000]).await;
    vault.repository().await.rebuild_catalog(&Work::new(vault.env.clone())).await.unwrap();
    // Not declared by whoever opens.
    let work = Work::new(vault.env.clone());
    let next: Arc<dyn LogSink> = vault.repository().await.open_log(vault.options("a"), &work).await.unwrap();
    assert_eq!(next.ledger().covered(&lineage()).as_slice(), [0..2000]);
    assert_eq!(next.ledger().lineage(&lineage()).unwrap().source, "source");
    assert!(files(&vault.spool("a")).is_empty());
    vault.assert_reads(range(0, 2000)).await;
}

#[tokio::test]
async fn a_piece_that_is_damaged_while_its_writer_lives_ends_it_and_costs_nothing_else() {
    let vault = Vault::new().await;
    let sink = vault.writer(vault.options("a")).await;
    vault.leave();
    for at in 0..12 {
        keep(sink.as_ref(), at * 1000, (at + 1) * 1000, &[]).await;
    }
    let found = files(&vault.spool("a"));
    std::fs::write(&found[8], "torn").unwrap();
    vault.come_back();
    let error = sink.close().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(error.to_string().contains("8000..9000 of lineage 1"), "{error}");
    let next = vault.writer(vault.options("a")).await;
    assert_eq!(next.ledger().covered(&lineage()).as_slice(), [0..8000, 9000..12_000]);
    next.close().await.unwrap();
    assert_eq!(vault.covered().await, [0..8000, 9000..12_000]);
}
