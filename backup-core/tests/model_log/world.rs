//! Who there is, and which steps are possible. Who has died is somebody who takes no further step, so nobody has to be told to.

use backup_core::catalog::{BackupRecord, Catalog, Event, ManifestRef, PackId, Totals};
use backup_core::log::{LineageRecord, Notation};
use backup_core::{Consistency, ServiceId, SessionId, Snapshot};
use jiff::Timestamp;
use stateright::{Model, Property};

use crate::state::{BACKUPS, Collector, Merger, Operator, Piece, Pieces, State, Writer, backup, lineage};

/// A rule of the protocol that can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Nothing is acknowledged before a look at the journal has shown no later writer.
    Looked,
    /// That look begins after what it is for has landed.
    Landed,
    /// What is acknowledged has landed in a row.
    InOrder,
    /// A new writer takes its number before it lists.
    FencedFirst,
    /// It gives older writers their ends.
    Sealed,
    /// Objects that were merged are deleted after a commit that follows the one that replaces them.
    Ended,
    /// A listing during which something was committed is repeated.
    Repeated,
    /// The last objects of a writer that may still write are neither merged nor deleted.
    Last,
    /// What is let go is decided about the catalog as it is at the commit.
    Decided,
}

impl Rule {
    pub(crate) const ALL: [Self; 9] = [
        Self::Looked,
        Self::Landed,
        Self::InOrder,
        Self::FencedFirst,
        Self::Sealed,
        Self::Ended,
        Self::Repeated,
        Self::Last,
        Self::Decided,
    ];

    /// Whether it matters only where pieces are merged.
    pub(crate) fn is_of_merging(self) -> bool {
        matches!(self, Self::Ended | Self::Repeated)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Enroll(usize),
    List(usize),
    SealOlder(usize),
    Send(usize, u8),
    Land(Piece),
    Look(usize),
    Acknowledge(usize),
    Merge(Option<[Piece; 2]>),
    Collect,
    Expire(u8),
    Reinstate(u8),
    LetGo,
}

#[derive(Debug)]
pub(crate) struct World {
    without: Option<Rule>,
    writers: usize,
    bytes: u8,
    /// How long pieces may be.
    longest: u8,
    merger: bool,
    collector: bool,
}

impl World {
    /// Three who write, one after the other or at once.
    pub(crate) fn writing() -> Self {
        Self { without: None, writers: 3, bytes: 3, longest: 1, merger: false, collector: false }
    }

    /// Three who write while somebody merges: the first is ended by the second, and the third lists.
    pub(crate) fn merging() -> Self {
        Self { without: None, writers: 3, bytes: 2, longest: 1, merger: true, collector: false }
    }

    /// Two who write while backups and log are let go and collected.
    pub(crate) fn letting_go() -> Self {
        Self { without: None, writers: 2, bytes: 3, longest: 2, merger: false, collector: true }
    }

    /// The one in which a rule matters, without it.
    pub(crate) fn without(rule: Rule) -> Self {
        let world = match rule {
            rule if rule.is_of_merging() => Self::merging(),
            Rule::Last | Rule::Decided => Self::letting_go(),
            _ => Self::writing(),
        };
        Self { without: Some(rule), ..world }
    }

    /// Whether all rules are there.
    pub(crate) fn is_whole(&self) -> bool {
        self.without.is_none()
    }

    pub(crate) fn lacks(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }

    pub(crate) fn bytes(&self) -> u8 {
        self.bytes
    }

    /// Whether anything is ever deleted.
    pub(crate) fn deletes(&self) -> bool {
        self.merger || self.collector
    }

    /// What must be possible here.
    pub(crate) fn seen(&self) -> Vec<&'static str> {
        let mut seen = vec!["everything is acknowledged", "a zombie is refused"];
        seen.extend(self.merger.then_some("pieces are merged"));
        seen.extend(self.collector.then_some("log is swept"));
        seen
    }
}

