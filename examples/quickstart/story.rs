//! What happens, step by step.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use backup_core::catalog::BackupRecord;
use backup_core::engine::{Extracted, Work};
use backup_core::entry::Selector;
use backup_core::run::{self, BackupOptions};
use backup_core::{RecoveryTarget, ServiceId};
use backup_crypto::{Identity, Passphrase, Recipient};
use backup_examples::human::{count, duration, rate, size};
use backup_postgres::{PostgresEngine, PostgresSettings};
use backup_storage::store::{Store, StoreSettings};
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use backup_testkit::pgbench::{ChangeShape, ClusterDigest, Dataset, digest_cluster};
use backup_testkit::{self as testkit, PgVersion, Postgres, StopMode};

use crate::moment::{self, Capture};
use crate::report::{Narrator, comparison};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

pub(crate) const SHOP: &str = "shop";
const PASSPHRASE: &str = "correct horse battery staple";
/// Two runs tell the same story.
const SEED: u64 = 17;

/// One backup on its way from the source to a restored server.
pub(crate) struct Journey {
    pub(crate) record: BackupRecord,
    pub(crate) backup_time: Duration,
    /// Of every table of the source, at the time of the backup.
    digest: ClusterDigest,
    pub(crate) restored: Extracted,
    pub(crate) restore_time: Duration,
}

/// The whole story, with a database of about `bytes` bytes.
pub(crate) async fn tell(bytes: u64, work: &Work, say: &mut Narrator) -> Outcome<()> {
    let clock = work.env().clock();
    let begun = clock.monotonic();
    let scratch = testkit::scratch_dir()?;

    say.chapter("A database")?;
    let server = Postgres::builder(PgVersion::V17).base_dir(scratch.path()).start().await?;
    say.line(format!("PostgreSQL {} runs on port {}.", version(&server).await?, server.port()))?;
    server.connect("postgres").await?.batch_execute("create database shop").await?;
    let dataset = Dataset::realistic(bytes, SEED);
    dataset.load(&server, SHOP).await?;
    let (tables, rows) = extent(&digest_cluster(&server.config(SHOP)).await?);
    say.line(format!(
        "A shop's database is loaded: {} in {tables} tables with {} rows and their indexes.",
        size(database_size(&server).await?),
        count(rows)
    ))?;

    say.chapter("An encrypted repository")?;
    let vault = scratch.path().join("vault");
    let repository = create_repository(&vault, work).await?;
    say.line(format!("Created for service {SHOP} in {}, sealed with {}.", vault.display(), repository.suite()))?;
    let settings = PostgresSettings::default();
    let engine = PostgresEngine::new(settings.url(server.conn_string("postgres")).data_dir(server.data_dir()))?;

    say.chapter("The log is captured")?;
    let capture = Capture::start(&repository, server.conn_string("postgres"), work)?;
    say.line("From here on every change is on its way into the repository within a second, as to a standby.")?;

    say.chapter("A full backup")?;
    let full = back_up(&repository, &engine, &server, BackupOptions::full(), work).await?;
    say.backup(&full)?;

    say.chapter("One percent changes")?;
    let client = server.connect(SHOP).await?;
    let changed = dataset.change_fraction(&client, 0.01, ChangeShape::Clustered, 1).await?;
    drop(client);
    say.line(format!("{} rows that lie together were updated, as today's orders would be.", count(changed)))?;

    say.chapter("An incremental backup")?;
    let incremental = back_up(&repository, &engine, &server, BackupOptions::default(), work).await?;
    say.backup(&incremental)?;

    say.chapter("Somebody deletes the wrong rows")?;
    let moment = moment::accident(&server, say).await?;
    capture.finish(&repository, &server, work).await?;

    say.chapter("The database is destroyed")?;
    destroy(server).await?;
    say.line("The server was killed and its data directory removed. All that is left is the repository.")?;

    // Opened anew, as another machine would that has only the vault and the passphrase.
    drop(repository);
    let repository = open_repository(&vault, work).await?;
    let mut journeys = [full, incremental];
    for journey in &mut journeys {
        say.chapter(&format!("The {} backup is restored", journey.record.kind))?;
        let directory = scratch.path().join(format!("restored-{}", journey.record.kind));
        restore(&repository, journey, &directory, work).await?;
        say.line(format!(
            "{} written in {}, {}.",
            size(journey.restored.written_bytes),
            duration(journey.restore_time),
            rate(journey.restored.written_bytes, journey.restore_time)
        ))?;
        let mut server = Postgres::open(PgVersion::V17, &directory).await?;
        let digest = digest_cluster(&server.config(SHOP)).await?;
        server.stop(StopMode::Fast).await?;
        if digest != journey.digest {
            return Err(format!("the restored {} backup differs from its source", journey.record.kind).into());
        }
        let (tables, rows) = extent(&digest);
        say.line(format!(
            "It started, and the digest of each of its {tables} tables ({} rows) equals that of the source at the time.",
            count(rows)
        ))?;
        std::fs::remove_dir_all(&directory)?;
    }

    say.chapter("Back to the moment before the accident")?;
    moment::rewind(&repository, &moment, &scratch.path().join("rewound"), work, say).await?;

    say.chapter("Side by side")?;
    say.table(&comparison(&journeys))?;
    let stored: u64 = journeys.iter().map(|journey| journey.record.stored_bytes).sum();
    say.line("")?;
    say.line(format!(
        "Both backups together take {}, and each is restorable without the other. All of it took {}.",
        size(stored),
        duration(clock.monotonic().saturating_sub(begun))
    ))?;
    Ok(())
}

