//! Signs of life: small objects that a session stores now and then while it is given something, so that nobody takes it for dead because
//! everything that it is given is stored already.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backup_crypto::ObjectKind;

use crate::error::Result;
use crate::pipeline::Shared;
use crate::{envelope, layout};

/// How often at most. Much more often than what maintenance takes for silence, so that a store may be away for hours.
const PERIOD: Duration = Duration::from_secs(3600);

/// When a session has given signs of life.
#[derive(Debug)]
pub(super) struct Alive {
    /// Since the clock's origin, in seconds.
    began: u64,
    /// How many periods have passed of which a sign was given.
    given: AtomicU64,
}

impl Alive {
    /// A session that begins now: its entry in the journal is its first sign.
    pub(super) fn begin(shared: &Shared) -> Self {
        Self { began: shared.context.env.clock().monotonic().as_secs(), given: AtomicU64::new(0) }
    }

    /// Gives a sign, if it is time for one. One that could not be given costs the session its commit at worst, which it finds out.
    pub(super) async fn touch(&self, shared: &Shared) {
        let passed = shared.context.env.clock().monotonic().as_secs().saturating_sub(self.began) / PERIOD.as_secs();
        let given = self.given.load(Ordering::Relaxed);
        // Of many who find that it is time one gives it.
        let ours =
            passed > given && self.given.compare_exchange(given, passed, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if ours && let Err(error) = sign(shared, passed).await {
            tracing::warn!(%error, session = %shared.session, "a sign of life could not be stored");
        }
    }
}

async fn sign(shared: &Shared, number: u64) -> Result<()> {
    let name = layout::alive(shared.session, u32::try_from(number).unwrap_or(u32::MAX))?;
    let object = envelope::seal(&shared.context.keyring, ObjectKind::Session, &name, &[])?;
    shared.context.store.create(&name, object).await.map(drop)
}
