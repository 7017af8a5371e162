//! Redis and Valkey engine of the backup library: verified snapshots by replication, and every way back.
//!
//! A server of this family hands its whole dataset to whoever asks as a replica: one snapshot file (an RDB) at an exact
//! position of its replication stream, then every later change. Nothing runs on the server's host, nothing is written
//! there, and no client waits. So a backup is that file, parsed to its end while it streams, and the stream is the log
//! that leads from it to any later moment.
//!
//! Three ideas carry the crate. *A snapshot is not trusted until it is parsed*: the file names its own end, its checksum
//! and how many keys each database has, and all of that is compared before a backup may be committed. *A restore is never
//! a surprise*: a server that is fed a broken file ends itself, so everything is read and verified before the first byte
//! is served. *Values stay closed*: a value in the file is the payload of `DUMP` without its frame, so keys are filtered,
//! renamed, re-sharded and replayed without decoding what they hold.
//!
//! Everything that parses is pure, bounded by its input and never panics; everything that waits has a limit.
//!
//! # The rooms
//! - [`client`]: a small client: commands, and replication as a replica asks for it.
//! - [`engine`]: the deployment as something that can be backed up and restored: [`RedisEngine`] for one server and its replicas,
//!   [`RedisCluster`] for a cluster, whose primaries become members of one backup.
//! - [`look`]: a look inside a backup, without a server: keys, sizes, differences.
//! - [`node`]: the nodes of a deployment, what each says about itself, and which one is asked.
//! - [`rdb`]: the snapshot file: read as it comes, counted, checked, rewritten; payloads for `RESTORE`.
//! - [`restore`]: the ways back: into a running server, into files, key by key.
//! - [`stream`]: the replication stream: commands, transactions, moments, and where a restore stops.
//!
//! # Features
//! | feature | what it adds |
//! |---|---|
//! | `native-certs` | server certificates are judged by the certificate store of the operating system where no roots are given |
//! | `test-util` | snapshot files that no server wrote, for tests of what reads them |

mod capture;
pub mod client;
pub mod engine;
mod error;
pub mod look;
pub mod node;
pub mod rdb;
pub mod restore;
pub mod stream;

pub use engine::{Method, Persistence, RedisCluster, RedisDrill, RedisDrillSettings, RedisEngine, RedisSettings};
pub use error::{Error, Result};
pub use restore::RestoreSettings;
