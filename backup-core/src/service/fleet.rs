//! Many services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::managed::ManagedService;
use super::platform::{Platform, backup_time};
use super::role::Action;
use super::tick::{Done, Ticked};
use crate::catalog::{Actor, Catalog, Event, Origin, ServiceChange, ServiceSpec};
use crate::engine::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::id::ServiceId;
use crate::repository::{Found, Repository, Vault};

/// New services are looked for this often.
const LOOK_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// The pause between two ticks of [`Fleet::run`], at most.
pub(super) const PULSE: Duration = Duration::from_secs(30);

/// A service that is to come under management.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewService {
    /// Its name.
    pub id: ServiceId,
    /// What kind of service it is, e.g. `postgres`.
    pub kind: String,
    /// On which plan.
    pub plan: String,
    /// In which region. Its backups lie there, or in the nearest region that has object storage, for ever.
    pub region: String,
    /// At which hour of day backups begin, UTC; the service's own default when not set.
    pub backup_hour: Option<i64>,
    /// At which minute.
    pub backup_minute: Option<i64>,
}

impl NewService {
    /// A service with the default schedule.
    pub fn new(id: ServiceId, kind: impl Into<String>, plan: impl Into<String>, region: impl Into<String>) -> Self {
        let (kind, plan, region) = (kind.into(), plan.into(), region.into());
        Self { id, kind, plan, region, backup_hour: None, backup_minute: None }
    }

    /// Sets when backups begin.
    #[must_use]
    pub fn scheduled(mut self, hour: Option<i64>, minute: Option<i64>) -> Self {
        (self.backup_hour, self.backup_minute) = (hour, minute);
        self
    }
}

/// What a tick of a fleet did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct FleetTick {
    /// Of which services something was done, and what.
    pub done: Vec<(ServiceId, Vec<Done>)>,
    /// Services that could not be run, and why.
    pub failed: Vec<(ServiceId, String)>,
    /// How many services were looked at.
    pub looked: usize,
    /// When something is due next.
    pub next: Option<Timestamp>,
}

impl FleetTick {
    /// The longest time between when a backup was due and when it began.
    #[must_use]
    pub fn lateness(&self) -> SignedDuration {
        let backups = self.done.iter().flat_map(|(_, done)| done).filter_map(|done| match done {
            Done::Backup { due, started, .. } => Some(started.duration_since(*due)),
            _ => None,
        });
        backups.max().unwrap_or(SignedDuration::ZERO)
    }
}

/// A known service and when it is to be looked at.
#[derive(Debug)]
struct Known {
    service: ManagedService,
    next: Timestamp,
}

#[derive(Debug, Default)]
struct Roll {
    services: BTreeMap<ServiceId, Known>,
    /// What is left of services whose purge has begun, by location.
    remains: BTreeMap<ServiceId, String>,
    looked: Option<Timestamp>,
    /// Drills that were done and that no tick has told of yet.
    drilled: Vec<(ServiceId, Done)>,
}

/// Many services on one platform, run by this process and maybe by others.
#[derive(Debug, Clone)]
pub struct Fleet {
    platform: Arc<Platform>,
    concurrency: usize,
    revisit: SignedDuration,
    only: Arc<Mutex<Option<BTreeSet<ServiceId>>>>,
    roll: Arc<Mutex<Roll>>,
}

impl Fleet {
    /// The services of `platform`, of which up to eight are worked on at a time.
    #[must_use]
    pub fn new(platform: Platform) -> Self {
        let revisit = SignedDuration::from_hours(1);
        Self { platform: Arc::new(platform), concurrency: 8, revisit, only: Arc::default(), roll: Arc::default() }
    }

    /// Sets after which time it is noticed at the latest what other processes have decided about a service. An hour: one request for each
    /// service. Where others turn services on, whose log is followed only from then on, it is worth more requests.
    #[must_use]
    pub fn with_revisit(mut self, every: Duration) -> Self {
        self.revisit = SignedDuration::try_from(every).unwrap_or(SignedDuration::MAX).max(SignedDuration::from_secs(1));
        self
    }

