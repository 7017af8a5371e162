//! What a node says about itself, as far as a backup has to know it. Pure.

use std::fmt;

use super::info::{Info, field};
use crate::client::{Endpoint, StreamPosition, identifier};

/// Which server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Redis => "redis",
            Self::Valkey => "valkey",
        })
    }
}

/// What a node does in its deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Primary {
        /// Replicas that are connected, where they said how they are reached.
        replicas: Vec<Endpoint>,
    },
    /// It follows a primary.
    Replica {
        /// Whether it is connected to it and has its data.
        linked: bool,
    },
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeFacts {
    /// Which server.
    pub product: Product,
    /// Its own version.
    pub version: String,
    /// What it does.
    pub role: Role,
    /// Where its stream stands: the present name of its history, and its end.
    pub position: StreamPosition,
    /// The name that its history had before, and up to where it goes. None when it has no past.
    pub before: Option<StreamPosition>,
    /// The first byte of the stream that it can still send. None when it keeps none: nobody has followed it, or not for long.
    pub backlog: Option<u64>,
    /// Whether it is still reading its files.
    pub loading: bool,
    /// Whether it is a member of a cluster.
    pub cluster: bool,
    /// Bytes of memory that its data take.
    pub memory: Option<u64>,
    /// Keys in all databases.
    pub keys: u64,
    /// Hashes whose fields expire, as far as the server counts them (Valkey from 9 on).
    pub field_expiry: u64,
}

impl NodeFacts {
    /// Reads what `INFO` says. None when something essential is missing.
    #[must_use]
    pub fn of(info: &Info) -> Option<Self> {
        let (product, version) = match info.get("valkey_version") {
            Some(version) => (Product::Valkey, version),
            None => (Product::Redis, info.get("redis_version")?),
        };
        let role = match info.get("role")? {
            "master" => {
                Role::Primary { replicas: info.numbered("slave").filter_map(|(_, value)| replica(value)).collect() }
            }
            _ => Role::Replica { linked: info.get("master_link_status") == Some("up") },
        };
        let end = info.number("master_repl_offset")?;
        let position = StreamPosition::new(identifier(info.get("master_replid")?)?, end);
        let first = info.number("repl_backlog_first_byte_offset").filter(|_| info.is_set("repl_backlog_active"));
        Some(Self {
            product,
            version: version.to_owned(),
            role,
            before: before(info),
            // The server counts from one, and names the first byte behind its end when it keeps nothing yet.
            backlog: first.and_then(|first| first.checked_sub(1)).filter(|first| *first <= end),
            position,
            loading: info.is_set("loading"),
            cluster: info.is_set("cluster_enabled"),
            memory: info.number("used_memory_dataset").or_else(|| info.number("used_memory")),
            keys: sum(info, "keys"),
            field_expiry: sum(info, "keys_with_volatile_items"),
        })
    }

