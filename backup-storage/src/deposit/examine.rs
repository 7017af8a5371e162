//! Whether a deposit is what a backup must be.
//!
//! Its host may have been taken over, so nothing is believed: not that packs are there, not what it builds on. What cannot be found out without
//! reading all of the content is left to verification, as with any backup; a lie about it harms this backup alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::catalog::{BackupRecord, Catalog, PackId, Refusal, SessionPacks};
use backup_core::{BackupId, SessionId};
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};

use super::bounds;
use super::genuine::Genuine;
use super::key::SessionKey;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::{PackCache, Places};
use crate::layout::{self, SessionObject};
use crate::manifest::{Content, Root};
use crate::reader::BackupReader;
use crate::verify::describe;

/// So far may the clock of a host be ahead. What is minted later would pass for newer than everything.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// What came out.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is a backup.
    Good(Box<BackupRecord>),
    /// It is none, and will not become one.
    Bad(Refusal, String),
    /// That cannot be said now, or not by this recipient.
    Later(String),
}

/// Why it is not good.
enum Flaw {
    Bad(Refusal, String),
    Later(String),
    Error(Error),
}

impl From<Error> for Flaw {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

type Checked<T> = std::result::Result<T, Flaw>;

fn bad<T>(reason: Refusal, text: impl Into<String>) -> Checked<T> {
    Err(Flaw::Bad(reason, text.into()))
}

/// What an error says about the manifest of a deposit.
fn unreadable(error: Error) -> Flaw {
    match error.kind() {
        ErrorKind::Damaged if error.is_not_found() => Flaw::Bad(Refusal::PacksMissing, describe(error)),
        ErrorKind::Damaged => Flaw::Bad(Refusal::BadManifest, describe(error)),
        ErrorKind::Environment => Flaw::Later(describe(error)),
        _ => Flaw::Error(error),
    }
}

/// Looks at a deposit in the state `catalog`, which is older than any listing here.
///
/// # Errors
/// Those of the store.
pub(super) async fn examine(
    context: &Context,
    catalog: &Arc<Catalog>,
    (genuine, key): (&Genuine, SessionKey),
) -> Result<Outcome> {
    match Examination::new(context, catalog, genuine, key).run().await {
        Ok(record) => Ok(Outcome::Good(Box::new(record))),
        Err(Flaw::Bad(reason, text)) => Ok(Outcome::Bad(reason, text)),
        Err(Flaw::Later(text)) => Ok(Outcome::Later(text)),
        Err(Flaw::Error(error)) => Err(error),
    }
}

struct Examination<'a> {
    context: Arc<Context>,
    catalog: &'a Arc<Catalog>,
    genuine: &'a Genuine,
}

/// Packs that were listed, with their lengths.
type Listed = BTreeMap<PackId, u64>;

impl<'a> Examination<'a> {
    fn new(context: &Context, catalog: &'a Arc<Catalog>, genuine: &'a Genuine, key: SessionKey) -> Self {
        // Nobody else uses a key before an entry says that it counts.
        let keyring = context.keyring.apart();
        keyring.add_session(genuine.said.session, key);
        let (service, store, env) = (context.service.clone(), context.store.clone(), context.env.clone());
        let context = Arc::new(Context { service, store, keyring, env, shape: context.shape });
        Self { context, catalog, genuine }
    }

    fn session(&self) -> SessionId {
        self.genuine.said.session
    }

    async fn run(&self) -> Checked<BackupRecord> {
        self.times()?;
        let mut listed = Listed::new();
        self.list(self.session(), &mut listed).await?;
        self.own_packs(&listed)?;
        let said = &self.genuine.said;
        if said.root.pack.session != self.session() {
            return bad(Refusal::BadManifest, "its manifest lies with another session");
        }
        let places = Places::State(Arc::clone(self.catalog));
        let cache = Arc::new(PackCache::new(Arc::clone(&self.context), places));
        let bytes = cache.segment_once(said.root.pack, said.root.segment).await.map_err(unreadable)?;
        if blake3::hash(&bytes) != said.root.digest {
            return bad(Refusal::BadManifest, "its manifest is not the one that it names");
        }
        let root = Root::decode(&bytes).map_err(unreadable)?;
        let whose = (root.backup, &root.service, root.session);
        if whose != (said.backup, &self.context.service, self.session()) {
            return bad(Refusal::BadManifest, "its manifest is that of another backup");
        }
        self.unused(root.backup)?;
        for blob in [&root.parts, &root.packs] {
            bounds::root_blob(blob).map_err(flawed)?;
        }
        let record = root.record(said.root, said.ended_at, said.stored_bytes);
        for session in &root.reused {
            if self.catalog.depositor(*session) != Some(said.host) {
                return bad(Refusal::ParentGone, format!("session {session} is no adopted backup of the same host"));
            }
            self.list(*session, &mut listed).await?;
        }
        let context = Arc::clone(&self.context);
        let reader = BackupReader::of_root(context, cache, record.clone(), root).await.map_err(unreadable)?;
        self.table(&reader, &listed)?;
        self.entries(&reader).await?;
        Ok(record)
    }

