//! A store that is far away: an S3 server behind a line of 1 Gbit/s and 20 ms, where only overlap helps. Beside restic.

mod line;

use std::time::Duration;

use backup_testkit::Versity;

use super::files::{directory, same};
use super::trees::Tree;
use crate::contenders::Restic;
use crate::report::Report;
use crate::rounds::{Field, Phase};
use crate::{Common, Error, yardstick};
use line::Line;

const BYTES_PER_SECOND: f64 = 125e6;
const ROUND_TRIP: Duration = Duration::from_millis(20);
const PHASES: [Phase; 3] = [Phase::Full, Phase::Unchanged, Phase::Restore];
const BUCKETS: [&str; 2] = ["ours", "restic"];

/// Makes trees of `size` MB and takes every contender through all phases.
#[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
pub(crate) async fn run(size: u64, common: &Common) -> Result<(), Error> {
    let Common { runs, out } = common;
    std::fs::create_dir_all(out)?;
    let settings = serde_json::json!({
        "size_mb": size, "runs": runs, "bytes_per_second": BYTES_PER_SECOND, "round_trip_ms": ROUND_TRIP.as_millis() as u64,
    });
    let title = format!("plain files, {size} MB, S3 behind 1 Gbit/s and 20 ms");
    let mut report = Report::new("slow", title, out, settings);
    for tree in [Tree::Incompressible, Tree::ManySmall] {
        let scratch = tempfile::tempdir_in(std::path::absolute(out)?)?;
        let dir = scratch.path().join("tree");
        println!("{} of {size} MB are being made …", tree.title());
        let files = tree.plant(&dir, size << 20)?;
        let bytes = yardstick::size(&dir)?;
        let mut field = Field::new(None);
        let mut counted = 0;
        for round in 0..=*runs {
            println!("{}", if round > 0 { format!("round {round} of {runs} …") } else { "warming up …".to_owned() });
            // A new one for each round, so that each begins with empty buckets.
            let store = Versity::start().await?;
            for bucket in BUCKETS {
                store.create_bucket(bucket)?;
            }
            let behind = store.endpoint().rsplit(':').next().and_then(|port| port.parse().ok()).ok_or("no port")?;
            let line = Line::to(behind, BYTES_PER_SECOND, ROUND_TRIP).await?;
            let endpoint = format!("http://127.0.0.1:{}", line.port());
            let credentials = vec![
                ("AWS_ENDPOINT", endpoint.clone()),
                ("AWS_ALLOW_HTTP", "true".to_owned()),
                ("AWS_REGION", store.region().to_owned()),
                ("AWS_DEFAULT_REGION", store.region().to_owned()),
                ("AWS_ACCESS_KEY_ID", store.access_key().to_owned()),
                ("AWS_SECRET_ACCESS_KEY", store.secret_key().to_owned()),
            ];
            let ours = directory(scratch.path(), &dir);
            let objects = store.data_dir().join(BUCKETS[0]);
            field.seat(Box::new(ours.at("s3://ours/vault".to_owned(), objects, credentials.clone())));
            field.seat_if_had("restic", || {
                let restic = Restic::new(scratch.path(), &dir)?;
                let objects = store.data_dir().join(BUCKETS[1]);
                Ok(Box::new(restic.at(&endpoint, BUCKETS[1], objects, credentials)))
            });
            // The line lives in this process: its threads must run while contenders do.
            tokio::task::block_in_place(|| -> Result<(), Error> {
                field.setup()?;
                for phase in PHASES {
                    field.turn(phase, bytes, round > 0)?;
                }
                field.check(Phase::Restore, |output| same(&dir, output))?;
                field.clean()
            })?;
            counted += usize::from(round > 0);
        }
        let name = format!("{files} {}", tree.title());
        report.take(&field, &PHASES, Some((&name, tree.slug())));
        if counted > 0 {
            note(&mut report, &field, &name);
        }
    }
    report.write(out)
}

/// How much of the line was used: what went over it is what was stored.
fn note(report: &mut Report, field: &Field, name: &str) {
    let (full, restore) = (field.figures(Phase::Full), field.figures(Phase::Restore));
    for figures in &full {
        let stored = figures.stored as f64;
        let share = |seconds: f64| stored / seconds / BYTES_PER_SECOND * 100.0;
        let back = restore.iter().find(|f| f.name == figures.name).map_or(f64::INFINITY, |f| f.wall.median);
        report.note(format!(
            "{name}, {}: {:.0} % of the line for the backup, {:.0} % for the restore.",
            figures.name,
            share(figures.wall.median),
            share(back),
        ));
    }
}
