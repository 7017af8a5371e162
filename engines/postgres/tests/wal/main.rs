//! The log of real servers: the reader finds what the server itself finds in its log, record by record and block
//! by block, and what the clients saw happen; the map of changes covers what the server's own does, and every page that differs.
#![allow(clippy::unwrap_used)]

mod changes;
mod ledger;
mod load;
mod server_log;
mod timelines;
mod walinspect;
