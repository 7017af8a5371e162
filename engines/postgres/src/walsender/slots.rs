//! Replication slots: names under which receivers ask for the log.
//!
//! They keep nothing: the log is the feed's, and no receiver makes it go or stay. They exist because receivers are
//! configured with one (`primary_slot_name`, `pg_receivewal --slot`) and refuse to work without it. They end with the
//! server.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::command::error;
use crate::error::ServerError;
use crate::lsn::Lsn;

/// As `max_replication_slots` of a server that says nothing else.
const MAX_SLOTS: usize = 10;

/// All slots of a server.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Mutex<BTreeMap<String, Slot>>,
    released: Notify,
}

#[derive(Debug)]
struct Slot {
    /// The session that a temporary one ends with.
    session: Option<u64>,
    /// The session that streams through it.
    user: Option<u64>,
    restart: Option<Lsn>,
}

/// A slot in use; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    slots: Arc<Slots>,
    name: String,
}

impl Slots {
    pub(super) fn create(
        &self,
        name: &str,
        session: Option<u64>,
        restart: Option<Lsn>,
    ) -> Result<(), Box<ServerError>> {
        check(name)?;
        let mut slots = self.slots.lock();
        if slots.contains_key(name) {
            return Err(error("42710", format!("replication slot \"{name}\" already exists")));
        }
        if slots.len() >= MAX_SLOTS {
            return Err(error("53400", "all replication slots are in use"));
        }
        slots.insert(name.to_owned(), Slot { session, user: None, restart });
        Ok(())
    }

    /// Where a receiver that uses the slot should go on: `None` when there is no such slot.
    pub(super) fn read(&self, name: &str) -> Option<Option<Lsn>> {
        self.slots.lock().get(name).map(|slot| slot.restart)
    }

    pub(super) fn hold(self: &Arc<Self>, name: &str, session: u64) -> Result<Held, Box<ServerError>> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(name).ok_or_else(|| absent(name))?;
        if let Some(user) = slot.user {
            return Err(in_use(name, user));
        }
        slot.user = Some(session);
        Ok(Held { slots: Arc::clone(self), name: name.to_owned() })
    }

    /// Removes a slot; `wait`s until nobody uses it.
    pub(super) async fn remove(&self, name: &str, wait: bool) -> Result<(), Box<ServerError>> {
        loop {
            let released = self.released.notified();
            {
                let mut slots = self.slots.lock();
                match slots.get(name).ok_or_else(|| absent(name))?.user {
                    Some(user) if !wait => return Err(in_use(name, user)),
                    Some(_) => {}
                    None => {
                        slots.remove(name);
                        return Ok(());
                    }
                }
            }
            released.await;
        }
    }

    /// Ends what ends with `session`.
    pub(super) fn leave(&self, session: u64) {
        self.slots.lock().retain(|_, slot| slot.session != Some(session));
        self.released.notify_waiters();
    }
}

impl Held {
    /// The receiver has everything up to `flushed`.
    pub(super) fn advance(&self, flushed: Lsn) {
        if let Some(slot) = self.slots.slots.lock().get_mut(&self.name) {
            slot.restart = Some(flushed);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(slot) = self.slots.slots.lock().get_mut(&self.name) {
            slot.user = None;
        }
        self.slots.released.notify_waiters();
    }
}

fn absent(name: &str) -> Box<ServerError> {
    error("42704", format!("replication slot \"{name}\" does not exist"))
}

fn in_use(name: &str, user: u64) -> Box<ServerError> {
    error("55006", format!("replication slot \"{name}\" is active for PID {user}"))
}

/// `ReplicationSlotValidateName` in slot.c.
fn check(name: &str) -> Result<(), Box<ServerError>> {
    if name.is_empty() {
        return Err(error("42602", "replication slot name \"\" is too short"));
    }
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if name.bytes().all(fits) {
        Ok(())
    } else {
        Err(error("42602", format!("replication slot name \"{name}\" contains invalid character")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slot_belongs_to_one_at_a_time() {
        let slots = Arc::new(Slots::default());
        slots.create("a", None, None).unwrap();
        assert_eq!(slots.create("a", None, None).unwrap_err().sqlstate, "42710");
        assert_eq!(slots.create("A", None, None).unwrap_err().sqlstate, "42602");
        assert_eq!(slots.create("", None, None).unwrap_err().sqlstate, "42602");
        assert_eq!(slots.hold("b", 1).unwrap_err().sqlstate, "42704");
        assert_eq!((slots.read("a"), slots.read("b")), (Some(None), None));

        let held = slots.hold("a", 1).unwrap();
        assert_eq!(slots.hold("a", 2).unwrap_err().sqlstate, "55006");
        assert_eq!(slots.remove("a", false).await.unwrap_err().sqlstate, "55006");
        held.advance(Lsn(7));
        assert_eq!(slots.read("a"), Some(Some(Lsn(7))));
        let waiting = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.remove("a", true).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        waiting.await.unwrap().unwrap();
        assert_eq!(slots.remove("a", true).await.unwrap_err().sqlstate, "42704");
    }

    #[test]
    fn temporary_slots_end_with_their_session_and_there_is_an_end_to_them() {
        let slots = Slots::default();
        for number in 0..MAX_SLOTS {
            slots.create(&format!("s{number}"), (number > 0).then_some(5), None).unwrap();
        }
        assert_eq!(slots.create("one_more", None, None).unwrap_err().sqlstate, "53400");
        slots.leave(4);
        assert!(slots.read("s1").is_some());
        slots.leave(5);
        assert!(slots.read("s0").is_some() && slots.read("s1").is_none());
    }
}
