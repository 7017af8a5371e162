//! A PostgreSQL server beside pgBackRest, WAL-G and `pg_basebackup`: full, incremental, restore, delta restore.

mod damage;

use std::path::Path;

use backup_testkit::pgbench::Dataset;
use backup_testkit::tokio_postgres::Client;
use backup_testkit::{Auth, PgVersion, Postgres};

use crate::contenders::ours::Ours;
use crate::contenders::pgbackrest::PgBackRest;
use crate::contenders::{BaseBackup, Server, WalG};
use crate::report::Report;
use crate::rounds::{Contender, Field, Phase};
use crate::work::Work;
use crate::{Common, Error, yardstick};
use damage::Damage;

const PHASES: [Phase; 7] = [
    Phase::Full,
    Phase::Restore,
    Phase::Unchanged,
    Phase::Changed(1),
    Phase::Changed(10),
    Phase::RestoreAgain,
    Phase::Delta,
];
/// Hundredths of the database that are a table with a row in each page, of which pages are changed one by one.
const PAGES: u64 = 25;

/// Makes a database of `size` MB on `version` and takes every contender through all phases.
#[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
pub(crate) async fn run(size: u64, version: PgVersion, common: &Common) -> Result<(), Error> {
    let Common { runs, out } = common;
    std::fs::create_dir_all(out)?;
    println!("a database of {size} MB on PostgreSQL {version} is being made …");
    let (server, client) = database(size, version).await?;
    let here = served(&server);
    let scratch = backup_testkit::scratch_dir_in(&std::path::absolute(out)?)?;
    let mut field = Field::new(server.pid());
    field.enter(ours(scratch.path(), &here));
    field.enter_if_had(PgBackRest::new(scratch.path(), &here).map(boxed));
    field.enter_if_had(WalG::new(scratch.path(), &here, version.major()).map(boxed));
    field.enter_if_had(BaseBackup::new(scratch.path(), &here).map(boxed));

    // Every contender reads from the page cache.
    yardstick::compress(&here.data, &scratch.path().join("warm-up"))?;
    std::fs::remove_file(scratch.path().join("warm-up"))?;
    let mut yard = vec![];
    for round in 0..=*runs {
        let counted = round > 0;
        println!("{}", if counted { format!("round {round} of {runs} …") } else { "warming up …".to_owned() });
        let file = scratch.path().join("yardstick");
        let cost = crate::work::measure(&Work::Zstd { dir: here.data.clone(), out: file.clone() })?;
        std::fs::remove_file(file)?;
        if counted {
            yard.push(cost);
        }
        field.setup()?;
        for phase in PHASES {
            change(&client, size, phase, round).await?;
            let damaged: Vec<_> = match phase {
                Phase::Delta => {
                    let restored = field.outputs(Phase::RestoreAgain);
                    restored.iter().map(|dir| damage::inflict(dir)).collect::<Result<_, Error>>()?
                }
                _ => vec![],
            };
            let bytes = content(&here.data)?;
            field.turn(phase, bytes, counted)?;
            match phase {
                Phase::Restore | Phase::RestoreAgain => field.check(phase, |output| whole(output, bytes))?,
                Phase::Delta => {
                    let done =
                        |output: &Path| damaged.iter().filter(|d| d.is_in(output)).try_for_each(Damage::is_mended);
                    field.check(phase, done)?;
                }
                _ => {}
            }
        }
        field.clean()?;
    }
    let title = format!("PostgreSQL {version}, {size} MB, local disk, page cache");
    let settings = serde_json::json!({ "size_mb": size, "runs": runs, "server": version.major() });
    let mut report = Report::new("postgres", title, out, settings);
    report.take(&field, &PHASES, None);
    report.compare(
        "yardstick: zstd −1 on all processors over the same files, no encryption, no sync".to_owned(),
        "yardstick".to_owned(),
        vec![crate::figures::Figures::of("zstd −1", &yard)],
    );
    report.note(format!(
        "Changed pages are spread evenly over a table that is {PAGES} % of the database. Damaged before a restore over a directory: {} \
         files in one block each. Stored is what the repository, or the restored directory, grew by. WAL that lies in the server's \
         pg_wal is what our increments ask for what changed; where it does not reach back they compare every block.",
        damage::FILES,
    ));
    report.write(out)
}

