//! Backend messages: what a server may send, decoded from a buffer without ever trusting a length.
//!
//! Source: manual, "Message Formats". Only the messages of the simple query protocol, of COPY and of replication are
//! known; any other tag is a protocol violation, because this client never asks for what would produce one.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::{Error, Result, ServerError};

/// The largest message that is accepted unless settings say otherwise.
///
/// The server's own messages are far smaller (`BASE_BACKUP` sends ≤ 32 KiB, WAL ≤ 128 KiB); a row with a large text
/// column (a timeline history, a configuration) is the biggest thing that is ever asked for.
pub const DEFAULT_MAX_MESSAGE: usize = 16 << 20;

/// One message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// `R`: an authentication request, by its kind.
    Authentication(Authentication),
    /// `S`: a run-time parameter and its value.
    ParameterStatus(String, String),
    /// `K`: the data with which a running query could be cancelled.
    BackendKeyData(Bytes),
    /// `v`: the server does not know the minor protocol version or some option.
    NegotiateProtocolVersion,
    /// `Z`: ready for the next command; the transaction status byte.
    ReadyForQuery(u8),
    /// `T`: the names of the columns of the rows that follow.
    RowDescription(Vec<String>),
    /// `D`: one row, `None` for SQL NULL.
    DataRow(Vec<Option<Bytes>>),
    /// `C`: the command tag.
    CommandComplete(String),
    /// `I`: the query string was empty.
    EmptyQuery,
    /// `E`.
    Error(ServerError),
    /// `N`.
    Notice(ServerError),
    /// `A`: a notification, which nobody here listens for.
    Notification,
    /// `H`: the server starts to send COPY data.
    CopyOut,
    /// `G`: the server waits for COPY data.
    CopyIn,
    /// `W`: both of the above (`START_REPLICATION`).
    CopyBoth,
    /// `d`.
    CopyData(Bytes),
    /// `c`.
    CopyDone,
}

/// The kinds of authentication request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authentication {
    /// Nothing more is wanted.
    Ok,
    /// The password itself.
    Cleartext,
    /// The password hashed with this salt.
    Md5([u8; 4]),
    /// SASL with one of these mechanisms.
    Sasl(Vec<String>),
    /// The server's next SASL message.
    SaslContinue(Bytes),
    /// The server's last SASL message.
    SaslFinal(Bytes),
    /// Kerberos, GSSAPI, SSPI and whatever else this client cannot do; the number of the request.
    Unsupported(i32),
}

