//! A server that a restored PostgreSQL streams its log from.
//!
//! A restored data directory needs the log behind it. The usual way is a `restore_command`, a program on the database's
//! host that fetches one segment at a time, and whose failure a server may take for the end of the log. Here the log is
//! served the way a primary serves it: the restored server is started as a standby, `primary_conninfo` names this
//! server, and it streams, replays and stops at its recovery target. There is no command and no program; a log that has
//! not come yet, or a store that fails, makes the restored server wait, never end early.
//!
//! [`WalServer`] speaks the server's side of the replication protocol, as receivers of versions 13 to 18 and
//! `pg_receivewal` use it: `IDENTIFY_SYSTEM`, `SHOW`, `TIMELINE_HISTORY`, `START_REPLICATION` over timelines, and the
//! commands for slots. It knows no SQL. Whoever connects proves by SCRAM-SHA-256 that it knows a token that is minted for each
//! server. Where the log is read from is a [`WalFeed`]; [`DirectoryFeed`] is one over a directory of segments.
//!
//! Three rules. *Nothing ends as if it were complete*: a stream ends with an error, with the connection, or at the end of a
//! timeline with the name of the next one. *Nothing grows without bound*: messages, connections, slots, what is read ahead and
//! what waits to be sent have limits, and every wait has an end. *A slow store does not show*: the next ranges are read while one
//! is being sent.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use backup_core::env::Env;
//! use backup_postgres::Lsn;
//! use backup_postgres::walsender::{DirectoryFeed, WalServer, WalServerOptions};
//!
//! # async fn example(target: Lsn) -> backup_core::Result<()> {
//! let env = Env::system();
//! let feed = DirectoryFeed::open("/srv/archive", &env).await?;
//! let server = WalServer::start(Arc::new(feed), WalServerOptions::default(), &env).await?;
//! println!("primary_conninfo = '{}'", server.conninfo());
//! // … start the restored server with standby.signal …
//! let mut progress = server.progress();
//! let _ = progress.wait_for(|progress| progress.applied() >= target).await;
//! # Ok(())
//! # }
//! ```

mod ahead;
mod command;
mod directory;
mod endpoint;
mod feed;
mod link;
mod options;
mod progress;
mod reply;
mod request;
mod route;
mod scram;
mod server;
mod session;
mod slots;
mod standby;
mod startup;
mod stream;

pub use self::command::Command;
pub use self::directory::DirectoryFeed;
pub use self::endpoint::Endpoint;
pub use self::feed::{FeedIdentity, LogEnd, WalFeed};
pub use self::options::{Listen, WalServerOptions};
pub use self::progress::{Progress, Replica};
pub use self::request::Request;
pub use self::server::WalServer;
pub use self::standby::{StandbyMessage, StandbyStatus};
pub use self::startup::{MAX_STARTUP_PACKET, Startup, StartupPacket};
