//! Sentinels: three or more processes of the same program that watch a primary and replace it when it goes.

use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::client::{RedisClient, Reply};
use super::server::Redis;
use crate::error::{Error, Result};
use crate::process::{ServerProcess, free_port, tail};
use crate::scratch::{scratch_dir_in, write_private};
use crate::wait;

/// Sentinels that don't come to an agreement within this time are a failure of the test.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sentinels of one deployment. They end with this value, or with the test process.
#[derive(Debug)]
pub struct RedisSentinels {
    name: String,
    nodes: Vec<Sentinel>,
}

#[derive(Debug)]
struct Sentinel {
    port: u16,
    // The process ends before its directory goes.
    process: ServerProcess,
    home: TempDir,
}

impl RedisSentinels {
    /// Starts `count` sentinels that watch `primary` under `name`, and waits until each knows all others and `replicas` replicas.
    /// Most of them have to agree that it is gone, after two seconds without a word.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Redis`]; [`Error::Server`] when they don't find each other.
    pub async fn start(name: &str, primary: &Redis, replicas: usize, count: usize) -> Result<Self> {
        let mut sentinels = Self { name: name.to_owned(), nodes: Vec::new() };
        for _ in 0..count {
            sentinels.nodes.push(Sentinel::launch(name, primary, count / 2 + 1)?);
        }
        let deadline = wait::Deadline::after(PATIENCE);
        for index in 0..count {
            while !sentinels.nodes[index].knows(name, replicas, count - 1).await {
                if deadline.passed() {
                    return Err(sentinels.nodes[index].failed("does not find the others"));
                }
                wait::pause().await;
            }
        }
        Ok(sentinels)
    }

    /// TCP ports on 127.0.0.1.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.port).collect()
    }

    /// Waits until all sentinels say that the primary listens on one port, which is the one that is `wanted`. One alone is not enough:
    /// the one that leads a failover names the new primary before the others have heard of it, and when it dies at that moment, they
    /// choose anew, and perhaps another one.
    ///
    /// # Errors
    /// [`Error::Server`] when they do not within a minute.
    pub async fn wait_primary(&self, wanted: impl Fn(u16) -> bool) -> Result<u16> {
        let deadline = wait::Deadline::after(PATIENCE);
        let first = self.nodes.first().ok_or_else(|| Error::invalid("there is no sentinel"))?;
        loop {
            if let Some(port) = self.agreed().await.filter(|port| wanted(*port)) {
                return Ok(port);
            }
            if deadline.passed() {
                return Err(first.failed("and the others name no other primary"));
            }
            wait::pause().await;
        }
    }

    /// The port that all of them name.
    async fn agreed(&self) -> Option<u16> {
        let mut agreed = None;
        for node in &self.nodes {
            let named = node.primary(&self.name).await?;
            if *agreed.get_or_insert(named) != named {
                return None;
            }
        }
        agreed
    }

    /// Ends one of them, as `kill -9` does.
    pub fn kill9(&mut self, index: usize) {
        if let Some(node) = self.nodes.get_mut(index) {
            node.process.signal(Signal::KILL);
        }
    }
}

impl Sentinel {
    fn launch(name: &str, primary: &Redis, quorum: usize) -> Result<Self> {
        // A short place: the path of a socket is limited.
        let home = scratch_dir_in(std::path::Path::new("/tmp"))?;
        let port = free_port()?;
        let dir = home.path().display();
        let mut text = format!(
            "port {port}\nbind 127.0.0.1\ndir {dir}\nunixsocket {dir}/sock\nunixsocketperm 777\nlogfile \"\"\n\
             sentinel monitor {name} 127.0.0.1 {} {quorum}\nsentinel down-after-milliseconds {name} 2000\n\
             sentinel failover-timeout {name} 10000\n",
            primary.port()
        );
        if let Some(password) = primary.password() {
            text.push_str(&format!("sentinel auth-pass {name} {password}\n"));
        }
        let file = home.path().join("sentinel.conf");
        write_private(&file, &text)?;
        let mut command = primary.binaries().command();
        command.arg(&file).arg("--sentinel");
        let owned = [home.path().to_owned()];
        let process = ServerProcess::spawn(&mut command, &home.path().join("log"), Signal::KILL, &owned)?;
        Ok(Self { port, process, home })
    }

    async fn ask(&self, words: &[&str]) -> Option<Reply> {
        let mut client = RedisClient::connect(&self.home.path().join("sock"), None).await.ok()?;
        client.call(words).await.ok()
    }

    async fn knows(&self, name: &str, replicas: usize, others: usize) -> bool {
        let Some(reply) = self.ask(&["SENTINEL", "MASTER", name]).await else { return false };
        let value = |wanted: &str| {
            let mut pairs = reply.items().chunks_exact(2).map(|pair| (pair[0].text(), pair[1].text()));
            pairs.find(|(name, _)| name == wanted).and_then(|(_, value)| value.parse::<usize>().ok())
        };
        value("num-slaves") == Some(replicas) && value("num-other-sentinels") == Some(others)
    }

    async fn primary(&self, name: &str) -> Option<u16> {
        let reply = self.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]).await?;
        reply.items().get(1)?.text().parse().ok()
    }

    fn failed(&self, what: &str) -> Error {
        let log = tail(&self.home.path().join("log"), 60);
        Error::Server { server: "sentinel".to_owned(), what: what.to_owned(), log }
    }
}
