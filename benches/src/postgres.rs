//! A PostgreSQL data directory into a local vault and back.

use std::path::Path;

use backup_testkit::pgbench::Dataset;
use backup_testkit::{PgVersion, Postgres};

use crate::figures::{Figures, table};
use crate::process::{Work, measure};
use crate::{chart, yardstick};

type Error = Box<dyn std::error::Error>;

/// Makes a database of `size` MB and measures every contender `runs` times, in turn.
#[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
pub(crate) async fn run(size: u64, runs: usize, out: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(out)?;
    println!("a database of {size} MB on PostgreSQL 17 is being made …");
    let server = Postgres::builder(PgVersion::V17).base_dir(std::env::temp_dir()).start().await?;
    Dataset::realistic(size << 20, 1).load(&server, "postgres").await?;
    let client = server.connect("postgres").await?;
    client.batch_execute("CHECKPOINT").await?;
    let dir = server.data_dir().to_owned();
    let scratch = tempfile::tempdir_in(out)?;
    let url = format!("{} sslmode=disable", server.conn_string("postgres"));

    // Every contender reads from the page cache.
    yardstick::compress(&dir, &scratch.path().join("warm-up"))?;
    let (mut zstd, mut full, mut again, mut back, mut verify) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..runs {
        println!("round {} of {runs} …", round + 1);
        let file = scratch.path().join("yardstick");
        zstd.push(measure(&Work::Zstd { dir: dir.clone(), out: file.clone() })?);
        std::fs::remove_file(&file)?;
        let vault = scratch.path().join(format!("vault-{round}"));
        let backup = Work::Backup { vault: vault.clone(), url: url.clone(), changes: "auto".to_owned() };
        full.push(measure(&backup)?);
        again.push(measure(&backup)?);
        let into = scratch.path().canonicalize()?.join("restored");
        back.push(measure(&Work::Restore { vault: vault.clone(), into: into.clone() })?);
        verify.push(measure(&Work::Verify { vault: vault.clone() })?);
        std::fs::remove_dir_all(&into)?;
        std::fs::remove_dir_all(&vault)?;
    }
    let all = [
        Figures::of("zstd -1, all cores", &zstd),
        Figures::of("full backup", &full),
        Figures::of("incremental, nothing changed", &again),
        Figures::of("restore", &back),
        Figures::of("verify, full", &verify),
    ];
    let ratio = |a: usize, b: usize| all[a].wall.median / all[b].wall.median;
    let throughput = all[1].rate / all[0].rate;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let json = serde_json::json!({
        "bench": "postgres", "size_mb": size, "runs": runs, "cores": cores, "figures": all,
        "full_throughput_over_zstd": throughput, "unchanged_over_full": ratio(2, 1),
    });
    std::fs::write(out.join("postgres.json"), serde_json::to_string_pretty(&json)?)?;
    std::fs::write(out.join("postgres.svg"), chart::seconds("PostgreSQL, local vault, page cache", &all))?;
    let text = table(&all);
    std::fs::write(out.join("postgres.md"), &text)?;
    println!(
        "{text}\nfull backup: {throughput:.2} × the throughput of zstd; unchanged: {:.2} × the time of full",
        ratio(2, 1)
    );
    println!("written to {}", out.display());
    Ok(())
}