/// Takes one whole message from the front of `buffer`, or says how many bytes are missing at least.
///
/// Nothing is taken until a message is complete. Never panics; allocates no more than the message's own size.
///
/// # Errors
/// [`Error::Protocol`] when the length is impossible or over `max`, the tag unknown, or the body not of its form.
pub fn decode(buffer: &mut BytesMut, max: usize) -> Result<Result<Message, usize>> {
    let Some((&[tag, a, b, c, d], _)) = buffer.split_first_chunk::<5>() else {
        return Ok(Err(5 - buffer.len()));
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length < 4 {
        return Err(Error::protocol(format!("message {:?} claims a length of {length}", char::from(tag))));
    }
    if length > max {
        return Err(Error::protocol(format!(
            "message {:?} of {length} bytes is over the limit {max}",
            char::from(tag)
        )));
    }
    if buffer.len() < length + 1 {
        return Ok(Err(length + 1 - buffer.len()));
    }
    let mut body = buffer.split_to(length + 1).freeze();
    body.advance(5);
    parse(tag, body).map(Ok)
}

fn parse(tag: u8, body: Bytes) -> Result<Message> {
    let mut fields = Fields { tag, body };
    let message = match tag {
        // The bulk of all traffic first.
        b'd' => return Ok(Message::CopyData(fields.body)),
        b'D' => Message::DataRow(fields.row()?),
        b'R' => Message::Authentication(fields.authentication()?),
        b'S' => Message::ParameterStatus(fields.string()?, fields.string()?),
        b'K' => Message::BackendKeyData(fields.rest()),
        b'v' => {
            fields.rest();
            Message::NegotiateProtocolVersion
        }
        b'Z' => Message::ReadyForQuery(fields.u8()?),
        b'T' => Message::RowDescription(fields.columns()?),
        b'C' => Message::CommandComplete(fields.string()?),
        b'I' => Message::EmptyQuery,
        b'E' => Message::Error(fields.report()?),
        b'N' => Message::Notice(fields.report()?),
        b'A' => {
            fields.rest();
            Message::Notification
        }
        b'H' | b'G' | b'W' => {
            // Overall format and one format per column: a base backup and WAL have no columns.
            fields.u8()?;
            let columns = fields.u16()?;
            for _ in 0..columns {
                fields.u16()?;
            }
            match tag {
                b'H' => Message::CopyOut,
                b'G' => Message::CopyIn,
                _ => Message::CopyBoth,
            }
        }
        b'c' => Message::CopyDone,
        _ => return Err(Error::protocol(format!("unknown message {:?}", char::from(tag)))),
    };
    if fields.body.has_remaining() {
        return Err(fields.wrong("has bytes after its end"));
    }
    Ok(message)
}

struct Fields {
    tag: u8,
    body: Bytes,
}

impl Fields {
    fn wrong(&self, what: &str) -> Error {
        Error::protocol(format!("message {:?} {what}", char::from(self.tag)))
    }

    fn take(&mut self, count: usize) -> Result<Bytes> {
        if self.body.len() < count {
            return Err(self.wrong("is too short"));
        }
        Ok(self.body.split_to(count))
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.body)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?.get_u8())
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(self.take(2)?.get_u16())
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(self.take(4)?.get_i32())
    }

    /// A zero-terminated string. Messages of a server may be in its own encoding before the client's is set, so that
    /// bytes which are not UTF-8 are replaced, not refused.
    fn string(&mut self) -> Result<String> {
        let end = self.body.iter().position(|b| *b == 0).ok_or_else(|| self.wrong("has a string without an end"))?;
        let bytes = self.body.split_to(end + 1);
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    fn authentication(&mut self) -> Result<Authentication> {
        Ok(match self.i32()? {
            0 => Authentication::Ok,
            3 => Authentication::Cleartext,
            5 => {
                let salt = self.take(4)?;
                Authentication::Md5([salt[0], salt[1], salt[2], salt[3]])
            }
            10 => {
                let mut mechanisms = Vec::new();
                loop {
                    let name = self.string()?;
                    if name.is_empty() {
                        break;
                    }
                    mechanisms.push(name);
                }
                Authentication::Sasl(mechanisms)
            }
            11 => Authentication::SaslContinue(self.rest()),
            12 => Authentication::SaslFinal(self.rest()),
            other => {
                self.rest();
                Authentication::Unsupported(other)
            }
        })
    }

    fn columns(&mut self) -> Result<Vec<String>> {
        let count = usize::from(self.u16()?);
        let mut columns = Vec::with_capacity(count.min(self.body.len() / 19));
        for _ in 0..count {
            columns.push(self.string()?);
            // table, attribute, type, type size, type modifier, format: everything is text in a simple query
            self.take(18)?;
        }
        Ok(columns)
    }

    fn row(&mut self) -> Result<Vec<Option<Bytes>>> {
        let count = usize::from(self.u16()?);
        let mut values = Vec::with_capacity(count.min(self.body.len() / 4));
        for _ in 0..count {
            values.push(match self.i32()? {
                -1 => None,
                length => {
                    let length = usize::try_from(length).map_err(|_| self.wrong("has a value of negative length"))?;
                    Some(self.take(length)?)
                }
            });
        }
        Ok(values)
    }

    fn report(&mut self) -> Result<ServerError> {
        let mut report = ServerError::default();
        let mut localized = String::new();
        loop {
            let field = self.u8()?;
            if field == 0 {
                break;
            }
            let value = self.string()?;
            match field {
                b'S' => localized = value,
                b'V' => report.severity = value,
                b'C' => report.sqlstate = value,
                b'M' => report.message = value,
                b'D' => report.detail = Some(value),
                b'H' => report.hint = Some(value),
                b'R' => report.routine = Some(value),
                _ => {}
            }
        }
        if report.severity.is_empty() {
            report.severity = localized;
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(bytes: &[u8]) -> Result<Result<Message, usize>> {
        decode(&mut BytesMut::from(bytes), 1 << 16)
    }

    #[test]
    fn nothing_is_taken_before_a_message_is_whole() {
        let whole = b"C\0\0\0\x0dSELECT 1\0";
        for end in 0..whole.len() {
            let mut buffer = BytesMut::from(&whole[..end]);
            let missing = decode(&mut buffer, 100).unwrap().unwrap_err();
            assert!(missing >= 1 && end + missing <= whole.len());
            assert_eq!(buffer.len(), end);
        }
        assert_eq!(one(whole).unwrap().unwrap(), Message::CommandComplete("SELECT 1".into()));
    }

    #[test]
    fn copy_both_is_known() {
        assert_eq!(one(b"W\0\0\0\x07\0\0\0").unwrap().unwrap(), Message::CopyBoth);
    }

    #[test]
    fn a_row_keeps_null_apart_from_empty() {
        let row = one(b"D\0\0\0\x0f\0\x02\xff\xff\xff\xff\0\0\0\x01x").unwrap().unwrap();
        assert_eq!(row, Message::DataRow(vec![None, Some(Bytes::from_static(b"x"))]));
    }

    #[test]
    fn lies_about_lengths_are_violations() {
        for bytes in [
            &b"C\0\0\0\x03"[..],
            b"C\xff\xff\xff\xff",
            b"D\0\0\0\x0a\0\x01\x7f\xff\xff\xff",
            b"D\0\0\0\x0a\0\x01\x80\0\0\0",
            b"T\0\0\0\x06\xff\xff",
            b"C\0\0\0\x05x",
            b"Z\0\0\0\x06Ix",
            b"?\0\0\0\x04",
        ] {
            assert!(matches!(one(bytes), Err(Error::Protocol(_))), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Ok(_)) = decode(&mut buffer, 1 << 12) {}
        }

        #[test]
        fn any_body_is_decoded_or_refused(tag in prop::sample::select(&b"RSKvZTDCIENAHGWdc"[..]), body: Vec<u8>) {
            let mut message = vec![tag];
            message.extend((body.len() as u32 + 4).to_be_bytes());
            message.extend(body);
            let _ = one(&message);
        }
    }
}
