//! What a receiver tells while it is being sent the log.
//!
//! Source: manual, "Streaming Replication Protocol"; `XLogWalRcvSendReply` and `XLogWalRcvSendHSFeedback` in
//! `walreceiver.c`.

use crate::error::{Error, Result};
use crate::lsn::Lsn;

/// The content of a receiver's CopyData message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StandbyMessage {
    /// `r`: how far it has come.
    Status(StandbyStatus),
    /// `h`: which rows its queries still need. An archive removes none.
    Feedback,
}

/// How far a receiver has come: each position is behind the last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StandbyStatus {
    /// What it has handed to the operating system.
    pub written: Lsn,
    /// What is durable there.
    pub flushed: Lsn,
    /// What has been replayed there; 0 when it does not replay, as `pg_receivewal`.
    pub applied: Lsn,
    /// Whether it wants an answer at once.
    pub reply_requested: bool,
}

impl StandbyMessage {
    /// Reads the content of a CopyData message. Never panics.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a message of another kind or one that is too short.
    pub fn parse(data: &[u8]) -> Result<Self> {
        let word = |at: usize| {
            data.get(at..at + 8)
                .and_then(|bytes| bytes.try_into().ok())
                .map(u64::from_be_bytes)
                .ok_or_else(|| Error::protocol("insufficient data left in message"))
        };
        match data.first() {
            Some(b'r') => {
                let status = StandbyStatus {
                    written: Lsn(word(1)?),
                    flushed: Lsn(word(9)?),
                    applied: Lsn(word(17)?),
                    reply_requested: word(25)
                        .and_then(|_| data.get(33).ok_or_else(|| Error::protocol("no data left in message")))?
                        != &0,
                };
                Ok(Self::Status(status))
            }
            Some(b'h') => word(17).map(|_| Self::Feedback),
            Some(kind) => Err(Error::protocol(format!("unexpected message type {:?}", char::from(*kind)))),
            None => Err(Error::protocol("no data left in message")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status(words: [u64; 4], reply: u8) -> Vec<u8> {
        let mut bytes = vec![b'r'];
        words.iter().for_each(|word| bytes.extend(word.to_be_bytes()));
        bytes.push(reply);
        bytes
    }

    #[test]
    fn a_receiver_tells_how_far_it_is() {
        let StandbyMessage::Status(read) = StandbyMessage::parse(&status([3, 2, 1, 9], 1)).unwrap() else {
            panic!("no status")
        };
        assert_eq!((read.written, read.flushed, read.applied, read.reply_requested), (Lsn(3), Lsn(2), Lsn(1), true));
        assert_eq!(StandbyMessage::parse(&[&b"h"[..], &[0; 24]].concat()).unwrap(), StandbyMessage::Feedback);
        for bytes in [&b""[..], b"r", b"h", b"x", &status([0; 4], 0)[..33]] {
            assert!(StandbyMessage::parse(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = StandbyMessage::parse(&bytes);
        }
    }
}
