//! A model checker over writers and a verification, on the fold that everything in production goes through: packs break and are put back at any time.
//!
//! Whatever the order, no backup is believed to be sound that needs a pack which is known to be damaged: who builds on it is refused, and who was
//! committed while the verification looked is told of. Each rule is also taken away once, and then there is one.
//!
//! A session stores one pack, which bears its number.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use backup_core::catalog::{
    Actor, BackupRecord, Catalog, Event, ManifestRef, PackDamage, PackId, Rejected, Role, SessionState, Totals,
};
use backup_core::{BackupId, Consistency, ServiceId, SessionId, Snapshot};
use jiff::Timestamp;
use stateright::{Checker, HasDiscoveries, Model, Property};

type Number = u8;

const AT: Timestamp = Timestamp::UNIX_EPOCH;
/// The session of the backup that is there in the beginning.
const FIRST: Number = 1;
/// The sessions of the writers.
const WRITERS: [Number; 3] = [2, 3, 4];

/// A rule that can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A session that was open when damage was reported does not commit what is hit.
    Refused,
    /// Nobody builds on a backup that is harmed.
    Sound,
    /// A report names what was committed since it looked.
    Meanwhile,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Writer {
    Idle,
    Looked { parent: Option<Number> },
    Open { parent: Option<Number> },
    Done,
}

/// What a verification has seen: which packs are broken, which of the marked ones are whole, and which backups it looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Seen {
    broken: BTreeSet<Number>,
    mended: BTreeSet<Number>,
    examined: BTreeSet<Number>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    catalog: Catalog,
    stored: BTreeSet<Number>,
    broken: BTreeSet<Number>,
    needs: BTreeMap<Number, BTreeSet<Number>>,
    writers: [Writer; 3],
    seen: Option<Seen>,
    /// How often packs may still break and be put back, and how often somebody may still look.
    left: [u8; 3],
    refused: bool,
    unmarked: bool,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let Self { catalog, stored, broken, needs, writers, seen, left, refused, unmarked } = self;
        (stored, broken, needs, writers, seen, left, refused, unmarked).hash(to);
        for (session, standing) in catalog.sessions() {
            let open = match standing {
                SessionState::Open { parent, reports, .. } => Some((parent, reports)),
                _ => None,
            };
            (session, open, catalog.is_damaged(session)).hash(to);
        }
        catalog.backups().for_each(|backup| backup.id.hash(to));
        catalog.damaged_packs().for_each(|(pack, harm)| (pack, &harm.backups).hash(to));
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Look(usize),
    Open(usize),
    Commit(usize),
    Break(Number),
    PutBack(Number),
    Verify,
    Tell,
}

#[derive(Debug)]
struct World {
    without: Option<Rule>,
}

fn session(n: Number) -> SessionId {
    SessionId::from_bytes([n; 16])
}

fn backup(n: Number) -> BackupId {
    BackupId::from_bytes([n; 16])
}

fn pack(n: Number) -> PackId {
    PackId { session: session(n), number: 0 }
}

fn number(id: SessionId) -> Number {
    id.to_bytes()[0]
}

fn record(n: Number, needs: &BTreeSet<Number>) -> Box<BackupRecord> {
    let snapshot = Snapshot::new("test", "1", "source", "none", Consistency::PointInTime, (AT, AT));
    let manifest = ManifestRef { pack: pack(n), segment: 0, digest: [0; 32] };
    let (service, totals) = (ServiceId::new("svc").unwrap(), Totals::default());
    let reused = needs.iter().filter(|other| **other != n).map(|other| session(*other)).collect();
    let times = (AT, AT);
    Box::new(BackupRecord::new(backup(n), service, session(n), None, times, totals, manifest, reused, snapshot))
}

fn opened(n: Number, parent: Option<Number>) -> Event {
    Event::SessionOpened { session: session(n), at: AT, parent: parent.map(backup), adopted: Vec::new() }
}

impl World {
    fn lacks(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }

    fn open(&self, state: &mut State, w: usize, parent: Option<Number>) {
        let parent = match state.catalog.apply(&opened(WRITERS[w], parent)) {
            Ok(()) => parent,
            Err(Rejected::BackupDamaged { .. }) => {
                state.catalog.apply(&opened(WRITERS[w], None)).unwrap();
                // Without the rule it goes on to use what it had looked at.
                parent.filter(|_| self.lacks(Rule::Sound))
            }
            Err(other) => panic!("{other}"),
        };
        state.writers[w] = Writer::Open { parent };
    }

    fn commit(&self, state: &mut State, w: usize, parent: Option<Number>) {
        let own = WRITERS[w];
        let inherited = parent.map(|parent| state.needs[&parent].clone()).unwrap_or_default();
        let needs: BTreeSet<_> = inherited.into_iter().chain([own]).collect();
        let record = record(own, &needs);
        state.stored.insert(own);
        state.writers[w] = Writer::Done;
        let committed = match state.catalog.apply(&Event::BackupCommitted { record: record.clone() }) {
            Err(Rejected::ReuseDamaged { .. }) if self.lacks(Rule::Refused) => {
                state.catalog.apply(&Event::BackupRecovered { record })
            }
            other => other,
        };
        match committed {
            Ok(()) => drop(state.needs.insert(own, needs)),
            Err(_) => state.refused = true,
        }
    }

