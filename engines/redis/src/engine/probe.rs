//! Looking at a deployment: which node is asked, how, and what deserves attention.

use backup_core::{Finding, Severity};

use super::settings::{Method, Persistence, RedisSettings};
use crate::client::{ClientSettings, Connection, Reply};
use crate::error::Result;
use crate::node::{self, Node, Role};

/// A node that was looked at.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) client: ClientSettings,
    pub(super) node: Node,
    pub(super) method: Method,
    pub(super) findings: Vec<Finding>,
}

/// Chooses a node and looks at it. Changes nothing.
pub(super) async fn probe(settings: &RedisSettings) -> backup_core::Result<Probe> {
    let client = settings.client()?;
    let node = node::choose(&client, settings.prefer).await?;
    look(settings, client, node).await
}

/// Looks at a node that was chosen. Changes nothing.
pub(super) async fn look(
    settings: &RedisSettings,
    client: ClientSettings,
    mut node: Node,
) -> backup_core::Result<Probe> {
    let mut findings = Vec::new();
    if settings.persistence == Persistence::Off {
        let text =
            "the data of this deployment are not kept: persistence is off, so there are no backups and no forks of it";
        findings.push(Finding::new(Severity::Blocker, "persistence-off", text));
    }
    let refused = forbidden(&mut node.connection, settings.method).await?;
    let method = match (settings.method, &refused) {
        (Some(method), _) => method,
        (None, Some(_)) if settings.data_dir.is_some() => Method::File,
        (None, _) => Method::Replication,
    };
    match (method, refused) {
        (Method::Replication, Some(why)) => {
            let text = format!(
                "the server lets nobody replicate: {why}; allow the user psync and replconf, name the data directory, or ask for \
                 every key with the method scan, which is of no single moment"
            );
            findings.push(Finding::new(Severity::Blocker, "replication-forbidden", text).in_surroundings());
        }
        (Method::Scan, Some(why)) => {
            let text = format!("not every key can be asked for: {why}; allow the user multi, exec, scan and dump");
            findings.push(Finding::new(Severity::Blocker, "scan-forbidden", text).in_surroundings());
        }
        (Method::File, _) if settings.data_dir.is_none() => {
            let text = "the file is to be read, but no data directory is named";
            findings.push(Finding::new(Severity::Blocker, "no-data-directory", text));
        }
        _ => {}
    }
    findings.extend(state(&node));
    if node.facts.cluster {
        findings.extend(cluster(&mut node.connection).await?);
    }
    findings.extend(configuration(&mut node.connection, method).await?);
    findings.extend(modules(&mut node.connection).await?);
    Ok(Probe { client, node, method, findings })
}

