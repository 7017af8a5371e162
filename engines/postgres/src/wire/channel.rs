//! Messages over a transport: bounded reads, buffered writes, every wait with a limit.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::message::{self, Message};
use super::transport::Transport;
use crate::error::{Error, Result};

/// How large a buffer is that the socket is read into. Messages are cut from it, and only what has come of a message at its end is copied
/// into the next one: of a walsender's messages of 128 KiB one in eight.
const BUFFER: usize = 1 << 20;

/// Room for less than this is not read into: a call for each small rest costs more than copying it.
const SMALLEST_READ: usize = 64 << 10;

/// How many buffers are remembered: as many as a log writer that is behind holds on to, and some.
const MOST_SPENT: usize = 96;

#[derive(Debug)]
pub(crate) struct Channel {
    transport: Transport,
    incoming: BytesMut,
    /// Buffers that were read into before, oldest first. One is used again once nobody has a message any more that was cut from it: memory
    /// that the system has to find anew for each was a tenth of what following a log costs.
    spent: VecDeque<BytesMut>,
    outgoing: BytesMut,
    max_message: usize,
    /// How long the server may stay silent while something is expected of it.
    pub(crate) read_timeout: Option<Duration>,
}

impl Channel {
    pub(crate) fn new(transport: Transport, max_message: usize, read_timeout: Option<Duration>) -> Self {
        let (incoming, spent, outgoing) = (BytesMut::new(), VecDeque::new(), BytesMut::new());
        Self { transport, incoming, spent, outgoing, max_message, read_timeout }
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The next message.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: bytes that arrived stay in the buffer.
    pub(crate) async fn receive(&mut self, what: &'static str) -> Result<Message> {
        loop {
            match message::decode(&mut self.incoming, self.max_message)? {
                Ok(message) => return Ok(message),
                Err(missing) if self.incoming.capacity() - self.incoming.len() < missing.max(SMALLEST_READ) => {
                    self.renew(missing.max(SMALLEST_READ));
                }
                // There was no haste so far, and memory is not kept for the next time.
                Err(_) if self.incoming.is_empty() => self.give_back(),
                Err(_) => {}
            }
            let read = self.transport.read_buf(&mut self.incoming);
            let count = match self.read_timeout {
                Some(after) => tokio::time::timeout(after, read).await.map_err(|_| Error::Timeout { what, after })?,
                None => read.await,
            };
            match count {
                Ok(0) => return Err(Error::Closed(format!("the server hung up while {what} was expected"))),
                Ok(_) => {}
                Err(error) => return Err(Error::Closed(format!("{error} while {what} was expected"))),
            }
        }
    }

    /// Goes on in a buffer with room for `room` bytes at least behind what has come of a message.
    fn renew(&mut self, room: usize) {
        let needed = (self.incoming.len() + room).max(BUFFER);
        let free = self.spent.front_mut().is_some_and(|front| front.try_reclaim(needed));
        let next = if free { self.spent.pop_front() } else { None };
        let mut next = next.unwrap_or_else(|| BytesMut::with_capacity(needed));
        // One is enough to go on with: others that are free, too, were only needed for a while.
        while self.spent.get_mut(1).is_some_and(|second| second.try_reclaim(BUFFER)) {
            self.spent.pop_front();
        }
        next.extend_from_slice(&self.incoming);
        let mut spent = std::mem::replace(&mut self.incoming, next);
        spent.clear();
        if spent.capacity() > 0 {
            self.spent.push_back(spent);
            if self.spent.len() > MOST_SPENT {
                self.spent.pop_front();
            }
        }
    }

    /// Gives memory back that nobody uses.
    fn give_back(&mut self) {
        while self.spent.front_mut().is_some_and(|front| front.try_reclaim(BUFFER)) {
            self.spent.pop_front();
        }
    }

    /// Queues what `build` writes; [`Channel::flush`] sends it.
    pub(crate) fn queue(&mut self, build: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<()> {
        let before = self.outgoing.len();
        build(&mut self.outgoing).map_err(|error| {
            self.outgoing.truncate(before);
            Error::settings(error.to_string())
        })
    }

    /// Queues one CopyData message.
    pub(crate) fn queue_copy(&mut self, data: &[u8]) -> Result<()> {
        let length =
            u32::try_from(data.len() + 4).map_err(|_| Error::settings("copy data over 4 GiB in one message"))?;
        self.outgoing.reserve(data.len() + 5);
        self.outgoing.extend_from_slice(b"d");
        self.outgoing.extend_from_slice(&length.to_be_bytes());
        self.outgoing.extend_from_slice(data);
        Ok(())
    }

    /// Sends what is queued.
    ///
    /// # Cancel safety
    /// Dropping the future keeps what is not yet sent queued, at a byte boundary that the next flush continues from.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        let write = async {
            while self.outgoing.has_remaining() {
                if self.transport.write_buf(&mut self.outgoing).await? == 0 {
                    return Err(std::io::ErrorKind::WriteZero.into());
                }
            }
            self.transport.flush().await
        };
        let written = match self.read_timeout {
            Some(after) => tokio::time::timeout(after, write)
                .await
                .map_err(|_| Error::Timeout { what: "the server to take what was sent", after })?,
            None => write.await,
        };
        written.map_err(|error| Error::Closed(error.to_string()))
    }

    /// Sends the end of the session and closes; errors do not matter any more.
    pub(crate) async fn close(mut self) {
        self.outgoing.clear();
        self.outgoing.extend_from_slice(&Bytes::from_static(b"X\0\0\0\x04"));
        if self.flush().await.is_ok() {
            let _ = self.transport.shutdown().await;
        }
    }
}
