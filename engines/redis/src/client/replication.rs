//! Asking as a replica does: a snapshot, or the stream from a position on.
//!
//! Source: `src/replication.c` of Redis 6.2 to 8 and Valkey 8 and 9 (`syncCommand`, `replconfCommand`, `masterTryPartialResynchronization`).
//! What is never said: a port of ours (others would take us for a replica that can be promoted), that we could take a snapshot over a
//! second connection (`capa dual-channel`, `rdb-channel-repl`), and a version of ours, unless [it has to be](Connection::announce).
//!
//! Positions count bytes of the stream from its beginning. The server's own numbers name the *next* byte and begin with one, so its
//! `PSYNC id 1` is our position 0; a snapshot at offset N has the first N bytes in it.

use bytes::Bytes;

use super::connection::{Connection, Pipeline, refused};
use super::reply::Reply;
use crate::error::{Error, Result};

/// Bytes of a replication id, and of the mark behind a snapshot.
const ID: usize = 40;

/// A position in a replication stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamPosition {
    /// The replication id: 40 hexadecimal digits, in lower case.
    pub id: String,
    /// How many bytes come before it.
    pub offset: u64,
}

impl StreamPosition {
    /// The position `offset` of history `id`.
    pub fn new(id: impl Into<String>, offset: u64) -> Self {
        Self { id: id.into(), offset }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wish {
    /// A snapshot, and nothing behind it: then the server keeps no stream for us meanwhile, and hangs up at its end.
    Snapshot,
    /// The stream. Where it can't go on, a snapshot comes first; from Redis 7.0 on one without data, which costs nearly nothing.
    Stream,
}

/// How the end of a snapshot is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// It has so many bytes.
    Length(u64),
    /// This mark comes behind it.
    Mark([u8; ID]),
}

/// What the server does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// It sends a snapshot of this position, and then the stream from there.
    Full {
        /// The position.
        position: StreamPosition,
        /// How the end of the snapshot is known.
        framing: Framing,
        /// Whether the snapshot is without data, as it was asked for.
        empty: bool,
    },
    /// The stream goes on from the position that was asked for.
    Continue {
        /// The present name of the history, which is another one after a failover.
        id: String,
    },
}

/// A connection that has become a stream.
#[derive(Debug)]
pub struct Link {
    connection: Connection,
}

impl Connection {
    /// Asks for the stream from `from` on, or for a snapshot if there is no position.
    ///
    /// # Errors
    /// [`Error::Server`] when the server refuses: it may not do this (`NOPERM`), or can't now (`NOMASTERLINK`); those of the connection.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection, and the server gives up what it began.
    pub async fn replicate(self, wish: Wish, from: Option<&StreamPosition>) -> Result<(Link, Answer)> {
        self.replicate_noting(wish, from, || {}).await
    }

    /// As [`replicate`](Self::replicate). Calls `note` as soon as the server has said which position it sends, which may be long before
    /// it sends it.
    pub(crate) async fn replicate_noting(
        mut self,
        wish: Wish,
        from: Option<&StreamPosition>,
        note: impl FnOnce() + Send,
    ) -> Result<(Link, Answer)> {
        let empty = self.prepare(wish).await?;
        let (id, next) = match from {
            Some(position) => (position.id.as_str(), (position.offset + 1).to_string()),
            None => ("?", "-1".to_owned()),
        };
        self.set_streaming();
        let mut request = Pipeline::new();
        request.push(&["PSYNC", id, &next]);
        self.send(request.as_bytes()).await?;
        let line = self.line("the start of replication").await?;
        note();
        let answer = match parse(&line)? {
            First::Continue(now) => Answer::Continue { id: now.unwrap_or_else(|| id.to_owned()) },
            First::Full(position) => {
                let header = self.line("the snapshot").await?;
                Answer::Full { position, framing: framing(&header)?, empty }
            }
        };
        Ok((Link { connection: self }, answer))
    }

    /// Says that we are of `version`, for what is asked next. Valkey writes for a replica that says none a snapshot in the format that
    /// everybody reads, and fails at the first hash whose fields expire (from its version 9 on), which that format does not have.
    ///
    /// # Errors
    /// [`Error::Server`] for a server that does not know this; those of the connection.
    pub async fn announce(&mut self, version: &str) -> Result<()> {
        self.call(&["REPLCONF", "version", version]).await.map(drop)
    }