async fn create_repository(vault: &Path, work: &Work) -> Outcome<Repository> {
    let store = Store::open(&format!("file://{}", vault.display()), &StoreSettings::default())?;
    let recipients = vec![Recipient::from(Passphrase::new(PASSPHRASE)?)];
    let (options, settings) = (CreateOptions::default(), RepositorySettings::default());
    let service = ServiceId::new(SHOP)?;
    Ok(Repository::create(&store, service, recipients, options, &settings, work.env().clone()).await?)
}

async fn open_repository(vault: &Path, work: &Work) -> Outcome<Repository> {
    let store = Store::open(&format!("file://{}", vault.display()), &StoreSettings::default())?;
    let identity = Identity::from(Passphrase::new(PASSPHRASE)?);
    let settings = RepositorySettings::default();
    Ok(Repository::open(&store, ServiceId::new(SHOP)?, identity, &settings, work.env().clone()).await?)
}

async fn back_up(
    repository: &Repository,
    engine: &PostgresEngine,
    server: &Postgres,
    options: BackupOptions,
    work: &Work,
) -> Outcome<Journey> {
    let clock = work.env().clock();
    // Nobody writes, so this is also the state at the backup's end.
    let digest = digest_cluster(&server.config(SHOP)).await?;
    let begun = clock.monotonic();
    let record = run::backup(repository, engine, options, work).await?;
    let backup_time = clock.monotonic().saturating_sub(begun);
    Ok(Journey { record, backup_time, digest, restored: Extracted::default(), restore_time: Duration::ZERO })
}

async fn restore(repository: &Repository, journey: &mut Journey, directory: &Path, work: &Work) -> Outcome<()> {
    let clock = work.env().clock();
    let engine = PostgresEngine::new(PostgresSettings::default().data_dir(directory))?;
    let target = RecoveryTarget::backup(journey.record.id);
    let begun = clock.monotonic();
    let plan = run::plan_restore(repository, &engine, target, Selector::all(), work).await?;
    journey.restored = run::restore(&engine, &plan, work).await?.extracted;
    journey.restore_time = clock.monotonic().saturating_sub(begun);
    // PostgreSQL refuses to run as root, so a directory that root restored goes to the account that servers run as.
    testkit::unprivileged().own_tree(directory)?;
    Ok(())
}

async fn destroy(mut server: Postgres) -> Outcome<()> {
    server.kill9().await;
    std::fs::remove_dir_all(server.data_dir())?;
    Ok(())
}

async fn version(server: &Postgres) -> Outcome<String> {
    let client = server.connect("postgres").await?;
    Ok(client.query_one("select split_part(current_setting('server_version'), ' ', 1)", &[]).await?.try_get(0)?)
}

async fn database_size(server: &Postgres) -> Outcome<u64> {
    let client = server.connect("postgres").await?;
    let bytes: i64 = client.query_one("select pg_database_size('shop')", &[]).await?.try_get(0)?;
    Ok(u64::try_from(bytes)?)
}

/// Tables and rows of all databases, the system's large objects left out.
fn extent(digest: &ClusterDigest) -> (usize, u64) {
    let tables = || digest.values().flatten().filter(|(name, _)| !name.starts_with("pg_catalog."));
    (tables().count(), tables().map(|(_, table)| u64::try_from(table.rows).unwrap_or(0)).sum())
}
