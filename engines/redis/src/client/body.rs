//! A snapshot in the middle of a replication stream: where it ends, and whether it is whole. Pure.
//!
//! With a length the end is known. With a mark it is not looked for: bytes of the snapshot may happen to be the mark, and the server uses
//! the same one again. The snapshot is read to its own end, and there the mark has to stand. Only of a snapshot with something unknown
//! in it the end can't be seen; it is where the server hangs up, and the mark and the checksum have to stand there.

use bytes::{Bytes, BytesMut};

use super::replication::Framing;
use crate::error::{Error, Result};
use crate::rdb::{Counter, Summary};

/// A snapshot on its way.
#[derive(Debug)]
pub struct Body {
    framing: Framing,
    counter: Counter,
    /// Bytes that were told to be of the snapshot.
    taken: u64,
    /// With a mark: the last bytes that came, which may be the mark.
    held: BytesMut,
}

/// What became of some bytes.
#[derive(Debug, Default)]
pub struct Taken {
    /// Bytes of the snapshot, in order.
    pub data: Vec<Bytes>,
    /// What came behind the snapshot, if its end was seen: the stream.
    pub rest: Option<Bytes>,
}

impl Body {
    /// A snapshot before its first byte.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self { framing, counter: Counter::new(), taken: 0, held: BytesMut::new() }
    }

    /// Bytes of the snapshot so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.taken
    }

    /// Whether no byte of the snapshot has come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Takes the next bytes. When the end was seen, nothing more may be given.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the place where this is no snapshot; [`Error::Protocol`] when the mark does not stand behind it.
    pub fn push(&mut self, bytes: Bytes) -> Result<Taken> {
        match self.framing {
            Framing::Length(length) => self.counted(bytes, length),
            Framing::Mark(mark) => self.marked(bytes, mark),
        }
    }

    fn counted(&mut self, mut bytes: Bytes, length: u64) -> Result<Taken> {
        let here = usize::try_from(length.saturating_sub(self.taken)).unwrap_or(usize::MAX).min(bytes.len());
        let data = bytes.split_to(here);
        if self.counter.push(&data)? < data.len() {
            return Err(self.corrupt("the snapshot ends before the length that was announced"));
        }
        self.taken += data.len() as u64;
        let rest = (self.taken == length).then_some(bytes);
        Ok(Taken { data: vec![data], rest })
    }

    fn marked(&mut self, mut bytes: Bytes, mark: [u8; 40]) -> Result<Taken> {
        let mut data = Vec::new();
        // Whatever comes first was held back before; the last forty bytes may be the mark.
        let surplus = (self.held.len() + bytes.len()).saturating_sub(mark.len());
        let old = self.held.split_to(surplus.min(self.held.len())).freeze();
        let new = bytes.split_to(surplus - old.len());
        let mut behind = BytesMut::new();
        for piece in [old, new].into_iter().filter(|piece| !piece.is_empty()) {
            let whole = if behind.is_empty() { self.counter.push(&piece)? } else { 0 };
            self.taken += whole as u64;
            behind.extend_from_slice(&piece[whole..]);
            data.push(piece.slice(..whole));
        }
        self.held.extend_from_slice(&bytes);
        if !self.counter.is_complete() || (self.held.len() + behind.len()) < mark.len() {
            return Ok(Taken { data, rest: None });
        }
        behind.unsplit(std::mem::take(&mut self.held));
        if behind[..mark.len()] != mark {
            return Err(Error::Protocol(format!(
                "the mark that was announced does not stand behind the snapshot, at byte {}",
                self.taken
            )));
        }
        let rest = behind.split_off(mark.len()).freeze();
        Ok(Taken { data, rest: Some(rest) })
    }

    /// Judges the snapshot when its end was seen, or when the server has hung up.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is not whole, or its checksum does not fit; [`Error::Protocol`] when the mark is missing.
    pub fn finish(self) -> Result<Summary> {
        match self.framing {
            Framing::Length(length) if self.taken < length => {
                return Err(self.corrupt(&format!("the server hung up before the end, at {length} bytes")));
            }
            Framing::Mark(mark) if self.counter.is_blind() && self.held[..] != mark => {
                return Err(Error::Protocol("the server hung up without the mark that it announced".to_owned()));
            }
            Framing::Length(_) | Framing::Mark(_) => {}
        }
        self.counter.finish()
    }

    fn corrupt(&self, reason: &str) -> Error {
        Error::Corrupt { offset: self.counter.position(), reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::{Counted, sample};
    use proptest::prelude::*;

    const MARK: [u8; 40] = *b"0123456789abcdef0123456789abcdef01234567";

    /// What was told to be the snapshot, what came behind it, and the judgement.
    fn receive(framing: Framing, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Option<Vec<u8>>, Summary)> {
        let (mut body, mut data, mut rest) = (Body::new(framing), Vec::new(), None);
        for chunk in bytes.chunks(piece) {
            if let Some(rest) = &mut rest {
                Vec::extend_from_slice(rest, chunk);
                continue;
            }
            let taken = body.push(Bytes::copy_from_slice(chunk))?;
            taken.data.iter().for_each(|piece| data.extend_from_slice(piece));
            rest = taken.rest.map(|rest| rest.to_vec());
        }
        assert_eq!(body.len(), data.len() as u64);
        Ok((data, rest, body.finish()?))
    }

    fn unknown() -> Vec<u8> {
        let mut file = sample::small_file();
        // Another type than any that is known stands where the first key does.
        let version = crate::rdb::RdbVersion::redis(12);
        file.clear();
        file.extend(sample::SampleFile::new(version).database(0).key(99, b"k", b"anything").finish());
        file
    }

    proptest! {
        #[test]
        fn snapshots_end_where_they_end(seed in any::<u64>(), keys in 0_u64..30, piece in 1_usize..200, behind in 0_usize..100) {
            let (file, _) = sample::arbitrary_file(crate::rdb::RdbVersion::redis(11), seed, keys);
            let stream = vec![b'*'; behind];
            let length = [file.clone(), stream.clone()].concat();
            let (data, rest, _) = receive(Framing::Length(file.len() as u64), &length, piece).unwrap();
            prop_assert_eq!((&data, rest), (&file, Some(stream.clone())));
            let marked = [file.clone(), MARK.to_vec(), stream.clone()].concat();
            let (data, rest, summary) = receive(Framing::Mark(MARK), &marked, piece).unwrap();
            prop_assert_eq!((&data, rest), (&file, Some(stream)));
            prop_assert_eq!(summary.len, file.len() as u64);
        }

        #[test]
        fn a_snapshot_with_something_unknown_ends_where_the_server_hangs_up(piece in 1_usize..100) {
            let file = unknown();
            let marked = [file.clone(), MARK.to_vec()].concat();
            let (data, rest, summary) = receive(Framing::Mark(MARK), &marked, piece).unwrap();
            prop_assert_eq!((&data, rest), (&file, None));
            let until = matches!(summary.counted, Counted::Until { what: 99, .. });
            prop_assert!(until, "{:?}", summary.counted);
            let other = [file.clone(), vec![b'x'; 40]].concat();
            prop_assert!(receive(Framing::Mark(MARK), &other, piece).is_err());
            let (data, ..) = receive(Framing::Length(file.len() as u64), &file, piece).unwrap();
            prop_assert_eq!(data, file);
        }

        #[test]
        fn damage_is_noticed(at in any::<prop::sample::Index>(), bit in 0_u8..8, piece in 1_usize..100) {
            let file = sample::small_file();
            let mut marked = [file.clone(), MARK.to_vec()].concat();
            let at = at.index(marked.len());
            marked[at] ^= 1 << bit;
            prop_assert!(receive(Framing::Mark(MARK), &marked, piece).is_err(), "byte {at}");
        }
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let file = sample::small_file();
        let marked = [file.clone(), MARK.to_vec()].concat();
        for end in 0..file.len() {
            assert!(receive(Framing::Mark(MARK), &marked[..end], 7).is_err(), "{end}");
            assert!(receive(Framing::Length(file.len() as u64), &file[..end], 7).is_err(), "{end}");
        }
        assert!(receive(Framing::Length(file.len() as u64 + 1), &[file.clone(), vec![0]].concat(), 7).is_err());
    }

    #[test]
    fn the_mark_may_stand_in_a_value() {
        let version = crate::rdb::RdbVersion::redis(11);
        let file = sample::SampleFile::new(version).database(0).string("mark", &MARK).string("b", b"c").finish();
        let marked = [file.clone(), MARK.to_vec()].concat();
        for piece in [1, 7, 1000] {
            assert_eq!(receive(Framing::Mark(MARK), &marked, piece).unwrap().0, file);
        }
    }
}
