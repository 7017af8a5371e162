//! Values that are the same in whatever order their elements stand: sets and hashes, when a server keeps them in tables.
//!
//! A table is written bucket by bucket, and its buckets change while it grows, without a command of anybody. So two snapshots may
//! have the same value in another order.

use super::layout::{Layout, Op, ValueType};
use super::version::RdbVersion;
use super::walk::{Carry, Cursor, Walk};

/// Finds the elements of one value, which comes in pieces of any size.
#[derive(Debug)]
pub(crate) struct Elements {
    walk: Walk,
    carry: Carry,
    stage: Stage,
    /// The steps of one element.
    element: Layout,
    left: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// In what stands before the elements.
    Lead,
    /// In their number.
    Count,
    Element,
    End,
}

/// What some bytes of a value are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// No element.
    Frame,
    /// Of an element that goes on.
    Inside,
    /// The last ones of an element.
    Last,
}

const COUNT: Layout = &[Op::Len];

impl Elements {
    /// The elements of a value of this type. None for a type whose order has a meaning.
    pub(crate) fn of(version: RdbVersion, value_type: ValueType) -> Option<Self> {
        let unordered = matches!(value_type.0, 2 | 4 | 22 | 24);
        let (last, lead) = value_type.layout(version).filter(|_| unordered)?.split_last()?;
        let Op::Times(element) = last else { return None };
        let mut walk = Walk::new();
        // A walk without a step would never begin.
        let stage = if lead.is_empty() { Stage::Count } else { Stage::Lead };
        walk.begin(if lead.is_empty() { COUNT } else { lead });
        Some(Self { walk, carry: Carry::default(), stage, element, left: 0 })
    }

    /// Takes the next bytes of the value and tells what each of them is. What is no such value is told as a frame.
    pub(crate) fn push(&mut self, bytes: &[u8], mut tell: impl FnMut(Role, &[u8])) {
        let mut cursor = Cursor::new(bytes);
        while self.stage != Stage::End && !cursor.is_empty() {
            let from = cursor.at;
            let Ok(done) = self.walk.go(&mut self.carry, &mut cursor) else {
                // The scanner before us has seen that it is one.
                self.stage = Stage::End;
                break;
            };
            let passed = bytes.get(from..cursor.at).unwrap_or_default();
            match (self.stage, done) {
                (Stage::Element, true) => tell(Role::Last, passed),
                (Stage::Element, false) => tell(Role::Inside, passed),
                _ => tell(Role::Frame, passed),
            }
            if !done {
                return;
            }
            self.next();
        }
        tell(Role::Frame, cursor.rest());
    }

    fn next(&mut self) {
        self.stage = match self.stage {
            Stage::Lead => Stage::Count,
            Stage::Count => {
                self.left = self.walk.numbers[0];
                if self.left == 0 { Stage::End } else { Stage::Element }
            }
            Stage::Element => {
                self.left -= 1;
                if self.left == 0 { Stage::End } else { Stage::Element }
            }
            Stage::End => Stage::End,
        };
        self.walk.begin(if self.stage == Stage::Count { COUNT } else { self.element });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(value_type: u8, version: RdbVersion, bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut elements = Elements::of(version, ValueType(value_type)).unwrap();
        let (mut frame, mut found, mut open) = (Vec::new(), Vec::new(), Vec::new());
        for chunk in bytes.chunks(piece) {
            elements.push(chunk, |role, bytes| match role {
                Role::Frame => frame.extend_from_slice(bytes),
                Role::Inside => open.extend_from_slice(bytes),
                Role::Last => {
                    open.extend_from_slice(bytes);
                    found.push(std::mem::take(&mut open));
                }
            });
        }
        (frame, found)
    }

    #[test]
    fn elements_are_found_in_pieces_of_any_size() {
        let redis = RdbVersion::redis(12);
        let long = [&[0x40, 70][..], &[b'x'; 70]].concat();
        let set = [&b"\x03\x01a"[..], &long, b"\xc0\x07"].concat();
        let hash = [&b"12345678\x02\x05\x01a\x01x\x00"[..], &long, b"\x00"].concat();
        for piece in [1, 2, 7, 100] {
            let (frame, found) = elements(2, redis, &set, piece);
            assert_eq!(
                (frame.as_slice(), found),
                (&b"\x03"[..], vec![b"\x01a".to_vec(), long.clone(), b"\xc0\x07".to_vec()])
            );
            let (frame, found) = elements(24, redis, &hash, piece);
            assert_eq!(frame, b"12345678\x02");
            assert_eq!(found, [b"\x05\x01a\x01x".to_vec(), [&b"\x00"[..], &long, b"\x00"].concat()]);
        }
        assert_eq!(elements(2, redis, b"\0", 1), (b"\0".to_vec(), vec![]));
        assert!(Elements::of(redis, ValueType(18)).is_none(), "a list has an order");
        assert!(Elements::of(redis, ValueType(16)).is_none(), "a packed hash is in the order of its making");
    }
}
