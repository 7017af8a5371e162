//! The servers that keys go to: one, or the primaries of a cluster, each with its slots.

use backup_core::{Error as CoreError, Result as CoreResult};
use futures::future::try_join_all;

use super::commands::Head;
use crate::client::{ClientSettings, Connection, Endpoint, Pipeline, Reply};
use crate::error::{Error, Result};
use crate::rdb::{SLOTS, slot_of};

/// So many bytes are sent together: more make it no faster.
const TOGETHER: usize = 1 << 20;

/// The servers, and what waits to be sent to each.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Vec<Waiting>,
    /// Which node has which slot. Empty when there is one server.
    owners: Vec<usize>,
    replace: bool,
}

#[derive(Debug)]
struct Waiting {
    connection: Connection,
    pipeline: Pipeline,
    /// What each command is about.
    about: Vec<String>,
    database: u64,
}

impl Nodes {
    /// The one server that `connection` leads to.
    pub(super) fn one(connection: Connection, replace: bool) -> Self {
        Self { nodes: vec![Waiting::new(connection)], owners: Vec::new(), replace }
    }

    /// All primaries of the cluster that `connection` leads into.
    pub(super) async fn cluster(mut connection: Connection, settings: &ClientSettings, replace: bool) -> Result<Self> {
        let reply = connection.call(&["CLUSTER", "SLOTS"]).await?;
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut owners = vec![usize::MAX; SLOTS.into()];
        for range in reply.items() {
            let wrong = || Error::Protocol("a range of slots without an owner".into());
            let [first, last, owner, ..] = range.items() else { return Err(wrong()) };
            let (Some(first), Some(last)) = (first.int(), last.int()) else { return Err(wrong()) };
            let endpoint = endpoint(owner, connection.endpoint()).ok_or_else(wrong)?;
            let known = endpoints.iter().position(|known| *known == endpoint);
            let index = known.unwrap_or_else(|| {
                endpoints.push(endpoint);
                endpoints.len() - 1
            });
            let range = usize::try_from(first).ok().zip(usize::try_from(last).ok()).filter(|(a, b)| a <= b);
            let (first, last) = range.ok_or_else(wrong)?;
            owners.get_mut(first..=last).ok_or_else(wrong)?.fill(index);
        }
        if let Some(slot) = owners.iter().position(|owner| *owner == usize::MAX) {
            return Err(Error::Unsupported(format!("nobody in the cluster has the slot {slot}")));
        }
        let mut nodes = Vec::new();
        for endpoint in &endpoints {
            nodes.push(Waiting::new(Connection::open(settings, endpoint).await?));
        }
        Ok(Self { nodes, owners, replace })
    }

    /// The connections.
    pub(super) fn connections(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.nodes.iter_mut().map(|node| &mut node.connection)
    }

    fn owner(&mut self, key: &[u8]) -> Result<&mut Waiting> {
        let index = self.owners.get(usize::from(slot_of(key))).copied().unwrap_or(0);
        self.nodes.get_mut(index).ok_or_else(|| Error::Protocol("a slot of nobody".into()))
    }

    /// Queues a key. Sends what waits when there is enough.
    pub(super) async fn restore(&mut self, head: &Head, payload: &[u8]) -> CoreResult<()> {
        let replace = self.replace;
        let node = self.owner(&head.key)?;
        node.select(head.database);
        let (before, behind) = (head.before(), head.behind(replace));
        let words = before.iter().map(Vec::as_slice).chain([payload]).chain(behind.iter().map(Vec::as_slice));
        node.pipeline.push(&words.collect::<Vec<_>>());
        node.about.push(named(&head.key));
        if node.pipeline.bytes() >= TOGETHER { self.flush().await } else { Ok(()) }
    }

    /// Restores a key whose payload of `len` bytes comes in pieces.
    pub(super) async fn restore_large(
        &mut self,
        head: &Head,
        len: u64,
        payload: futures::stream::BoxStream<'_, CoreResult<bytes::Bytes>>,
    ) -> CoreResult<()> {
        use futures::stream::StreamExt as _;
        let replace = self.replace;
        let node = self.owner(&head.key)?;
        node.select(head.database);
        node.flush().await?;
        let (before, behind) = (head.before(), head.behind(replace));
        let mut start = format!("*{}\r\n", before.len() + 1 + behind.len()).into_bytes();
        before.iter().for_each(|word| bulk(word, &mut start));
        start.extend_from_slice(format!("${len}\r\n").as_bytes());
        let mut end = b"\r\n".to_vec();
        behind.iter().for_each(|word| bulk(word, &mut end));
        let around = |bytes: Vec<u8>| futures::stream::once(async move { Ok(bytes::Bytes::from(bytes)) });
        let reply = node.connection.call_in_pieces(around(start).chain(payload).chain(around(end)).boxed()).await?;
        judge(&reply, &named(&head.key))
    }

    /// Loads a library of functions everywhere.
    pub(super) async fn load(&mut self, code: &[u8]) -> CoreResult<()> {
        let replace = self.replace;
        for node in &mut self.nodes {
            let words: [&[u8]; 4] = [b"FUNCTION", b"LOAD", b"REPLACE", code];
            let words = if replace { words.to_vec() } else { vec![words[0], words[1], words[3]] };
            node.pipeline.push(&words);
            node.about.push("a library of functions".into());
        }
        self.flush().await
    }

    /// Sends what waits, to all at the same time.
    pub(super) async fn flush(&mut self) -> CoreResult<()> {
        try_join_all(self.nodes.iter_mut().map(Waiting::flush)).await.map(drop)
    }
}

impl Waiting {
    fn new(connection: Connection) -> Self {
        Self { connection, pipeline: Pipeline::new(), about: Vec::new(), database: 0 }
    }

    fn select(&mut self, database: u64) {
        if self.database != database {
            self.database = database;
            self.pipeline.push(&["SELECT".to_owned(), database.to_string()]);
            self.about.push(format!("database {database}"));
        }
    }

    async fn flush(&mut self) -> CoreResult<()> {
        if self.pipeline.is_empty() {
            return Ok(());
        }
        let replies = self.connection.pipeline(&self.pipeline).await?;
        for (reply, about) in replies.iter().zip(&self.about) {
            judge(reply, about)?;
        }
        self.pipeline.clear();
        self.about.clear();
        Ok(())
    }
}

fn named(key: &[u8]) -> String {
    format!("the key {:?}", String::from_utf8_lossy(key))
}

fn bulk(word: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

/// Whether a command was done.
fn judge(reply: &Reply, about: &str) -> CoreResult<()> {
    let Reply::Error(message) = reply else { return Ok(()) };
    if message.starts_with("BUSYKEY") || message.contains("already exists") {
        return Err(CoreError::conflict(format!("{about} exists in the target, and nothing is to be replaced")));
    }
    let refused = Error::Server { command: "RESTORE".into(), message: message.clone() };
    Err(CoreError::from(refused).context(format!("{about} is not restored")))
}

/// Where an owner of slots is (`CLUSTER SLOTS`). One that does not know its address is the one that was asked.
fn endpoint(owner: &Reply, asked: &Endpoint) -> Option<Endpoint> {
    let [host, port, ..] = owner.items() else { return None };
    let port = u16::try_from(port.int()?).ok()?;
    let host = host.text().filter(|host| !host.is_empty() && host != "?");
    match (host, asked) {
        (Some(host), _) => Some(Endpoint::tcp(host, port)),
        (None, Endpoint::Tcp { host, .. }) => Some(Endpoint::tcp(host.clone(), port)),
        (None, Endpoint::Unix(_)) => None,
    }
}
