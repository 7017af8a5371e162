//! Digests of values, whatever order their elements stand in where that has no meaning. Pure.

use crate::rdb::{Elements, RdbVersion, Role, ValueType};

/// Makes one digest after the other.
#[derive(Debug, Default)]
pub(super) struct ValueDigest {
    value: blake3::Hasher,
    element: blake3::Hasher,
    /// For a value whose elements have no order.
    elements: Option<Elements>,
    /// The digests of the elements so far, added up: a sum does not know in which order.
    sum: u64,
}

impl ValueDigest {
    /// Takes in what stands before a key and belongs to its value.
    pub(super) fn before(&mut self, bytes: &[u8]) {
        self.value.update(bytes);
    }

    /// A value of this type follows.
    pub(super) fn begin(&mut self, version: RdbVersion, value_type: ValueType) {
        self.value.update(&[value_type.0]);
        self.elements = Elements::of(version, value_type);
    }

    /// Takes in bytes of the value.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let Self { value, element, elements, sum } = self;
        let Some(elements) = elements else {
            value.update(bytes);
            return;
        };
        elements.push(bytes, |role, bytes| match role {
            Role::Frame => {
                value.update(bytes);
            }
            Role::Inside => {
                element.update(bytes);
            }
            Role::Last => {
                element.update(bytes);
                *sum = sum.wrapping_add(short(element));
                element.reset();
            }
        });
    }

    /// The digest of the value, which is at its end.
    pub(super) fn finish(&mut self) -> u64 {
        self.value.update(&self.sum.to_le_bytes());
        let digest = short(&self.value);
        self.value.reset();
        (self.elements, self.sum) = (None, 0);
        digest
    }
}

fn short(hasher: &blake3::Hasher) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(value_type: u8, bytes: &[u8]) -> u64 {
        let mut digest = ValueDigest::default();
        let mut of = |piece| {
            digest.begin(RdbVersion::redis(12), ValueType(value_type));
            bytes.chunks(piece).for_each(|chunk| digest.push(chunk));
            digest.finish()
        };
        let whole = of(bytes.len());
        assert_eq!(whole, of(1), "in pieces, and a second time");
        whole
    }

    #[test]
    fn only_an_order_that_means_something_counts() {
        assert_eq!(digest(2, b"\x02\x01a\x01b"), digest(2, b"\x02\x01b\x01a"));
        assert_ne!(digest(2, b"\x02\x01a\x01b"), digest(2, b"\x02\x01a\x01c"));
        assert_eq!(digest(4, b"\x02\x01a\x01x\x01b\x01y"), digest(4, b"\x02\x01b\x01y\x01a\x01x"));
        assert_ne!(
            digest(4, b"\x02\x01a\x01x\x01b\x01y"),
            digest(4, b"\x02\x01a\x01y\x01b\x01x"),
            "whose value it is counts"
        );
        assert_ne!(digest(1, b"\x02\x01a\x01b"), digest(1, b"\x02\x01b\x01a"), "a list");
        assert_ne!(digest(2, b"\x01\x01a"), digest(1, b"\x01\x01a"), "the type counts");
    }
}