    /// Says what we can. Whether a snapshot will be without data.
    async fn prepare(&mut self, wish: Wish) -> Result<bool> {
        self.call(&["REPLCONF", "capa", "eof", "capa", "psync2"]).await?;
        match wish {
            Wish::Snapshot => {
                // Known since Redis 6.2; an older server would only buffer the stream for us.
                let answer = self.attempt(&["REPLCONF", "rdb-only", "1"]).await?;
                tracing::debug!(understood = answer, "asked for nothing but a snapshot");
                Ok(false)
            }
            Wish::Stream => self.attempt(&["REPLCONF", "rdb-filter-only", ""]).await,
        }
    }

    /// Whether a command that not all servers know was taken.
    async fn attempt(&mut self, words: &[&str]) -> Result<bool> {
        let mut pipeline = Pipeline::new();
        pipeline.push(words);
        Ok(!matches!(self.pipeline(&pipeline).await?.pop(), Some(Reply::Error(_)) | None))
    }
}

impl Link {
    /// The next bytes as they come, of the snapshot or of the stream; none when the server has hung up.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Timeout`].
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn bytes(&mut self) -> Result<Bytes> {
        self.connection.bytes("the replication stream").await
    }

    /// Tells the server that we have the stream up to `offset`. It counts us out after a minute without a word, and a client that
    /// waits for replicas (`WAIT`) waits for this one.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Timeout`].
    pub async fn acknowledge(&mut self, offset: u64) -> Result<()> {
        let mut pipeline = Pipeline::new();
        pipeline.push(&["REPLCONF", "ACK", &offset.to_string()]);
        self.connection.send(pipeline.as_bytes()).await
    }
}

#[derive(Debug, PartialEq, Eq)]
enum First {
    Full(StreamPosition),
    Continue(Option<String>),
}

/// The first line of the answer to `PSYNC`.
fn parse(line: &str) -> Result<First> {
    let mut words = line.split(' ');
    let bad = || Error::Protocol(format!("the server answered the wish to replicate with {:?}", shortened(line)));
    match words.next() {
        Some("+FULLRESYNC") => {
            let (id, offset) = words.next().zip(words.next()).ok_or_else(bad)?;
            let offset = offset.parse().map_err(|_| bad())?;
            Ok(First::Full(StreamPosition { id: identifier(id).ok_or_else(bad)?, offset }))
        }
        Some("+CONTINUE") => match words.next().filter(|id| !id.is_empty()) {
            Some(id) => Ok(First::Continue(Some(identifier(id).ok_or_else(bad)?))),
            None => Ok(First::Continue(None)),
        },
        _ => match line.strip_prefix('-') {
            Some(message) => Err(refused(Some("PSYNC"), message.to_owned())),
            None => Err(bad()),
        },
    }
}

fn framing(line: &str) -> Result<Framing> {
    let bad = || Error::Protocol(format!("the server announced a snapshot with {:?}", shortened(line)));
    if let Some(message) = line.strip_prefix('-') {
        return Err(refused(Some("PSYNC"), message.to_owned()));
    }
    let text = line.strip_prefix('$').ok_or_else(bad)?;
    match text.strip_prefix("EOF:") {
        Some(mark) => mark.as_bytes().try_into().map(Framing::Mark).map_err(|_| bad()),
        None => text.parse().map(Framing::Length).map_err(|_| bad()),
    }
}

fn shortened(line: &str) -> String {
    line.chars().take(80).collect()
}

/// A replication id in the form that lineages are named by.
pub(crate) fn identifier(text: &str) -> Option<String> {
    let fits = text.len() == ID && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    fits.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn both_answers_are_understood() {
        let full = parse(&format!("+FULLRESYNC {A} 1000")).unwrap();
        assert_eq!(full, First::Full(StreamPosition::new(A, 1000)));
        assert_eq!(parse(&format!("+CONTINUE {}", A.to_uppercase())).unwrap(), First::Continue(Some(A.to_owned())));
        assert_eq!(parse("+CONTINUE").unwrap(), First::Continue(None));
        assert_eq!(framing("$17").unwrap(), Framing::Length(17));
        assert_eq!(framing(&format!("$EOF:{A}")).unwrap(), Framing::Mark(A.as_bytes().try_into().unwrap()));
    }

    #[test]
    fn anything_else_is_refused() {
        for line in
            ["", "+OK", "+FULLRESYNC x 1", &format!("+FULLRESYNC {A}"), &format!("+FULLRESYNC {A} -1"), "+CONTINUE x"]
        {
            assert!(matches!(parse(line), Err(Error::Protocol(_))), "{line}");
        }
        assert!(matches!(parse("-NOMASTERLINK no"), Err(Error::Server { .. })));
        for line in ["", "$", "$-1", "$EOF:", "+x"] {
            assert!(matches!(framing(line), Err(Error::Protocol(_))), "{line}");
        }
    }
}