    /// Looks at everything that the backups of the catalog need.
    fn verify(state: &State) -> Seen {
        let examined: BTreeSet<_> = state.catalog.backups().map(|backup| number(backup.session)).collect();
        let needed: BTreeSet<_> = examined.iter().flat_map(|n| state.needs[n].iter().copied()).collect();
        let marked = state.catalog.damaged_packs().map(|(pack, _)| number(pack.session));
        let mended = marked.filter(|n| needed.contains(n) && !state.broken.contains(n)).collect();
        Seen { broken: needed.intersection(&state.broken).copied().collect(), mended, examined }
    }

    /// Tells the catalog as of now what was seen.
    fn tell(&self, state: &mut State, seen: &Seen) {
        let mut news = Vec::new();
        for broken in &seen.broken {
            let harms = |n: &Number| match seen.examined.contains(n) {
                true => state.needs[n].contains(broken),
                false => !self.lacks(Rule::Meanwhile) && state.needs[n].contains(broken),
            };
            let kept = state.catalog.backups().map(|backup| number(backup.session));
            let backups: BTreeSet<_> = kept.filter(harms).map(backup).collect();
            let known = state.catalog.damaged_packs().find(|(known, _)| *known == pack(*broken));
            if known.is_none_or(|(_, harm)| harm.backups != backups) {
                let backups = backups.into_iter().collect();
                news.push(PackDamage { pack: pack(*broken), problem: "it is torn".to_owned(), backups });
            }
        }
        if !news.is_empty() {
            state.catalog.apply(&Event::PacksDamaged { packs: news, at: AT }).unwrap();
        }
        if !seen.mended.is_empty() {
            let packs = seen.mended.iter().map(|n| pack(*n)).collect();
            let by = Actor::new(Role::Platform, "model");
            state.catalog.apply(&Event::Mended { packs, log: Vec::new(), by, at: AT }).unwrap();
            state.unmarked = true;
        }
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut catalog = Catalog::new();
        let needs = BTreeSet::from([FIRST]);
        catalog.apply(&opened(FIRST, None)).unwrap();
        catalog.apply(&Event::BackupCommitted { record: record(FIRST, &needs) }).unwrap();
        vec![State {
            catalog,
            stored: [FIRST].into(),
            broken: BTreeSet::new(),
            needs: [(FIRST, needs)].into(),
            writers: [const { Writer::Idle }; 3],
            seen: None,
            left: [2, 2, 3],
            refused: false,
            unmarked: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (w, writer) in state.writers.iter().enumerate() {
            match writer {
                Writer::Idle if w == 0 || state.writers[w - 1] != Writer::Idle => actions.push(Action::Look(w)),
                Writer::Looked { .. } => actions.push(Action::Open(w)),
                Writer::Open { .. } => actions.push(Action::Commit(w)),
                _ => {}
            }
        }
        let [breaks, put_back, looks] = state.left;
        if breaks > 0 {
            actions.extend(state.stored.difference(&state.broken).map(|n| Action::Break(*n)));
        }
        if put_back > 0 {
            actions.extend(state.broken.iter().map(|n| Action::PutBack(*n)));
        }
        match state.seen {
            None if looks > 0 => actions.push(Action::Verify),
            None => {}
            Some(_) => actions.push(Action::Tell),
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Look(w) => {
                // The newest one that nothing is known to harm.
                let mut sound = state.catalog.backups().filter(|backup| state.catalog.is_sound(backup.id));
                let parent = sound.next_back().map(|backup| number(backup.session));
                state.writers[w] = Writer::Looked { parent };
            }
            Action::Open(w) => {
                let Writer::Looked { parent } = state.writers[w] else { return None };
                self.open(&mut state, w, parent);
            }
            Action::Commit(w) => {
                let Writer::Open { parent } = state.writers[w] else { return None };
                self.commit(&mut state, w, parent);
            }
            Action::Break(n) => {
                state.left[0] -= 1;
                state.broken.insert(n);
            }
            Action::PutBack(n) => {
                state.left[1] -= 1;
                state.broken.remove(&n);
            }
            Action::Verify => {
                state.left[2] -= 1;
                state.seen = Some(Self::verify(&state));
            }
            Action::Tell => {
                let seen = state.seen.take()?;
                self.tell(&mut state, &seen);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what needs a damaged pack is not believed", |_, state: &State| {
                state.catalog.damaged_packs().all(|(pack, harm)| {
                    let needs = |n: &Number| state.needs[n].contains(&number(pack.session));
                    let kept = state.catalog.backups().map(|backup| number(backup.session));
                    kept.filter(needs).all(|n| harm.backups.contains(&backup(n)))
                })
            }),
            Property::sometimes("a session that would reuse it is refused", |_, state: &State| state.refused),
            Property::sometimes("a mark goes", |_, state: &State| {
                state.unmarked && state.catalog.damaged_packs().next().is_none()
            }),
            Property::sometimes("a backup is built on another one", |_, state: &State| {
                state.catalog.backups().any(|backup| !backup.reused.is_empty())
            }),
        ]
    }
}

#[test]
fn nothing_that_is_harmed_is_believed_to_be_sound() {
    let checker = World { without: None }.checker().threads(2).spawn_bfs().join();
    println!("three writers and a verification: {} states", checker.unique_state_count());
    checker.assert_properties();
    assert!(checker.unique_state_count() > 10_000);
}

#[test]
fn every_rule_of_damage_is_needed() {
    for rule in [Rule::Refused, Rule::Sound, Rule::Meanwhile] {
        let world = World { without: Some(rule) };
        let checker = world.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        println!("without {rule:?}: something is believed after {} states", checker.unique_state_count());
        assert!(checker.discovery("what needs a damaged pack is not believed").is_some(), "{rule:?}");
    }
}