    /// Sets how many services are worked on at a time.
    #[must_use]
    pub fn with_concurrency(mut self, services: usize) -> Self {
        self.concurrency = services.max(1);
        self
    }

    /// Looks only after these services, of all that its vaults have: those of the machines that this process can reach.
    #[must_use]
    pub fn with_only(self, services: impl IntoIterator<Item = ServiceId>) -> Self {
        self.look_after(services);
        self
    }

    /// From the next tick on looks only after these services. The captures of others end; what is under way for them is finished.
    pub fn look_after(&self, services: impl IntoIterator<Item = ServiceId>) {
        let only: BTreeSet<_> = services.into_iter().collect();
        let mut roll = self.roll.lock();
        roll.services.retain(|service, _| only.contains(service));
        roll.looked = None;
        drop(roll);
        *self.only.lock() = Some(only);
        self.platform.changed().notify_one();
    }

    /// What its services have in common.
    #[must_use]
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Brings a service under management, with a repository of its own.
    ///
    /// # Cancel safety
    /// When dropped, the service exists or not; the same call again completes what was begun.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) that says what is allowed; [`Conflict`](crate::ErrorKind::Conflict) when the name
    /// is taken.
    pub async fn create(&self, actor: &Actor, new: NewService) -> Result<ManagedService> {
        Action::Create.permit(actor)?;
        self.check_new(&new, false).await?;
        self.create_from(actor, new, None).await
    }

    /// Brings a repository under management that has backups but no service: it was filled by other means, or its catalog was rebuilt from
    /// packs, which know no decisions. The service counts as running.
    ///
    /// # Cancel safety
    /// As [`create`](Self::create).
    ///
    /// # Errors
    /// As [`create`](Self::create); [`Conflict`](crate::ErrorKind::Conflict) when it is under management, or lies elsewhere than the region
    /// says.
    pub async fn adopt(&self, actor: &Actor, new: NewService) -> Result<ManagedService> {
        Action::Adopt.permit(actor)?;
        self.check_new(&new, true).await?;
        self.create_from(actor, new, None).await
    }

    /// Whether a service like this can come into being, if `used` also of what is stored.
    pub(super) async fn check_new(&self, new: &NewService, used: bool) -> Result<()> {
        let (spec, _) = self.spec_of(new)?;
        self.platform.schedule(&new.id, &spec)?;
        for (location, vault) in self.platform.regions().vaults() {
            match vault.find(&new.id).await? {
                Found::Nothing => {}
                Found::Remains => return Err(taken(&new.id, "is still being purged")),
                Found::Repository(repository) => {
                    let catalog = repository.catalog().await?;
                    // A repository that nobody has used comes from a creation that was interrupted.
                    let fits = used || is_unused(&catalog);
                    if catalog.service().is_some() || location != spec.location || !fits {
                        return Err(taken(&new.id, "exists already"));
                    }
                }
            }
        }
        Ok(())
    }

    fn spec_of(&self, new: &NewService) -> Result<(ServiceSpec, Arc<dyn Vault>)> {
        let time = backup_time(new.backup_hour, new.backup_minute)?;
        self.platform.profile(&new.kind, &new.plan)?;
        let (location, vault) = self.platform.regions().place(&new.region)?;
        let spec = ServiceSpec::new(&new.kind, &new.plan, &new.region, location);
        Ok((spec.with_schedule(time.hour(), time.minute()), vault))
    }

    pub(super) async fn create_from(
        &self,
        actor: &Actor,
        new: NewService,
        origin: Option<Origin>,
    ) -> Result<ManagedService> {
        let (mut spec, vault) = self.spec_of(&new)?;
        if let Some(origin) = origin {
            spec = spec.with_origin(origin);
        }
        let repository = match vault.find(&new.id).await? {
            Found::Repository(repository) => repository,
            _ => vault.create(&new.id).await?,
        };
        let created = Event::Service {
            change: ServiceChange::Created { spec: Box::new(spec) },
            lease: None,
            by: actor.clone(),
            at: self.platform.env().now(),
        };
        let catalog = repository.decide(&mut |_| Ok(vec![created.clone()])).await?;
        let service = self.enroll(repository);
        service.tell(&catalog).await;
        Ok(service)
    }

