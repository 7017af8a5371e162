//! What a client says first: the packets without a tag.
//!
//! Source: manual, "Message Formats", and `ProcessStartupPacket` in `src/backend/tcop/backend_startup.c` (in
//! `postmaster.c` before version 17).

use bytes::{Buf, Bytes, BytesMut};

use crate::error::{Error, Result};

/// The longest packet that a server takes (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_STARTUP_PACKET: usize = 10_000;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// A packet before the session has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartupPacket {
    /// The client would like TLS.
    Ssl,
    /// The client would like GSSAPI encryption.
    Gss,
    /// A running query is to be cancelled, whoever asks for it.
    Cancel,
    /// The session is to begin.
    Start(Startup),
}

/// What a session is begun with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Startup {
    /// The protocol's major version; the one that everybody speaks is 3.
    pub major: u16,
    /// The protocol's minor version.
    pub minor: u16,
    /// Names and values in the client's order.
    pub parameters: Vec<(String, String)>,
}

impl StartupPacket {
    /// Takes one whole packet from the front of `buffer`, or says how many bytes are missing at least. Nothing is taken
    /// until a packet is whole. Never panics.
    ///
    /// # Errors
    /// [`Error::Protocol`] for an impossible length or parameters that are not pairs of zero-terminated strings.
    pub fn decode(buffer: &mut BytesMut) -> Result<Result<Self, usize>> {
        let Some(&[a, b, c, d]) = buffer.first_chunk::<4>() else { return Ok(Err(4 - buffer.len())) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(8..=MAX_STARTUP_PACKET).contains(&length) {
            return Err(Error::protocol("invalid length of startup packet"));
        }
        if buffer.len() < length {
            return Ok(Err(length - buffer.len()));
        }
        let mut body = buffer.split_to(length).freeze();
        body.advance(4);
        let code = body.get_u32();
        match code {
            SSL | GSS if !body.is_empty() => Err(Error::protocol("invalid length of startup packet")),
            SSL => Ok(Ok(Self::Ssl)),
            GSS => Ok(Ok(Self::Gss)),
            // The key in it opens nothing here: there is nothing to cancel.
            CANCEL => Ok(Ok(Self::Cancel)),
            version => {
                let (major, minor) = ((version >> 16) as u16, version as u16);
                // The parameters of another major version may have another form; the caller refuses it anyway.
                let parameters = if major == 3 { parameters(body)? } else { Vec::new() };
                Ok(Ok(Self::Start(Startup { major, minor, parameters })))
            }
        }
    }
}

impl Startup {
    /// The value of the parameter `name`, the last one if it is given twice, as the server takes it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The protocol extensions that the client asks for, none of which is known here.
    #[must_use]
    pub fn extensions(&self) -> Vec<&str> {
        self.parameters.iter().map(|(key, _)| key.as_str()).filter(|key| key.starts_with("_pq_.")).collect()
    }
}

fn parameters(mut body: Bytes) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    loop {
        let name = string(&mut body)?;
        if name.is_empty() {
            break;
        }
        pairs.push((name, string(&mut body)?));
    }
    if body.has_remaining() {
        return Err(Error::protocol("invalid startup packet layout: expected terminator as last byte"));
    }
    Ok(pairs)
}

fn string(body: &mut Bytes) -> Result<String> {
    let end = body
        .iter()
        .position(|byte| *byte == 0)
        .ok_or_else(|| Error::protocol("invalid startup packet layout: expected terminator as last byte"))?;
    let text = body.split_to(end + 1);
    Ok(String::from_utf8_lossy(&text[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::message::frontend;
    use proptest::prelude::*;

    fn one(bytes: &[u8]) -> Result<Result<StartupPacket, usize>> {
        StartupPacket::decode(&mut BytesMut::from(bytes))
    }

    #[test]
    fn what_a_client_sends() {
        let mut bytes = BytesMut::new();
        frontend::startup_message([("user", "wal"), ("replication", "true")], &mut bytes).unwrap();
        for end in 0..bytes.len() {
            let missing = one(&bytes[..end]).unwrap().unwrap_err();
            assert!(missing >= 1 && end + missing <= bytes.len());
        }
        let StartupPacket::Start(startup) = one(&bytes).unwrap().unwrap() else { panic!("no start") };
        assert_eq!((startup.major, startup.minor), (3, 0));
        assert_eq!((startup.get("user"), startup.get("replication")), (Some("wal"), Some("true")));
        assert_eq!(startup.get("database"), None);
        assert!(startup.extensions().is_empty());

        let mut bytes = BytesMut::new();
        frontend::ssl_request(&mut bytes);
        assert_eq!(one(&bytes).unwrap().unwrap(), StartupPacket::Ssl);
        assert_eq!(one(b"\0\0\0\x08\x04\xd2\x16\x30").unwrap().unwrap(), StartupPacket::Gss);
        assert_eq!(one(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02").unwrap().unwrap(), StartupPacket::Cancel);
    }

    #[test]
    fn extensions_and_later_versions_are_seen() {
        let body = b"\0\x03\x00\x02user\0u\0_pq_.new\0on\0user\0v\0\0";
        let packet = [&(body.len() as u32 + 4).to_be_bytes()[..], body].concat();
        let StartupPacket::Start(startup) = one(&packet).unwrap().unwrap() else { panic!("no start") };
        assert_eq!((startup.minor, startup.extensions()), (2, vec!["_pq_.new"]));
        assert_eq!(startup.get("user"), Some("v"));
    }

    #[test]
    fn other_packets_are_refused() {
        for bytes in [
            &b"\0\0\0\x07\0\x03\0"[..],
            b"\0\0\x27\x11",
            b"\xff\xff\xff\xff",
            b"\0\0\0\x0a\0\x03\0\0ab",
            b"\0\0\0\x0c\0\x03\0\0a\0b\0",
            b"\0\0\0\x0a\0\x03\0\0\0\0",
            b"\0\0\0\x0a\x04\xd2\x16\x2fxx",
        ] {
            assert!(one(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let _ = one(&bytes);
        }

        #[test]
        fn any_parameters_are_decoded_or_refused(body in prop::collection::vec(prop::sample::select(&b"ab\0_pq."[..]), 0..64)) {
            let mut packet = (body.len() as u32 + 8).to_be_bytes().to_vec();
            packet.extend([0, 3, 0, 0]);
            packet.extend(body);
            let _ = one(&packet);
        }
    }
}
