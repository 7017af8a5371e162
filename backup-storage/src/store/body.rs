//! The bytes of an object on their way into a store: a rope, never concatenated.

use bytes::Bytes;
use object_store::PutPayload;

/// The content of one object to be created. Cloning is cheap: a retry sends the same buffers again.
#[derive(Clone, Debug, Default)]
pub struct PutBody {
    chunks: Vec<Bytes>,
    len: u64,
}

impl PutBody {
    /// How many bytes the object will have.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the object will be empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `other` holds the same bytes, however either is cut into chunks.
    pub(super) fn equals(&self, other: &[u8]) -> bool {
        let mut rest = other;
        for chunk in &self.chunks {
            match rest.split_at_checked(chunk.len()) {
                Some((head, tail)) if head == &chunk[..] => rest = tail,
                _ => return false,
            }
        }
        rest.is_empty()
    }

    pub(super) fn payload(&self) -> PutPayload {
        self.chunks.iter().cloned().collect()
    }
}

impl From<Vec<Bytes>> for PutBody {
    fn from(chunks: Vec<Bytes>) -> Self {
        let len = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Self { chunks, len }
    }
}

impl From<Bytes> for PutBody {
    fn from(bytes: Bytes) -> Self {
        Self::from(vec![bytes])
    }
}

impl From<Vec<u8>> for PutBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

impl From<&'static [u8]> for PutBody {
    fn from(bytes: &'static [u8]) -> Self {
        Self::from(Bytes::from_static(bytes))
    }
}

impl From<&'static str> for PutBody {
    fn from(text: &'static str) -> Self {
        Self::from(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_ignores_how_the_rope_is_cut() {
        let body = PutBody::from(vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"cde")]);
        assert_eq!(body.len(), 5);
        assert!(body.equals(b"abcde"));
        for other in [&b""[..], b"ab", b"abcdef", b"abcdX", b"abcd"] {
            assert!(!body.equals(other));
        }
        assert!(PutBody::default().equals(b"") && PutBody::default().is_empty());
    }
}
