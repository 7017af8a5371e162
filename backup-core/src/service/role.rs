//! What an owner, an operator and the platform may do. This is the only place that knows.

use std::fmt;

use crate::catalog::{Actor, Role};
use crate::error::{Error, Result};

/// What somebody wants to do with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Bring it under management.
    Create,
    /// Bring what is stored already under management.
    Adopt,
    /// Look at it, its backups and its audit trail.
    View,
    /// Change its plan, its schedule, its zone, or whether backups are taken.
    Configure,
    /// Take a backup outside of the schedule.
    BackUp,
    /// Have a backup proven outside of the schedule.
    Drill,
    /// Turn it off or on.
    Power,
    /// Restore it onto a new node because the old one is lost.
    Repair,
    /// Make another service of one of its backups.
    Fork,
    /// Keep a backup whatever its age, or stop that.
    Hold,
    /// Delete it, with time to think.
    Delete,
    /// Call it back after it was deleted. Billable.
    Recover,
    /// Run it: due backups, retention, deadlines.
    Run,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Create,
        Self::Adopt,
        Self::View,
        Self::Configure,
        Self::BackUp,
        Self::Drill,
        Self::Power,
        Self::Repair,
        Self::Fork,
        Self::Hold,
        Self::Delete,
        Self::Recover,
        Self::Run,
    ];

    /// Whether `role` may do it.
    ///
    /// Nobody can ask for a purge: it follows from a deletion and its time. Nobody can download a backup: there is no action for it.
    #[must_use]
    pub fn is_for(self, role: Role) -> bool {
        match self {
            Self::View => true,
            Self::Create | Self::Configure | Self::BackUp | Self::Power | Self::Fork | Self::Delete => true,
            // It takes machines of the platform for as long as a restore.
            Self::Adopt | Self::Drill | Self::Hold | Self::Repair => role != Role::Owner,
            Self::Recover => role == Role::Operator,
            Self::Run => role == Role::Platform,
        }
    }

    /// Whether `actor` may do it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) that says who may.
    pub fn permit(self, actor: &Actor) -> Result<()> {
        if self.is_for(actor.role) {
            return Ok(());
        }
        let roles = [Role::Owner, Role::Operator, Role::Platform].into_iter().filter(|role| self.is_for(*role));
        let allowed: Vec<_> = roles.map(|role| role.to_string()).collect();
        Err(Error::invalid(format!("{actor} may not {self}: that is for the {}", allowed.join(" and the "))))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create a service",
            Self::Adopt => "adopt what is stored",
            Self::View => "view a service",
            Self::Configure => "configure a service",
            Self::BackUp => "ask for a backup",
            Self::Drill => "ask for a drill",
            Self::Power => "power a service off or on",
            Self::Repair => "restore a service onto a new node",
            Self::Fork => "fork a service",
            Self::Hold => "hold or release a backup",
            Self::Delete => "delete a service",
            Self::Recover => "recover a deleted service",
            Self::Run => "run a service",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_role_may_do() {
        let of = |role| Action::ALL.into_iter().filter(|action| action.is_for(role)).collect::<Vec<_>>();
        use Action as A;
        assert_eq!(of(Role::Owner), [A::Create, A::View, A::Configure, A::BackUp, A::Power, A::Fork, A::Delete]);
        assert_eq!(
            of(Role::Operator),
            [
                A::Create,
                A::Adopt,
                A::View,
                A::Configure,
                A::BackUp,
                A::Drill,
                A::Power,
                A::Repair,
                A::Fork,
                A::Hold,
                A::Delete,
                A::Recover
            ]
        );
        let platform = of(Role::Platform);
        assert!(!platform.contains(&A::Recover), "recovery is a human's decision, and billed");
        assert_eq!(platform.len(), Action::ALL.len() - 1);
    }

    #[test]
    fn a_refusal_says_who_may() {
        let refusal = Action::Recover.permit(&Actor::new(Role::Owner, "kim")).unwrap_err();
        assert_eq!(refusal.kind(), crate::ErrorKind::InvalidInput);
        let text = refusal.to_string();
        assert!(text.contains("owner kim") && text.contains("recover") && text.contains("operator"), "{text}");
    }
}
