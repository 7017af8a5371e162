//! What one node says about its cluster: the lines of `CLUSTER NODES`. Pure.
//!
//! That command is asked everywhere. `CLUSTER SHARDS` exists from Redis 7.0 on only, `CLUSTER SLOTS` says nothing of epochs and of nodes that
//! fail, and none of them but this one tells of slots on their way. Format: `clusterGenNodeDescription` in `src/cluster*.c`.

use std::collections::BTreeMap;

use crate::client::Endpoint;
use crate::error::{Error, Result};
use crate::rdb::SLOTS;

/// The trouble of a node to which the one that was asked has no link at the moment.
pub(super) const DISCONNECTED: &str = "disconnected";

/// A run of slots, both ends included.
pub(super) type Run = (u16, u16);

/// A node, as another one or itself sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClusterNode {
    /// Its name: 40 hexadecimal digits, which stay over restarts.
    pub(super) id: String,
    /// How it is reached.
    pub(super) endpoint: Endpoint,
    /// Whether it is the one that was asked.
    pub(super) myself: bool,
    /// The primary that it follows; none when it is one.
    pub(super) follows: Option<String>,
    /// Why it should not be relied on, as the cluster says it.
    pub(super) trouble: Option<&'static str>,
    /// Grows with each change of what it claims.
    pub(super) epoch: u64,
    /// The slots that it has, in order.
    pub(super) slots: Vec<Run>,
    /// Slots on their way from or to it. Only told by itself.
    pub(super) moving: usize,
}

/// A primary and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) id: String,
    pub(super) endpoint: Endpoint,
    pub(super) epoch: u64,
    pub(super) slots: Vec<Run>,
    /// The nodes that follow it and that nobody calls failing.
    pub(super) replicas: Vec<Endpoint>,
}

impl Share {
    /// The slots as text: `0-5460,7000`.
    pub(super) fn slots(&self) -> String {
        let runs = self.slots.iter().map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        runs.collect::<Vec<_>>().join(",")
    }
}

/// Where an answer came from, and how nodes are called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// A node may not know its own address: then it is this one.
    pub(super) endpoint: &'a Endpoint,
    /// Whether nodes are reached by the names that they announce, as certificates want it.
    pub(super) by_name: bool,
}

/// Reads the lines.
///
/// # Errors
/// [`Error::Protocol`] for what is no such line.
pub(super) fn parse(text: &str, asked: Asked<'_>) -> Result<Vec<ClusterNode>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let wrong = |line| Error::Protocol(format!("no line of a cluster: {line:?}"));
    lines.map(|line| node(line, asked).ok_or_else(|| wrong(line))).collect()
}

/// `<id> <ip:port@bus[,host…]> <flags> <primary> <ping> <pong> <epoch> <link> <slot> …`
fn node(line: &str, asked: Asked<'_>) -> Option<ClusterNode> {
    let mut fields = line.split_whitespace();
    let (id, address, flags, primary) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let epoch = fields.nth(2)?.parse().ok()?;
    let link = fields.next()?;
    let flags: Vec<&str> = flags.split(',').collect();
    let myself = flags.contains(&"myself");
    let trouble = ["fail", "fail?", "noaddr", "handshake"].into_iter().find(|flag| flags.contains(flag));
    let (moving, slots): (Vec<&str>, Vec<&str>) = fields.partition(|slots| slots.starts_with('['));
    let mut slots: Vec<Run> = slots.into_iter().map(run).collect::<Option<_>>()?;
    slots.sort_unstable();
    Some(ClusterNode {
        id: id.to_owned(),
        endpoint: endpoint(address, asked)?,
        myself,
        follows: (primary != "-").then(|| primary.to_owned()),
        trouble: trouble.or((link != "connected" && !myself).then_some(DISCONNECTED)),
        epoch,
        slots,
        moving: moving.len(),
    })
}

/// Slots as [`Share::slots`] writes them.
pub(super) fn runs_of(text: &str) -> Option<Vec<Run>> {
    text.split(',').map(run).collect()
}

/// `0-5460`, or a single slot.
fn run(text: &str) -> Option<Run> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < SLOTS).then_some((first, last))
}

/// The address, and behind a comma the name that is announced; what follows are fields of newer servers.
fn endpoint(text: &str, asked: Asked<'_>) -> Option<Endpoint> {
    let (address, more) = text.split_once(',').unwrap_or((text, ""));
    let (address, _) = address.split_once('@').unwrap_or((address, ""));
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let name = more.split(',').next().filter(|name| asked.by_name && !name.is_empty() && !name.contains('='));
    match (name, host, asked.endpoint) {
        (Some(name), ..) => Some(Endpoint::tcp(name, port)),
        (None, "", Endpoint::Tcp { host, .. }) => Some(Endpoint::tcp(host.clone(), port)),
        (None, "", Endpoint::Unix(_)) => Some(asked.endpoint.clone()),
        (None, host, _) => Some(Endpoint::tcp(host, port)),
    }
}