fn boxed<'a, C: Contender + 'a>(contender: C) -> Box<dyn Contender + 'a> {
    Box::new(contender)
}

fn ours(base: &Path, server: &Server) -> Box<dyn Contender> {
    let url = server.url.clone();
    let ours = Ours::new(base, "ours", move |place, vault, phase| {
        let vault = vault.to_owned();
        Ok(match phase {
            Phase::Full | Phase::Unchanged | Phase::Changed(_) => {
                Some(Work::Backup { vault, url: url.clone(), changes: "auto".to_owned() })
            }
            Phase::Restore | Phase::RestoreAgain => {
                Some(Work::Restore { vault, into: place.make_restored()?, delta: false })
            }
            Phase::Delta => Some(Work::Restore { vault, into: place.restored(), delta: true }),
            Phase::Archive | Phase::Fetch => None,
        })
    });
    Box::new(ours.also("checks every page; the log that a backup needs is in it"))
}

/// A server with the realistic dataset and a table of single pages.
pub(super) async fn database(size: u64, version: PgVersion) -> Result<(Postgres, Client), Error> {
    let server = Postgres::builder(version)
        // On a disk, as servers are.
        .base_dir(std::env::temp_dir())
        .auth(Auth::Trust)
        .setting("max_wal_size", "16GB")
        .setting("autovacuum", "off")
        .setting("archive_mode", "on")
        // Nothing is archived: archiving has a scenario of its own.
        .setting("archive_command", "/bin/true")
        .setting("max_wal_senders", "8")
        .start()
        .await?;
    Dataset::realistic((size << 20) * (100 - PAGES) / 100, 1).load(&server, "postgres").await?;
    let client = server.connect("postgres").await?;
    let rows = size * 128 * PAGES / 100;
    // A page has room for a second version of its row, so that changing the row changes this page and no other.
    client
        .batch_execute(&format!(
            "create table pages (id int primary key, filler text) with (fillfactor = 45);
             alter table pages alter filler set storage plain;
             insert into pages select i, (select string_agg(md5(i::text || n), '') from generate_series(1, 100) n)
                 from generate_series(1, {rows}) i;"
        ))
        .await?;
    for sql in ["vacuum freeze analyze pages", "select pg_switch_wal()", "checkpoint"] {
        client.batch_execute(sql).await?;
    }
    Ok((server, client))
}

pub(super) fn served(server: &Postgres) -> Server {
    Server {
        data: server.data_dir().to_owned(),
        sockets: server.socket_dir(),
        port: server.port(),
        url: format!("{} sslmode=disable", server.conn_string("postgres")),
    }
}

/// Changes as many pages as `phase` wants.
async fn change(client: &Client, size: u64, phase: Phase, round: usize) -> Result<(), Error> {
    let Phase::Changed(percent) = phase else { return Ok(()) };
    let pages = size * 128 * u64::from(percent) / 100;
    let rows = size * 128 * PAGES / 100;
    let every = (rows / pages.max(1)).max(1);
    let sql = format!("update pages set filler = reverse(filler) where id % {every} = {}", round as u64 % every);
    client.execute(&sql, &[]).await?;
    client.batch_execute("checkpoint").await?;
    Ok(())
}

/// Bytes of the data directory without its log.
pub(super) fn content(data: &Path) -> Result<u64, Error> {
    Ok(yardstick::size(data)? - yardstick::size(&data.join("pg_wal"))?)
}

/// Whether what was restored is about as large as what was backed up: a contender that does less is not faster.
fn whole(output: &Path, expected: u64) -> Result<(), Error> {
    let found = yardstick::size(output)?;
    if found < expected / 100 * 95 {
        return Err(format!("only {found} bytes of {expected} are there").into());
    }
    Ok(())
}