/// Why we may not replicate, or not ask for keys, as far as the server tells before it is tried.
async fn forbidden(connection: &mut Connection, method: Option<Method>) -> Result<Option<String>> {
    let words: &[&[&str]] = match method {
        Some(Method::Scan) => &[&["SCAN", "0"], &["DUMP", "key"], &["MULTI"], &["EXEC"]],
        Some(Method::Replication | Method::File) | None => &[&["PSYNC", "?", "-1"], &["REPLCONF", "ACK", "0"]],
    };
    // Providers rename commands or leave them out.
    for name in words.iter().filter_map(|words| words.first()) {
        if let Some(Reply::Array(commands)) = optional(connection, &["COMMAND", "INFO", name]).await?
            && !commands.iter().any(|command| !command.items().is_empty())
        {
            return Ok(Some(format!("it has no command {}", name.to_lowercase())));
        }
    }
    let Some(user) = optional(connection, &["ACL", "WHOAMI"]).await?.and_then(|reply| reply.text()) else {
        return Ok(None);
    };
    // Redis 7 can say what would be refused.
    for words in words {
        let question: Vec<_> = ["ACL", "DRYRUN", &user].into_iter().chain(words.iter().copied()).collect();
        let answer = optional(connection, &question).await?.and_then(|reply| reply.text());
        if let Some(text) = answer.filter(|text| text != "OK") {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// An answer, unless the server refuses to give one.
async fn optional(connection: &mut Connection, words: &[&str]) -> Result<Option<Reply>> {
    match connection.call(words).await {
        Ok(reply) => Ok(Some(reply)),
        Err(crate::Error::Server { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn state(node: &Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    if node.facts.loading {
        let text = "the server is still loading its data";
        findings.push(Finding::new(Severity::Blocker, "loading", text).in_surroundings());
    }
    if node.facts.role == (Role::Replica { linked: false }) {
        let text = "the replica is not connected to its primary";
        findings.push(Finding::new(Severity::Blocker, "replica-not-linked", text).in_surroundings());
    }
    if node.info.get("rdb_last_bgsave_status") == Some("err") {
        let text = "the server could not save its own snapshot the last time it tried";
        findings.push(Finding::new(Severity::Warning, "server-cannot-save", text));
    }
    if let Some(evicted) = node.info.number("evicted_keys").filter(|evicted| *evicted > 0) {
        let text = format!("the server has removed {evicted} keys for lack of memory since it was started");
        findings.push(Finding::new(Severity::Warning, "evictions", text).about("maxmemory"));
    }
    findings
}

async fn cluster(connection: &mut Connection) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let nodes = optional(connection, &["CLUSTER", "NODES"]).await?.and_then(|reply| reply.text()).unwrap_or_default();
    let moving = moving(&nodes);
    if moving > 0 {
        let text = format!("{moving} slots are moving between nodes: a key could be in two backups or in none");
        findings.push(Finding::new(Severity::Blocker, "slots-migrating", text).in_surroundings());
    }
    let state = optional(connection, &["CLUSTER", "INFO"]).await?.and_then(|reply| reply.text()).unwrap_or_default();
    if !state.lines().any(|line| line.trim_end() == "cluster_state:ok") {
        let text = "the cluster is not whole: not every slot has an owner that can be reached";
        findings.push(Finding::new(Severity::Warning, "cluster-not-whole", text));
    }
    Ok(findings)
}

/// Slots on their way, of all nodes that are told: `[12->-name]`, `[12-<-name]`.
fn moving(nodes: &str) -> usize {
    nodes.lines().flat_map(|line| line.split(' ').skip(8)).filter(|slots| slots.starts_with('[')).count()
}

async fn configuration(connection: &mut Connection, method: Method) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut value = async |name: &str| -> Result<Option<String>> {
        let reply = optional(connection, &["CONFIG", "GET", name]).await?;
        Ok(reply.and_then(|reply| reply.pairs().next().and_then(|(_, value)| value.text())))
    };
    if method == Method::Replication && value("repl-diskless-sync").await?.as_deref() == Some("no") {
        let text = "the server writes a snapshot to its own disk first, in place of its last one; with yes it would only be sent";
        findings.push(Finding::new(Severity::Warning, "disk-snapshot", text).about("repl-diskless-sync"));
    }
    if let Some(policy) = value("maxmemory-policy").await?.filter(|policy| policy != "noeviction") {
        let text = format!("keys may be removed for lack of memory ({policy}): what is backed up is what is left");
        findings.push(Finding::new(Severity::Note, "eviction-policy", text).about("maxmemory-policy"));
    }
    if value("rdbchecksum").await?.as_deref() == Some("no") {
        let text = "snapshots have no checksum: only their structure can be verified";
        findings.push(Finding::new(Severity::Warning, "no-checksum", text).about("rdbchecksum"));
    }
    Ok(findings)
}

async fn modules(connection: &mut Connection) -> Result<Vec<Finding>> {
    let Some(reply) = optional(connection, &["MODULE", "LIST"]).await? else { return Ok(Vec::new()) };
    let name = |module: &Reply| {
        let pairs = module.pairs().find(|(name, _)| name.bytes() == Some(b"name"));
        pairs.and_then(|(_, value)| value.text()).unwrap_or_default()
    };
    let text = "a server that this is restored into needs the same module";
    Ok(reply.items().iter().map(|module| Finding::new(Severity::Note, "module", text).about(name(module))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_on_their_way_are_seen() {
        let nodes = "aa 127.0.0.1:1@2 myself,master - 0 1 1 connected 0-5 [7->-bb] [9-<-cc]\nbb 127.0.0.1:3@4 master - 0 0 2 connected 6-9\n";
        assert_eq!(moving(nodes), 2);
        assert_eq!(moving("aa 127.0.0.1:1@2,host[1] master - 0 1 1 connected 0-5\n"), 0);
    }
}