    async fn list(&self, session: SessionId, listed: &mut Listed) -> Result<()> {
        let mut objects = self.context.store.list(&layout::session(session));
        while let Some(object) = objects.try_next().await? {
            if let Some(SessionObject::Pack(pack)) = layout::session_object(object.name.as_str()) {
                listed.insert(pack, object.size);
            }
        }
        Ok(())
    }

    /// Nothing comes from the future.
    fn times(&self) -> Checked<()> {
        let said = &self.genuine.said;
        let minted = [said.session.minted_ms(), said.backup.minted_ms()];
        let minted = minted.map(|ms| i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()));
        let latest = self.context.env.now().checked_add(AHEAD).unwrap_or(Timestamp::MAX);
        let times = minted.into_iter().chain([Some(said.started_at), Some(said.ended_at)]);
        match times.into_iter().all(|at| at.is_some_and(|at| at <= latest)) {
            true => Ok(()),
            false => Err(Flaw::Later("the clock of the host is more than a day ahead of this one's".to_owned())),
        }
    }

    /// The packs of the session are there, all of them.
    fn own_packs(&self, listed: &Listed) -> Checked<()> {
        let said = &self.genuine.said;
        let (mut next, mut bytes) = (0, 0_u64);
        for (pack, len) in listed {
            if pack.number != next || next == said.packs {
                break;
            }
            next += 1;
            bytes = bytes.saturating_add(*len);
        }
        if next != said.packs {
            return bad(Refusal::PacksMissing, format!("pack {next} of {} is missing", said.packs));
        }
        if bytes != said.stored_bytes {
            let stored = said.stored_bytes;
            return bad(Refusal::PacksMissing, format!("its packs have {bytes} bytes instead of {stored}"));
        }
        Ok(())
    }

    /// A host chooses the ids of its backups; they must be nobody else's.
    fn unused(&self, backup: BackupId) -> Checked<()> {
        let known = self.catalog.backup(backup).is_some() || self.catalog.expired().any(|(id, _)| id == backup);
        if known { bad(Refusal::BadManifest, format!("there is a backup {backup} already")) } else { Ok(()) }
    }

    /// Every pack that the backup refers to is its own, or of a backup of the same host, there, and there to stay.
    fn table(&self, reader: &BackupReader, listed: &Listed) -> Checked<()> {
        let gone: BTreeSet<PackId> = self
            .catalog
            .collections()
            .flat_map(|collection| collection.condemned.packs.iter().flat_map(SessionPacks::packs))
            .chain(self.catalog.damaged_packs().map(|(pack, _)| pack))
            .collect();
        for (pack, _) in reader.manifest_segments() {
            if pack.session != self.session() || pack.number >= self.genuine.said.packs {
                return bad(Refusal::BadManifest, format!("a part of its manifest is said to be in pack {pack}"));
            }
        }
        for used in reader.packs() {
            let pack = used.pack;
            let own = pack.session == self.session();
            if !own && self.catalog.depositor(pack.session) != Some(self.genuine.said.host) {
                return bad(Refusal::ParentGone, format!("pack {pack} is none of an adopted backup of the same host"));
            }
            // Named and not used.
            if used.live == 0 {
                continue;
            }
            let missing = if own { Refusal::PacksMissing } else { Refusal::ParentGone };
            if !own && !reader.root().reused.contains(&pack.session) {
                return bad(Refusal::BadManifest, format!("it uses pack {pack} and does not say so"));
            }
            if gone.contains(&pack) || self.catalog.locate(pack).is_some() {
                return bad(missing, format!("pack {pack} is condemned or damaged"));
            }
            match listed.get(&pack) {
                Some(len) if *len == used.stored_len => {}
                Some(len) => {
                    let needs = used.stored_len;
                    return bad(missing, format!("pack {pack} has {len} bytes where {needs} are needed"));
                }
                None => return bad(missing, format!("pack {pack} is missing")),
            }
        }
        Ok(())
    }

    /// All entries can be read, and are as many as the root says.
    async fn entries(&self, reader: &BackupReader) -> Checked<()> {
        let (mut entries, mut bytes) = (0_u64, 0_u64);
        for part in reader.manifest().parts() {
            for entry in reader.part(part).await.map_err(unreadable)?.iter() {
                entries += 1;
                bytes = bytes.saturating_add(entry.len);
                bounds::entry(reader.packs(), entry).map_err(flawed)?;
                if let Content::Stored(_) = &entry.content {
                    let extents = reader.content(entry).await.map_err(unreadable)?;
                    bounds::content(reader.packs(), &extents, entry.len).map_err(flawed)?;
                }
            }
        }
        let root = reader.root();
        if (entries, bytes) != (root.entries, root.data_bytes) || bytes > bounds::DATA || root.new_bytes > bounds::DATA
        {
            return bad(
                Refusal::BadManifest,
                format!("it lists {entries} entries of {bytes} bytes, and says otherwise"),
            );
        }
        Ok(())
    }
}

fn flawed(what: &'static str) -> Flaw {
    Flaw::Bad(Refusal::BadManifest, what.to_owned())
}
