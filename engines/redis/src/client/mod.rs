//! A small client of Redis and Valkey: what a backup needs, and nothing else.
//!
//! Client libraries know commands; none of them can ask as a replica does, where a snapshot comes in the middle of the answers and
//! signs of life come between them. So the few things that are needed are here: one connection over TCP, TLS or a Unix socket,
//! commands one by one or many at a time, and replication. Everything that waits has a limit, every length is checked before it is
//! believed, and a password is never shown.

mod address;
mod body;
mod connection;
mod replication;
mod reply;
mod secret;
mod settings;
mod tls;

pub use address::{Address, Endpoint, Watched};
pub use body::{Body, Taken};
pub(crate) use connection::Stream;
pub use connection::{Connection, Pipeline};
pub(crate) use replication::identifier;
pub use replication::{Answer, Framing, Link, StreamPosition, Wish};
pub use reply::{Decoder, Reply};
pub use secret::Secret;
pub use settings::{ClientSettings, TlsSettings, Trust};
pub(crate) use tls::acceptor;
