//! Sentinels, who watch a deployment and say who its primary is.
//!
//! Source: `src/sentinel.c` (`sentinelCommand`) and the document "Guidelines for clients with support for Sentinel": any one is asked,
//! and whoever it names has to say itself that it is a primary, since a sentinel that was cut off may be behind.

use super::{Node, Prefer};
use crate::client::{ClientSettings, Connection, Endpoint, Reply, Watched};
use crate::error::{Error, Result};

/// What a sentinel says of the deployment.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    primary: Endpoint,
    /// Those that are there and connected to it, as the sentinel sees them.
    replicas: Vec<Endpoint>,
}

/// Connects to the primary that the sentinels name, and where a replica is wished for, to its replicas as well.
///
/// # Errors
/// [`Error::Settings`] when all sentinels that answer don't know the deployment; otherwise those of the last one that was asked.
pub(super) async fn nodes(settings: &ClientSettings, watched: &Watched, prefer: Prefer) -> Result<Vec<Node>> {
    let mut failure = None;
    for sentinel in &settings.address.nodes {
        match by(settings, watched, sentinel, prefer).await {
            Ok(nodes) => return Ok(nodes),
            Err(error) => {
                tracing::debug!(%sentinel, %error, "a sentinel does not lead to the primary");
                // That one does not know the deployment says less than that another one cannot be asked.
                if !matches!((&failure, &error), (Some(_), Error::Settings(_))) {
                    failure = Some(error);
                }
            }
        }
    }
    Err(failure.unwrap_or_else(|| Error::Settings("the address names no sentinel".to_owned())))
}

async fn by(settings: &ClientSettings, watched: &Watched, sentinel: &Endpoint, prefer: Prefer) -> Result<Vec<Node>> {
    let limit = settings.connect_timeout;
    let asked = tokio::time::timeout(limit, ask(settings, watched, sentinel, prefer)).await;
    let told = asked.map_err(|_| Error::Timeout { what: "a word of a sentinel", after: limit })??;
    let primary = Node::open(settings, &told.primary).await?;
    if !primary.facts.is_primary() {
        let text = format!("{sentinel} says that {} is the primary, which says that it is not", told.primary);
        return Err(Error::Closed(text));
    }
    let mut nodes = vec![primary];
    for replica in told.replicas {
        match Node::open(settings, &replica).await {
            Ok(node) => nodes.push(node),
            Err(error) => tracing::debug!(%replica, %error, "a replica cannot be asked"),
        }
    }
    Ok(nodes)
}

async fn ask(settings: &ClientSettings, watched: &Watched, sentinel: &Endpoint, prefer: Prefer) -> Result<Told> {
    let mut own = settings.clone();
    (own.address.user, own.address.password) = (watched.user.clone(), watched.password.clone());
    let mut connection = Connection::open(&own, sentinel).await?;
    let reply = connection.call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &watched.name]).await?;
    let primary = address(&reply)
        .ok_or_else(|| Error::Settings(format!("{sentinel} watches no deployment of the name {:?}", watched.name)))?;
    let replicas = match prefer {
        Prefer::Replica => {
            let reply = connection.call(&["SENTINEL", "REPLICAS", &watched.name]).await?;
            reply.items().iter().filter_map(replica).collect()
        }
        Prefer::Primary => Vec::new(),
    };
    Ok(Told { primary, replicas })
}

fn address(reply: &Reply) -> Option<Endpoint> {
    let [host, port] = reply.items() else { return None };
    Some(Endpoint::tcp(host.text()?, u16::try_from(port.int()?).ok()?))
}

/// A replica that can be read: names and values in turn.
fn replica(reply: &Reply) -> Option<Endpoint> {
    let value = |name: &str| {
        let mut pairs = reply.pairs();
        pairs.find(|(known, _)| known.bytes() == Some(name.as_bytes())).and_then(|(_, value)| value.text())
    };
    let gone = ["s_down", "o_down", "disconnected"];
    let there = !value("flags")?.split(',').any(|flag| gone.contains(&flag));
    let linked = value("master-link-status").is_none_or(|status| status == "ok");
    (there && linked).then_some(())?;
    Some(Endpoint::tcp(value("ip")?, value("port")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(words: &[&'static str]) -> Reply {
        Reply::Array(words.iter().map(|word| Reply::Bulk(bytes::Bytes::from_static(word.as_bytes()))).collect())
    }

    #[test]
    fn only_replicas_that_can_be_read_count() {
        let told = |flags, status| {
            replica(&reply(&["ip", "10.0.0.2", "port", "6380", "flags", flags, "master-link-status", status]))
        };
        assert_eq!(told("slave", "ok"), Some(Endpoint::tcp("10.0.0.2", 6380)));
        assert_eq!(told("slave", "err"), None);
        assert_eq!(told("s_down,slave", "ok"), None);
        assert_eq!(told("slave,disconnected", "ok"), None);
        assert_eq!(address(&reply(&["::1", "7000"])), Some(Endpoint::tcp("::1", 7000)));
        assert_eq!(address(&Reply::Nil), None);
    }
}
