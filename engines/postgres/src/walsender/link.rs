//! The two directions of a connection: bounded reads, writes without copies.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::request::Request;
use super::startup::StartupPacket;
use crate::error::{Error, Result, ServerError};

/// Commands and status messages are some hundred bytes.
const READ_SIZE: usize = 4 << 10;

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Stop {
    /// The client is gone, or is left without a word because it takes none.
    Gone(String),
    /// The client is told and the connection closed.
    Fatal(Box<ServerError>),
}

impl Stop {
    pub(super) fn fatal(sqlstate: &str, message: impl Into<String>) -> Self {
        let mut error = super::command::error(sqlstate, message);
        "FATAL".clone_into(&mut error.severity);
        Self::Fatal(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Gone(error.to_string())
    }
}

/// What comes from a client.
pub(super) struct Inlet {
    reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
    buffer: BytesMut,
    max_message: usize,
}

impl Inlet {
    pub(super) fn new(reader: impl AsyncRead + Send + Sync + Unpin + 'static, max_message: usize) -> Self {
        Self { reader: Box::new(reader), buffer: BytesMut::new(), max_message }
    }

    /// The next packet of a session that has not begun.
    pub(super) async fn startup(&mut self) -> Result<StartupPacket, Stop> {
        self.take(StartupPacket::decode).await
    }

    /// The next message.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: what has arrived stays in the buffer.
    pub(super) async fn request(&mut self) -> Result<Request, Stop> {
        let max = self.max_message;
        self.take(|buffer| Request::decode(buffer, max)).await
    }

    async fn take<T>(&mut self, decode: impl Fn(&mut BytesMut) -> Result<Result<T, usize>>) -> Result<T, Stop> {
        loop {
            match decode(&mut self.buffer) {
                Ok(Ok(whole)) => return Ok(whole),
                // A length over the limit was refused, so that this is bounded.
                Ok(Err(missing)) => self.buffer.reserve(missing.max(READ_SIZE)),
                Err(Error::Protocol(reason)) => return Err(Stop::fatal("08P01", reason)),
                Err(error) => return Err(Stop::fatal("08P01", error.to_string())),
            }
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Err(Stop::Gone("the client hung up".to_owned()));
            }
        }
    }
}

/// What goes to a client: pieces that are sent in their order.
pub(super) struct Outlet {
    writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
    pieces: Pieces,
}

impl Outlet {
    pub(super) fn new(writer: impl AsyncWrite + Send + Sync + Unpin + 'static) -> Self {
        Self { writer: Box::new(writer), pieces: Pieces::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.pieces.has_remaining()
    }

    pub(super) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pieces.0.push_back(piece);
        }
    }

    /// Sends some of what is queued.
    ///
    /// # Cancel safety
    /// Dropping the future keeps exactly what was not sent.
    pub(super) async fn write_some(&mut self) -> Result<(), Stop> {
        if self.writer.write_buf(&mut self.pieces).await? == 0 {
            return Err(Stop::Gone("the client takes no more".to_owned()));
        }
        Ok(())
    }

    /// Sends all that is queued; a client that takes nothing for `limit` is left.
    pub(super) async fn flush(&mut self, limit: Duration) -> Result<(), Stop> {
        while !self.is_empty() {
            match tokio::time::timeout(limit, self.write_some()).await {
                Ok(written) => written?,
                Err(_) => return Err(Stop::Gone(format!("the client took nothing for {limit:?}"))),
            }
        }
        Ok(())
    }

    /// Sends one byte, the answer to a request for encryption.
    pub(super) async fn answer(&mut self, byte: u8) -> Result<(), Stop> {
        self.writer.write_all(&[byte]).await?;
        Ok(())
    }

    /// Tells the client that nothing more comes.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        self.writer.shutdown().await
    }
}

/// Pieces one behind the other, written without being put together.
#[derive(Debug, Default)]
struct Pieces(VecDeque<Bytes>);

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn has_remaining(&self) -> bool {
        // No piece is empty.
        !self.0.is_empty()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.0) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let Some(front) = self.0.front_mut() else { return };
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_sent_in_order(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..20), steps in prop::collection::vec(1_usize..30, 1..40)) {
            let whole = pieces.concat();
            let mut queue = Pieces::default();
            pieces.iter().for_each(|piece| queue.0.push_back(Bytes::copy_from_slice(piece)));
            let mut sent = Vec::new();
            for step in steps.into_iter().cycle() {
                prop_assert_eq!(queue.remaining() + sent.len(), whole.len());
                if !queue.has_remaining() {
                    break;
                }
                let mut slices = [IoSlice::new(&[]); 3];
                let count = queue.chunks_vectored(&mut slices);
                let offered: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                let step = step.min(offered.len());
                sent.extend_from_slice(&offered[..step]);
                queue.advance(step);
            }
            prop_assert_eq!(sent, whole);
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_left() {
        let (mine, _theirs) = tokio::io::duplex(8);
        let mut outlet = Outlet::new(mine);
        outlet.push(Bytes::from_static(b"more than eight bytes"));
        let result = outlet.flush(Duration::from_millis(20)).await;
        assert!(matches!(result, Err(Stop::Gone(reason)) if reason.contains("took nothing")));
        assert!(!outlet.is_empty());
    }
}
