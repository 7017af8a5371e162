//! The servers of this host as a [`ServiceHost`].

use std::collections::BTreeMap;
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::catalog::ServiceSpec;
use backup_core::env::Env;
use backup_core::scratch::{Account, ScratchRoot};
use backup_core::service::{DrillPlace, ServiceHost, Stopped};
use backup_core::{BackupEngine, Error, Result, ServiceId};
use backup_postgres::control::stopped_at;
use backup_postgres::{PostgresDrill, PostgresDrillSettings, PostgresEngine, PostgresSettings, Replay};
use parking_lot::RwLock;

use super::server::{PostgresMachine, State};

/// Says of a data directory that this program has made it, and may remove what is in it.
const MARK: &str = "provisioned";
/// The name of a data directory that is given up, behind its own.
const DISCARDED: &str = "discarded";

/// Runs PostgreSQL servers of this host by their own programs.
///
/// Clients are not kept out before a shutdown ([`quiesce`](ServiceHost::quiesce) does nothing): PostgreSQL has a log, which is followed to
/// its end while the server ends their connections.
#[derive(Debug, Clone)]
pub struct PostgresHost {
    machines: Arc<RwLock<BTreeMap<ServiceId, PostgresMachine>>>,
    env: Env,
    /// Below which directory backups are proven.
    scratch: Option<PathBuf>,
}

impl PostgresHost {
    /// These servers.
    #[must_use]
    pub fn new(machines: BTreeMap<ServiceId, PostgresMachine>, env: Env) -> Self {
        Self { machines: Arc::new(RwLock::new(machines)), env, scratch: None }
    }

    /// Sets below which directory backups are proven by restoring them, with the programs of the machine. Nothing is proven without.
    #[must_use]
    pub fn with_scratch(mut self, dir: Option<PathBuf>) -> Self {
        self.scratch = dir;
        self
    }

    /// These servers from here on.
    pub fn replace(&self, machines: BTreeMap<ServiceId, PostgresMachine>) {
        *self.machines.write() = machines;
    }

    fn machine(&self, service: &ServiceId) -> Result<PostgresMachine> {
        let machines = self.machines.read();
        machines.get(service).cloned().ok_or_else(|| {
            let known: Vec<_> = machines.keys().map(ServiceId::as_str).collect();
            Error::environment(format!(
                "this host has no machine for service {service}; it has those of {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ))
        })
    }

    /// Whether a service that is to be created may have the running cluster of `machine`.
    ///
    /// # Errors
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) that says what is missing.
    pub fn check_cluster(machine: &PostgresMachine) -> Result<()> {
        let data = &machine.data_dir;
        check_programs(machine)?;
        if !data.is_absolute() {
            return Err(Error::invalid(format!("data directory {} is not an absolute path", data.display())));
        }
        if !data.join("PG_VERSION").exists() {
            return Err(Error::invalid(format!("{} is no data directory of PostgreSQL", data.display())));
        }
        let tablespaces = std::fs::read_dir(data.join("pg_tblspc"));
        if tablespaces.is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::invalid(format!(
                "the cluster in {} has tablespaces outside of it, which this program does not remove and restore",
                data.display()
            )));
        }
        Ok(())
    }

    /// Whether a fork may be restored into `machine`.
    ///
    /// # Errors
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when something is there already.
    pub fn check_vacant(machine: &PostgresMachine) -> Result<()> {
        check_programs(machine)?;
        if !machine.data_dir.is_absolute() {
            return Err(Error::invalid(format!("data directory {} is not absolute", machine.data_dir.display())));
        }
        if is_filled(&machine.data_dir)? {
            return Err(Error::invalid(format!("data directory {} is not empty", machine.data_dir.display())));
        }
        Ok(())
    }
}

fn check_programs(machine: &PostgresMachine) -> Result<()> {
    let program = machine.bin_dir.join("pg_ctl");
    if program.exists() {
        return Ok(());
    }
    Err(Error::invalid(format!("{} does not exist: --bin-dir is where pg_ctl and postgres are", program.display())))
}

fn is_filled(dir: &Path) -> Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == NotFound => Ok(false),
        Err(error) => Err(Error::io(format!("read {}", dir.display()), error)),
    }
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != NotFound => Err(Error::io(format!("remove {}", dir.display()), error)),
        _ => Ok(()),
    }
}

