//! Real servers for tests, examples and benchmarks: provisioned on demand, run without privileges, gone with the test.
//!
//! A backup is proven by restoring it into the real thing, so the tests of this project (and of engines that others
//! write against it) start the real thing. Three ideas:
//!
//! - **Had or not had is decided in one place.** A server comes from the caller (an environment variable names a
//!   directory) or is fetched by exact version through ordinary package clients into a [cache](Cache) outside the tree;
//!   after the first time that is offline. Where it can't be had a test [says so loudly and is skipped](or_skip), and
//!   with `BACKUP_TESTKIT=require` it fails.
//! - **A server never outlives its test**: not by return, not by panic, not by `kill -9` of the test process. Each has
//!   a watchdog that notices the death of the test process and ends exactly that server.
//! - **Nothing is shared between tests** but the cache: every server has its own port, directory and log, and an error
//!   shows the end of that log.
//!
//! ```
//! use backup_testkit::{self as testkit, PgVersion, Postgres, StopMode};
//!
//! # #[tokio::main] async fn main() -> testkit::Result<()> {
//! let mut server = testkit::require_or_skip!(Postgres::builder(PgVersion::V17).start().await, Ok(()));
//! let client = server.connect("postgres").await?;
//! client.batch_execute("create table t as select generate_series(1, 1000) as id").await?;
//! let before = testkit::pgbench::digest(&client).await?;
//!
//! server.stop(StopMode::Immediate).await?;
//! server.start().await?;
//! assert_eq!(before, testkit::pgbench::digest(&server.connect("postgres").await?).await?);
//! # Ok(()) }
//! ```
//!
//! | environment variable | meaning |
//! |---|---|
//! | `BACKUP_TESTKIT=require` | a server that can't be had is a failure, not a skip |
//! | `BACKUP_TESTKIT_CACHE` | the cache; default: the user's cache directory, as root `/var/cache/backup-testkit` |
//! | `BACKUP_TESTKIT_USER` | the account that servers run as when the test runs as root; default `nobody` |
//! | `BACKUP_TESTKIT_POSTGRES=15,17` | the versions that [`versions_under_test`] lists |
//! | `BACKUP_TESTKIT_POSTGRES_17=/dir` | use that installation of PostgreSQL 17 (likewise 13 to 18) |
//! | `BACKUP_TESTKIT_REDIS=redis-7.4,valkey-9.1` | the versions that [`redis_versions_under_test`] lists |
//! | `BACKUP_TESTKIT_REDIS_7_4=/file` | use that program for Redis 7.4 (likewise `BACKUP_TESTKIT_VALKEY_9_1`) |
//! | `BACKUP_TESTKIT_CLICKHOUSE=18.16,26` | the versions that [`clickhouse_versions_under_test`] lists |
//! | `BACKUP_TESTKIT_CLICKHOUSE_26=/dir` | use that installation of ClickHouse 26 (likewise `…_18_16`) |
//! | `BACKUP_TESTKIT_DEBIAN_MIRROR=http://…` | where packages of Debian come from |
//! | `BACKUP_TESTKIT_ZOOKEEPER=/dir` | use the archives of that installation of ZooKeeper |
//! | `BACKUP_TESTKIT_VERSITYGW=/file` | use that S3 gateway |
//! | `BACKUP_TESTKIT_MINIO=/file` | use that MinIO |
//! | `BACKUP_TESTKIT_AZURITE=/dir` | use the Azurite in the `node_modules` of that directory |
//! | `BACKUP_TESTKIT_FAKE_GCS=/file`, `BACKUP_TESTKIT_WEBDAV=/file` | use those programs, built from `stores/front` |
//!
//! Servers: [`Postgres`] 13 to 18 with standbys and existing directories, [`Redis`] 6.2 to 8.2 and Valkey 8.1 and 9.1 with
//! replicas and [clusters](redis::RedisCluster), [`ClickHouse`] 18.16 and 26, [`ZooKeeper`], and the object stores [`Versity`] and
//! [`Minio`] (S3), [`Azurite`] (Azure), [`FakeGcs`] (Cloud Storage), [`WebDav`] (HTTP, for reading). Workloads and comparison
//! of databases: [`pgbench`].

mod cache;
mod certificate;
pub mod clickhouse;
pub mod debian;
mod error;
mod golang;
mod identity;
mod offload;
pub mod pgbench;
mod postgres;
mod process;
pub mod redis;
mod require;
mod scratch;
mod small_disk;
mod stores;
pub mod wait;
mod wheel;
mod zookeeper;

pub use cache::Cache;
pub use clickhouse::{ClickHouse, ClickHouseVersion, clickhouse_versions_under_test};
pub use error::{Error, Result};
pub use identity::{Identity, unprivileged};
pub use postgres::{
    Auth, PgBinaries, PgVersion, Postgres, PostgresBuilder, ServerClock, StopMode, versions_under_test,
};
pub use redis::{Redis, RedisVersion, redis_versions_under_test};
pub use require::{or_skip, required};
pub use scratch::{scratch_dir, scratch_dir_in};
pub use small_disk::SmallDisk;
pub use stores::{Azurite, FakeGcs, Minio, Versity, WebDav};
pub use zookeeper::ZooKeeper;

/// Types of the client library that appear in this crate's interface.
pub use tokio_postgres;
