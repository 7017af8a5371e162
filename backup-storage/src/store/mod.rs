//! The only way from this project to an object store.
//!
//! Two rules are kept here and nowhere else:
//!
//! - **Every object is written once, by a single create-only put.** There is no call that overwrites, renames, copies or
//!   uploads in parts.
//! - **The answer of a put is not believed until it is certain.** Stores answer "already exists" for our own put whose
//!   first reply was lost, answer a conflict for a put that wrote nothing, and time out on puts that land. So
//!   whatever is not a plain success is settled by reading the object back and comparing bytes. Callers put a fresh nonce into
//!   every body, hence equal bytes mean "ours".
//!
//! Timeouts guard against peers that went silent; they run on the runtime's timer (which tests pause). Everything that
//! is behaviour — the delays between retries, the bandwidth limit — waits on the injected clock.
//!
//! | part | what it does |
//! |---|---|
//! | [`ObjectName`] | the alphabet that every store can hold |
//! | [`Store::create`] | the disambiguating put |
//! | [`Store::get`], [`Store::get_range`], [`Store::get_ranges`], [`Store::get_suffix`], [`Store::head`] | reads that are complete or an error |
//! | [`Store::list`], [`Store::list_dirs`] | sorted listing |
//! | [`Store::delete`], [`Store::delete_many`] | idempotent deletion |
//! | [`Store::probe_exclusive_create`] | finds out stores that ignore create-only puts |

mod bandwidth;
mod body;
mod create;
mod delete;
mod list;
#[cfg(feature = "fs")]
mod local;
mod metrics;
mod name;
mod open;
mod probe;
mod read;
mod request;
mod settings;

use std::fmt;
use std::sync::Arc;

use backup_core::env::Env;
use backup_core::pool::Pool;
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use bandwidth::Bandwidth;
use metrics::Counters;

pub use body::PutBody;
pub use create::Created;
pub use list::ObjectMeta;
pub use metrics::{OpMetrics, StoreMetrics};
pub use name::ObjectName;
pub use settings::{Checksum, ClientSettings, StoreSettings};

/// A place for write-once objects: an object store, a prefix in it, and the manners to talk to it.
///
/// Cloning is cheap; clones and [sub-stores](Store::at) share limits and metrics.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> backup_storage::error::Result<()> {
/// use backup_storage::store::{Created, ObjectName, Store};
///
/// let store = Store::memory().at("service-1")?;
/// let name = ObjectName::new("catalog/00000000000000000001")?;
/// assert_eq!(store.create(&name, "nonce and entry").await?, Created::New);
/// assert_eq!(store.create(&name, "another writer").await?, Created::Conflict);
/// assert_eq!(store.get(&name).await?, "nonce and entry");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    /// Raw path text without slashes at either end; empty for the root of the object store.
    prefix: Arc<str>,
}

/// What clones and sub-stores have in common.
struct Shared {
    inner: Arc<dyn ObjectStore>,
    traits: Traits,
    settings: StoreSettings,
    env: Env,
    requests: Semaphore,
    upload: Option<Bandwidth>,
    download: Option<Bandwidth>,
    counters: Counters,
    pool: Arc<Pool>,
}

/// What is known of the store's kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Traits {
    /// Listings come in byte order of the names, so they need not be gathered and sorted.
    pub(super) sorted_listing: bool,
    /// The directory of a store on local disk.
    #[cfg_attr(not(feature = "fs"), allow(dead_code, reason = "there is no local disk then"))]
    pub(super) root: Option<Arc<std::path::Path>>,
    /// Nothing may be put or deleted, whatever the store would allow.
    pub(super) read_only: bool,
}

impl Store {
    /// A store in memory, gone with its last clone.
    #[must_use]
    pub fn memory() -> Self {
        let traits = Traits { sorted_listing: true, ..Traits::default() };
        Self::build(Arc::new(object_store::memory::InMemory::new()), traits, StoreSettings::default())
    }

