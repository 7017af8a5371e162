//! A writer that lives: what it acknowledges, sends, holds back and says.

use std::time::Duration;

use backup_core::ErrorKind;
use backup_core::engine::LogOptions;
use backup_core::log::LogPurpose;
use backup_storage::fault::{Fault, FaultPlan};

use crate::host::{Vault, append, assert_reads, durable, files, keep, lineage, range};

#[tokio::test]
async fn a_vault_that_is_away_for_hours_stops_nothing() {
    let vault = Vault::new().await;
    let sink = vault.writer(vault.options("a").flush_bytes(1 << 20)).await;
    keep(sink.as_ref(), 0, 1000, &[]).await;
    vault.leave();
    let since = vault.env.clock().monotonic();
    // More than memory may hold.
    let mut at = 1000;
    while at < 40 << 20 {
        append(sink.as_ref(), at, at + (2 << 20)).await.unwrap();
        at += 2 << 20;
    }
    sink.flush();
    durable(sink.as_ref(), at).await.unwrap();
    while vault.env.clock().monotonic() - since < Duration::from_secs(6 * 3600) {
        tokio::task::yield_now().await;
    }
    keep(sink.as_ref(), at, at + 10, &[]).await;
    assert!(files(&vault.spool("a")).len() >= 40);
    vault.come_back();
    assert!(vault.covered().await.len() <= 1, "the vault has no part of it behind a hole");
    sink.close().await.unwrap();
    assert!(files(&vault.spool("a")).is_empty(), "what was sent leaves the spool");
    assert_eq!(vault.covered().await, [0..at + 10]);
    vault.assert_reads(range(0, at + 10)).await;
    vault.guard.assert_clean();
}

#[tokio::test]
async fn what_was_acknowledged_can_be_read_back_before_it_is_sent() {
    let vault = Vault::new().await;
    let sink = vault.writer(vault.options("a")).await;
    vault.refuse_puts();
    keep(sink.as_ref(), 0, 100_000, &[]).await;
    keep(sink.as_ref(), 100_000, 250_000, &[]).await;
    assert_eq!(sink.ledger().covered(&lineage()).as_slice(), [0..250_000], "where the engine goes on");
    assert_reads(sink.source().as_ref(), range(0, 250_000)).await;
    assert_reads(sink.source().as_ref(), range(99_000, 101_000)).await;
    assert!(vault.covered().await.is_empty(), "others see what the vault has");
    let source = sink.source();
    assert_reads(source.as_ref(), range(0, 10)).await;
    vault.come_back();
    sink.close().await.unwrap();
    assert_reads(source.as_ref(), range(0, 250_000)).await;
}

#[tokio::test]
async fn a_full_spool_holds_the_source_back_until_there_is_room() {
    let vault = Vault::new().await;
    let sink = vault.writer(vault.options("a").spool_bytes(100_000).flush_bytes(10_000)).await;
    vault.leave();
    let mut at = 0;
    loop {
        let mut one = std::pin::pin!(append(sink.as_ref(), at, at + 5000));
        if futures::poll!(one.as_mut()).is_pending() {
            break;
        }
        at += 5000;
        sink.flush();
        durable(sink.as_ref(), at).await.unwrap();
        assert!(at < 1_000_000, "it never ends");
    }
    let blocks = |file: &std::path::PathBuf| file.metadata().unwrap().len().next_multiple_of(4096);
    let lies: u64 = files(&vault.spool("a")).iter().map(blocks).sum();
    assert!((80_000..=100_000).contains(&lies), "{lies} bytes lie in the spool");
    let mut waiting = std::pin::pin!(append(sink.as_ref(), at, at + 5000));
    for _ in 0..100 {
        assert!(futures::poll!(waiting.as_mut()).is_pending(), "nothing was sent");
        tokio::task::yield_now().await;
    }
    vault.come_back();
    waiting.await.unwrap();
    // More than ever fits goes alone.
    append(sink.as_ref(), at + 5000, at + 500_000).await.unwrap();
    sink.close().await.unwrap();
    vault.assert_reads(range(0, at + 500_000)).await;
}

