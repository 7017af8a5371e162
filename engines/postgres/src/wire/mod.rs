//! A small client for PostgreSQL's wire protocol: simple queries and replication, nothing else.
//!
//! Why it exists is written in `docs/decisions/0004-postgres-client.md`. Two rules: no length that a server claims is
//! believed before the bytes are there and under the limit, and every wait has an end.

mod certificate;
mod channel;
mod connect;
mod copy;
mod message;
mod row;
mod session;
mod slot;
mod startup;
mod tls;
mod transport;

pub use self::certificate::server_end_point;
pub use self::copy::{CopyBoth, CopyIn, CopyOut};
pub use self::message::{Authentication, DEFAULT_MAX_MESSAGE, Message, decode};
pub use self::row::{ResultSet, Row};
pub(crate) use self::session::name as message_name;
pub use self::session::{Session, SessionKind, SystemIdentity};
pub use self::slot::ReplicationSlot;