/// The primaries that have slots, in the order of their first slots.
pub(super) fn shares(nodes: &[ClusterNode]) -> Vec<Share> {
    let primaries = nodes.iter().filter(|node| node.follows.is_none() && !node.slots.is_empty());
    let mut shares: Vec<_> = primaries
        .map(|node| {
            let own = |other: &&ClusterNode| other.follows.as_deref() == Some(&node.id) && other.trouble.is_none();
            Share {
                id: node.id.clone(),
                endpoint: node.endpoint.clone(),
                epoch: node.epoch,
                slots: node.slots.clone(),
                replicas: nodes.iter().filter(own).map(|node| node.endpoint.clone()).collect(),
            }
        })
        .collect();
    shares.sort_by_key(|share| share.slots.first().copied());
    shares
}

/// The slots of all of them.
pub(super) fn runs(shares: &[Share]) -> impl Iterator<Item = &Run> {
    shares.iter().flat_map(|share| &share.slots)
}

/// What must not change while the members are read: who has which slots, since when.
pub(super) fn claims(nodes: &[ClusterNode]) -> BTreeMap<String, (u64, Vec<Run>)> {
    shares(nodes).into_iter().map(|share| (share.id, (share.epoch, share.slots))).collect()
}

/// Slots that nobody has, and whether one has two owners.
pub(super) fn uncovered<'a>(runs: impl IntoIterator<Item = &'a Run>) -> (usize, bool) {
    let mut owners = vec![0_u8; SLOTS.into()];
    for (first, last) in runs {
        let owned = owners.iter_mut().take(usize::from(*last) + 1).skip((*first).into());
        owned.for_each(|owners| *owners = owners.saturating_add(1));
    }
    (owners.iter().filter(|owners| **owners == 0).count(), owners.iter().any(|owners| *owners > 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THREE: &str = "\
aa 127.0.0.1:7001@17001,,tls-port=0,shard-id=x myself,master - 0 1426238317239 4 connected 0-5460 [93->-bb] [77-<-cc]\n\
bb :7002@17002,hostname2 master - 0 1426238316232 2 connected 5461-10922\n\
cc ::1:7003@17003 master,fail? - 1426238317000 1426238317741 3 connected 10923-16382 16383\n\
dd 127.0.0.1:7004@17004 slave aa 0 1426238317741 4 connected\n\
ee 127.0.0.1:7005@17005 slave,fail aa 0 1426238317741 4 disconnected\n\
ff 127.0.0.1:7006@17006 master - 0 1426238317741 7 disconnected\n";

    fn read(text: &str) -> Result<Vec<ClusterNode>> {
        parse(text, Asked { endpoint: &Endpoint::tcp("10.0.0.9", 1), by_name: false })
    }

    #[test]
    fn lines_are_read() {
        let nodes = read(THREE).unwrap();
        let of = |id: &str| nodes.iter().find(|node| node.id == id).unwrap();
        assert_eq!((of("aa").myself, of("aa").moving, of("aa").epoch), (true, 2, 4));
        assert_eq!(of("bb").endpoint, Endpoint::tcp("10.0.0.9", 7002));
        assert_eq!(of("cc").endpoint, Endpoint::tcp("::1", 7003));
        let named = parse(THREE, Asked { endpoint: &Endpoint::tcp("10.0.0.9", 1), by_name: true }).unwrap();
        assert_eq!(named[0].endpoint, Endpoint::tcp("127.0.0.1", 7001));
        assert_eq!(named[1].endpoint, Endpoint::tcp("hostname2", 7002));
        let trouble = ["aa", "bb", "cc", "dd", "ee", "ff"].map(|id| of(id).trouble);
        assert_eq!(trouble, [None, None, Some("fail?"), None, Some("fail"), Some("disconnected")]);
        let shares = shares(&nodes);
        let ids: Vec<_> = shares.iter().map(|share| share.id.as_str()).collect();
        assert_eq!(ids, ["aa", "bb", "cc"], "one without slots has nothing");
        assert_eq!(shares[2].slots(), "10923-16382,16383");
        assert_eq!(shares[0].replicas, [Endpoint::tcp("127.0.0.1", 7004)], "one that fails is no replica to be asked");
        assert_eq!(uncovered(runs(&shares)), (0, false));
        assert_eq!(uncovered(runs(&shares[..2])), (16384 - 10923, false));
    }

    #[test]
    fn what_has_changed_is_seen() {
        let before = claims(&read(THREE).unwrap());
        // Addresses, pings and replicas come and go.
        let moved = THREE.replace("127.0.0.1:7001", "10.1.1.1:9").replace("1426238317741", "1");
        assert_eq!(claims(&read(&moved).unwrap()), before);
        for (what, by) in
            [("0-5460", "1-5460"), (" 2 connected", " 5 connected"), ("master - 0 1426238316232", "slave aa 0 0")]
        {
            assert_ne!(claims(&read(&THREE.replace(what, by)).unwrap()), before, "{what}");
        }
        let twice = read(&THREE.replace("5461-10922", "5460-10922")).unwrap();
        assert_eq!(uncovered(runs(&shares(&twice))), (0, true));
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for wrong in [
            "aa",
            "aa x master - 0 0 1 connected",
            "aa h:1@2 master - 0 0 x connected",
            "aa h:1 master - 0 0 1 connected 5-3",
            "aa h:1 master - 0 0 1 connected 16384",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(read("\n").unwrap(), []);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[ -~\n]{0,200}", slots in "[0-9\\-\\[<> ]{0,40}") {
            let _ = read(&text);
            let _ = read(&format!("aa h:1@2 master - 0 0 1 connected {slots}")).map(|nodes| uncovered(runs(&shares(&nodes))));
        }
    }
}
