//! The process that is killed.

use std::path::PathBuf;
use std::sync::Arc;

use backup_core::catalog::{Actor, Role, ServiceChange, ServiceSpec, Stage};
use backup_core::engine::Work;
use backup_core::env::{Env, ShiftedClock, SystemEntropy};
use backup_core::repository::{Found as Stored, Vault as _};
use backup_core::service::{Fleet, ManagedService, NewFork, NewService, Platform, Regions, ServiceHost};
use backup_core::{ErrorKind, ServiceId};
use backup_crypto::{Identity, RawKey};
use backup_examples::machines::{HostFile, PostgresHost};
use backup_policy::Age;
use backup_policy::lifecycle::LifecyclePolicy;
use backup_storage::store::Store;
use backup_storage::{SharedKeys, Vault};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::steps::{KillingHost, KillingVault, Steps};

/// The variable with the order.
pub(super) const ORDER: &str = "BACKUP_TEST_ORDER";

/// What a process is to do, one thing after the other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) vault: PathBuf,
    pub(super) host_file: PathBuf,
    pub(super) report: PathBuf,
    pub(super) ahead: i64,
    pub(super) steps: Option<u32>,
    pub(super) errands: Vec<Errand>,
}

/// Something to be done with a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Errand {
    /// Starts its server.
    Start(String),
    Create(String),
    PowerOff(String),
    PowerOn(String),
    /// Turns it off if it runs.
    EnsureOff(String),
    /// Turns it on if it is off.
    EnsureOn(String),
    /// Makes the fork, if there is none.
    Fork {
        source: String,
        into: String,
    },
    /// Deletes it, if it is not deleted.
    Delete(String),
    /// What time brings for it, as long as it brings anything.
    Tick(String),
    /// A tick that comes an hour later than the last one, so that it looks for what is not needed any more.
    Release(String),
}

/// A service after an errand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Found {
    /// `none` when there is no such service.
    pub(super) stage: String,
    pub(super) holds: usize,
    /// What was lost when it was turned off last.
    pub(super) loss: Option<String>,
}

fn key() -> RawKey {
    RawKey::take(&mut [9; 32])
}

struct Process {
    fleet: Fleet,
    vault: Arc<KillingVault<Vault>>,
    host: PostgresHost,
    work: Work,
}

impl Process {
    fn of(order: &Order) -> Self {
        let clock = Arc::new(ShiftedClock::by(SignedDuration::from_secs(order.ahead)));
        let env = Env::new(clock, Arc::new(SystemEntropy));
        let steps = Steps::of(order.steps);
        let keys = SharedKeys::new(vec![key().into()], Identity::from(key()));
        let vault = Vault::new(Store::local(&order.vault).unwrap(), keys, env.clone());
        let vault = Arc::new(KillingVault { inner: vault, steps: Arc::clone(&steps) });
        let regions = Regions::new().with_vault("eu", Arc::clone(&vault) as _);
        let file = HostFile::read(&order.host_file).unwrap().unwrap();
        let host = PostgresHost::new(file.services().unwrap(), env.clone());
        let killing = Arc::new(KillingHost { inner: host.clone(), steps });
        let platform = Platform::new(regions, killing, env.clone(), format!("process {}", std::process::id()));
        // The source of many forks is off for years here.
        let lifecycle = LifecyclePolicy::new(Age::MAX, [], "30d".parse().unwrap()).unwrap();
        Self { fleet: Fleet::new(platform.with_lifecycle(lifecycle)), vault, host, work: Work::new(env) }
    }

    async fn open(&self, name: &str) -> Option<ManagedService> {
        match self.fleet.open(&ServiceId::new(name).unwrap()).await {
            Ok(service) => Some(service),
            Err(error) if error.kind() == ErrorKind::InvalidInput => None,
            Err(error) => panic!("{name}: {error:?}"),
        }
    }

    async fn stage(&self, name: &str) -> Option<Stage> {
        Some(self.open(name).await?.status().await.unwrap().stage)
    }

