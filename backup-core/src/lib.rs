//! Vocabulary, traits, catalog and orchestration of the backup library.
//!
//! Three ideas carry everything:
//!
//! - An **engine** ([`BackupEngine`]) is a handle on one deployment. It reads the deployment into a [`BackupSink`] and writes
//!   it from a [`BackupSource`], and knows nothing of keys, object names or retention.
//! - A **repository** ([`repository::Repository`]) is everything stored for one service. A backup is written in a session
//!   and becomes visible by one atomic commit. Every backup is complete; a parent only saves work.
//! - The **catalog** ([`catalog::Catalog`]) is a pure fold over the repository's journal of events.
//!
//! [`run`] brings an engine and a repository together. Time and randomness are injected ([`env::Env`]); errors say by their
//! [`ErrorKind`] what the caller has to do.
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `webhook` | no | `service::WebhookNotifier`: notices of services as signed HTTP requests |
//! | `test-util` | no | manual clock, seeded entropy, an in-memory repository, conformance suites for repositories and engines |

pub mod catalog;
pub mod cbor;
#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
pub mod engine;
pub mod entry;
pub mod env;
mod error;
mod id;
pub mod log;
mod member;
pub mod observe;
pub mod pool;
mod position;
pub mod repository;
pub mod run;
pub mod scratch;
pub mod service;
mod snapshot;
mod target;

pub use engine::{BackupEngine, BackupSink, BackupSinkExt, BackupSource, BackupSourceExt, DrillEngine};
pub use error::{Error, ErrorKind, Result};
pub use id::{BackupId, DrillId, HostId, ServiceId, SessionId};
pub use member::{Group, Member, MemberName, gathered_findings};
pub use position::{Lineage, LogPosition};
pub use snapshot::{Consistency, Finding, LossyItem, Severity, Snapshot};
pub use target::{Goal, RecoveryTarget};