/// Puts the data directory aside, so that nobody finds half of one in its place, and removes it there unless it is to stay.
fn give_up(machine: &PostgresMachine, env: &Env) -> Result<()> {
    let aside = machine.beside(DISCARDED);
    let failed = |e| Error::io(format!("give up {}", machine.data_dir.display()), e);
    if !machine.keep_discarded {
        // What an earlier call has left.
        remove(&aside)?;
    }
    if machine.data_dir.exists() {
        let ours = machine.data_dir.join("PG_VERSION").exists() || machine.beside(MARK).exists();
        if !ours && is_filled(&machine.data_dir)? {
            return Err(Error::environment(format!(
                "{} holds no cluster and was not made by this program, so it is left alone",
                machine.data_dir.display()
            )));
        }
        let aside = match machine.keep_discarded {
            true => PathBuf::from(format!("{}-{}", aside.display(), env.now().strftime("%Y%m%dT%H%M%S%6fZ"))),
            false => aside,
        };
        std::fs::rename(&machine.data_dir, &aside).map_err(failed)?;
        if !machine.keep_discarded {
            remove(&aside)?;
        }
    }
    match std::fs::remove_file(machine.beside(MARK)) {
        Err(error) if error.kind() != NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

#[async_trait]
impl ServiceHost for PostgresHost {
    async fn running(&self, service: &ServiceId, _: &ServiceSpec) -> Result<Arc<dyn BackupEngine>> {
        let machine = self.machine(service)?;
        if machine.state()? != State::Serves {
            return Err(Error::unavailable(format!("the server of service {service} does not run")));
        }
        Ok(Arc::new(PostgresEngine::new(PostgresSettings::default().url(machine.connection()))?))
    }

    async fn provision(&self, service: &ServiceId, _: &ServiceSpec) -> Result<Arc<dyn BackupEngine>> {
        let machine = self.machine(service)?;
        let mark = machine.beside(MARK);
        if mark.exists() {
            machine.stop().await?;
            remove(&machine.data_dir)?;
        } else if is_filled(&machine.data_dir)? {
            return Err(Error::environment(format!(
                "data directory {} is not empty and was not made by this program: move it away",
                machine.data_dir.display()
            )));
        }
        // First the mark: what it speaks of is empty until it is there.
        std::fs::write(&mark, "made by backupctl service\n")
            .map_err(|e| Error::io(format!("write {}", mark.display()), e))?;
        machine.make_data_dir()?;
        let settings = PostgresSettings::default().data_dir(&machine.data_dir).replay(Replay::Files);
        Ok(Arc::new(PostgresEngine::new(settings)?))
    }

    async fn start(&self, service: &ServiceId, _: &ServiceSpec) -> Result<()> {
        self.machine(service)?.start(&self.env).await
    }

    async fn quiesce(&self, _: &ServiceId, _: &ServiceSpec) -> Result<()> {
        Ok(())
    }

    async fn stop(&self, service: &ServiceId, _: &ServiceSpec) -> Result<Stopped> {
        let machine = self.machine(service)?;
        machine.stop().await?;
        // Where a restore was interrupted there is no control file yet.
        let stopped = machine.data_dir.join("global/pg_control").exists();
        Ok(if stopped { Stopped::at(stopped_at(&machine.data_dir)?) } else { Stopped::default() })
    }

    async fn drill_place(&self, service: &ServiceId, _: &ServiceSpec) -> Result<Option<DrillPlace>> {
        let Some(dir) = &self.scratch else { return Ok(None) };
        let machine = self.machine(service)?;
        let account = machine.run_as.as_deref().map(Account::find).transpose()?;
        let settings = PostgresDrillSettings::default().bin_dir(&machine.bin_dir).role(&machine.role);
        let engine = Arc::new(PostgresDrill::new(settings));
        Ok(Some(DrillPlace::new(engine, ScratchRoot::new(dir).run_as(account))))
    }

    async fn discard(&self, service: &ServiceId, _: &ServiceSpec) -> Result<()> {
        let machine = self.machine(service)?;
        machine.stop().await?;
        let env = self.env.clone();
        tokio::task::spawn_blocking(move || give_up(&machine, &env))
            .await
            .map_err(|error| Error::internal("a data directory could not be given up").with_source(error))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ServiceSpec {
        ServiceSpec::new("postgres", "startup", "eu", "eu")
    }

    #[tokio::test]
    async fn no_directory_is_touched_that_is_not_known_to_be_ours() {
        let dir = tempfile::tempdir().unwrap();
        let service = ServiceId::new("shop").unwrap();
        let data = dir.path().join("data");
        let machine = PostgresMachine::new("/nowhere", &data, 1);
        let host = PostgresHost::new([(service.clone(), machine.clone())].into(), Env::system());
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("precious"), "x").unwrap();
        for refused in [host.provision(&service, &spec()).await.map(drop), host.discard(&service, &spec()).await] {
            assert_eq!(refused.unwrap_err().kind(), backup_core::ErrorKind::Environment);
        }
        assert!(data.join("precious").exists());
        std::fs::remove_file(data.join("precious")).unwrap();
        // What an interrupted restore has left is removed, and so is a cluster that is given up.
        host.provision(&service, &spec()).await.unwrap();
        std::fs::write(data.join("half"), "x").unwrap();
        host.provision(&service, &spec()).await.unwrap();
        assert!(!data.join("half").exists());
        std::fs::write(data.join("PG_VERSION"), "17\n").unwrap();
        host.discard(&service, &spec()).await.unwrap();
        host.discard(&service, &spec()).await.unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let unknown = host.running(&ServiceId::new("shpo").unwrap(), &spec()).await.unwrap_err();
        assert!(unknown.to_string().contains("those of shop"), "{unknown}");
    }

    #[tokio::test]
    async fn a_directory_that_is_given_up_stays_beside_its_place_when_it_should() {
        let dir = tempfile::tempdir().unwrap();
        let service = ServiceId::new("shop").unwrap();
        let mut machine = PostgresMachine::new("/nowhere", dir.path().join("data"), 1);
        machine.keep_discarded = true;
        let host = PostgresHost::new([(service.clone(), machine.clone())].into(), Env::system());
        for _ in 0..2 {
            std::fs::create_dir(&machine.data_dir).unwrap();
            std::fs::write(machine.data_dir.join("PG_VERSION"), "17\n").unwrap();
            host.discard(&service, &spec()).await.unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
