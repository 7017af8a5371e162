//! The layout of a cluster as all of its primaries see it: only what they agree on can be backed up.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Error as CoreError, Finding, Result as CoreResult, Severity};
use futures::future::try_join_all;

use super::topology::{self, Asked, ClusterNode, Run, Share};
use crate::client::{ClientSettings, Connection, Endpoint};
use crate::error::{Error, Result};

/// What atomic migrations say when they are over: those of Valkey, then those of Redis.
const OVER: [&str; 5] = ["success", "failed", "cancelled", "canceled", "completed"];

/// A layout, and what speaks against a backup of it.
#[derive(Debug)]
pub(super) struct Layout {
    /// The lines of `CLUSTER NODES`, of the node that was asked first.
    pub(super) text: String,
    /// The primaries that have slots, in the order of their slots.
    pub(super) shares: Vec<Share>,
    claims: BTreeMap<String, (u64, Vec<Run>)>,
    /// The atomic migrations that nodes know of.
    jobs: BTreeSet<String>,
    pub(super) findings: Vec<Finding>,
}

impl Layout {
    /// Asks the first node that answers who there is, and then every primary what it sees.
    ///
    /// # Errors
    /// Those of the connections; [`Error::Server`] of a server that is no member of a cluster.
    pub(super) async fn ask(client: &ClientSettings) -> Result<Self> {
        let (text, nodes) = first(client).await?;
        let shares = topology::shares(&nodes);
        let claims = topology::claims(&nodes);
        let views = try_join_all(shares.iter().map(|share| soon(client, View::ask(client, &share.endpoint)))).await?;
        let mut findings = coverage(&shares);
        findings.extend(troubles(&nodes));
        let disputed = shares.iter().zip(&views).find(|(_, view)| topology::claims(&view.nodes) != claims);
        if let Some((share, _)) = disputed {
            let text = "the nodes do not agree on who has which slots";
            findings.push(blocker("topology-disputed", text).about(share.endpoint.to_string()));
        }
        let mut jobs = BTreeSet::new();
        for (share, view) in shares.iter().zip(views) {
            let own = view.nodes.iter().find(|node| node.myself).map_or(0, |node| node.moving);
            let under_way = view.jobs.values().filter(|state| !OVER.contains(&state.as_str())).count();
            if own + under_way > 0 {
                let text = "slots are on their way between nodes: a key could be in two members or in none";
                findings.push(blocker("slots-migrating", text).about(share.endpoint.to_string()));
            }
            jobs.extend(view.jobs.into_keys());
        }
        Ok(Self { text, shares, claims, jobs, findings })
    }

    /// Whether the members that were read in between are those of one layout.
    ///
    /// # Errors
    /// [`Unavailable`](backup_core::ErrorKind::Unavailable) when it has changed: then a key may be in two members or in none.
    pub(super) fn unchanged(&self, later: &Self) -> CoreResult<()> {
        let changed = |what: &str| {
            let text = format!("the cluster has changed while it was read: {what}; a backup of it can be tried again");
            Err(CoreError::unavailable(text))
        };
        if let Some(blocker) = later.findings.iter().find(|finding| finding.severity == Severity::Blocker) {
            return changed(&blocker.to_string());
        }
        if self.claims != later.claims {
            let moved = |(id, claim): (&String, &_)| self.claims.get(id) != Some(claim);
            let who = later.claims.iter().find(|claim| moved(*claim)).map(|(id, _)| id.as_str());
            return changed(&format!("slots or their owners are others, at {}", who.unwrap_or("a node that is gone")));
        }
        match later.jobs.difference(&self.jobs).next() {
            Some(job) => changed(&format!("slots were on their way, by the migration {job}")),
            None => Ok(()),
        }
    }
}

/// One node that hangs must keep nobody waiting for as long as an answer to a large command may take.
async fn soon<T>(client: &ClientSettings, answer: impl Future<Output = Result<T>>) -> Result<T> {
    let limit = client.connect_timeout;
    let late = |_| Error::Timeout { what: "a word about its cluster", after: limit };
    tokio::time::timeout(limit, answer).await.map_err(late)?
}

fn asked<'a>(client: &ClientSettings, endpoint: &'a Endpoint) -> Asked<'a> {
    Asked { endpoint, by_name: client.address.tls }
}

