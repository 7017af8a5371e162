//! One connection: commands and their answers.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::address::Endpoint;
use super::reply::{Decoder, Reply, line_end};
use super::settings::ClientSettings;
use super::tls;
use crate::error::{Error, Result};

/// So much room is made for what comes: a snapshot comes in pieces of this size.
const READ: usize = 256 << 10;

/// A connected byte stream: TCP, a Unix socket, or TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + fmt::Debug + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + fmt::Debug + Send + Sync + Unpin> Stream for S {}

/// A connection to one server, authenticated.
#[derive(Debug)]
pub struct Connection {
    stream: Box<dyn Stream>,
    endpoint: Endpoint,
    incoming: BytesMut,
    decoder: Decoder,
    silence: Duration,
    /// Whether an answer is awaited: after a call that was dropped half-way nobody knows whose answer comes next.
    busy: bool,
    /// Answers that have to be read one by one before anything else is asked.
    awaited: usize,
}

impl Connection {
    /// Connects to `endpoint` as `settings` say and proves who we are.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::Tls`], [`Error::Authentication`], [`Error::Timeout`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn open(settings: &ClientSettings, endpoint: &Endpoint) -> Result<Self> {
        let limit = settings.connect_timeout;
        match tokio::time::timeout(limit, Self::ready(settings, endpoint)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Connect {
                address: endpoint.to_string(),
                source: io::Error::new(io::ErrorKind::TimedOut, format!("not ready within {limit:?}")),
            }),
        }
    }

    async fn ready(settings: &ClientSettings, endpoint: &Endpoint) -> Result<Self> {
        let failed = |source| Error::Connect { address: endpoint.to_string(), source };
        let stream: Box<dyn Stream> = match endpoint {
            Endpoint::Tcp { host, port } => {
                // Tries every address that the name resolves to.
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                if settings.address.tls {
                    Box::new(tls::upgrade(&settings.tls, stream, host, &endpoint.to_string()).await?)
                } else {
                    Box::new(stream)
                }
            }
            #[cfg(unix)]
            Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(failed)?),
            #[cfg(not(unix))]
            Endpoint::Unix(_) => return Err(Error::Settings("this system has no unix sockets".to_owned())),
        };
        let mut connection = Self {
            stream,
            endpoint: endpoint.clone(),
            incoming: BytesMut::new(),
            decoder: Decoder::new(settings.max_reply),
            silence: settings.silence,
            busy: false,
            awaited: 0,
        };
        connection.authenticate(settings).await?;
        Ok(connection)
    }

    async fn authenticate(&mut self, settings: &ClientSettings) -> Result<()> {
        let Some(password) = &settings.address.password else { return Ok(()) };
        let user = settings.address.user.as_deref();
        let words = ["AUTH"].into_iter().chain(user).chain([password.reveal()]);
        match self.call(&words.collect::<Vec<_>>()).await {
            Ok(_) => Ok(()),
            // Nobody is asked for a password who has none.
            Err(Error::Server { message, .. }) => {
                Err(Error::Authentication { user: user.unwrap_or("default").to_owned(), reason: message })
            }
            Err(error) => Err(error),
        }
    }

    /// The server that it leads to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Runs one command.
    ///
    /// # Errors
    /// [`Error::Server`] when the answer is an error; [`Error::Closed`], [`Error::Timeout`] and [`Error::Protocol`] when none came:
    /// then the connection is of no use any more.
    ///
    /// # Cancel safety
    /// Dropping the future makes the connection useless: every later call is an [`Error::Closed`].
    pub async fn call<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Result<Reply> {
        let mut pipeline = Pipeline::new();
        pipeline.push(words);
        match self.pipeline(&pipeline).await?.pop() {
            Some(Reply::Error(message)) => Err(refused(words.first(), message)),
            Some(reply) => Ok(reply),
            None => Err(Error::Protocol("no answer to one command".to_owned())),
        }
    }

    /// Runs all commands of `pipeline`: they are sent before the first answer is read. Answers that are errors are among the answers.
    ///
    /// # Errors
    /// As [`call`](Self::call), but for [`Error::Server`].
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    pub async fn pipeline(&mut self, pipeline: &Pipeline) -> Result<Vec<Reply>> {
        if std::mem::replace(&mut self.busy, true) {
            return Err(Error::Closed("an earlier call was dropped half-way".to_owned()));
        }
        self.send(pipeline.as_bytes()).await?;
        let mut replies = Vec::with_capacity(pipeline.commands);
        while replies.len() < pipeline.commands {
            match self.decoder.next(&mut self.incoming)? {
                Some(reply) => replies.push(reply),
                None => self.fill("an answer").await?,
            }
        }
        self.busy = false;
        Ok(replies)
    }

    /// Sends all commands of `pipeline`. Their answers have to be read one by one with [`answer`](Self::answer), so that no more than one
    /// of them is held.
    ///
    /// # Errors
    /// As [`pipeline`](Self::pipeline).
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    pub(crate) async fn ask(&mut self, pipeline: &Pipeline) -> Result<()> {
        if std::mem::replace(&mut self.busy, true) {
            return Err(Error::Closed("an earlier call was dropped half-way".to_owned()));
        }
        self.awaited = pipeline.commands;
        self.send(pipeline.as_bytes()).await
    }

    /// The next answer to what was [asked](Self::ask); it may be an error.
    ///
    /// # Errors
    /// As [`pipeline`](Self::pipeline).
    pub(crate) async fn answer(&mut self) -> Result<Reply> {
        loop {
            if let Some(reply) = self.decoder.next(&mut self.incoming)? {
                self.awaited = self.awaited.saturating_sub(1);
                self.busy = self.awaited > 0;
                return Ok(reply);
            }
            self.fill("an answer").await?;
        }
    }

    /// Runs one command that is too large to be held: its bytes come in `pieces`, which must be exactly one command.
    ///
    /// # Errors
    /// As [`call`](Self::call), and those of `pieces`: then the connection is of no use any more.
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    pub(crate) async fn call_in_pieces(
        &mut self,
        mut pieces: BoxStream<'_, backup_core::Result<Bytes>>,
    ) -> backup_core::Result<Reply> {
        if std::mem::replace(&mut self.busy, true) {
            return Err(Error::Closed("an earlier call was dropped half-way".to_owned()).into());
        }
        while let Some(piece) = pieces.next().await {
            self.send(&piece?).await?;
        }
        loop {
            if let Some(reply) = self.decoder.next(&mut self.incoming)? {
                self.busy = false;
                return Ok(reply);
            }
            self.fill("an answer").await?;
        }
    }

    /// Sends `bytes` without expecting an answer.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let (stream, silence) = (&mut self.stream, self.silence);
        let sending = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        match tokio::time::timeout(silence, sending).await {
            Ok(sent) => sent.map_err(|error| self.broken(&error)),
            Err(_) => Err(Error::Timeout { what: "the server to take a command", after: silence }),
        }
    }

    /// Waits for more bytes of an answer.
    async fn fill(&mut self, what: &'static str) -> Result<()> {
        match self.read(what).await? {
            0 => Err(Error::Closed(format!("{} hung up while {what} was awaited", self.endpoint))),
            _ => Ok(()),
        }
    }

    /// Reads what is there into the buffer; 0 when the server has hung up.
    async fn read(&mut self, what: &'static str) -> Result<usize> {
        self.incoming.reserve(READ);
        let (stream, incoming) = (&mut self.stream, &mut self.incoming);
        match tokio::time::timeout(self.silence, stream.read_buf(incoming)).await {
            Ok(read) => read.map_err(|error| self.broken(&error)),
            Err(_) => Err(Error::Timeout { what, after: self.silence }),
        }
    }

    fn broken(&self, error: &io::Error) -> Error {
        Error::Closed(format!("{}: {error}", self.endpoint))
    }

    /// A line of the replication protocol. Bare line breaks are signs of life.
    pub(super) async fn line(&mut self, what: &'static str) -> Result<String> {
        loop {
            while self.incoming.first() == Some(&b'\n') {
                let _ = self.incoming.split_to(1);
            }
            if let Some(end) = line_end(&self.incoming)? {
                let line = self.incoming.split_to(end + 2);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill(what).await?;
        }
    }

    /// The next bytes as they come; none when the server has hung up.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn bytes(&mut self, what: &'static str) -> Result<Bytes> {
        if self.incoming.is_empty() {
            self.read(what).await?;
        }
        Ok(self.incoming.split().freeze())
    }

    /// Says that answers are no longer awaited one by one.
    pub(super) fn set_streaming(&mut self) {
        self.busy = true;
    }
}

/// The error of a command that was refused. Only its name is told: arguments may be secrets.
pub(super) fn refused<A: AsRef<[u8]>>(name: Option<A>, message: String) -> Error {
    let name = name.map(|name| String::from_utf8_lossy(name.as_ref()).into_owned());
    Error::Server { command: name.unwrap_or_default(), message }
}

/// Commands that are sent together.
#[derive(Debug, Clone, Default)]
pub struct Pipeline {
    bytes: BytesMut,
    commands: usize,
}

impl Pipeline {
    /// No commands.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a command.
    pub fn push<A: AsRef<[u8]>>(&mut self, words: &[A]) {
        self.bytes.put_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            let word = word.as_ref();
            self.bytes.put_slice(format!("${}\r\n", word.len()).as_bytes());
            self.bytes.put_slice(word);
            self.bytes.put_slice(b"\r\n");
        }
        self.commands += 1;
    }

    /// How many commands there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.commands
    }

    /// Whether there is no command.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands == 0
    }

    /// How many bytes will be sent.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the commands, keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.commands = 0;
    }
}