fn record(position: u8) -> Box<BackupRecord> {
    let at = Timestamp::UNIX_EPOCH;
    let session = SessionId::from_bytes([position + 1; 16]);
    let snapshot = Snapshot::new("test", "1", "source", "none", Consistency::PointInTime, (at, at));
    let manifest = ManifestRef { pack: PackId { session, number: 0 }, segment: 0, digest: [0; 32] };
    let (service, totals) = (ServiceId::new("svc").unwrap(), Totals::default());
    let made =
        BackupRecord::new(backup(position), service, session, None, (at, at), totals, manifest, vec![], snapshot);
    Box::new(made)
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let at = Timestamp::UNIX_EPOCH;
        let mut catalog = Catalog::new();
        let met = LineageRecord::new(lineage(), "source", Notation::Decimal, at);
        catalog.apply(&Event::LineageAdded { record: Box::new(met) }).unwrap();
        for position in BACKUPS {
            let record = record(position);
            let opened = Event::SessionOpened { session: record.session, at, parent: None, adopted: Vec::new() };
            catalog.apply(&opened).unwrap();
            catalog.apply(&Event::BackupCommitted { record }).unwrap();
        }
        let wishes = u8::from(self.collector);
        vec![State {
            catalog,
            version: 0,
            store: Pieces::new(),
            flying: Pieces::new(),
            writers: [const { Writer::Idle }; 3],
            merger: Merger::Idle,
            collector: Collector::Idle,
            operator: Operator { read: None, expiries: wishes, reinstatements: wishes, lettings: wishes },
            acknowledged: 0,
            behind: false,
            broken: false,
            refused: false,
            merged: false,
            swept: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (w, writer) in state.writers.iter().enumerate().take(self.writers) {
            // Writers are alike: one begins after the one before it has.
            match writer {
                Writer::Idle if w == 0 || state.writers[w - 1] != Writer::Idle => actions.push(Action::Enroll(w)),
                Writer::Idle | Writer::Over => continue,
                Writer::Enrolled { .. } | Writer::Listing { .. } => actions.push(Action::List(w)),
                Writer::Listed { epoch: None, .. } => actions.push(Action::Enroll(w)),
                Writer::Listed { .. } => actions.push(Action::SealOlder(w)),
                Writer::Writing { looked, .. } => {
                    actions.extend((1..=self.longest).map(|len| Action::Send(w, len)));
                    actions.push(if looked.is_some() { Action::Acknowledge(w) } else { Action::Look(w) });
                }
            }
        }
        actions.extend(state.flying.iter().map(|piece| Action::Land(*piece)));
        if self.merger && state.merger != Merger::Done {
            actions.push(Action::Merge(None));
            actions.extend(self.pairs(state).into_iter().map(|pair| Action::Merge(Some(pair))));
        }
        if self.collector {
            actions.extend([Action::Collect, Action::LetGo]);
            actions.extend(BACKUPS.map(Action::Expire));
            actions.extend(BACKUPS.map(Action::Reinstate));
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut next = before.clone();
        let state = &mut next;
        match action {
            Action::Enroll(w) => self.enroll(state, w)?,
            Action::List(w) => self.list(state, w)?,
            Action::SealOlder(w) => self.seal_older(state, w)?,
            Action::Send(w, len) => self.send(state, w, len)?,
            Action::Land(piece) => {
                state.flying.remove(&piece);
                state.store.insert(piece);
            }
            Action::Look(w) => self.look(state, w)?,
            Action::Acknowledge(w) => self.acknowledge(state, w)?,
            Action::Merge(pair) => self.merge(state, pair)?,
            Action::Collect => self.collect(state)?,
            Action::Expire(position) => self.expire(state, position)?,
            Action::Reinstate(position) => self.reinstate(state, position)?,
            Action::LetGo => self.let_go(state)?,
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no acknowledged log is missing", |_, state: &State| state.is_whole()),
            Property::always("nobody begins behind what was acknowledged", |_, state: &State| !state.behind),
            Property::always("no log is let go that a kept backup leads to", |_, state: &State| !state.broken),
            Property::sometimes("everything is acknowledged", |world: &Self, state: &State| {
                state.acknowledged == world.bytes
            }),
            Property::sometimes("a zombie is refused", |_, state: &State| state.refused),
            Property::sometimes("pieces are merged", |_, state: &State| state.merged),
            Property::sometimes("log is swept", |_, state: &State| state.swept),
        ]
    }
}