/// What the first node says that answers.
async fn first(client: &ClientSettings) -> Result<(String, Vec<ClusterNode>)> {
    let mut failure = Error::Settings("the address names no node".to_owned());
    for endpoint in &client.address.nodes {
        let seen = async {
            let mut connection = Connection::open(client, endpoint).await?;
            let text = connection.call(&["CLUSTER", "NODES"]).await?.text().unwrap_or_default();
            let nodes = topology::parse(&text, asked(client, endpoint))?;
            Ok((text, nodes))
        };
        match soon(client, seen).await {
            Ok(seen) => return Ok(seen),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// What one primary sees.
#[derive(Debug)]
struct View {
    nodes: Vec<ClusterNode>,
    /// The atomic migrations that it takes part in, or did, and their states.
    jobs: BTreeMap<String, String>,
}

impl View {
    async fn ask(client: &ClientSettings, endpoint: &Endpoint) -> Result<Self> {
        let mut connection = Connection::open(client, endpoint).await?;
        let text = connection.call(&["CLUSTER", "NODES"]).await?.text().unwrap_or_default();
        let nodes = topology::parse(&text, asked(client, endpoint))?;
        let mut jobs = BTreeMap::new();
        // Valkey from 9.0 on, Redis from 8.4 on; the others know neither.
        for (question, name) in
            [(&["CLUSTER", "GETSLOTMIGRATIONS"][..], "name"), (&["CLUSTER", "MIGRATION", "STATUS", "ALL"], "id")]
        {
            let reply = match connection.call(question).await {
                Ok(reply) => reply,
                Err(Error::Server { .. }) => continue,
                Err(error) => return Err(error),
            };
            for job in reply.items() {
                let field = |wanted: &str| {
                    let value = job.pairs().find(|(field, _)| field.bytes() == Some(wanted.as_bytes()));
                    value.and_then(|(_, value)| value.text()).unwrap_or_default()
                };
                jobs.insert(field(name), field("state"));
            }
        }
        Ok(Self { nodes, jobs })
    }
}

fn blocker(code: &str, text: impl Into<String>) -> Finding {
    Finding::new(Severity::Blocker, code, text).in_surroundings()
}

fn coverage(shares: &[Share]) -> Vec<Finding> {
    let (missing, twice) = topology::uncovered(topology::runs(shares));
    let mut findings = Vec::new();
    if missing > 0 {
        findings.push(blocker("slots-unassigned", format!("{missing} slots have no owner: their keys are nowhere")));
    }
    if twice {
        findings.push(blocker("slots-disputed", "slots have two owners"));
    }
    findings
}

/// Primaries that the cluster doubts.
///
/// A link between two nodes that is down is none of the cluster's doubts: it comes and goes, and one that stays down makes the node `fail?`
/// soon. The primary itself is asked what it has before and after it is read, so this is told and refuses nothing.
fn troubles(nodes: &[ClusterNode]) -> impl Iterator<Item = Finding> {
    let primaries = nodes.iter().filter(|node| node.follows.is_none() && !node.slots.is_empty());
    primaries.filter_map(|node| {
        let trouble = node.trouble?;
        let text = format!("the primary {} is called {trouble}", node.id);
        let finding = match trouble {
            topology::DISCONNECTED => Finding::new(Severity::Warning, "primary-disconnected", text).in_surroundings(),
            _ => blocker("primary-failing", text),
        };
        Some(finding.about(node.endpoint.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_down_refuses_nothing_and_a_node_that_fails_does() {
        let text = "\
aa 127.0.0.1:7001@17001 myself,master - 0 0 4 connected 0-99\n\
bb 127.0.0.1:7002@17002 master - 0 0 2 disconnected 100-199\n\
cc 127.0.0.1:7003@17003 master,fail? - 0 0 3 disconnected 200-16383\n\
dd 127.0.0.1:7004@17004 slave,fail aa 0 0 4 disconnected\n";
        let endpoint = Endpoint::tcp("127.0.0.1", 7001);
        let nodes = topology::parse(text, Asked { endpoint: &endpoint, by_name: false }).unwrap();
        let told: Vec<_> = troubles(&nodes).map(|finding| (finding.severity, finding.code)).collect();
        let wanted = [(Severity::Warning, "primary-disconnected"), (Severity::Blocker, "primary-failing")];
        assert_eq!(told, wanted.map(|(severity, code)| (severity, code.into())));
    }
}
