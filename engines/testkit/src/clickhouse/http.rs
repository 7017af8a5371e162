//! A small HTTP client for tests: one connection for each request, no pooling, no retries.
//!
//! It shares no code with the engine's own client on purpose: the one is a witness for the other.

use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::error::{Error, Result};

/// An answer.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// The status, for example 200.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// Whether the body has come to its end; a server cuts one off when an error comes after its beginning.
    pub whole: bool,
}

impl HttpAnswer {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let same = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
        self.headers.iter().find(same).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends one request to 127.0.0.1 and reads the whole answer.
pub(super) async fn send(
    port: u16,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<HttpAnswer> {
    let broken = |error| Error::io("talk to", Path::new("the server's http port"))(error);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(broken)?;
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "Content-Length: {}\r\n\r\n", body.len());
    let mut raw = Vec::new();
    let (mut reading, mut writing) = stream.split();
    let write = async {
        // A server that refuses early closes its side; what it has said is read all the same.
        let _ = writing.write_all(head.as_bytes()).await;
        let _ = writing.write_all(body).await;
    };
    let ((), read) = futures::future::join(write, reading.read_to_end(&mut raw)).await;
    match read {
        Ok(_) => parse(&raw).ok_or_else(|| broken(std::io::ErrorKind::UnexpectedEof.into())),
        // A reset after the answer is the server's way to close what it did not read.
        Err(error) => parse(&raw).filter(|answer| answer.whole).ok_or_else(|| broken(error)),
    }
}

fn parse(raw: &[u8]) -> Option<HttpAnswer> {
    let end = raw.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&raw[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let split =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    let headers: Vec<_> = lines.filter_map(split).collect();
    let rest = raw.get(end + 4..)?;
    let mut answer = HttpAnswer { status, headers, body: Bytes::new(), whole: true };
    if answer.header("transfer-encoding").is_some_and(|encoding| encoding.eq_ignore_ascii_case("chunked")) {
        let (body, whole) = chunks(rest);
        (answer.body, answer.whole) = (body.into(), whole);
    } else {
        let wanted = answer.header("content-length").and_then(|length| length.parse::<usize>().ok());
        answer.whole = wanted.is_none_or(|length| rest.len() >= length);
        answer.body = Bytes::copy_from_slice(rest);
    }
    Some(answer)
}

/// The body out of its chunks, and whether the last one was there.
fn chunks(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else { return (body, false) };
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|line| line.split(';').next());
        let Some(size) = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok()) else {
            return (body, false);
        };
        if size == 0 {
            return (body, true);
        }
        let from = end + 2;
        let Some(chunk) = from.checked_add(size).and_then(|to| rest.get(from..to)) else {
            body.extend_from_slice(&rest[from..]);
            return (body, false);
        };
        body.extend_from_slice(chunk);
        rest = rest.get(from + size + 2..).unwrap_or_default();
    }
}

/// A text as a part of an address (RFC 3986, section 2.1).
pub(super) fn percent(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_chunks_is_put_together_and_a_cut_one_is_told() {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n".to_vec();
        let whole = parse(&[head.clone(), b"3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n".to_vec()].concat()).unwrap();
        assert_eq!((whole.status, whole.text().as_str(), whole.whole), (200, "abcde", true));
        assert_eq!(whole.header("x-a"), Some("b"));
        let cut = parse(&[head.clone(), b"3\r\nabc\r\n".to_vec()].concat()).unwrap();
        assert_eq!((cut.text().as_str(), cut.whole), ("abc", false));
        let huge = parse(&[head, b"ffffffffffffffff\r\nabc".to_vec()].concat()).unwrap();
        assert_eq!((huge.text().as_str(), huge.whole), ("abc", false));
    }

    #[test]
    fn a_length_is_checked() {
        let answer = parse(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nabc").unwrap();
        assert_eq!((answer.status, answer.whole), (404, false));
        assert!(parse(b"HTTP/1.1 404").is_none());
    }

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(percent("a b/é"), "a%20b%2F%C3%A9");
    }
}
