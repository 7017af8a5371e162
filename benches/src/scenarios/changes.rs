//! An increment after a hundredth of the pages changed: by the log, and by comparing every block.

use std::path::Path;
use std::time::Duration;

use backup_testkit::tokio_postgres::types::PgLsn;
use backup_testkit::{PgVersion, Postgres};

use crate::Error;
use crate::chart;
use crate::figures::{Figures, table};
use crate::work::{Following, Work, measure};

/// Makes a table of `size` MB, a row in each page, and changes a hundredth of the rows before every increment.
#[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
pub(crate) async fn run(size: u64, runs: usize, out: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(out)?;
    println!("a database of {size} MB on PostgreSQL 17 is being made …");
    let server = Postgres::builder(PgVersion::V17)
        // On a disk, as servers are.
        .base_dir(std::env::temp_dir())
        .setting("max_wal_size", "8GB")
        .start()
        .await?;
    let client = server.connect("postgres").await?;
    let rows = size * 128;
    // The first vacuum of a table marks all of its pages, which is a change like any other: it is over before the first backup.
    client
        .batch_execute(&format!(
            "create table pages (id int primary key, filler text);
             alter table pages alter filler set storage plain;
             insert into pages select i, (select string_agg(md5(i::text || n), '') from generate_series(1, 200) n)
                 from generate_series(1, {rows}) i;"
        ))
        .await?;
    for sql in ["vacuum freeze pages", "checkpoint"] {
        client.batch_execute(sql).await?;
    }
    let scratch = tempfile::tempdir_in(out)?;
    let vault = scratch.path().join("vault");
    let url = format!("{} sslmode=disable", server.conn_string("postgres"));
    let backup = |changes: &str| {
        let (vault, url, changes) = (vault.clone(), url.clone(), changes.to_owned());
        measure(&Work::Backup { vault, url, changes })
    };
    let full = backup("auto")?;
    let capture = Following::start(&vault, &url, Duration::from_secs(1)).await?;
    let (mut by_log, mut compared) = (vec![], vec![]);
    for round in 0..runs * 2 {
        println!("round {} of {} …", round / 2 + 1, runs);
        let sql = format!("update pages set filler = reverse(filler) where hashint4(id) % 100 = {round}");
        client.batch_execute(&sql).await?;
        let end: PgLsn = client.query_one("select pg_current_wal_flush_lsn()", &[]).await?.get(0);
        capture.reaches(end.into()).await?;
        if round % 2 == 0 { by_log.push(backup("log")?) } else { compared.push(backup("never")?) }
    }
    capture.stop().await?;
    let all = [
        Figures::of("full", &[full]),
        Figures::of("1 % changed, by the log", &by_log),
        Figures::of("1 % changed, comparing every block", &compared),
    ];
    let read: Vec<f64> = by_log.iter().map(|cost| cost.content_read as f64 / cost.bytes as f64).collect();
    let most = read.iter().copied().fold(0.0, f64::max);
    let text = format!("{}\nBy the log, {:.2} % of the bytes were read at most.\n", table(&all), most * 100.0);
    let json = serde_json::json!({ "bench": "changes", "size_mb": size, "runs": runs, "figures": all, "read": read });
    std::fs::write(out.join("changes.json"), serde_json::to_string_pretty(&json)?)?;
    std::fs::write(out.join("changes.svg"), chart::seconds("PostgreSQL, 1 % of the pages changed", &all))?;
    std::fs::write(out.join("changes.md"), &text)?;
    println!("{text}\nwritten to {}", out.display());
    Ok(())
}