    /// Whether it is a primary.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary { .. })
    }

    /// Whether a snapshot or the stream can be asked for.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.loading && !matches!(self.role, Role::Replica { linked: false })
    }

    /// Whether it can send the stream from `position` on: it is of its history, and still kept.
    #[must_use]
    pub fn continues(&self, position: &StreamPosition) -> bool {
        let StreamPosition { id, offset } = position;
        let own = *id == self.position.id;
        let past = self.before.as_ref().is_some_and(|before| before.id == *id && *offset <= before.offset);
        (own || past) && *offset <= self.position.offset && self.backlog.is_some_and(|first| first <= *offset)
    }

    /// Whether there can be functions.
    #[must_use]
    pub fn since_functions(&self) -> bool {
        self.product == Product::Valkey || self.line() >= (7, 0)
    }

    /// The version that a replica has to be of to get everything, where that is not any.
    #[must_use]
    pub fn replica_version(&self) -> Option<&str> {
        let own_format = self.product == Product::Valkey && self.line() >= (9, 0) && self.field_expiry > 0;
        own_format.then_some(self.version.as_str())
    }

    /// The version number as the first two numbers of it.
    #[must_use]
    pub fn line(&self) -> (u32, u32) {
        let mut numbers = self.version.split('.').map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

/// A field of all databases, added up.
fn sum(info: &Info, name: &str) -> u64 {
    info.numbered("db").filter_map(|(_, value)| field(value, name)?.parse::<u64>().ok()).sum()
}

/// The name of the history before the last failover. The server says the next byte, counted from one: up to there both names are good.
fn before(info: &Info) -> Option<StreamPosition> {
    let id = identifier(info.get("master_replid2")?).filter(|id| id.bytes().any(|byte| byte != b'0'))?;
    let next = info.get("second_repl_offset")?.parse::<i64>().ok()?;
    Some(StreamPosition::new(id, u64::try_from(next.checked_sub(1)?).ok()?))
}

/// `ip=10.0.0.2,port=6379,state=online,…`. One without a port is no server: somebody takes a backup.
fn replica(value: &str) -> Option<Endpoint> {
    let port = field(value, "port")?.parse().ok().filter(|port| *port != 0)?;
    (field(value, "state") == Some("online")).then(|| Endpoint::tcp(field(value, "ip").unwrap_or_default(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn facts(more: &str) -> Option<NodeFacts> {
        NodeFacts::of(&Info::parse(&format!(
            "redis_version:7.2.4\nrole:master\nmaster_replid:{A}\nmaster_repl_offset:900\n{more}"
        )))
    }

    #[test]
    fn what_a_node_can_send_follows_from_what_it_says() {
        let none = facts("repl_backlog_active:0\nrepl_backlog_first_byte_offset:0\n").unwrap();
        assert!(!none.continues(&StreamPosition::new(A, 900)), "it keeps nothing");
        let text = format!(
            "master_replid2:{B}\nsecond_repl_offset:501\nrepl_backlog_active:1\nrepl_backlog_first_byte_offset:301\n"
        );
        let node = facts(&text).unwrap();
        for (id, offset, can) in [
            (A, 900, true),
            (A, 901, false),
            (A, 300, true),
            (A, 299, false),
            (B, 500, true),
            (B, 501, false),
            (B, 300, true),
            ("c", 500, false),
        ] {
            assert_eq!(node.continues(&StreamPosition::new(id, offset)), can, "{id} {offset}");
        }
        assert_eq!(node.before, Some(StreamPosition::new(B, 500)));
    }

    #[test]
    fn a_past_that_is_none_is_none() {
        let zeros = "0".repeat(40);
        assert_eq!(facts(&format!("master_replid2:{zeros}\nsecond_repl_offset:-1\n")).unwrap().before, None);
        assert!(NodeFacts::of(&Info::parse("redis_version:7.2.4\nrole:master\n")).is_none());
    }

    #[test]
    fn roles_versions_and_sizes_are_read() {
        let node = facts(
            "slave0:ip=10.0.0.2,port=6380,state=online,offset=1\nslave1:ip=10.0.0.3,port=0,state=online\ndb0:keys=3,expires=0\ndb2:keys=4\n",
        );
        let node = node.unwrap();
        assert_eq!(node.role, Role::Primary { replicas: vec![Endpoint::tcp("10.0.0.2", 6380)] });
        assert_eq!((node.keys, node.line(), node.product), (7, (7, 2), Product::Redis));
        let text = format!(
            "redis_version:7.2.4\nvalkey_version:8.1.8\nrole:slave\nmaster_link_status:down\nmaster_replid:{A}\nmaster_repl_offset:0"
        );
        let replica = NodeFacts::of(&Info::parse(&text)).unwrap();
        assert_eq!((replica.product, replica.line(), replica.replica_version()), (Product::Valkey, (8, 1), None));
        assert!(!replica.is_ready());
        let text =
            text.replace("8.1.8", "9.1.2") + "\ndb0:keys=3,expires=0,avg_ttl=0,keys_with_volatile_items=2\ndb1:keys=1";
        let replica = NodeFacts::of(&Info::parse(&text)).unwrap();
        assert_eq!((replica.field_expiry, replica.replica_version()), (2, Some("9.1.2")));
    }
}