    /// A store over any implementation, with default settings and the machine's clock.
    #[must_use]
    pub fn from_object_store(inner: Arc<dyn ObjectStore>) -> Self {
        Self::build(inner, Traits::default(), StoreSettings::default())
    }

    fn build(inner: Arc<dyn ObjectStore>, traits: Traits, settings: StoreSettings) -> Self {
        Self { shared: Arc::new(Shared::new(inner, traits, settings, Env::system())), prefix: Arc::from("") }
    }

    /// The same place with other settings. Limits and metrics start afresh and are no longer shared with `self`. Options of the cloud
    /// client, its timeouts and checksums keep the values with which the store was opened.
    #[must_use]
    pub fn with_settings(&self, settings: StoreSettings) -> Self {
        self.rebuilt(settings, self.shared.env.clone())
    }

    /// The same place with another clock and other randomness. Limits and metrics start afresh.
    #[must_use]
    pub fn with_env(&self, env: Env) -> Self {
        self.rebuilt(self.shared.settings.clone(), env)
    }

    fn rebuilt(&self, settings: StoreSettings, env: Env) -> Self {
        let shared = Shared::new(Arc::clone(&self.shared.inner), self.shared.traits.clone(), settings, env);
        Self { shared: Arc::new(shared), prefix: Arc::clone(&self.prefix) }
    }

    /// The sub-store under `prefix`, whose names are relative to it. An empty prefix is the store itself.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) when `prefix` is not made like an [`ObjectName`].
    pub fn at(&self, prefix: &str) -> Result<Self> {
        if prefix.is_empty() {
            return Ok(self.clone());
        }
        name::check(prefix)?;
        Ok(Self { shared: Arc::clone(&self.shared), prefix: self.full(prefix).into() })
    }

    /// The store's prefix inside the object store; empty at its root.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &StoreSettings {
        &self.shared.settings
    }

    /// Clock and randomness of the store.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.shared.env
    }

    /// What this store and all its sub-stores did so far.
    #[must_use]
    pub fn metrics(&self) -> StoreMetrics {
        self.shared.counters.snapshot()
    }

    /// Whether objects can be read and neither put nor deleted: a repository that is published over plain HTTP.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.shared.traits.read_only
    }

    /// Refuses to `action` an object of a store that is for reading only.
    fn writable(&self, action: &str, name: &str) -> Result<()> {
        if !self.is_read_only() {
            return Ok(());
        }
        Err(Error::environment(format!("{action} {}: {self} is for reading only", self.full(name))))
    }

    /// `rest` below the prefix; `rest` alone at the root, the prefix alone when `rest` is empty.
    fn full(&self, rest: &str) -> String {
        match (self.prefix.is_empty(), rest.is_empty()) {
            (true, _) => rest.to_owned(),
            (false, true) => self.prefix.to_string(),
            (false, false) => format!("{}/{rest}", self.prefix),
        }
    }

    fn path(&self, rest: &str) -> Result<Path> {
        let full = self.full(rest);
        Path::parse(&full)
            .map_err(|error| Error::internal(format!("object path {full:?} is malformed")).with_source(error))
    }
}

impl Shared {
    fn new(inner: Arc<dyn ObjectStore>, traits: Traits, settings: StoreSettings, env: Env) -> Self {
        Self {
            inner,
            traits,
            env,
            requests: Semaphore::new(settings.max_requests.clamp(1, Semaphore::MAX_PERMITS)),
            upload: settings.upload_limit.map(Bandwidth::new),
            download: settings.download_limit.map(Bandwidth::new),
            counters: Counters::default(),
            pool: Arc::new(Pool::new(read::BUFFERS, read::LARGEST)),
            settings,
        }
    }
}

impl fmt::Display for Store {
    /// The nesting: `Store(prefix in Inner(…))`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix.is_empty() {
            write!(f, "Store({})", self.shared.inner)
        } else {
            write!(f, "Store({} in {})", self.prefix, self.shared.inner)
        }
    }
}

impl fmt::Debug for Store {
    /// As [`Display`](fmt::Display): clients hold credentials, which a derived `Debug` could print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