    /// A handle on a service.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when there is none of that name under management.
    pub async fn open(&self, service: &ServiceId) -> Result<ManagedService> {
        if let Some(known) = self.roll.lock().services.get(service) {
            return Ok(known.service.clone());
        }
        for (_, vault) in self.platform.regions().vaults() {
            if let Found::Repository(repository) = vault.find(service).await?
                && repository.catalog().await?.service().is_some()
            {
                return Ok(self.enroll(repository));
            }
        }
        Err(Error::invalid(format!("there is no service {service} under management")))
    }

    fn enroll(&self, repository: Arc<dyn Repository>) -> ManagedService {
        let service = ManagedService::new(Arc::clone(&self.platform), repository);
        let known = Known { service: service.clone(), next: Timestamp::MIN };
        self.roll.lock().services.entry(service.id().clone()).or_insert(known).service.clone()
    }

    /// The names of the services that this process knows, in order. A tick looks for more.
    #[must_use]
    pub fn known(&self) -> Vec<ServiceId> {
        self.roll.lock().services.keys().cloned().collect()
    }

    /// Looks for services in all vaults.
    ///
    /// # Errors
    /// When a vault cannot be listed. A service that cannot be opened is reported by the tick instead.
    async fn look(&self, now: Timestamp, failed: &mut Vec<(ServiceId, String)>) -> Result<()> {
        let every = LOOK_EVERY.min(self.revisit);
        let due = self.roll.lock().looked.is_none_or(|looked| now.duration_since(looked).abs() >= every);
        if !due {
            return Ok(());
        }
        for (location, vault) in self.platform.regions().vaults() {
            let mut missing = vault.services().await?;
            missing.retain(|service| self.only.lock().as_ref().is_none_or(|only| only.contains(service)));
            missing.retain(|service| !self.roll.lock().services.contains_key(service));
            let found = futures::stream::iter(missing).map(|service| async move {
                let found = async {
                    match vault.find(&service).await? {
                        Found::Repository(repository) => {
                            let managed = repository.catalog().await?.service().is_some();
                            Ok::<_, Error>(managed.then_some(Some(repository)))
                        }
                        Found::Remains => Ok(Some(None)),
                        _ => Ok(None),
                    }
                };
                (found.await, service)
            });
            let mut found = std::pin::pin!(found.buffer_unordered(self.concurrency));
            while let Some((found, service)) = found.next().await {
                match found {
                    Ok(Some(Some(repository))) => drop(self.enroll(repository)),
                    Ok(Some(None)) => {
                        self.roll.lock().remains.insert(service, location.to_owned());
                    }
                    Ok(None) => {}
                    Err(error) => failed.push((service, error.to_string())),
                }
            }
        }
        self.roll.lock().looked = Some(now);
        Ok(())
    }

    /// Does for every service what is due now, those first that have waited longest. What fails for one service stops no other.
    ///
    /// # Cancel safety
    /// As [`ManagedService::tick`].
    ///
    /// # Errors
    /// When a vault cannot be listed, and [`Cancelled`](crate::ErrorKind::Cancelled).
    pub async fn tick(&self, work: &Work) -> Result<FleetTick> {
        let now = self.platform.env().now();
        let mut tick = FleetTick::default();
        self.look(now, &mut tick.failed).await?;
        self.clear(&mut tick, work).await?;
        let mut due: Vec<_> = {
            let roll = self.roll.lock();
            // A clock that was set back must not make anybody wait for what it showed before.
            let far = now.checked_add(self.revisit).unwrap_or(Timestamp::MAX);
            let woken = |known: &&Known| known.service.woken.swap(false, Ordering::Relaxed);
            let due = roll.services.values().filter(|known| woken(known) || known.next <= now || known.next > far);
            due.map(|known| (known.next, known.service.clone())).collect()
        };
        due.sort_by(|one, other| (one.0, one.1.id()).cmp(&(other.0, other.1.id())));
        tick.looked = due.len();
        let ticks = futures::stream::iter(due).map(|(_, service)| async move {
            let outcome = service.tick(work).await;
            (service, outcome)
        });
        let mut ticks = std::pin::pin!(ticks.buffer_unordered(self.concurrency));
        while let Some((service, outcome)) = ticks.next().await {
            self.note(&service, outcome, now, &mut tick)?;
        }
        tick.done.extend(self.drilled().done);
        tick.next = self.next();
        Ok(tick)
    }