#[tokio::test]
async fn closing_says_what_stays_behind() {
    let vault = Vault::new().await;
    let sink = vault.writer(vault.options("a")).await;
    vault.leave();
    keep(sink.as_ref(), 0, 5000, &[]).await;
    append(sink.as_ref(), 5000, 6000).await.unwrap();
    let error = sink.close().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let dir = vault.spool("a").display().to_string();
    assert!(error.to_string().contains(&dir) && error.to_string().contains(" bytes of log in "), "{error}");
    vault.come_back();
    // The first writer is still there, but it has ended.
    let next = vault.writer(vault.options("a")).await;
    let end = next.ledger().covered(&lineage()).end().unwrap();
    assert!(end >= 5000, "{end}");
    vault.assert_reads(range(0, end)).await;
}

#[tokio::test]
async fn a_fenced_writer_ends_and_what_it_acknowledged_is_stored_by_the_next() {
    let vault = Vault::new().await;
    let older = vault.writer(vault.options("a")).await;
    keep(older.as_ref(), 0, 1000, &[]).await;
    while !files(&vault.spool("a")).is_empty() {
        tokio::task::yield_now().await;
    }
    let newer = vault.writer(vault.options("b")).await;
    let from = newer.ledger().covered(&lineage()).end().unwrap_or(0);
    // The vault is not asked, so this is acknowledged.
    keep(older.as_ref(), 1000, 3000, &[]).await;
    let error = loop {
        match older.advanced(older.durable().as_ref()).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("fenced by log writer 2"), "{error}");
    assert!(error.to_string().contains(&vault.spool("a").display().to_string()), "{error}");
    append(newer.as_ref(), from, 2000).await.unwrap();
    newer.close().await.unwrap();
    assert_eq!(vault.covered().await, [0..2000]);
    let again = vault.writer(vault.options("a")).await;
    assert_eq!(again.ledger().covered(&lineage()).as_slice(), [0..3000]);
    again.close().await.unwrap();
    assert!(files(&vault.spool("a")).is_empty());
    vault.assert_reads(range(0, 3000)).await;
    vault.guard.assert_clean();
}

#[tokio::test]
async fn pieces_are_cut_later_while_the_vault_does_not_keep_up() {
    let vault = Vault::new().await;
    let sink = vault.writer(vault.options("a").flush_after(Duration::ZERO)).await;
    // Requests hang, so that nobody but the writer moves the clock.
    vault.faults.set_plan(FaultPlan::quiet().with(Fault::Stall, 1.0));
    let since = vault.env.clock().monotonic();
    for at in 0..100 {
        keep(sink.as_ref(), at, at + 1, &[]).await;
    }
    let waited = vault.env.clock().monotonic() - since;
    assert_eq!(files(&vault.spool("a")).len(), 100);
    // 10 µs for each piece that lay there when one was cut.
    let sum = Duration::from_micros(10 * 99 * 100 / 2);
    assert!(waited >= sum && waited < sum * 3, "{waited:?}, not about {sum:?}");
    // What fills a piece need not wait.
    let since = vault.env.clock().monotonic();
    append(sink.as_ref(), 100, 100 + (8 << 20)).await.unwrap();
    durable(sink.as_ref(), 100 + (8 << 20)).await.unwrap();
    assert_eq!(vault.env.clock().monotonic(), since);
    drop(sink);
    vault.come_back();
    vault.writer(vault.options("a")).await.close().await.unwrap();
    vault.assert_reads(range(0, 100 + (8 << 20))).await;
}

#[tokio::test]
async fn only_the_stream_has_a_spool() {
    let vault = Vault::new().await;
    let options = LogOptions::of(LogPurpose::Import).spool(vault.spool("a"));
    let error = vault.try_writer(options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(!vault.spool("a").exists());
}
