//! Who there is, and what they can do next.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use backup_core::catalog::{
    Actor, BackupRecord, Catalog, CloseReason, Condemned, Event, ManifestRef, PackId, Rejected, Role, SessionPacks,
    SessionState, Totals,
};
use backup_core::{BackupId, Consistency, ServiceId, SessionId, Snapshot};
use jiff::Timestamp;
use stateright::{Model, Property};

/// A session, the pack that it stores, and the backup that it becomes.
type Number = u8;

/// The session of the backup that is there in the beginning.
const FIRST: Number = 1;
/// A session that was interrupted before.
const INTERRUPTED: Number = 2;
/// The sessions of the writers.
const WRITERS: [Number; 3] = [3, 4, 5];
/// How many collections there are, and how often somebody goes on with one.
const COLLECTORS: usize = 2;
/// How often the operator expires, withdraws and reinstates.
const WISHES: [u8; 3] = [1, 1, 1];

/// A rule of the protocol that can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// What condemns is refused when something was pinned since it was worked out.
    Pins,
    /// A session that was fenced never commits.
    Fenced,
    /// Nobody builds on sessions of which something was condemned.
    Collected,
    /// What sessions under way have stored stays.
    Held,
    /// What sessions under way build on stays, also when it has expired.
    Pinned,
    /// A backup is had again only if nothing of it was taken.
    Reinstated,
    /// Nothing is deleted before an entry that says that it will be.
    Begun,
}

impl Rule {
    pub(crate) const ALL: [Self; 7] =
        [Self::Pins, Self::Fenced, Self::Collected, Self::Held, Self::Pinned, Self::Reinstated, Self::Begun];
}