    /// The drills that were done and that no tick has told of yet, as a tick that has done them.
    #[must_use]
    pub fn drilled(&self) -> FleetTick {
        let drilled = std::mem::take(&mut self.roll.lock().drilled);
        let done = drilled.into_iter().map(|(service, done)| (service, vec![done])).collect();
        FleetTick { done, next: self.next(), ..FleetTick::default() }
    }

    /// Does one drill that is due, as of the last tick: the one that has waited longest. Returns whether there was one to be tried; what came of it is
    /// told by the next tick.
    ///
    /// [`Fleet::run`] calls it, one after the other; whoever has a loop of ticks of their own does the same, beside the ticks.
    ///
    /// # Cancel safety
    /// As [`ManagedService::drill_if_due`].
    ///
    /// # Errors
    /// As [`ManagedService::drill_if_due`].
    pub async fn drill(&self, work: &Work) -> Result<bool> {
        let wanted = {
            let roll = self.roll.lock();
            let due = roll.services.values().filter_map(|known| {
                let since = known.service.wants_drill()?;
                Some((since, known.service.id().clone(), known.service.clone()))
            });
            due.min_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)))
        };
        let Some((_, id, service)) = wanted else { return Ok(false) };
        let done = service.drill_if_due(work).await?;
        let tried = done.is_some();
        self.roll.lock().drilled.extend(done.map(|done| (id, done)));
        Ok(tried)
    }

    /// Notes what became of a service and when to look at it again.
    fn note(
        &self,
        service: &ManagedService,
        outcome: Result<Ticked>,
        now: Timestamp,
        tick: &mut FleetTick,
    ) -> Result<()> {
        // What other processes decide is noticed by looking.
        let far = now.checked_add(self.revisit).unwrap_or(Timestamp::MAX);
        let next = match outcome {
            Ok(ticked) => {
                let purged = ticked.done.iter().any(|done| matches!(done, Done::Purged { .. }));
                if !ticked.done.is_empty() {
                    tick.done.push((service.id().clone(), ticked.done));
                }
                if purged {
                    self.roll.lock().services.remove(service.id());
                    return Ok(());
                }
                ticked.next.map_or(far, |next| next.min(far))
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => {
                tick.failed.push((service.id().clone(), error.to_string()));
                let soon = now.checked_add(SignedDuration::from_mins(1)).unwrap_or(Timestamp::MAX);
                soon.min(far)
            }
        };
        if let Some(known) = self.roll.lock().services.get_mut(service.id()) {
            known.next = next;
        }
        Ok(())
    }

    /// Finishes purges whose keys are gone already.
    async fn clear(&self, tick: &mut FleetTick, work: &Work) -> Result<()> {
        let remains = self.roll.lock().remains.clone();
        for (service, location) in remains {
            let vault = self.platform.regions().vault(&location)?;
            match vault.destroy(&service, work).await {
                Ok(destroyed) => {
                    self.roll.lock().remains.remove(&service);
                    tick.done.push((service, vec![Done::Purged { destroyed }]));
                }
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => tick.failed.push((service, error.to_string())),
            }
        }
        Ok(())
    }

    /// The services whose log is to be followed, as of the last tick, in the order of their names.
    #[must_use]
    pub fn to_capture(&self) -> Vec<ManagedService> {
        let roll = self.roll.lock();
        let known = roll.services.values().map(|known| &known.service);
        known.filter(|service| service.wants_capture()).cloned().collect()
    }

    /// When something is due next, as of the last tick.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.roll.lock().services.values().map(|known| known.next).min()
    }
}

fn taken(service: &ServiceId, why: &str) -> Error {
    Error::conflict(format!("service {service} {why}"))
}

fn is_unused(catalog: &Catalog) -> bool {
    catalog.backups().next().is_none() && catalog.sessions().next().is_none() && catalog.log().lineages().is_empty()
}
