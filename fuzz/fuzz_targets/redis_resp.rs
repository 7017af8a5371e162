//! What a Redis server sends: answers, the replication stream, notes beside it. Never panics, and pieces do not matter.

#![no_main]

use backup_redis::client::{Decoder, Reply};
use backup_redis::stream::{Cut, Framer, StreamNote, cut};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

/// Answers up to the first that is none.
fn answers(bytes: &[u8], piece: usize) -> (Vec<Reply>, bool) {
    let (mut decoder, mut buffer, mut found) = (Decoder::new(1 << 16), BytesMut::new(), Vec::new());
    for chunk in bytes.chunks(piece) {
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(reply)) => found.push(reply),
                Ok(None) => break,
                Err(_) => return (found, false),
            }
        }
    }
    (found, true)
}

/// The ends of the commands up to where it is no stream.
fn commands(bytes: &[u8], piece: usize) -> (Vec<u64>, bool) {
    let (mut framer, mut ends) = (Framer::new(7), vec![7]);
    for chunk in bytes.chunks(piece) {
        let whole = framer.push(chunk, |command| {
            assert_eq!(Some(&command.start), ends.last());
            assert!(command.end > command.start);
            ends.push(command.end);
            Ok(())
        });
        if whole.is_err() {
            return (ends, false);
        }
    }
    (ends, true)
}

fuzz_target!(|data: &[u8]| {
    let [piece, limit, bytes @ ..] = data else { return };
    let piece = 1 + usize::from(*piece);
    let (whole, sound) = answers(bytes, bytes.len().max(1));
    // A fraction may be no number, which is not equal to itself.
    assert_eq!(format!("{:?}", answers(bytes, piece)), format!("{:?}", (whole, sound)));

    let (ends, sound) = commands(bytes, bytes.len().max(1));
    assert_eq!(commands(bytes, piece), (ends.clone(), sound));
    let limit = 7 + u64::from(*limit);
    if let Ok(stop) = cut(bytes, 7, limit) {
        assert!(stop <= limit.max(7) && ends.contains(&stop));
        let mut search = Cut::new(7, None, limit);
        for chunk in bytes.chunks(piece) {
            if !search.push(chunk).expect("it was a stream in one piece") {
                break;
            }
        }
        assert_eq!(search.stop(), stop);
    }

    if let Some(note) = StreamNote::decode(limit, bytes) {
        let again = note.encode(limit).expect("what was read can be written");
        assert_eq!(StreamNote::decode(limit, &again), Some(note));
    }
});
