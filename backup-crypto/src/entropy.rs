//! Where randomness comes from. The rest of the crate draws only from an injected [`Entropy`].

use std::fmt::Debug;

/// A source of cryptographically strong random bytes.
///
/// Keys, salts and identifiers are drawn from it, so in production it must be [`OsEntropy`] or something as strong.
pub trait Entropy: Debug + Send + Sync {
    /// Fills the whole of `out`.
    ///
    /// There is no error: a source that cannot deliver must panic rather than hand out predictable bytes.
    fn fill(&self, out: &mut [u8]);
}

impl<E: Entropy + ?Sized> Entropy for &E {
    fn fill(&self, out: &mut [u8]) {
        (**self).fill(out);
    }
}

impl<E: Entropy + ?Sized> Entropy for std::sync::Arc<E> {
    fn fill(&self, out: &mut [u8]) {
        (**self).fill(out);
    }
}

/// The operating system's random number generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    /// # Panics
    /// When the operating system has no working random number generator: no key may be made on such a host.
    fn fill(&self, out: &mut [u8]) {
        #[expect(clippy::disallowed_methods, reason = "this is the injected source that everything else draws from")]
        getrandom::fill(out).expect("the operating system must provide random bytes");
    }
}

/// An endless, repeatable stream of bytes for tests and simulations: BLAKE3 in extended-output mode over a seed.
///
/// Whoever knows the seed knows every key made from it, so it is never the source in a service.
#[cfg(feature = "test-util")]
#[derive(Debug)]
pub struct SeededEntropy {
    stream: std::sync::Mutex<blake3::OutputReader>,
}

#[cfg(feature = "test-util")]
impl SeededEntropy {
    /// The stream that belongs to `seed`; equal seeds give equal streams.
    pub fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("backup-crypto v1 seeded entropy for tests");
        hasher.update(&seed.to_le_bytes());
        Self { stream: std::sync::Mutex::new(hasher.finalize_xof()) }
    }
}

#[cfg(feature = "test-util")]
impl Entropy for SeededEntropy {
    fn fill(&self, out: &mut [u8]) {
        self.stream.lock().unwrap_or_else(std::sync::PoisonError::into_inner).fill(out);
    }
}

/// Draws a fixed number of bytes.
pub(crate) fn draw<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operating_system_never_repeats_itself() {
        assert_ne!(draw::<32>(&OsEntropy), draw::<32>(&OsEntropy));
    }

    #[test]
    fn equal_seeds_give_equal_streams() {
        let (a, b, c) = (SeededEntropy::new(7), SeededEntropy::new(7), SeededEntropy::new(8));
        let first = draw::<48>(&a);
        assert_eq!(first, draw::<48>(&b));
        assert_ne!(first, draw::<48>(&a));
        assert_ne!(first, draw::<48>(&c));
    }
}
