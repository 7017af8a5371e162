//! Adopting what hosts that only write have deposited.
//!
//! ```text
//! list ─▶ whose is it? ─▶ its key ─▶ is it a backup? ─▶ one entry: DepositAdopted or DepositRefused ─▶ witness ─▶ answer
//! ```
//! Whoever has the keys can do it, any number at once: the entry is made once. Killed anywhere, the next one goes on; what is written behind the
//! entry is written by whoever finds it missing.
//!
//! What nobody with the secret of a host wrote is not spoken of in the journal, or anybody who may add objects could fill it.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::catalog::{BackupRecord, Catalog, Deposit, Event, Refusal, Rejected, SessionState};
use backup_core::engine::Work;
use backup_core::{BackupId, HostId, SessionId};
use backup_crypto::{EpochId, HostSecret};
use futures::TryStreamExt;

use super::examine::{Outcome, examine};
use super::folders::Folders;
use super::genuine::{Found, Genuine, look};
use super::key::SessionKey;
use super::paper::{self, Answer, Notice, Paper};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Journal;
use crate::layout;
use crate::store::Created;
use crate::witness::{self, Witness};

/// How often a deposit is looked at again because something was condemned or an epoch has begun meanwhile.
const TRIES: u32 = 16;

/// What became of the deposits that were there.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Adoption {
    /// Those that are backups now, oldest first.
    pub adopted: Vec<AdoptedDeposit>,
    /// Those that never will be.
    pub refused: Vec<RefusedDeposit>,
    /// Those of which that cannot be said yet. Nothing of a deposit that its host wrote is taken away.
    pub waiting: Vec<WaitingDeposit>,
}

/// A deposit that became a backup.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct AdoptedDeposit {
    /// Who deposited it.
    pub host: HostId,
    /// The backup.
    pub record: BackupRecord,
}

/// A deposit that is no backup and will not become one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct RefusedDeposit {
    /// Who deposited it.
    pub host: HostId,
    /// Its session.
    pub session: SessionId,
    /// Why, in a word.
    pub reason: Refusal,
    /// Why, for people.
    pub text: String,
}

/// Something that lies in the place of a deposit and was left there.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct WaitingDeposit {
    /// Its session.
    pub session: SessionId,
    /// Whose it is, if anybody's who is known.
    pub host: Option<HostId>,
    /// Why nothing was done, for people.
    pub text: String,
}

/// Tells the hosts of which nothing is adopted any more.
///
/// # Errors
/// Those of the store and of the journal. One that cannot be told now is told later.
pub(crate) async fn notify(context: &Arc<Context>, journal: &Journal<Catalog>) -> Result<()> {
    let catalog = journal.refresh().await?;
    Adopter { context, journal }.notify(&catalog).await
}

/// Adopts what was deposited.
///
/// # Cancel safety
/// When dropped, the next one goes on.
///
/// # Errors
/// Those of the store and of the journal. A deposit that is not good is none.
pub(crate) async fn adopt(context: &Arc<Context>, journal: &Journal<Catalog>, work: &Work) -> Result<Adoption> {
    let adopting = async {
        let mut done = Adoption::default();
        let before = journal.refresh().await?;
        let folders = Folders::read(&context.store).await?;
        let adopter = Adopter { context, journal };
        adopter.notify(&before).await?;
        for session in &folders.deposits {
            work.checkpoint()?;
            match before.session(*session) {
                Some(state) => adopter.catch_up(*session, &before, state, &folders).await?,
                None => adopter.one(*session, &folders, &mut done).await?,
            }
        }
        Ok(done)
    };
    // Boxed: it is awaited within others that hold much themselves.
    work.cancel().run_until_cancelled(Box::pin(adopting)).await.unwrap_or_else(|| Err(Error::cancelled()))
}

/// The sessions among `sessions` that end with a deposit that is not to be taken away, though the catalog knows nothing of it.
///
/// # Errors
/// Those of the store.
pub(crate) async fn unadopted(
    context: &Context,
    catalog: &Catalog,
    sessions: Vec<SessionId>,
) -> Result<BTreeSet<SessionId>> {
    let mut kept = BTreeSet::new();
    for session in sessions {
        if catalog.session(session).is_some() {
            continue;
        }
        let keep = match look(context, session).await? {
            Found::Genuine(genuine) => !catalog.is_host_removed(genuine.said.host),
            // Somebody else may be able to tell.
            Found::Untold(_) => true,
            Found::Foreign(_) | Found::Nothing => false,
        };
        if keep {
            kept.insert(session);
        }
    }
    Ok(kept)
}

