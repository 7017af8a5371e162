//! The life of a service, in the words of the policy.

use backup_policy::lifecycle::{Lifecycle, LifecyclePolicy, Notice, SentNotice};

use crate::catalog::{ServiceState, Stage};

/// The life of a service, in the words of the policy.
pub(super) fn lifecycle(service: &ServiceState) -> Lifecycle {
    use backup_policy::lifecycle::DeletionCause;
    match service.stage {
        Stage::Off { since } => Lifecycle::PoweredOff { since },
        Stage::Deleted { since } => Lifecycle::Deleted { since, cause: DeletionCause::Requested },
        Stage::Purging { since } => Lifecycle::Purged { since },
        _ => Lifecycle::Running { since: service.created },
    }
}

/// The name of a notice in the journal.
pub(super) fn notice_name(notice: &Notice) -> String {
    format!("deletion-in-{}", notice.before)
}

/// The notices that were given in this stage.
pub(super) fn sent(service: &ServiceState, policy: &LifecyclePolicy) -> Vec<SentNotice> {
    let Some(deadline) = lifecycle(service).deadline(policy) else { return Vec::new() };
    let all = policy.notices().iter().map(|before| Notice { deadline, before: *before });
    all.filter_map(|notice| service.notices.get(&notice_name(&notice)).map(|at| SentNotice { notice, at: *at }))
        .collect()
}
