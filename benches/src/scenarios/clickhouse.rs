//! Parts of a ClickHouse server into a local vault and back into another server.

mod dataset;

use std::path::{Path, PathBuf};

use backup_clickhouse::{ClickHouse, ClickHouseSettings};
use backup_core::RecoveryTarget;
use backup_core::catalog::BackupRecord;
use backup_core::engine::Work as Context;
use backup_core::entry::Selector;
use backup_core::run::{BackupOptions, backup, plan_restore, restore};
use backup_testkit::{ClickHouse as Server, ClickHouseVersion};

use crate::Error;
use crate::figures::{Figures, table};
use crate::work::{self, Work, measure};
use crate::{chart, yardstick};
use dataset::Dataset;

const VERSION: ClickHouseVersion = ClickHouseVersion::V26;

/// Fills a server with about `size` MB, in about `files` files if that is said, and measures every contender `runs` times, in turn.
#[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
pub(crate) async fn run(size: u64, files: Option<u64>, runs: usize, out: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(out)?;
    println!("about {size} MB in {VERSION} are being written …");
    let source = server().await?;
    let dataset = Dataset::new(size << 20, files);
    dataset.fill(&source).await?;
    let dir = source.data_dir().join("store");
    let counted = yardstick::count(&dir)?;
    println!("{counted} files of {} MB", yardstick::size(&dir)? / 1_000_000);
    let scratch = tempfile::tempdir_in(out)?;

    // Every contender reads from the page cache.
    yardstick::compress(&dir, &scratch.path().join("warm-up"))?;
    let (mut zstd, mut full, mut again, mut grown, mut back) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..runs {
        println!("round {} of {runs} …", round + 1);
        let file = scratch.path().join("yardstick");
        zstd.push(measure(&Work::Zstd { dir: dir.clone(), out: file.clone() })?);
        std::fs::remove_file(&file)?;
        let vault = scratch.path().join("vault");
        let from = (source.url(), source.data_dir().to_owned());
        let backup = Work::ClickhouseBackup { vault: vault.clone(), url: from.0, data: from.1 };
        full.push(measure(&backup)?);
        again.push(measure(&backup)?);
        dataset.grow(&source).await?;
        grown.push(measure(&backup)?);
        let target = server().await?;
        let into = (target.url(), target.data_dir().to_owned());
        back.push(measure(&Work::ClickhouseRestore { vault: vault.clone(), url: into.0, data: into.1 })?);
        let digests = (dataset.digest(&source).await?, dataset.digest(&target).await?);
        if digests.0 != digests.1 {
            return Err(format!("{} was restored of {}", digests.1, digests.0).into());
        }
        std::fs::remove_dir_all(&vault)?;
    }
    let all = [
        Figures::of("zstd -1, all cores", &zstd),
        Figures::of("full backup", &full),
        Figures::of("second backup, nothing changed", &again),
        Figures::of("second backup, 1 % inserted", &grown),
        Figures::of("restore into another server", &back),
    ];
    let throughput = all[1].rate / all[0].rate;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let json = serde_json::json!({
        "bench": "clickhouse", "size_mb": size, "files": counted, "runs": runs, "cores": cores, "figures": all,
        "full_throughput_over_zstd": throughput,
        "full_cpu_over_zstd": all[1].cpu.median / all[0].cpu.median,
        "unchanged_over_full": all[2].wall.median / all[1].wall.median,
    });
    let name = if files.is_some() { "clickhouse-files" } else { "clickhouse" };
    std::fs::write(out.join(format!("{name}.json")), serde_json::to_string_pretty(&json)?)?;
    let title = format!("ClickHouse, {counted} files, local vault, page cache");
    std::fs::write(out.join(format!("{name}.svg")), chart::seconds(&title, &all))?;
    let text = table(&all);
    std::fs::write(out.join(format!("{name}.md")), &text)?;
    println!("{text}\nfull backup: {throughput:.2} × the throughput of zstd\nwritten to {}", out.display());
    Ok(())
}

/// A server on a disk, as servers are.
async fn server() -> Result<Server, Error> {
    Ok(Server::builder(VERSION).base_dir(std::env::temp_dir()).start().await?)
}

fn engine(url: &str, data: &Path) -> Result<ClickHouse, Error> {
    Ok(ClickHouse::new(ClickHouseSettings::default().url(url).data_dir(PathBuf::from(data)).identity("bench"))?)
}

/// A backup into the vault, which is made if it does not exist.
pub(crate) async fn take(vault: &Path, url: &str, data: &Path) -> Result<BackupRecord, Error> {
    let repository = work::made(vault).await?;
    let record = backup(&repository, &engine(url, data)?, BackupOptions::default(), &Context::default()).await?;
    match record.snapshot.findings.iter().find(|finding| finding.code == "part-damaged") {
        Some(finding) => Err(finding.to_string().into()),
        None => Ok(record),
    }
}

/// The newest backup into the running server at `url`; bytes of content.
pub(crate) async fn put_back(vault: &Path, url: &str, data: &Path) -> Result<(u64, u64), Error> {
    let repository = work::open(vault).await?;
    let (engine, work) = (engine(url, data)?, Context::default());
    let plan = plan_restore(&repository, &engine, RecoveryTarget::latest(), Selector::all(), &work).await?;
    let restored = restore(&engine, &plan, &work).await?;
    Ok((plan.footprint.bytes, restored.extracted.written_bytes))
}
