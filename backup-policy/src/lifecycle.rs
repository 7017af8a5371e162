//! What becomes of a service that is off, and of one that was deleted.
//!
//! | from | by | to |
//! |---|---|---|
//! | running | [`power_off`](Lifecycle::power_off) | off |
//! | off | [`power_on`](Lifecycle::power_on) | running |
//! | running, off | [`delete`](Lifecycle::delete) | deleted |
//! | off | [`expire`](Lifecycle::expire), when it was off for too long | deleted |
//! | deleted | [`recover`](Lifecycle::recover), in time | off |
//! | deleted | [`purge`](Lifecycle::purge), when it is too late for that | purged |
//!
//! States carry when they began; deadlines follow from the [`LifecyclePolicy`], so a changed policy holds for everyone at once.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::age::Age;
use crate::error::{Error, Result};

/// Where a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", deny_unknown_fields)]
pub enum Lifecycle {
    /// It runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// It is off: its data is in its backups only.
    PoweredOff {
        /// Since when, without interruption.
        since: Timestamp,
    },
    /// It is deleted; its backups are still there.
    Deleted {
        /// Since when.
        since: Timestamp,
        /// Why.
        cause: DeletionCause,
    },
    /// Its backups are destroyed, beginning with their keys. Nothing follows.
    Purged {
        /// Since when.
        since: Timestamp,
    },
}

/// Why a service was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeletionCause {
    /// Somebody wanted it.
    Requested,
    /// It was off for too long.
    OffTooLong,
}

/// How long a service may be off and how long a deleted one can be recovered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Fields", try_from = "Fields")]
pub struct LifecyclePolicy {
    off_limit: Age,
    notices: Vec<Age>,
    grace: Age,
}

impl LifecyclePolicy {
    /// The most notices.
    pub const MAX_NOTICES: usize = 32;

    /// Off for at most `off_limit`, with a notice each of `notices` before the end; after its deletion recoverable for `grace`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than [`MAX_NOTICES`](Self::MAX_NOTICES) notices, the same one twice, and one that is not
    /// shorter than `off_limit`.
    pub fn new(off_limit: Age, notices: impl IntoIterator<Item = Age>, grace: Age) -> Result<Self> {
        let mut notices: Vec<Age> = notices.into_iter().collect();
        if notices.len() > Self::MAX_NOTICES {
            return Err(Error::invalid(
                "notices",
                format!("{} notices", notices.len()),
                format!("up to {}", Self::MAX_NOTICES),
            ));
        }
        notices.sort_by(|one, other| other.cmp(one));
        if let Some(pair) = notices.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid("notices", format!("{} twice", pair[0]), "each time before the deletion once"));
        }
        if let Some(early) = notices.first().filter(|notice| **notice >= off_limit) {
            return Err(Error::invalid("notices", early, format!("less than off_limit ({off_limit})")));
        }
        Ok(Self { off_limit, notices, grace })
    }

    /// How long a service may be off before it is deleted.
    #[must_use]
    pub fn off_limit(&self) -> Age {
        self.off_limit
    }

    /// How long before that deletion notices are given, the longest first.
    #[must_use]
    pub fn notices(&self) -> &[Age] {
        &self.notices
    }

    /// How long after its deletion a service can be recovered.
    #[must_use]
    pub fn grace(&self) -> Age {
        self.grace
    }
}

/// 180 days off, with notices 30, 7 and 1 day before; 30 days of grace.
impl Default for LifecyclePolicy {
    fn default() -> Self {
        Self {
            off_limit: Age::days(180),
            notices: vec![Age::days(30), Age::days(7), Age::days(1)],
            grace: Age::days(30),
        }
    }
}

/// A notice that a service will be deleted because it is off. Toggling it on and off makes another deadline, and so other notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Notice {
    /// When the service will be deleted.
    pub deadline: Timestamp,
    /// How long before it the notice was due.
    pub before: Age,
}

/// A notice that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SentNotice {
    /// Which one.
    pub notice: Notice,
    /// When it was given.
    pub at: Timestamp,
}

/// What is to be done with a service by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Delete it: [`Lifecycle::expire`].
    Delete,
    /// Destroy its backups: [`Lifecycle::purge`].
    Purge,
}

/// What time has brought for a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outlook {
    /// What is to be done.
    pub action: Option<Action>,
    /// The notice that is to be given. Of several that were missed it is the last one; the others are not made up for.
    pub notice: Option<Notice>,
    /// When to look again if nothing else happens.
    pub next: Option<Timestamp>,
}

