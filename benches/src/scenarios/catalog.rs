//! A vault with very many backups: how long it takes until its catalog is known.

use std::path::Path;

use backup_core::engine::Work as Context;
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::repository::{ParentChoice, Repository as _};
use backup_core::{BackupSinkExt, Consistency, Snapshot};
use backup_storage::RepositorySettings;

use crate::Error;
use crate::figures::Spread;
use crate::measure::Cost;
use crate::work::{Work, made, made_with, measure};

/// Takes `backups` backups of next to nothing, and opens the vault in new processes.
#[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
pub(crate) async fn run(backups: u64, runs: usize, out: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(out)?;
    let scratch = tempfile::tempdir_in(out)?;
    let vault = scratch.path().join("vault");
    println!("{backups} backups are being taken …");
    fill(&vault, backups).await?;
    let opened = || -> Result<Vec<Cost>, Error> {
        (0..runs).map(|_| measure(&Work::Catalog { vault: vault.clone() })).collect()
    };
    let repository = made(&vault).await?;
    // Backups make checkpoints by themselves when nobody collects; what is measured is behind all of them, and then none is.
    let before = opened()?;
    repository.checkpoint_catalog().await?;
    let after = opened()?;
    let stored = size(&vault.join("bench/checkpoints"))?;
    repository.catalog().await?;
    let metrics = || {
        let metrics = repository.store().metrics();
        metrics.get.requests + metrics.head.requests + metrics.list.requests
    };
    let asked = metrics();
    repository.catalog().await?;
    let warm = metrics() - asked;
    let row = |name: &str, costs: &[Cost]| {
        let of = |value: fn(&Cost) -> f64| Spread::of(costs.iter().map(value));
        let (wall, cpu, rss) = (of(|c| c.wall), of(|c| c.cpu), of(|c| c.rss));
        let requests = costs.last().and_then(|cost| cost.requests).unwrap_or(0);
        format!(
            "| {name} | {:.2} ({:.2}–{:.2}) | {:.2} | {:.0} | {requests} |\n",
            wall.median, wall.min, wall.max, cpu.median, rss.max
        )
    };
    let mut text = String::from("| | wall s (min–max) | CPU s | peak RSS MiB | requests |\n|---|---|---|---|---|\n");
    text += &row("opened behind the last checkpoint of a backup", &before);
    text += &row("opened behind a new checkpoint", &after);
    text += &format!(
        "\n{backups} backups, checkpoints of {:.1} MB; looking again takes {warm} requests.\n",
        stored as f64 / 1e6,
    );
    let json = serde_json::json!({
        "bench": "catalog", "backups": backups, "runs": runs, "before": before, "after": after,
        "checkpoint_bytes": stored, "warm_requests": warm,
    });
    std::fs::write(out.join("catalog.json"), serde_json::to_string_pretty(&json)?)?;
    std::fs::write(out.join("catalog.md"), &text)?;
    println!("{text}\nwritten to {}", out.display());
    Ok(())
}

/// Takes the backups with little memory and one worker: what is filled here is a catalog, and buffers for large packs would be most of the time.
pub(super) async fn fill(vault: &Path, backups: u64) -> Result<(), Error> {
    let small = RepositorySettings::default().workers(1).memory_budget(64 << 20).pack_size(4 << 20);
    let repository = made_with(vault, &small).await?;
    let work = Context::default();
    for number in 0..backups {
        let session = repository.begin(ParentChoice::None, &work).await?;
        let meta = EntryMeta::file(EntryPath::new("file")?);
        session.sink().put_bytes(meta, number.to_le_bytes().to_vec().into()).await?;
        let now = work.env().now();
        session.commit(Snapshot::new("bench", "1", "source", "memory", Consistency::PointInTime, (now, now))).await?;
    }
    Ok(())
}

/// Bytes of all files below `dir`.
fn size(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { size(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}
