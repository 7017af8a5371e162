//! Somebody deletes the wrong rows, and the database comes back to the moment before.

use std::path::Path;
use std::time::Duration;

use backup_core::engine::{LogOptions, Work};
use backup_core::entry::Selector;
use backup_core::repository::Repository as _;
use backup_core::{Error, Goal, RecoveryTarget, run};
use backup_examples::human::{count, duration, size};
use backup_postgres::{PostgresEngine, PostgresSettings, Replay};
use backup_storage::Repository;
use backup_testkit::pgbench::{ClusterDigest, digest_cluster};
use backup_testkit::{self as testkit, PgVersion, Postgres, StopMode};
use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::report::Narrator;
use crate::story::{Outcome, SHOP};

/// How often it is looked whether something has happened that nobody tells.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A capture of the log in the background.
pub(crate) struct Capture {
    cancel: CancellationToken,
    task: JoinHandle<backup_core::Result<()>>,
}

impl Capture {
    /// Follows the log of the server at `url` into `repository`.
    pub(crate) fn start(repository: &Repository, url: String, work: &Work) -> Outcome<Self> {
        let engine = PostgresEngine::new(PostgresSettings::default().url(url))?;
        let cancel = work.cancel().child_token();
        let work = Work::new(work.env().clone()).with_cancel(cancel.clone());
        let repository = repository.clone();
        let task =
            tokio::spawn(
                async move { run::capture(&repository, &engine, LogOptions::default(), &work).await.map(drop) },
            );
        Ok(Self { cancel, task })
    }

    /// Waits until everything that `server` has committed is stored, and ends.
    pub(crate) async fn finish(self, repository: &Repository, server: &Postgres, work: &Work) -> Outcome<()> {
        let end = u64::from(server.current_lsn().await?);
        loop {
            let ledger = repository.log().await?.ledger();
            if ledger.trunk().and_then(|trunk| ledger.covered(trunk).end()).is_some_and(|stored| stored >= end) {
                break;
            }
            if self.task.is_finished() {
                break;
            }
            work.env().clock().sleep(LOOK_EVERY).await;
        }
        self.cancel.cancel();
        Ok(self.task.await.map_err(|e| Error::internal("the capture panicked").with_source(e))??)
    }
}

/// The moment before something that nobody wanted.
pub(crate) struct Moment {
    at: Timestamp,
    digest: ClusterDigest,
}

/// Deletes what should have stayed.
pub(crate) async fn accident(server: &Postgres, say: &mut Narrator) -> Outcome<Moment> {
    let client = server.connect(SHOP).await?;
    let digest = digest_cluster(&server.config(SHOP)).await?;
    let now = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
    let micros: i64 = client.query_one(now, &[]).await?.try_get(0)?;
    let at = Timestamp::from_microsecond(micros)?;
    let deleted = client.execute("delete from shop.orders", &[]).await?;
    say.line(format!(
        "At {at} all was well. Then a DELETE lacked its condition, and {} orders were gone.",
        count(deleted)
    ))?;
    Ok(Moment { at, digest })
}

/// Brings the database back to `moment`, streaming the log from this process.
pub(crate) async fn rewind(
    repository: &Repository,
    moment: &Moment,
    directory: &Path,
    work: &Work,
    say: &mut Narrator,
) -> Outcome<()> {
    let clock = work.env().clock();
    let begun = clock.monotonic();
    std::fs::create_dir_all(directory)?;
    // PostgreSQL refuses to run as root: what root restores goes to the account that owns the directory.
    testkit::unprivileged().own_tree(directory)?;
    let settings = PostgresSettings::default().data_dir(directory).replay(Replay::Serve);
    let engine = PostgresEngine::new(settings)?;
    let target = RecoveryTarget::new(Goal::Time(moment.at));
    let plan = run::plan_restore(repository, &engine, target, Selector::all(), work).await?;
    let log = plan.log().map_or(0, |log| log.path().len());
    say.line(format!(
        "The newest backup before that moment is of {}; {} of log lie behind it.",
        plan.backup.ended_at,
        size(log)
    ))?;
    let served = work.clone();
    let serving = tokio::spawn(async move { run::restore(&engine, &plan, &served).await });
    // The server can be started as soon as the control file is in its place and the mark of an unfinished restore is gone.
    let ready =
        || directory.join("global/pg_control").exists() && !directory.join("backup_restore_in_progress").exists();
    while !ready() && !serving.is_finished() {
        clock.sleep(LOOK_EVERY).await;
    }
    if serving.is_finished() {
        serving.await.map_err(|e| Error::internal("the restore panicked").with_source(e))??;
        return Err("the restore ended before its server was started".into());
    }
    let mut server = Postgres::open(PgVersion::V17, directory).await?;
    serving.await.map_err(|e| Error::internal("the restore panicked").with_source(e))??;
    server.wait_writable(Duration::from_secs(60)).await?;
    let digest = digest_cluster(&server.config(SHOP)).await?;
    server.stop(StopMode::Fast).await?;
    if digest != moment.digest {
        return Err("the database is not what it was before the accident".into());
    }
    say.line(format!(
        "It was started, streamed its log from this process, stopped at the last commit of that moment and became a primary: {} in all.",
        duration(clock.monotonic().saturating_sub(begun))
    ))?;
    say.line("The digest of every table equals that of the moment before the accident.")?;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
