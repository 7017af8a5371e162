//! The way back of a cluster: each member into a server of its own, or all into fewer servers.

use backup_core::engine::members::{each_member, wanted_members};
use backup_core::engine::{RestoreContext, Restored};
use backup_core::{BackupEngine, Error, Finding, MemberName, Result, Severity};

use super::settings::shard_of;
use super::{ClickHouseCluster, MemberSettings};
use crate::engine::ClickHouse;
use crate::restore;

/// What goes into one server, in this order.
struct Load {
    target: MemberName,
    server: ClickHouse,
    members: Vec<(MemberName, RestoreContext)>,
}

/// Why a restore would be refused.
pub(super) async fn assess(engine: &ClickHouseCluster, cx: &RestoreContext) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for load in loads(engine, cx).await? {
        for (name, member) in load.members {
            findings
                .extend(load.server.assess_restore(&member).await?.into_iter().map(|finding| finding.of_member(&name)));
        }
    }
    Ok(findings)
}

/// Restores the members: servers side by side, and into one server one after the other.
pub(super) async fn restore(engine: &ClickHouseCluster, cx: &RestoreContext) -> Result<Restored> {
    // Of all, before the first one makes what others would find.
    let findings = assess(engine, cx).await?;
    if let Some(blocker) = findings.iter().find(|finding| finding.severity == Severity::Blocker) {
        return Err(blocker.refusal("the restore"));
    }
    let loads = loads(engine, cx).await?.into_iter().map(|load| (load.target.clone(), load));
    let settings = engine.restore.clone();
    let restored = each_member(loads, None, |_, load| {
        let mut settings = settings.clone();
        async move {
            let mut all = Restored::default();
            for (name, member) in load.members {
                let targets = restore::targets(&member, &settings).await?;
                let server = load.server.clone().with_restore(settings.clone());
                settings.joined.extend(targets);
                let one = server.restore(&member).await.map_err(|error| error.context(format!("what {name} had")))?;
                all.extracted += one.extracted;
                all.findings.extend(one.findings.into_iter().map(|finding| finding.of_member(&name)));
            }
            Ok(all)
        }
    });
    let mut all = Restored::default();
    for one in restored.await? {
        all.extracted += one.extracted;
        all.findings.extend(one.findings);
    }
    Ok(all)
}

async fn loads(engine: &ClickHouseCluster, cx: &RestoreContext) -> Result<Vec<Load>> {
    let targets = engine.settings.named()?;
    let members = wanted_members(cx).await?;
    let names: Vec<_> = members.iter().map(|(name, _)| name.clone()).collect();
    let places = places(&names, &targets)?;
    let mut loads: Vec<Load> = Vec::new();
    for ((name, member), (target, settings)) in members.into_iter().zip(places) {
        match loads.iter_mut().find(|load| load.target == *target) {
            Some(load) => load.members.push((name, member)),
            None => {
                let server = ClickHouse::new(settings.server.clone())?.with_restore(engine.restore.clone());
                loads.push(Load { target: target.clone(), server, members: vec![(name, member)] });
            }
        }
    }
    Ok(loads)
}

/// Where each member goes: to the server of its own numbers if all have one; else the shards are dealt out to the servers there are, and the
/// replicas of one to the same server.
fn places<'t>(
    members: &[MemberName],
    targets: &'t [(MemberName, MemberSettings)],
) -> Result<Vec<&'t (MemberName, MemberSettings)>> {
    if targets.is_empty() {
        return Err(Error::invalid("nothing says into which servers the members go"));
    }
    let own: Option<Vec<_>> = members.iter().map(|name| targets.iter().find(|(other, _)| other == name)).collect();
    if let Some(own) = own {
        return Ok(own);
    }
    let dealt = members.iter().map(|name| {
        let shard = shard_of(name).and_then(|shard| shard.checked_sub(1));
        let shard = shard.ok_or_else(|| Error::damaged(format!("{name} is no name of a shard and a replica")))?;
        targets.get(shard as usize % targets.len()).ok_or_else(|| Error::internal("there is no such server"))
    });
    dealt.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::ClickHouseSettings;

    fn server(shard: u32, replica: u32) -> (MemberName, MemberSettings) {
        let member = MemberSettings::new(shard, replica, ClickHouseSettings::default());
        (member.name().unwrap(), member)
    }

    #[test]
    fn each_has_its_place() {
        let backup = [(1, 1), (1, 2), (2, 1), (3, 1)].map(|(shard, replica)| server(shard, replica).0);
        let of = |targets: &[(u32, u32)]| {
            let targets: Vec<_> = targets.iter().map(|(shard, replica)| server(*shard, *replica)).collect();
            let places = places(&backup, &targets).ok()?;
            Some(places.iter().map(|(_, member)| (member.shard, member.replica)).collect::<Vec<_>>())
        };
        let same = [(1, 1), (1, 2), (2, 1), (3, 1), (4, 1)];
        assert_eq!(of(&same).unwrap(), same[..4]);
        assert_eq!(of(&[(1, 1)]).unwrap(), [(1, 1); 4]);
        assert_eq!(of(&[(1, 1), (2, 1)]).unwrap(), [(1, 1), (1, 1), (2, 1), (1, 1)]);
        assert_eq!(of(&[]), None);
    }
}
