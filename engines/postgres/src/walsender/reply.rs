//! What a server says: messages written into a buffer.
//!
//! Source: manual, "Message Formats". Rows are text, as in every simple query.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::ServerError;
use crate::lsn::Lsn;

/// The object ids of the types that columns have (`pg_type.dat`).
pub(super) const TEXT: u32 = 25;
pub(super) const INT4: u32 = 23;
pub(super) const INT8: u32 = 20;

/// Appends messages to a buffer.
#[derive(Debug, Default)]
pub(super) struct Reply(BytesMut);

impl Reply {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// All that was written, and nothing left here.
    pub(super) fn take(&mut self) -> Bytes {
        self.0.split().freeze()
    }

    fn message(&mut self, tag: u8, body: impl FnOnce(&mut BytesMut)) -> &mut Self {
        self.0.put_u8(tag);
        let at = self.0.len();
        self.0.put_u32(0);
        body(&mut self.0);
        // What is said here is bounded by a history file, which is far below 4 GiB.
        let length = u32::try_from(self.0.len() - at).unwrap_or(u32::MAX);
        self.0[at..at + 4].copy_from_slice(&length.to_be_bytes());
        self
    }

    /// Only SCRAM-SHA-256 is offered.
    pub(super) fn sasl(&mut self, mechanism: &str) -> &mut Self {
        self.message(b'R', |out| {
            out.put_u32(10);
            text(out, mechanism);
            out.put_u8(0);
        })
    }

    pub(super) fn sasl_continue(&mut self, data: &str) -> &mut Self {
        self.message(b'R', |out| {
            out.put_u32(11);
            out.put_slice(data.as_bytes());
        })
    }

    pub(super) fn sasl_final(&mut self, data: &str) -> &mut Self {
        self.message(b'R', |out| {
            out.put_u32(12);
            out.put_slice(data.as_bytes());
        })
    }

    pub(super) fn authenticated(&mut self) -> &mut Self {
        self.message(b'R', |out| out.put_u32(0))
    }

    pub(super) fn parameter(&mut self, name: &str, value: &str) -> &mut Self {
        self.message(b'S', |out| {
            text(out, name);
            text(out, value);
        })
    }

    pub(super) fn backend_key(&mut self, process: u32, key: u32) -> &mut Self {
        self.message(b'K', |out| {
            out.put_u32(process);
            out.put_u32(key);
        })
    }

    /// The newest protocol version that is spoken here is 3.0; `extensions` are unknown here. The number is that of the
    /// whole version, as servers send it (`SendNegotiateProtocolVersion`).
    pub(super) fn negotiate(&mut self, extensions: &[&str]) -> &mut Self {
        self.message(b'v', |out| {
            out.put_u32(3 << 16);
            out.put_u32(u32::try_from(extensions.len()).unwrap_or(u32::MAX));
            extensions.iter().for_each(|name| text(out, name));
        })
    }

    pub(super) fn ready(&mut self) -> &mut Self {
        self.message(b'Z', |out| out.put_u8(b'I'))
    }

    pub(super) fn complete(&mut self, tag: &str) -> &mut Self {
        self.message(b'C', |out| text(out, tag))
    }

    pub(super) fn error(&mut self, error: &ServerError) -> &mut Self {
        self.message(b'E', |out| {
            let fields = [
                (b'S', Some(error.severity.as_str())),
                (b'V', Some(error.severity.as_str())),
                (b'C', Some(error.sqlstate.as_str())),
                (b'M', Some(error.message.as_str())),
                (b'D', error.detail.as_deref()),
                (b'H', error.hint.as_deref()),
                (b'R', error.routine.as_deref()),
            ];
            for (field, value) in fields {
                if let Some(value) = value {
                    out.put_u8(field);
                    text(out, value);
                }
            }
            out.put_u8(0);
        })
    }

    /// A result of one row.
    pub(super) fn row(&mut self, columns: &[(&str, u32, Option<&[u8]>)]) -> &mut Self {
        let count = u16::try_from(columns.len()).unwrap_or(u16::MAX);
        self.message(b'T', |out| {
            out.put_u16(count);
            for (name, kind, _) in columns {
                text(out, name);
                // no table, no column of one
                out.put_u32(0);
                out.put_u16(0);
                out.put_u32(*kind);
                out.put_i16(match *kind {
                    INT4 => 4,
                    INT8 => 8,
                    _ => -1,
                });
                out.put_i32(-1);
                out.put_u16(0);
            }
        });
        self.message(b'D', |out| {
            out.put_u16(count);
            for (_, _, value) in columns {
                match value {
                    None => out.put_i32(-1),
                    Some(value) => {
                        out.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
                        out.put_slice(value);
                    }
                }
            }
        })
    }