    /// Ticks until there is nothing to do.
    async fn tick(&self, name: &str) {
        for _ in 0..5 {
            let Some(service) = self.open(name).await else {
                let id = ServiceId::new(name).unwrap();
                // What is left of a purge without keys is no service any more. A repository that nobody has made a service of yet waits for
                // the same creation to be repeated.
                if let Stored::Remains = self.vault.find(&id).await.unwrap() {
                    self.vault.destroy(&id, &self.work).await.unwrap();
                }
                return;
            };
            let ticked = service.tick(&self.work).await.unwrap();
            assert!(ticked.busy.is_none(), "{name}: {ticked:?}");
            let failed = ticked.done.iter().any(|done| {
                use backup_core::service::Done;
                matches!(done, Done::Failed { .. } | Done::BackupFailed { .. } | Done::Untold { .. })
            });
            assert!(!failed, "{name}: {ticked:?}");
            if ticked.done.is_empty() || ticked.done.iter().any(is_purged) {
                return;
            }
        }
    }

    async fn run(&self, errand: &Errand) -> Found {
        let owner = Actor::new(Role::Owner, "kim");
        let (work, id) = (&self.work, |name: &str| ServiceId::new(name).unwrap());
        let name = match errand {
            Errand::Start(name) => {
                let spec = ServiceSpec::new("postgres", "startup", "eu", "eu");
                self.host.start(&id(name), &spec).await.unwrap();
                return Found { stage: "none".to_owned(), holds: 0, loss: None };
            }
            Errand::Create(name) => {
                let new = NewService::new(id(name), "postgres", "startup", "eu");
                self.fleet.create(&owner, new).await.unwrap();
                name
            }
            Errand::PowerOff(name) => {
                self.open(name).await.unwrap().power_off(&owner, false, work).await.unwrap();
                name
            }
            Errand::PowerOn(name) => {
                self.open(name).await.unwrap().power_on(&owner, work).await.unwrap();
                name
            }
            Errand::EnsureOff(name) => {
                if self.stage(name).await == Some(Stage::Running) {
                    self.open(name).await.unwrap().power_off(&owner, false, work).await.unwrap();
                }
                name
            }
            Errand::EnsureOn(name) => {
                if let Some(Stage::Off { .. }) = self.stage(name).await {
                    self.open(name).await.unwrap().power_on(&owner, work).await.unwrap();
                }
                name
            }
            Errand::Fork { source, into } => {
                if self.stage(into).await.is_none() {
                    self.fleet.fork(&owner, &id(source), NewFork::new(id(into)), work).await.unwrap();
                }
                into
            }
            Errand::Delete(name) => {
                if !matches!(self.stage(name).await, Some(Stage::Deleted { .. })) {
                    self.open(name).await.unwrap().delete(&owner).await.unwrap();
                }
                name
            }
            Errand::Tick(name) | Errand::Release(name) => {
                self.tick(name).await;
                name
            }
        };
        self.found(name).await
    }

    async fn found(&self, name: &str) -> Found {
        // From the vault: a handle remembers what this process has purged.
        let nothing = Found { stage: "none".to_owned(), holds: 0, loss: None };
        let found = self.vault.find(&ServiceId::new(name).unwrap()).await.unwrap();
        let Stored::Repository(repository) = found else { return nothing };
        let catalog = repository.catalog().await.unwrap();
        let Some(state) = catalog.service() else { return nothing };
        let stage = serde_json::to_value(state.stage).unwrap()["stage"].as_str().unwrap().to_owned();
        let loss = state.trail.iter().rev().find_map(|audited| match &audited.change {
            ServiceChange::PoweredOff { loss } => Some(loss.clone()),
            _ => None,
        });
        let holds = catalog.backups().map(|backup| catalog.holds(backup.id).count()).sum();
        Found { stage, holds, loss: loss.flatten() }
    }
}

fn is_purged(done: &backup_core::service::Done) -> bool {
    matches!(done, backup_core::service::Done::Purged { .. })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process that the other tests here start and kill; it needs their order"]
async fn child() {
    let order = std::env::var(ORDER).expect("the order of another test");
    let order: Order = serde_json::from_str(&order).unwrap();
    let process = Process::of(&order);
    let mut found = Vec::new();
    for errand in &order.errands {
        found.push(process.run(errand).await);
    }
    std::fs::write(&order.report, serde_json::to_vec(&found).unwrap()).unwrap();
}