/// Why a transition is not possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The service is not in a state from which it can be done.
    #[error("{transition} is not possible: the service is {state}; possible for one that is {allowed}")]
    WrongState {
        /// What was wanted.
        transition: &'static str,
        /// In which state the service is.
        state: &'static str,
        /// From which states it is possible.
        allowed: &'static str,
    },
    /// The service was deleted too long ago.
    #[error("recover is not possible: the service could be recovered until {deadline}")]
    GraceOver {
        /// Until when it could be recovered.
        deadline: Timestamp,
    },
    /// Backups of a deleted service are not destroyed as long as it can be recovered.
    #[error("purge is not possible: the service can be recovered until {deadline}")]
    InGrace {
        /// Until when it can be recovered.
        deadline: Timestamp,
    },
    /// The service has not been off for long enough, or the last notice was not given long enough ago.
    #[error("deletion for being off is not possible before {deadline}")]
    NotOffLongEnough {
        /// From when on it is possible.
        deadline: Timestamp,
    },
}

impl Lifecycle {
    /// A service that begins to run at `now`.
    #[must_use]
    pub const fn running(now: Timestamp) -> Self {
        Self::Running { since: now }
    }

    /// The state's name in snake case.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Running { .. } => "running",
            Self::PoweredOff { .. } => "powered_off",
            Self::Deleted { .. } => "deleted",
            Self::Purged { .. } => "purged",
        }
    }

    /// Since when it is in its state.
    #[must_use]
    pub const fn since(&self) -> Timestamp {
        match *self {
            Self::Running { since }
            | Self::PoweredOff { since }
            | Self::Deleted { since, .. }
            | Self::Purged { since } => since,
        }
    }

    /// Powers a running service off.
    ///
    /// # Errors
    /// [`Refusal::WrongState`] unless it runs.
    pub fn power_off(self, now: Timestamp) -> Result<Self, Refusal> {
        match self {
            Self::Running { .. } => Ok(Self::PoweredOff { since: now }),
            _ => Err(self.refused("power_off", "running")),
        }
    }

    /// Powers a service on. Its time off begins anew when it is powered off again.
    ///
    /// # Errors
    /// [`Refusal::WrongState`] unless it is off.
    pub fn power_on(self, now: Timestamp) -> Result<Self, Refusal> {
        match self {
            Self::PoweredOff { .. } => Ok(Self::Running { since: now }),
            _ => Err(self.refused("power_on", "powered_off")),
        }
    }

    /// Deletes a service because somebody wants it.
    ///
    /// # Errors
    /// [`Refusal::WrongState`] if it is deleted already.
    pub fn delete(self, now: Timestamp) -> Result<Self, Refusal> {
        match self {
            Self::Running { .. } | Self::PoweredOff { .. } => {
                Ok(Self::Deleted { since: now, cause: DeletionCause::Requested })
            }
            _ => Err(self.refused("delete", "running or powered_off")),
        }
    }

    /// Deletes a service because it was off for too long.
    ///
    /// # Errors
    /// [`Refusal::WrongState`] unless it is off; [`Refusal::NotOffLongEnough`] before [`due`](Self::due) asks for it.
    pub fn expire(self, policy: &LifecyclePolicy, now: Timestamp, sent: &[SentNotice]) -> Result<Self, Refusal> {
        let Self::PoweredOff { since } = self else { return Err(self.refused("expire", "powered_off")) };
        let deadline = deletable(policy, since, sent).unwrap_or(policy.off_limit.after(since));
        match self.due(policy, now, sent).action {
            Some(Action::Delete) => Ok(Self::Deleted { since: now, cause: DeletionCause::OffTooLong }),
            _ => Err(Refusal::NotOffLongEnough { deadline }),
        }
    }

    /// Recovers a deleted service: it is off then, and powering it on restores its latest backup. Its time off begins anew.
    ///
    /// # Errors
    /// [`Refusal::WrongState`] unless it is deleted; [`Refusal::GraceOver`] when it is too late, even if its backups have not
    /// been destroyed yet: that may have begun.
    pub fn recover(self, policy: &LifecyclePolicy, now: Timestamp) -> Result<Self, Refusal> {
        let Self::Deleted { since, .. } = self else { return Err(self.refused("recover", "deleted")) };
        let deadline = policy.grace.after(since);
        if now < deadline { Ok(Self::PoweredOff { since: now }) } else { Err(Refusal::GraceOver { deadline }) }
    }

    /// Says that the backups of a deleted service are destroyed, from their keys on.
    ///
    /// # Errors
    /// [`Refusal::WrongState`] unless it is deleted; [`Refusal::InGrace`] as long as it can be recovered.
    pub fn purge(self, policy: &LifecyclePolicy, now: Timestamp) -> Result<Self, Refusal> {
        let Self::Deleted { since, .. } = self else { return Err(self.refused("purge", "deleted")) };
        let deadline = policy.grace.after(since);
        if now >= deadline { Ok(Self::Purged { since: now }) } else { Err(Refusal::InGrace { deadline }) }
    }

    /// When the service changes by itself: is deleted because it is off, or purged because it is deleted.
    #[must_use]
    pub fn deadline(&self, policy: &LifecyclePolicy) -> Option<Timestamp> {
        match *self {
            Self::PoweredOff { since } => Some(policy.off_limit.after(since)),
            Self::Deleted { since, .. } => Some(policy.grace.after(since)),
            Self::Running { .. } | Self::Purged { .. } => None,
        }
    }

    /// What is to be done at `now`, when the notices `sent` were given already.
    ///
    /// No service is deleted without its last notice, and not sooner after it than the notice says: if nobody looked for a
    /// while, the notice is given first and the deletion waits.
    #[must_use]
    pub fn due(&self, policy: &LifecyclePolicy, now: Timestamp, sent: &[SentNotice]) -> Outlook {
        match *self {
            Self::Running { .. } | Self::Purged { .. } => Outlook::default(),
            Self::Deleted { since, .. } => {
                let deadline = policy.grace.after(since);
                let over = now >= deadline;
                Outlook { action: over.then_some(Action::Purge), notice: None, next: (!over).then_some(deadline) }
            }
            Self::PoweredOff { since } => off(policy, since, now, sent),
        }
    }

    fn refused(&self, transition: &'static str, allowed: &'static str) -> Refusal {
        Refusal::WrongState { transition, state: self.name(), allowed }
    }
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} since {}", self.name(), self.since())
    }
}

