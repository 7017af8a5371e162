//! PostgreSQL's log into a local vault and out of it, beside pgBackRest's asynchronous archiving and `pg_receivewal`; what following
//! it costs a busy server, and how far behind it is.

mod busy;
mod receive;

use std::path::{Path, PathBuf};

use backup_testkit::pgbench::Dataset;
use backup_testkit::tokio_postgres::types::PgLsn;
use backup_testkit::{Auth, PgVersion, Postgres};

use super::postgres::served;
use crate::contenders::ours::Ours;
use crate::contenders::pgbackrest::PgBackRest;
use crate::report::Report;
use crate::rounds::{Contender, Field, Phase};
use crate::work::Work;
use crate::{Common, Error};
use receive::Receive;

const PHASES: [Phase; 2] = [Phase::Archive, Phase::Fetch];
const VERSION: PgVersion = PgVersion::V15;

/// Writes `size` MB of log and has every contender store and fetch it; then commits under a load.
#[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
pub(crate) async fn run(size: u64, common: &Common) -> Result<(), Error> {
    let Common { runs, out } = common;
    std::fs::create_dir_all(out)?;
    println!("{size} MB of log on PostgreSQL {VERSION} are being written …");
    let server = Postgres::builder(VERSION)
        // On a disk, as servers are.
        .base_dir(std::env::temp_dir())
        .auth(Auth::Trust)
        .fsync(true)
        .setting("max_wal_size", "16GB")
        .setting("wal_keep_size", "16GB")
        // Segments are noted as ready and wait: contenders take them.
        .setting("archive_mode", "on")
        .setting("archive_command", "")
        .setting("max_replication_slots", "64")
        .setting("max_wal_senders", "64")
        .start()
        .await?;
    let client = server.connect("postgres").await?;
    // What keeps the log: one slot for each run.
    for round in 0..=*runs {
        for name in ["receive", "capture"] {
            let sql = format!("select pg_create_physical_replication_slot('{name}_{round}', true)");
            client.batch_execute(&sql).await?;
        }
    }
    Dataset::realistic(size << 20, 1).load(&server, "postgres").await?;
    client.batch_execute("select pg_switch_wal()").await?;
    let end: PgLsn = client.query_one("select pg_current_wal_flush_lsn()", &[]).await?.get(0);

    let here = served(&server);
    let scratch = tempfile::tempdir_in(std::path::absolute(out)?)?;
    let (segments, ready) = ready(&here.data, &scratch.path().join("ready"))?;
    let bytes = segments.len() as u64 * (16 << 20);
    let mut field = Field::new(server.pid());
    field.enter(capture(scratch.path(), &here.url, &end.to_string()));
    field.enter(import(scratch.path(), ready));
    field.enter_if_had(PgBackRest::new(scratch.path(), &here).map(|mut contender| {
        contender.segments = segments;
        Box::new(contender) as Box<dyn Contender>
    }));
    field.enter_if_had(
        Receive::new(scratch.path(), &here.url, &end.to_string()).map(|c| Box::new(c) as Box<dyn Contender>),
    );
    for round in 0..=*runs {
        println!("{}", if round > 0 { format!("round {round} of {runs} …") } else { "warming up …".to_owned() });
        field.setup()?;
        for phase in PHASES {
            field.turn(phase, bytes, round > 0)?;
        }
        field.check(Phase::Fetch, |output| {
            let found = crate::yardstick::size(output)?;
            if found < bytes { Err(format!("only {found} bytes of {bytes} came back").into()) } else { Ok(()) }
        })?;
        field.clean()?;
    }
    println!("commits under a load …");
    let busy = busy::measure(&server, &client, &scratch.path().join("busy")).await?;
    let settings = serde_json::json!({ "size_mb": size, "runs": runs, "server": VERSION.major(), "busy": busy });
    let title = format!("PostgreSQL's log, {} segments of 16 MB, local disk", bytes >> 24);
    let mut report = Report::new("wal", title, out, settings);
    report.take(&field, &PHASES, None);
    report.note(busy.text());
    report.note(
        "Archived is what lies in pg_wal, complete. pgBackRest is called once for each segment, one after the other, as a server \
         calls it; its processes in the background are counted. Capture and pg_receivewal get the same bytes from the server, whose \
         processor time stands beside theirs."
            .to_owned(),
    );
    report.write(out)
}

/// The segments that wait to be archived, in order, and a folder of links to them, as an archive command would have left it.
fn ready(data: &Path, folder: &Path) -> Result<(Vec<String>, PathBuf), Error> {
    std::fs::create_dir(folder)?;
    let (log, mut segments) = (data.join("pg_wal"), vec![]);
    for entry in std::fs::read_dir(log.join("archive_status"))? {
        let name = entry?.file_name();
        let Some(segment) = name.to_str().and_then(|name| name.strip_suffix(".ready")) else { continue };
        // A history file or a backup's label is not measured.
        if segment.len() == 24 {
            segments.push(segment.to_owned());
        }
    }
    segments.sort();
    for segment in &segments {
        std::fs::hard_link(log.join(segment), folder.join(segment))
            .or_else(|_| std::fs::copy(log.join(segment), folder.join(segment)).map(drop))?;
    }
    if segments.is_empty() {
        return Err("no segment waits to be archived".into());
    }
    Ok((segments, folder.to_owned()))
}

fn capture(base: &Path, url: &str, end: &str) -> Box<dyn Contender> {
    let (url, end) = (url.to_owned(), end.to_owned());
    let mut rounds = 0..;
    let ours = Ours::new(base, "ours, capture", move |place, vault, phase| {
        let vault = vault.to_owned();
        Ok(match phase {
            Phase::Archive => {
                let slot = format!("capture_{}", rounds.next().unwrap_or(0));
                Some(Work::Capture { vault, url: url.clone(), slot, end: end.clone() })
            }
            Phase::Fetch => Some(Work::Fetch { vault, into: place.make_restored()? }),
            _ => None,
        })
    });
    Box::new(ours.also("streamed from the server; indexed by commit; behind as it is, it compresses less"))
}

fn import(base: &Path, ready: PathBuf) -> Box<dyn Contender> {
    let ours = Ours::new(base, "ours, import", move |place, vault, phase| {
        let vault = vault.to_owned();
        Ok(match phase {
            Phase::Archive => Some(Work::Import { vault, dir: ready.clone() }),
            Phase::Fetch => Some(Work::Fetch { vault, into: place.make_restored()? }),
            _ => None,
        })
    });
    Box::new(ours.also("from a folder of segments, in one process; indexed by commit"))
}
