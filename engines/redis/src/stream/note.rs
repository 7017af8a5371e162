//! What capture writes beside the stream, into the index of a piece of log: where reading can begin, and the moments of changes.
//!
//! The stream itself tells neither. A note stands at an offset where a command begins and no transaction is open; it says which
//! database the stream is in there, and when the changes before it, back to the note before, had come. The moments are those of
//! arrival, by the clock of the source; they never go backwards.

use bytes::Bytes;
use jiff::Timestamp;
use minicbor::{Decode, Encode};

use crate::error::{Error, Result};

/// Moments nearer to each other than this, in microseconds, are one: a restore to a time is that exact.
pub(crate) const APART: i64 = 10_000;

/// A moment of the stream: at that time the change that ends at the offset came, the first one of those that came together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The end of the change.
    pub offset: u64,
    /// When it came.
    pub at: Timestamp,
}

/// A note.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamNote {
    /// The database at the note, if it is known.
    pub database: Option<u64>,
    /// The moments of changes before it, in order.
    pub moments: Vec<Moment>,
}

/// Stored form. Fields are only ever added.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Stored {
    #[n(0)]
    database: Option<u64>,
    /// For each moment how far before the note it is, and microseconds behind the moment before it, the first of them since 1970.
    #[n(1)]
    #[cbor(default)]
    moments: Vec<(u64, i64)>,
}

impl StreamNote {
    /// The stored form of a note at `offset`. Moments behind it are left out.
    ///
    /// # Errors
    /// [`Error::Protocol`] when it cannot be written down, which does not happen.
    pub fn encode(&self, offset: u64) -> Result<Bytes> {
        let mut before = 0;
        let moments = self.moments.iter().filter_map(|moment| {
            let back = offset.checked_sub(moment.offset)?;
            let at = moment.at.as_microsecond();
            let step = at - std::mem::replace(&mut before, at);
            Some((back, step))
        });
        let stored = Stored { database: self.database, moments: moments.collect() };
        minicbor::to_vec(&stored).map(Bytes::from).map_err(|error| Error::Protocol(format!("a note: {error}")))
    }

    /// Reads the stored form of a note at `offset`. None for what is none, or one of a later version that says nothing we know.
    #[must_use]
    pub fn decode(offset: u64, bytes: &[u8]) -> Option<Self> {
        let stored: Stored = minicbor::decode(bytes).ok()?;
        let mut at = 0_i64;
        let mut moments = Vec::new();
        for (back, step) in stored.moments {
            at = at.checked_add(step)?;
            moments.push(Moment { offset: offset.checked_sub(back)?, at: Timestamp::from_microsecond(at).ok()? });
        }
        Some(Self { database: stored.database, moments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_stored_form_stays_as_it_is() {
        let moment = |offset, micros| Moment { offset, at: Timestamp::from_microsecond(micros).unwrap() };
        let note = StreamNote { database: Some(3), moments: vec![moment(90, 1_000_000), moment(100, 1_020_000)] };
        let bytes = note.encode(100).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "a200030182820a1a000f42408200194e20");
        assert_eq!(StreamNote::decode(100, &bytes), Some(note));
        assert_eq!(StreamNote::decode(5, &bytes), None, "moments before the beginning");
        assert_eq!(StreamNote::decode(5, b"nonsense"), None);
    }

    proptest! {
        #[test]
        fn notes_come_back(database in any::<Option<u64>>(), steps in prop::collection::vec((0_u64..1000, 0_i64..1_000_000), 0..20)) {
            let (mut offset, mut micros, mut moments) = (7_u64, 1_700_000_000_000_000_i64, Vec::new());
            for (bytes, time) in steps {
                offset += bytes;
                micros += time;
                moments.push(Moment { offset, at: Timestamp::from_microsecond(micros).unwrap() });
            }
            let note = StreamNote { database, moments };
            prop_assert_eq!(StreamNote::decode(offset + 5, &note.encode(offset + 5).unwrap()), Some(note));
        }
    }
}