struct Adopter<'a> {
    context: &'a Arc<Context>,
    journal: &'a Journal<Catalog>,
}

impl Adopter<'_> {
    async fn one(&self, session: SessionId, folders: &Folders, done: &mut Adoption) -> Result<()> {
        let wait = |host, text: String| WaitingDeposit { session, host, text };
        let genuine = match look(self.context, session).await? {
            Found::Genuine(genuine) => genuine,
            Found::Foreign(text) => {
                done.waiting.push(wait(None, text));
                return Ok(());
            }
            Found::Untold(error) => {
                done.waiting.push(wait(None, error.to_string()));
                return Ok(());
            }
            Found::Nothing => return Ok(()),
        };
        let host = genuine.said.host;
        for _ in 0..TRIES {
            // The state before anything is listed: what is condemned later makes the entry stale.
            let catalog = self.journal.refresh().await?;
            let refused = match catalog.trusted_host(host) {
                Ok(_) => None,
                Err(rejected @ Rejected::HostUnknown(_)) => {
                    done.waiting.push(wait(Some(host), rejected.to_string()));
                    return Ok(());
                }
                Err(Rejected::HostRemoved(_)) => {
                    let (reason, text) = (Refusal::HostRemoved, Refusal::HostRemoved.to_string());
                    if !folders.answers.contains(&session) {
                        self.answer(&genuine.secret, session, Some(reason)).await;
                    }
                    done.refused.push(RefusedDeposit { host, session, reason, text });
                    return Ok(());
                }
                Err(_) => Some(Refusal::HostOutdated),
            };
            let (outcome, key) = match (refused, genuine.unwrap(&self.context.keyring)?) {
                (Some(reason), _) | (None, Err(reason)) => (Outcome::Bad(reason, reason.to_string()), None),
                (None, Ok(key)) => {
                    let outcome = examine(self.context, &catalog, (&genuine, key.clone())).await?;
                    (outcome, Some(key))
                }
            };
            let settled = match outcome {
                Outcome::Later(text) => {
                    done.waiting.push(wait(Some(host), text));
                    return Ok(());
                }
                Outcome::Good(record) => match key {
                    Some(key) => self.accept(&genuine, *record, &key, &catalog, done).await?,
                    None => return Err(Error::internal("a deposit without a key is good")),
                },
                Outcome::Bad(reason, text) => self.refuse(&genuine, (reason, text), done).await?,
            };
            if settled {
                return Ok(());
            }
        }
        Err(Error::conflict("collections and keys change faster than deposits can be looked at"))
    }

    /// Makes it a backup. False when it has to be looked at again.
    async fn accept(
        &self,
        genuine: &Genuine,
        record: BackupRecord,
        key: &SessionKey,
        seen: &Catalog,
        done: &mut Adoption,
    ) -> Result<bool> {
        let (session, host) = (record.session, genuine.said.host);
        let epoch = EpochId(seen.keys().current());
        let sealed = key.seal(&self.context.keyring.pinned_to(epoch), session)?;
        let deposit = Box::new(Deposit::new(record.clone(), host, sealed, seen));
        let at = self.context.env.now();
        let mut ours = false;
        let committed = self.journal.commit_by(|_, catalog| {
            ours = catalog.session(session).is_none();
            // Another was faster.
            if !ours {
                return Ok(Vec::new());
            }
            // The key must not be readable to somebody who was removed meanwhile.
            if catalog.keys().current() != epoch.0 {
                return Err(backup_core::Error::from(Rejected::DepositStale(session)).into());
            }
            Ok(vec![Event::DepositAdopted { deposit: deposit.clone(), at }])
        });
        let place = match committed.await {
            Ok((place, _)) => place,
            Err(error) if error.kind() == ErrorKind::Conflict => {
                tracing::debug!(%error, %session, "a deposit has to be looked at again");
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        // Whoever was faster says what lies behind the entry, or whoever comes next.
        if !ours {
            return Ok(true);
        }
        self.witness(session, record.id, place).await;
        self.answer(&genuine.secret, session, None).await;
        tracing::info!(backup = %record.id, %host, "a deposit was adopted");
        done.adopted.push(AdoptedDeposit { host, record });
        Ok(true)
    }

    /// Says that it is none.
    async fn refuse(&self, genuine: &Genuine, (reason, text): (Refusal, String), done: &mut Adoption) -> Result<bool> {
        let (session, host) = (genuine.said.session, genuine.said.host);
        let at = self.context.env.now();
        let mut ours = false;
        let refused = self.journal.commit_by(|_, catalog| {
            ours = catalog.session(session).is_none();
            let refused = Event::DepositRefused { session, host, reason, at };
            Ok(ours.then_some(refused).into_iter().collect())
        });
        match refused.await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(false),
            Err(error) => return Err(error),
        }
        if ours {
            self.answer(&genuine.secret, session, Some(reason)).await;
            tracing::warn!(%session, %host, %reason, text, "a deposit was refused");
            done.refused.push(RefusedDeposit { host, session, reason, text });
        }
        Ok(true)
    }

    /// Writes what must lie behind an entry and does not.
    async fn catch_up(
        &self,
        session: SessionId,
        catalog: &Catalog,
        state: &SessionState,
        folders: &Folders,
    ) -> Result<()> {
        let backup = match state {
            SessionState::Committed(backup) if catalog.depositor(session).is_some() => Some(*backup),
            SessionState::Closed(_) => None,
            _ => return Ok(()),
        };
        if let Some(backup) = backup.filter(|_| !folders.witnesses.contains(&session)) {
            // Any entry from that one on shows that it was committed.
            self.witness(session, backup, self.journal.place().await?).await;
        }
        if !folders.answers.contains(&session)
            && let Found::Genuine(genuine) = look(self.context, session).await?
        {
            let refused = if backup.is_some() { None } else { Some(Refusal::Collected) };
            self.answer(&genuine.secret, session, refused).await;
        }
        Ok(())
    }

    /// Tells the hosts of which nothing is adopted any more, so that they store nothing more. Whoever finds one that was not told does it.
    async fn notify(&self, catalog: &Catalog) -> Result<()> {
        let mut untrusted: Vec<_> = catalog.untrusted_hosts().collect();
        if untrusted.is_empty() {
            return Ok(());
        }
        let told: Vec<_> = self.context.store.list(layout::HOSTS).try_collect().await?;
        let told: BTreeSet<_> = told.iter().filter_map(|object| layout::noticed(object.name.as_str())).collect();
        untrusted.retain(|(host, ..)| !told.contains(host));
        for (host, epoch, reason) in untrusted {
            let (keyring, epoch) = (&self.context.keyring, EpochId(epoch));
            // Somebody else may have the key of that epoch.
            let Ok(key) = keyring.key(epoch) else { continue };
            let secret = HostSecret::derive(&key, keyring.repository(), epoch, &host.to_bytes());
            let notice = Notice { host, reason, at: self.context.env.now() };
            if let Err(error) = self.put(&secret, host, &notice).await {
                tracing::warn!(%error, %host, "a host could not be told that it is one no more");
            }
        }
        Ok(())
    }

    /// Nothing depends on it but a rebuild of the catalog, and the next one writes it.
    async fn witness(&self, session: SessionId, backup: BackupId, place: crate::journal::Place) {
        let witness = Witness { backup, place };
        let written = match witness::write(self.context, session, &witness).await {
            Err(error) if error.kind() == ErrorKind::Conflict => self.put_witness(session, &witness).await,
            written => written,
        };
        if let Err(error) = written {
            tracing::warn!(%error, %backup, "the witness of an adoption could not be written");
        }
    }

    /// Puts a witness in the place of what the host, or anybody else, may have put there before.
    async fn put_witness(&self, session: SessionId, witness: &Witness) -> Result<()> {
        let (name, store) = (layout::witness(session)?, &self.context.store);
        if witness::open(&self.context.keyring, session, &store.get(&name).await?).is_ok() {
            return Ok(());
        }
        store.replace(&name, witness::seal(&self.context.keyring, session, witness)?).await
    }

    /// Tells the host. Nothing here depends on it.
    async fn answer(&self, secret: &HostSecret, session: SessionId, refused: Option<Refusal>) {
        let answer = Answer { session, refused, at: self.context.env.now() };
        if let Err(error) = self.put(secret, session, &answer).await {
            tracing::warn!(%error, %session, "a host could not be answered");
        }
    }

    async fn put<P: Paper>(&self, secret: &HostSecret, of: P::Of, said: &P) -> Result<()> {
        let (name, object) = paper::write(secret, of, said)?;
        let store = &self.context.store;
        match store.create(&name, object.clone()).await? {
            Created::New | Created::AlreadyOurs => Ok(()),
            Created::Conflict => {
                let found = store.get(&name).await?;
                // Another adopter's.
                if paper::is_genuine::<P>(secret, of, &found)? {
                    return Ok(());
                }
                store.replace(&name, object).await
            }
        }
    }
}
