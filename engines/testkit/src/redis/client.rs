//! A small client for tests: one connection over the Unix socket, no pooling, no retries.
//!
//! It shares no code with the engine's own client on purpose: the one is a witness for the other.

use std::path::Path;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::error::{Error, Result};

/// What a server answers (protocol version 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A short text such as `OK`.
    Status(String),
    /// An error; the first word is its code.
    Error(String),
    /// A number.
    Int(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Nothing.
    Nil,
    /// Several answers.
    Array(Vec<Self>),
}

impl Reply {
    /// The bytes as text, or the text of a status or number; empty for nothing.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Status(text) | Self::Error(text) => text.clone(),
            Self::Int(number) => number.to_string(),
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Nil => String::new(),
            Self::Array(items) => items.iter().map(Self::text).collect::<Vec<_>>().join("\n"),
        }
    }

    /// The bytes of a string.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bulk(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The items of an array; none for anything else.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match self {
            Self::Array(items) => items,
            _ => &[],
        }
    }

    /// A number, also one that came as text.
    #[must_use]
    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            other => other.text().parse().ok(),
        }
    }
}

/// A connection to a test's server.
#[derive(Debug)]
pub struct RedisClient {
    stream: BufReader<UnixStream>,
}

impl RedisClient {
    /// Connects and, with a password, proves to be the default user.
    pub(super) async fn connect(socket: &Path, password: Option<&str>) -> Result<Self> {
        let stream = UnixStream::connect(socket).await.map_err(Error::io("connect", socket))?;
        let mut client = Self { stream: BufReader::new(stream) };
        if let Some(password) = password {
            client.call(&["AUTH", password]).await?;
        }
        Ok(client)
    }

    /// Runs one command.
    ///
    /// # Errors
    /// [`Error::Redis`] with what the server said when it is an error; [`Error::Io`] when the connection broke.
    pub async fn call<A: AsRef<[u8]>>(&mut self, command: &[A]) -> Result<Reply> {
        match self.send(&[command]).await?.pop() {
            Some(Reply::Error(said)) => {
                let name = command.first().map(|name| String::from_utf8_lossy(name.as_ref()).into_owned());
                Err(Error::Redis { command: name.unwrap_or_default(), said })
            }
            Some(reply) => Ok(reply),
            None => Err(Error::invalid("no command was given")),
        }
    }

    /// Runs the words of `line` as one command: for commands without blanks in their arguments.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn run(&mut self, line: &str) -> Result<Reply> {
        self.call(&line.split_whitespace().collect::<Vec<_>>()).await
    }

    /// Sends all commands before the first answer is read. Answers that are errors are among the answers.
    ///
    /// # Errors
    /// [`Error::Io`] when the connection broke.
    pub async fn send<A: AsRef<[u8]>, C: AsRef<[A]>>(&mut self, commands: &[C]) -> Result<Vec<Reply>> {
        let mut bytes = Vec::new();
        for command in commands {
            let command = command.as_ref();
            bytes.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
            for word in command {
                bytes.extend_from_slice(format!("${}\r\n", word.as_ref().len()).as_bytes());
                bytes.extend_from_slice(word.as_ref());
                bytes.extend_from_slice(b"\r\n");
            }
        }
        let broken = |error| Error::io("talk over", Path::new("the server's socket"))(error);
        self.stream.get_mut().write_all(&bytes).await.map_err(broken)?;
        let mut replies = Vec::with_capacity(commands.len());
        for _ in commands {
            replies.push(self.reply().await.map_err(broken)?);
        }
        Ok(replies)
    }

    async fn reply(&mut self) -> std::io::Result<Reply> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).await?;
        let Some((kind, rest)) = line.strip_suffix(b"\r\n").and_then(<[u8]>::split_first) else {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        };
        let text = String::from_utf8_lossy(rest).into_owned();
        let number = || text.parse::<i64>().map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData));
        Ok(match kind {
            b'+' => Reply::Status(text),
            b'-' => Reply::Error(text),
            b':' => Reply::Int(number()?),
            b'$' => match usize::try_from(number()?) {
                Ok(len) => {
                    let mut bytes = vec![0; len + 2];
                    self.stream.read_exact(&mut bytes).await?;
                    bytes.truncate(len);
                    Reply::Bulk(bytes)
                }
                Err(_) => Reply::Nil,
            },
            b'*' => match usize::try_from(number()?) {
                Ok(len) => {
                    let mut items = Vec::with_capacity(len);
                    for _ in 0..len {
                        items.push(Box::pin(self.reply()).await?);
                    }
                    Reply::Array(items)
                }
                Err(_) => Reply::Nil,
            },
            _ => return Err(std::io::ErrorKind::InvalidData.into()),
        })
    }
}