    pub(super) fn copy_both(&mut self) -> &mut Self {
        self.message(b'W', |out| {
            out.put_u8(0);
            out.put_u16(0);
        })
    }

    pub(super) fn copy_done(&mut self) -> &mut Self {
        self.message(b'c', |_| {})
    }

    /// The beginning of a message with `length` bytes of log from `start` on; the bytes themselves must follow. `end` is
    /// how far the log reaches, `time` is in microseconds since 2000.
    pub(super) fn log(&mut self, start: Lsn, end: Lsn, time: i64, length: usize) -> &mut Self {
        self.message(b'd', |out| {
            out.put_u8(b'w');
            out.put_u64(start.0);
            out.put_u64(end.0);
            out.put_i64(time);
        });
        let at = self.0.len() - 25 - 4;
        let whole = u32::try_from(length).unwrap_or(u32::MAX).saturating_add(29);
        self.0[at..at + 4].copy_from_slice(&whole.to_be_bytes());
        self
    }

    /// A sign of life; `end` is how far the log has been sent.
    pub(super) fn keepalive(&mut self, end: Lsn, time: i64, reply: bool) -> &mut Self {
        self.message(b'd', |out| {
            out.put_u8(b'k');
            out.put_u64(end.0);
            out.put_i64(time);
            out.put_u8(u8::from(reply));
        })
    }
}

/// A zero-terminated string; a zero inside would end it and shift all that follows.
fn text(out: &mut BytesMut, value: &str) {
    out.extend(value.bytes().map(|byte| if byte == 0 { b' ' } else { byte }));
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Authentication, Message, decode};

    fn read(bytes: &Bytes) -> Vec<Message> {
        let mut buffer = BytesMut::from(&bytes[..]);
        let mut messages = Vec::new();
        while !buffer.is_empty() {
            messages.push(decode(&mut buffer, 1 << 20).unwrap().unwrap());
        }
        messages
    }

    #[test]
    fn our_client_reads_what_is_written() {
        let error = ServerError {
            severity: "FATAL".into(),
            sqlstate: "28P01".into(),
            message: "no\0way".into(),
            detail: Some("d".into()),
            routine: Some("auth_failed".into()),
            ..ServerError::default()
        };
        let mut reply = Reply::new();
        reply.sasl("SCRAM-SHA-256").sasl_continue("x").sasl_final("y").authenticated();
        reply.parameter("a", "b").backend_key(1, 2).negotiate(&["_pq_.x"]).ready().complete("SHOW").error(&error);
        reply.row(&[("n", INT8, Some(b"1")), ("none", TEXT, None)]).copy_both().copy_done();
        let expected = [
            Message::Authentication(Authentication::Sasl(vec!["SCRAM-SHA-256".into()])),
            Message::Authentication(Authentication::SaslContinue("x".into())),
            Message::Authentication(Authentication::SaslFinal("y".into())),
            Message::Authentication(Authentication::Ok),
            Message::ParameterStatus("a".into(), "b".into()),
            Message::BackendKeyData(Bytes::from_static(&[0, 0, 0, 1, 0, 0, 0, 2])),
            Message::NegotiateProtocolVersion,
            Message::ReadyForQuery(b'I'),
            Message::CommandComplete("SHOW".into()),
            Message::Error(ServerError { message: "no way".into(), ..error.clone() }),
            Message::RowDescription(vec!["n".into(), "none".into()]),
            Message::DataRow(vec![Some("1".into()), None]),
            Message::CopyBoth,
            Message::CopyDone,
        ];
        assert_eq!(read(&reply.take()), expected);
        assert!(reply.take().is_empty());
    }

    #[test]
    fn log_and_signs_of_life() {
        let mut reply = Reply::new();
        let bytes = [reply.log(Lsn(0x10), Lsn(0x20), 3, 2).take(), Bytes::from_static(b"ab")].concat();
        let [Message::CopyData(data)] = &read(&bytes.into())[..] else { panic!("no copy data") };
        assert_eq!(data[..], *b"w\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\x20\0\0\0\0\0\0\0\x03ab");
        let [Message::CopyData(data)] = &read(&reply.keepalive(Lsn(0x20), -1, true).take())[..] else {
            panic!("no copy data")
        };
        assert_eq!(data[..], *b"k\0\0\0\0\0\0\0\x20\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    }
}
