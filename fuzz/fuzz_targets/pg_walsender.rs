//! What a client of the WAL server may send: never panics, takes whole messages only, and never more than there is.

#![no_main]

use backup_postgres::walsender::{Command, Request, StandbyMessage, StartupPacket};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fn all<T>(data: &[u8], decode: impl Fn(&mut BytesMut) -> backup_postgres::Result<Result<T, usize>>) -> Vec<T> {
    let mut buffer = BytesMut::from(data);
    let mut taken = Vec::new();
    loop {
        let before = buffer.len();
        match decode(&mut buffer) {
            Ok(Ok(message)) => {
                assert!(buffer.len() < before);
                taken.push(message);
            }
            Ok(Err(missing)) => {
                assert!(missing > 0 && buffer.len() == before);
                return taken;
            }
            Err(_) => return taken,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    for packet in all(data, StartupPacket::decode) {
        if let StartupPacket::Start(startup) = packet {
            let _ = (startup.get("user"), startup.extensions());
        }
    }
    for request in all(data, |buffer| Request::decode(buffer, 1 << 16)) {
        match request {
            Request::Query(text) => drop(Command::parse(&text)),
            Request::CopyData(data) => drop(StandbyMessage::parse(&data)),
            _ => {}
        }
    }
    let _ = StandbyMessage::parse(data);
    let _ = Command::parse(&String::from_utf8_lossy(data));
});
