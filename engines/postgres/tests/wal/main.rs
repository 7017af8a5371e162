//! The reader of the log against real servers: it finds what the server itself finds in its log, record by record and block
//! by block, and what the clients saw happen.
#![allow(clippy::unwrap_used)]

mod ledger;
mod load;
mod server_log;
mod timelines;
mod walinspect;