/// When a service that is off since `since` may be deleted. None before its last notice was given.
fn deletable(policy: &LifecyclePolicy, since: Timestamp, sent: &[SentNotice]) -> Option<Timestamp> {
    let deadline = policy.off_limit.after(since);
    let Some(last) = policy.notices.last() else { return Some(deadline) };
    let given =
        sent.iter().filter(|sent| sent.notice == Notice { deadline, before: *last }).map(|sent| sent.at).min()?;
    Some(deadline.max(last.after(given)))
}

fn off(policy: &LifecyclePolicy, since: Timestamp, now: Timestamp, sent: &[SentNotice]) -> Outlook {
    let deadline = policy.off_limit.after(since);
    // A later notice makes the earlier ones pointless.
    let given = sent.iter().filter(|sent| sent.notice.deadline == deadline).map(|sent| sent.notice.before).min();
    let open = policy.notices.iter().filter(|before| given.is_none_or(|given| **before < given));
    let (passed, ahead): (Vec<Age>, Vec<Age>) = open.partition(|before| before.before(deadline) <= now);
    let notice = passed.last().map(|before| Notice { deadline, before: *before });
    let deletable = deletable(policy, since, sent);
    let action = deletable.is_some_and(|at| at <= now).then_some(Action::Delete);
    let next = match action {
        Some(_) => None,
        None => ahead.first().map(|before| before.before(deadline)).or(deletable),
    };
    Outlook { action, notice, next }
}

/// As it stands in documents.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    off_limit: String,
    notices: Vec<String>,
    grace: String,
}

impl From<LifecyclePolicy> for Fields {
    fn from(policy: LifecyclePolicy) -> Self {
        let notices = policy.notices.iter().map(ToString::to_string).collect();
        Self { off_limit: policy.off_limit.to_string(), notices, grace: policy.grace.to_string() }
    }
}

impl TryFrom<Fields> for LifecyclePolicy {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self> {
        let age = |text: &str, place: &str| text.parse::<Age>().map_err(|error| error.renamed(place));
        let notices = fields.notices.iter().enumerate();
        let notices =
            notices.map(|(index, text)| age(text, &format!("notices[{index}]"))).collect::<Result<Vec<_>>>()?;
        Self::new(age(&fields.off_limit, "off_limit")?, notices, age(&fields.grace, "grace")?)
    }
}
