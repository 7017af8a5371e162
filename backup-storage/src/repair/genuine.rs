//! Whether bytes are what was written under a name.

use std::sync::Arc;

use backup_core::SessionId;
use backup_core::catalog::{Catalog, PackId};
use bytes::Bytes;

use crate::context::Context;
use crate::deposit::genuine::{self, Found};
use crate::error::{Error, Result};
use crate::fetch::blocking;
use crate::keys::succession;
use crate::layout::{self, SessionObject};
use crate::log::{LogCache, name, object};
use crate::repository::Description;
use crate::store::ObjectName;
use crate::verify::opens;
use crate::witness;

/// Opens objects of every kind but the journal's.
pub(super) struct Genuine {
    context: Arc<Context>,
    catalog: Arc<Catalog>,
    log: Arc<LogCache>,
}

impl Genuine {
    pub(super) fn new(context: &Arc<Context>, catalog: &Arc<Catalog>, log: &Arc<LogCache>) -> Self {
        Self { context: Arc::clone(context), catalog: Arc::clone(catalog), log: Arc::clone(log) }
    }

    /// Decodes `object` completely.
    ///
    /// # Errors
    /// Damaged when it is not what was written as `name`; Environment when this recipient cannot tell.
    pub(super) async fn check(&self, name: &ObjectName, object: Bytes) -> Result<()> {
        let keyring = &self.context.keyring;
        match layout::session_object(name.as_str()) {
            Some(SessionObject::Pack(pack)) => return self.pack(pack, object).await,
            Some(SessionObject::Witness(session)) => return witness::open(keyring, session, &object).map(drop),
            Some(SessionObject::Alive(_)) => return Ok(()),
            Some(SessionObject::Deposit(session)) => return self.deposit(session, &object),
            // Nothing depends on it, and whoever adopts writes it again.
            Some(SessionObject::Answer(_)) => return Ok(()),
            None => {}
        }
        if name::parse(name.as_str()).is_some() {
            return self.piece(name, object).await;
        }
        if let Some(epoch) = layout::epoch_place(name.as_str()) {
            let told = succession::open(keyring, epoch, &object)?;
            let known = self.catalog.keys().epochs().find(|(begun, _)| *begun == epoch.0).and_then(|(_, known)| known);
            return match known {
                Some(known) if known != told.as_bytes() => Err(differs(name)),
                _ => Ok(()),
            };
        }
        if layout::key_place(name.as_str()).is_some() {
            let wrap = self.catalog.keys().wraps().find(|wrap| wrap.name == name.as_str());
            return match wrap {
                Some(wrap) if blake3::hash(&object) == wrap.digest => Ok(()),
                Some(_) => Err(differs(name)),
                None => Err(Error::damaged(format!("the catalog knows of no key {name}"))),
            };
        }
        if *name == layout::repository()? {
            let said = Description::parse(&object)?;
            return if said.id == keyring.repository() && said.suite == keyring.suite() {
                Ok(())
            } else {
                Err(differs(name))
            };
        }
        Err(Error::damaged(format!("nobody knows what object {name} is")))
    }

    async fn pack(&self, pack: PackId, object: Bytes) -> Result<()> {
        let context = Arc::clone(&self.context);
        blocking(move || opens(&context, pack, &object)).await
    }

    fn deposit(&self, session: SessionId, object: &[u8]) -> Result<()> {
        match genuine::judge(&self.context.keyring, session, object)? {
            Found::Genuine(_) => Ok(()),
            Found::Untold(error) => Err(error),
            Found::Foreign(text) => Err(Error::damaged(text)),
            Found::Nothing => Err(Error::internal("an object that was read is nothing")),
        }
    }

    async fn piece(&self, name: &ObjectName, object: Bytes) -> Result<()> {
        let (context, scratches, name) = (Arc::clone(&self.context), Arc::clone(self.log.scratches()), name.clone());
        blocking(move || object::open_whole(&context.keyring, &name, &object, &scratches).map(drop)).await
    }
}

fn differs(name: &ObjectName) -> Error {
    Error::damaged(format!("object {name} is not what the catalog says was stored"))
}
