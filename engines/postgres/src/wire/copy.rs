//! COPY from the server, towards it, and in both directions at once.

use bytes::Bytes;
use postgres_protocol::message::frontend;

use super::message::Message;
use super::row::ResultSet;
use super::session::{Session, name};
use crate::error::{Error, Result};

/// A running `START_REPLICATION`.
///
/// Dropping it leaves the session unusable.
#[derive(Debug)]
pub struct CopyBoth<'a> {
    session: &'a mut Session,
    server_done: bool,
    shut_down: bool,
}

impl<'a> CopyBoth<'a> {
    pub(super) fn new(session: &'a mut Session) -> Self {
        Self { session, server_done: false, shut_down: false }
    }

    /// The content of the server's next CopyData message, or `None` once the server has ended its side: at the end of a
    /// timeline, to be answered with [`CopyBoth::finish`], or because it [shuts down](CopyBoth::is_shut_down).
    ///
    /// # Errors
    /// [`Error::Server`] when the server gives up (58P01: the log is gone), [`Error::Closed`] when it hangs up, which is
    /// also how it answers a client that was silent for longer than `wal_sender_timeout`.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; use it in `select!`.
    pub async fn receive(&mut self) -> Result<Option<Bytes>> {
        if self.server_done {
            return Ok(None);
        }
        match self.session.receive(|| "replication data").await? {
            Message::CopyData(data) => Ok(Some(data)),
            Message::CopyDone => {
                self.server_done = true;
                Ok(None)
            }
            // A server that shuts down cleanly waits until we have confirmed everything, then sends a bare command tag and
            // hangs up (`WalSndDone` in walsender.c).
            Message::CommandComplete(_) => {
                self.server_done = true;
                self.shut_down = true;
                Ok(None)
            }
            Message::Error(error) => Err(self.session.fail(error).await),
            other => Err(Error::protocol(format!("unexpected {} in replication", name(&other)))),
        }
    }

    /// Whether the server has ended its side because it shuts down cleanly: we have everything it ever wrote, and the
    /// session is over.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.shut_down
    }

    /// Sends one CopyData message with `data`.
    ///
    /// # Cancel safety
    /// When the future is dropped the message is queued whole, and what was not sent goes first with the next one.
    pub async fn send(&mut self, data: &[u8]) -> Result<()> {
        self.session.channel.queue_copy(data)?;
        self.session.channel.flush().await
    }

    /// Ends our side, passes over what the server still sends, and returns the result sets that follow: at the end of a
    /// timeline the first has one row, `next_tli` and `next_tli_startpos`. The session is usable again, unless the server
    /// has shut down: then there are no result sets.
    ///
    /// # Errors
    /// As [`Session::query`].
    pub async fn finish(mut self) -> Result<Vec<ResultSet>> {
        if self.shut_down {
            return Ok(Vec::new());
        }
        self.session.channel.queue(|out| {
            frontend::copy_done(out);
            Ok(())
        })?;
        self.session.channel.flush().await?;
        while self.receive().await?.is_some() {}
        self.session.collect().await
    }
}

/// A running `UPLOAD_MANIFEST`.
///
/// Dropping it leaves the session unusable.
#[derive(Debug)]
pub struct CopyIn<'a> {
    session: &'a mut Session,
}

impl<'a> CopyIn<'a> {
    pub(super) fn new(session: &'a mut Session) -> Self {
        Self { session }
    }

    /// Sends one CopyData message with `data`. A complaint of the server comes from [`CopyIn::finish`].
    ///
    /// # Errors
    /// [`Error::Closed`] when the connection is gone.
    pub async fn send(&mut self, data: &[u8]) -> Result<()> {
        self.session.channel.queue_copy(data)?;
        self.session.channel.flush().await
    }

    /// Ends the upload and waits for the server's verdict. The session is usable again.
    ///
    /// # Errors
    /// As [`Session::query`].
    pub async fn finish(self) -> Result<Vec<ResultSet>> {
        self.session.channel.queue(|out| {
            frontend::copy_done(out);
            Ok(())
        })?;
        self.session.channel.flush().await?;
        self.session.collect().await
    }
}

/// A running `COPY … TO STDOUT`.
///
/// Dropping it before the end leaves the session unusable.
#[derive(Debug)]
pub struct CopyOut<'a> {
    session: &'a mut Session,
    done: bool,
}

impl<'a> CopyOut<'a> {
    pub(super) fn new(session: &'a mut Session) -> Self {
        Self { session, done: false }
    }

    /// The content of the next CopyData message, one row in the text format; `None` when all have come, and then the session is usable again.
    ///
    /// # Errors
    /// [`Error::Server`] with the SQLSTATE when the server gives up in the middle; the session stays usable then.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing, except at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.done {
            return Ok(None);
        }
        match self.session.receive(|| "rows of a table").await? {
            Message::CopyData(data) => Ok(Some(data)),
            Message::CopyDone => {
                self.done = true;
                self.session.collect().await?;
                Ok(None)
            }
            Message::Error(error) => Err(self.session.fail(error).await),
            other => Err(Error::protocol(format!("unexpected {} among rows", name(&other)))),
        }
    }
}