/// An entry of the journal, as small as it can be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Entry {
    Opened { session: Number, parent: Option<Number>, adopted: Option<Number> },
    Committed { session: Number },
    Recovered { session: Number },
    Abandoned { session: Number },
    Fenced { session: Number },
    Expired { backup: Number },
    Reinstated { backup: Number },
    Condemned { number: u64, pins: u64, packs: BTreeSet<Number> },
    Begun { collection: u64 },
    Swept { collection: u64 },
    Withdrawn { collection: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Writer {
    Idle,
    /// It has looked whom to build on.
    Looked {
        parent: Option<Number>,
        adopted: Option<Number>,
    },
    Open {
        parent: Option<Number>,
        adopted: Option<Number>,
    },
    Stored {
        parent: Option<Number>,
        adopted: Option<Number>,
    },
    Done,
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Collector {
    Idle,
    Listed { packs: BTreeSet<Number> },
    Worked { pins: u64, packs: BTreeSet<Number>, more: BTreeSet<Number> },
    Condemned { more: BTreeSet<Number> },
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    catalog: Catalog,
    store: BTreeSet<Number>,
    /// The packs that each backup needs, and each session has learnt that it may use.
    needs: BTreeMap<Number, BTreeSet<Number>>,
    writers: [Writer; 3],
    collectors: [Collector; COLLECTORS],
    wishes: [u8; 3],
    refused: bool,
    swept: bool,
}

/// What is known of the catalog that an actor can tell apart: the orders that lead to it are one state.
impl Hash for State {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let Self { catalog, store, needs, writers, collectors, wishes, refused, swept } = self;
        (store, needs, writers, collectors, wishes, refused, swept).hash(to);
        (catalog.pins(), catalog.next_collection()).hash(to);
        for (session, standing) in catalog.sessions() {
            let (open, ended) = match standing {
                SessionState::Open { parent, adopted, .. } => (Some((parent, adopted)), 0),
                SessionState::Committed(_) => (None, 1),
                SessionState::Closed(CloseReason::Abandoned) => (None, 2),
                SessionState::Closed(_) => (None, 3),
            };
            (session, open, ended, catalog.is_collected(session)).hash(to);
        }
        catalog.backups().for_each(|backup| backup.id.hash(to));
        catalog.expired().for_each(|(id, expired)| (id, expired.record.is_some()).hash(to));
        for collection in catalog.collections() {
            let packs: Vec<_> = collection.condemned.packs.iter().map(|packs| packs.session).collect();
            (collection.condemned.number, packs, &collection.backups, collection.sweeping.is_some()).hash(to);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Look(usize),
    Open(usize),
    Store(usize),
    Commit(usize),
    Die(usize),
    List(usize),
    Fence(usize, Number),
    WorkOut(usize, bool),
    Condemn(usize),
    Begin(usize, u64),
    Delete(usize, u64),
    GiveUp(usize),
    Expire(Number),
    Withdraw(u64),
    Reinstate(Number),
}

#[derive(Debug)]
pub(crate) struct World {
    without: Option<Rule>,
    writers: usize,
    collectors: usize,
}

fn session(n: Number) -> SessionId {
    SessionId::from_bytes([n; 16])
}

fn backup(n: Number) -> BackupId {
    BackupId::from_bytes([n; 16])
}

fn number(id: SessionId) -> Number {
    id.to_bytes()[0]
}

fn record(n: Number) -> Box<BackupRecord> {
    let at = Timestamp::UNIX_EPOCH;
    let snapshot = Snapshot::new("test", "1", "source", "none", Consistency::PointInTime, (at, at));
    let manifest = ManifestRef { pack: PackId { session: session(n), number: 0 }, segment: 0, digest: [0; 32] };
    let service = ServiceId::new("svc").unwrap();
    let totals = Totals::default();
    let made = BackupRecord::new(backup(n), service, session(n), None, (at, at), totals, manifest, vec![], snapshot);
    Box::new(made)
}

impl Entry {
    fn event(&self) -> Event {
        let at = Timestamp::UNIX_EPOCH;
        let by = Actor::new(Role::Operator, "model");
        match self {
            Self::Opened { session: s, parent, adopted } => Event::SessionOpened {
                session: session(*s),
                at,
                parent: parent.map(backup),
                adopted: adopted.map(session).into_iter().collect(),
            },
            Self::Committed { session } => Event::BackupCommitted { record: record(*session) },
            Self::Recovered { session } => Event::BackupRecovered { record: record(*session) },
            Self::Abandoned { session: s } => {
                Event::SessionClosed { session: session(*s), at, reason: CloseReason::Abandoned }
            }
            Self::Fenced { session: s } => {
                Event::SessionClosed { session: session(*s), at, reason: CloseReason::Fenced }
            }
            Self::Expired { backup: b } => {
                Event::BackupExpired { backup: backup(*b), reason: "wish".to_owned(), by, at }
            }
            Self::Reinstated { backup: b } => Event::BackupReinstated { backup: backup(*b), by, at },
            Self::Condemned { number, pins, packs } => {
                let mut collection = Condemned::default();
                (collection.number, collection.pins) = (*number, *pins);
                collection.packs = packs.iter().map(|n| SessionPacks::new(session(*n), [0], true)).collect();
                Event::Condemned { collection: Box::new(collection), at }
            }
            Self::Begun { collection } => Event::SweepBegun { collection: *collection, at },
            Self::Swept { collection } => Event::Swept { collection: *collection, at },
            Self::Withdrawn { collection } => Event::CollectionWithdrawn { collection: *collection, by, at },
        }
    }
}

impl State {
    /// Commits `entry` against the state as of now, as every writer does.
    fn commit(&mut self, entry: &Entry) -> Result<(), Rejected> {
        self.catalog.apply(&entry.event())
    }

    fn kept(&self) -> BTreeSet<Number> {
        let kept = self.catalog.backups().map(|backup| number(backup.session));
        kept.flat_map(|n| self.needs[&n].iter().copied()).collect()
    }
}

impl World {
    /// With all rules.
    pub(crate) fn new(writers: usize, collectors: usize) -> Self {
        Self { without: None, writers, collectors }
    }

    /// The smallest one, without a rule.
    pub(crate) fn without(rule: Rule) -> Self {
        Self { without: Some(rule), writers: 1, collectors: 1 }
    }

    fn lacks(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }

    /// What nobody needs of what was listed. `interrupted`: whether what interrupted sessions have stored goes as well.
    fn garbage(&self, state: &State, listed: &BTreeSet<Number>, interrupted: bool) -> BTreeSet<Number> {
        let catalog = state.catalog.clone();
        let mut keep = state.kept();
        let pinned: BTreeSet<_> = catalog.pinned().collect();
        for (id, expired) in catalog.expired() {
            if pinned.contains(&id) && expired.record.is_some() && !self.lacks(Rule::Pinned) {
                keep.extend(&state.needs[&number(expired.session)]);
            }
        }
        for (id, standing) in catalog.sessions() {
            match standing {
                SessionState::Open { adopted, .. } if !self.lacks(Rule::Held) => {
                    keep.insert(number(id));
                    keep.extend(adopted.iter().map(|id| number(*id)));
                }
                SessionState::Closed(CloseReason::Abandoned) if !interrupted => {
                    keep.insert(number(id));
                }
                _ => {}
            }
        }
        for collection in catalog.collections() {
            keep.extend(collection.condemned.packs.iter().map(|packs| number(packs.session)));
        }
        listed.difference(&keep).copied().collect()
    }

    fn write(&self, state: &mut State, w: usize, action: &Action) -> Option<()> {
        let own = WRITERS[w];
        let next = match (action, state.writers[w].clone()) {
            (Action::Look(_), Writer::Idle) => {
                let catalog = state.catalog.clone();
                let parent = catalog.backups().last().map(|backup| number(backup.session));
                let free =
                    matches!(catalog.session(session(INTERRUPTED)), Some(SessionState::Closed(CloseReason::Abandoned)));
                let there = free && state.store.contains(&INTERRUPTED) && !catalog.is_collected(session(INTERRUPTED));
                Writer::Looked { parent, adopted: there.then_some(INTERRUPTED) }
            }
            (Action::Open(_), Writer::Looked { parent, mut adopted }) => {
                match state.commit(&Entry::Opened { session: own, parent, adopted }) {
                    Ok(()) => {}
                    Err(Rejected::SessionCollected(_)) => {
                        let told = adopted.take();
                        if state.commit(&Entry::Opened { session: own, parent, adopted }).is_err() {
                            state.writers[w] = Writer::Done;
                            return Some(());
                        }
                        // Without the rule it goes on to use what it had learnt of.
                        adopted = told.filter(|_| self.lacks(Rule::Collected));
                    }
                    Err(_) => {
                        state.writers[w] = Writer::Done;
                        return Some(());
                    }
                }
                Writer::Open { parent, adopted }
            }
            (Action::Store(_), Writer::Open { parent, adopted }) => {
                state.store.insert(own);
                Writer::Stored { parent, adopted }
            }
            (Action::Commit(_), Writer::Stored { parent, adopted }) => {
                let inherited = parent.map(|parent| state.needs[&parent].clone()).unwrap_or_default();
                let needs = inherited.into_iter().chain(adopted).chain([own]).collect();
                let committed = match state.commit(&Entry::Committed { session: own }) {
                    Err(Rejected::SessionEnded { .. }) if self.lacks(Rule::Fenced) => {
                        state.commit(&Entry::Recovered { session: own })
                    }
                    other => other,
                };
                match committed {
                    Ok(()) => {
                        state.needs.insert(own, needs);
                        Writer::Done
                    }
                    Err(_) => {
                        state.refused = true;
                        Writer::Refused
                    }
                }
            }
            (Action::Die(_), Writer::Open { .. } | Writer::Stored { .. }) => Writer::Done,
            _ => return None,
        };
        state.writers[w] = next;
        Some(())
    }

    fn collect(&self, state: &mut State, c: usize, action: &Action) -> Option<()> {
        let next = match (action, state.collectors[c].clone()) {
            (Action::List(_), Collector::Idle) => Collector::Listed { packs: state.store.clone() },
            (Action::Fence(_, session), Collector::Listed { packs }) => {
                state.commit(&Entry::Fenced { session: *session }).ok()?;
                Collector::Listed { packs }
            }
            (Action::WorkOut(_, interrupted), Collector::Listed { packs }) => {
                let garbage = self.garbage(state, &packs, *interrupted);
                let catalog = state.catalog.clone();
                let open = |n: &Number| matches!(catalog.session(session(*n)), Some(SessionState::Open { .. }));
                // Without the rule, what the fold would refuse is deleted all the same.
                let (more, packs): (BTreeSet<_>, BTreeSet<_>) = garbage.into_iter().partition(open);
                match more.is_empty() && packs.is_empty() {
                    true => Collector::Done,
                    false => Collector::Worked { pins: catalog.pins(), packs, more },
                }
            }
            (Action::Condemn(_), Collector::Worked { mut pins, packs, more }) => {
                let catalog = state.catalog.clone();
                if self.lacks(Rule::Pins) {
                    pins = catalog.pins();
                }
                let entry = Entry::Condemned { number: catalog.next_collection(), pins, packs };
                match state.commit(&entry) {
                    Ok(()) => Collector::Condemned { more },
                    Err(_) => Collector::Done,
                }
            }
            // Whoever has condemned, or comes later, sweeps what there is.
            (Action::Begin(_, collection), at @ (Collector::Condemned { .. } | Collector::Idle)) => {
                state.commit(&Entry::Begun { collection: *collection }).ok()?;
                at
            }
            (Action::Delete(_, collection), Collector::Condemned { .. } | Collector::Idle) => {
                let catalog = state.catalog.clone();
                let found = catalog.collections().find(|found| found.condemned.number == *collection)?.clone();
                if found.sweeping.is_none() && !self.lacks(Rule::Begun) {
                    return None;
                }
                for packs in &found.condemned.packs {
                    state.store.remove(&number(packs.session));
                }
                if let Collector::Condemned { more } = &state.collectors[c] {
                    for pack in more {
                        state.store.remove(pack);
                    }
                }
                if found.sweeping.is_some() {
                    state.swept = true;
                    state.commit(&Entry::Swept { collection: *collection }).ok()?;
                }
                Collector::Done
            }
            // Killed: also between the deletions and the entry that says so, as they can be repeated.
            (Action::GiveUp(_), Collector::Condemned { .. }) => {
                let catalog = state.catalog.clone();
                let sweeping = catalog.collections().find(|found| found.sweeping.is_some());
                if let Some(packs) = sweeping.and_then(|found| found.condemned.packs.first().cloned()) {
                    state.store.remove(&number(packs.session));
                }
                Collector::Done
            }
            _ => return None,
        };
        state.collectors[c] = next;
        Some(())
    }

    fn wish(&self, state: &mut State, action: &Action) -> Option<()> {
        let spend = |state: &mut State, wish: usize| {
            state.wishes[wish] = state.wishes[wish].checked_sub(1)?;
            Some(())
        };
        match action {
            Action::Expire(backup) => {
                spend(state, 0)?;
                state.commit(&Entry::Expired { backup: *backup }).ok()
            }
            Action::Withdraw(collection) => {
                spend(state, 1)?;
                state.commit(&Entry::Withdrawn { collection: *collection }).ok()
            }
            Action::Reinstate(backup) => {
                spend(state, 2)?;
                match state.commit(&Entry::Reinstated { backup: *backup }) {
                    Err(Rejected::BackupCondemned { .. } | Rejected::BackupSwept(_))
                        if self.lacks(Rule::Reinstated) =>
                    {
                        state.commit(&Entry::Recovered { session: *backup }).ok()
                    }
                    other => other.ok(),
                }
            }
            _ => None,
        }
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let opened = |session| Entry::Opened { session, parent: None, adopted: None };
        let (first, interrupted) = (FIRST, INTERRUPTED);
        let mut catalog = Catalog::new();
        let before = [
            opened(first),
            Entry::Committed { session: first },
            opened(interrupted),
            Entry::Abandoned { session: interrupted },
        ];
        before.iter().for_each(|entry| catalog.apply(&entry.event()).unwrap());
        vec![State {
            catalog,
            store: [first, interrupted].into(),
            needs: [(first, [first].into())].into(),
            writers: [Writer::Idle, Writer::Idle, Writer::Idle],
            collectors: [const { Collector::Idle }; COLLECTORS],
            wishes: WISHES,
            refused: false,
            swept: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // Writers are alike: one begins after the one before it has.
        for (w, writer) in state.writers.iter().enumerate().take(self.writers) {
            match writer {
                Writer::Idle if w == 0 || state.writers[w - 1] != Writer::Idle => actions.push(Action::Look(w)),
                Writer::Looked { .. } => actions.push(Action::Open(w)),
                Writer::Open { .. } => actions.extend([Action::Store(w), Action::Die(w)]),
                Writer::Stored { .. } => actions.extend([Action::Commit(w), Action::Die(w)]),
                _ => {}
            }
        }
        let catalog = state.catalog.clone();
        let pending: Vec<_> = catalog.collections().map(|found| (found.condemned.number, found.sweeping)).collect();
        for (c, collector) in state.collectors.iter().enumerate().take(self.collectors) {
            if c > 0 && *collector == Collector::Idle && state.collectors[c - 1] == Collector::Idle {
                continue;
            }
            match collector {
                Collector::Idle => actions.push(Action::List(c)),
                Collector::Listed { .. } => {
                    let open = catalog.sessions().filter(|(_, standing)| matches!(standing, SessionState::Open { .. }));
                    actions.extend(open.map(|(id, _)| Action::Fence(c, number(id))));
                    actions.extend([Action::WorkOut(c, false), Action::WorkOut(c, true)]);
                }
                Collector::Worked { .. } => actions.push(Action::Condemn(c)),
                Collector::Condemned { .. } => actions.push(Action::GiveUp(c)),
                Collector::Done => continue,
            }
            if matches!(collector, Collector::Condemned { .. } | Collector::Idle) {
                for (number, sweeping) in &pending {
                    match sweeping {
                        Some(_) => actions.push(Action::Delete(c, *number)),
                        None if self.lacks(Rule::Begun) => actions.push(Action::Delete(c, *number)),
                        None => actions.push(Action::Begin(c, *number)),
                    }
                }
            }
        }
        if state.wishes[0] > 0 {
            actions.extend(catalog.backups().map(|backup| Action::Expire(number(backup.session))));
        }
        if state.wishes[1] > 0 {
            actions.extend(pending.iter().map(|(number, _)| Action::Withdraw(*number)));
        }
        if state.wishes[2] > 0 {
            actions.extend(catalog.expired().map(|(_, expired)| Action::Reinstate(number(expired.session))));
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Look(w) | Action::Open(w) | Action::Store(w) | Action::Commit(w) | Action::Die(w) => {
                self.write(&mut state, w, &action)?;
            }
            Action::List(c)
            | Action::Fence(c, _)
            | Action::WorkOut(c, _)
            | Action::Condemn(c)
            | Action::Begin(c, _)
            | Action::Delete(c, _)
            | Action::GiveUp(c) => self.collect(&mut state, c, &action)?,
            Action::Expire(_) | Action::Withdraw(_) | Action::Reinstate(_) => self.wish(&mut state, &action)?,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing that is kept is gone", |_, state: &State| state.kept().is_subset(&state.store)),
            Property::sometimes("something is swept", |_, state: &State| state.swept),
            Property::sometimes("a backup is built on another one", |_, state: &State| {
                state.catalog.backups().any(|backup| state.needs[&number(backup.session)].len() > 1)
            }),
            Property::sometimes("a zombie is refused", |_, state: &State| state.refused),
        ]
    }
}
