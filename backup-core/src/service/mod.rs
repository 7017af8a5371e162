//! Services under management: what a data platform promises about backups, kept.
//!
//! A [`ManagedService`] brings a repository, a machine and a plan together. All of its state is in its own catalog: what was decided,
//! by whom and when is an event there, so the audit trail is the state and there is no database to run. A [`Fleet`] runs many of them.
//!
//! Three rules make it safe to run from any number of processes that die at any time:
//!
//! - Work is done under a lease that is taken, kept and named by commits. Who was overtaken cannot commit any more.
//! - What takes more than one step says so first (`PowerOffBegun`, `RestoreBegun`, `PurgeBegun`); any later tick finishes it.
//! - What is destroyed is destroyed last: a purge follows a deletion after its grace, keys go before objects, and a hold prevents both.
//!
//! What is due when, and what is kept why, is decided by `backup-policy`; the machines are the embedder's ([`ServiceHost`]).

mod capture;
mod drill;
mod facts;
mod fleet;
mod fork;
mod host;
mod keeper;
mod lease;
mod managed;
mod notify;
mod platform;
mod power;
mod regions;
mod role;
mod status;
mod tick;
mod upkeep;
#[cfg(feature = "webhook")]
mod webhook;

pub use drill::{DrillPlace, DrillStatus};
pub use fleet::{Fleet, FleetTick, NewService};
pub use fork::{ForkTarget, NewFork};
pub use host::{ServiceHost, Stopped};
pub use managed::ManagedService;
pub use notify::{LogNotifier, Notice, Notifier};
pub use platform::Platform;
pub use regions::Regions;
pub use role::Action;
pub use status::{KeptBecause, ListedBackup, ServiceStatus};
pub use tick::{Done, Ticked};
#[cfg(feature = "webhook")]
pub use webhook::{WebhookNotifier, WebhookSecret, WebhookSettings};

#[cfg(test)]
mod tests;
