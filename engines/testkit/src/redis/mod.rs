//! Real servers of the Redis family: Redis 6.2 to 8, Valkey 8 and 9.
//!
//! They start in a few milliseconds, so there are no templates. The test's settings are a configuration file in the server's own
//! temporary directory, outside of its data: a directory of restored files is started as it is. Readiness is asked for: a server
//! that answers `PING` has loaded what there was.

mod binaries;
mod builder;
mod client;
mod cluster;
mod contents;
mod sentinel;
mod server;
mod version;

pub use binaries::RedisBinaries;
pub use builder::{RedisBuilder, RedisPersistence};
pub use client::{RedisClient, Reply};
pub use cluster::{RedisCluster, SLOTS};
pub use contents::{Contents, contents, every_type};
pub use sentinel::RedisSentinels;
pub use server::Redis;
pub use version::{RedisVersion, redis_versions_under_test};
