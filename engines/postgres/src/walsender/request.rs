//! What a client sends once a session has begun: messages with a tag.
//!
//! Source: manual, "Message Formats". Only what can occur in a replication session has content here.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::{Error, Result};

/// One message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// `Q`: a command.
    Query(String),
    /// `p`: an answer to an authentication request.
    Password(Bytes),
    /// `d`.
    CopyData(Bytes),
    /// `c`.
    CopyDone,
    /// `f`: the client gives up sending, and why.
    CopyFail(String),
    /// `X`: the client goes.
    Terminate,
    /// `P`, `B`, `E`, `D`, `C`, `H`, `S` or `F`: the extended query protocol and function calls, which no replication
    /// session understands. The tag.
    Extended(u8),
}

impl Request {
    /// Takes one whole message from the front of `buffer`, or says how many bytes are missing at least. Nothing is taken
    /// until a message is whole. Never panics; allocates no more than the message's own size.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the length is impossible or over `max`, the tag unknown, or the body not of its form.
    pub fn decode(buffer: &mut BytesMut, max: usize) -> Result<Result<Self, usize>> {
        let Some(&tag) = buffer.first() else { return Ok(Err(5)) };
        // Before its length is waited for: whoever speaks another protocol is told at once.
        if !b"QpdcfXPBEDCHSF".contains(&tag) {
            return Err(Error::protocol(format!("invalid frontend message type {tag}")));
        }
        let Some(&[_, a, b, c, d]) = buffer.first_chunk::<5>() else { return Ok(Err(5 - buffer.len())) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(4..=max).contains(&length) {
            return Err(Error::protocol(format!("invalid message length {length} of type {:?}", char::from(tag))));
        }
        if buffer.len() < length + 1 {
            return Ok(Err(length + 1 - buffer.len()));
        }
        let mut body = buffer.split_to(length + 1).freeze();
        body.advance(5);
        Ok(Ok(match tag {
            b'Q' => Self::Query(text(&body)?),
            b'p' => Self::Password(body),
            b'd' => Self::CopyData(body),
            b'f' => Self::CopyFail(text(&body)?),
            b'c' | b'X' if !body.is_empty() => return Err(Error::protocol("invalid message format")),
            b'c' => Self::CopyDone,
            b'X' => Self::Terminate,
            other => Self::Extended(other),
        }))
    }
}

/// The only string of a message, which ends with it.
fn text(body: &Bytes) -> Result<String> {
    match body.split_last() {
        Some((0, text)) if !text.contains(&0) => Ok(String::from_utf8_lossy(text).into_owned()),
        _ => Err(Error::protocol("invalid string in message")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::message::frontend;
    use proptest::prelude::*;

    fn one(bytes: &[u8]) -> Result<Result<Request, usize>> {
        Request::decode(&mut BytesMut::from(bytes), 1 << 10)
    }

    #[test]
    fn what_a_client_sends() {
        let mut bytes = BytesMut::new();
        frontend::query("IDENTIFY_SYSTEM", &mut bytes).unwrap();
        for end in 0..bytes.len() {
            let missing = one(&bytes[..end]).unwrap().unwrap_err();
            assert!(missing >= 1 && end + missing <= bytes.len());
        }
        assert_eq!(one(&bytes).unwrap().unwrap(), Request::Query("IDENTIFY_SYSTEM".into()));
        assert_eq!(one(b"d\0\0\0\x06ab").unwrap().unwrap(), Request::CopyData(Bytes::from_static(b"ab")));
        assert_eq!(one(b"c\0\0\0\x04").unwrap().unwrap(), Request::CopyDone);
        assert_eq!(one(b"f\0\0\0\x06x\0").unwrap().unwrap(), Request::CopyFail("x".into()));
        assert_eq!(one(b"X\0\0\0\x04").unwrap().unwrap(), Request::Terminate);
        assert_eq!(one(b"S\0\0\0\x04").unwrap().unwrap(), Request::Extended(b'S'));
    }

    #[test]
    fn lies_are_refused() {
        for bytes in [
            &b"Q\0\0\0\x03"[..],
            b"Q\0\0\x04\x01",
            b"Q\xff\xff\xff\xff",
            b"Q\0\0\0\x04",
            b"Q\0\0\0\x05x",
            b"Q\0\0\0\x07a\0\0",
            b"c\0\0\0\x05x",
            b"?",
            b"GET / HTTP/1.1",
        ] {
            assert!(one(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Ok(_)) = Request::decode(&mut buffer, 1 << 10) {}
        }

        #[test]
        fn any_body_is_decoded_or_refused(tag in prop::sample::select(&b"QpdcfXPBEDCHSF"[..]), body in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut message = vec![tag];
            message.extend((body.len() as u32 + 4).to_be_bytes());
            message.extend(body);
            let _ = one(&message);
        }
    }
}
