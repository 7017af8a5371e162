//! Key hierarchy and authenticated sealing of backup objects: pure, synchronous, without I/O.
//!
//! A repository stores many small numbers of large, write-once objects in a place that nobody trusts. This crate makes
//! sure that such an object can be read only by a holder of the right key, only under its own name, whole and in order,
//! or not at all. It knows nothing of object stores, journals or engines, never reads a clock and takes its randomness from an
//! injected [`Entropy`].
//!
//! # The ideas
//! 1. **Recipients wrap epoch keys, epoch keys derive object keys, object keys seal segments.** An [`EpochKey`] is 32
//!    random bytes. It is stored only as [`WrappedKey`]s, one for every [`Recipient`] (passphrase, raw key, X25519 public key, or
//!    a key management service behind [`KeyWrapper`]). Adding a recipient or changing a passphrase writes one small
//!    object; destroying all wraps of an epoch shreds everything that was sealed in it.
//! 2. **A fresh key for every object.** HKDF-SHA256 over the epoch key, a random salt and the object's whole identity
//!    ([`ObjectContext`]: repository, epoch, kind, *name*) gives a key, a base nonce and a 32-byte commitment. An object
//!    that was renamed, swapped, retyped or taken from elsewhere derives another commitment and is refused before
//!    anything is decrypted. The commitment also closes the gap that neither AEAD commits to its key.
//! 3. **Segments are sealed independently**, by `&self`, in any order and from any thread. The nonce is the base nonce XOR the
//!    index; the whole [`SegmentHeader`] is authenticated. An [`ObjectSealer`] refuses to seal an index twice, so a
//!    nonce cannot be reused by mistake.
//! 4. **Hosts that only write have no key.** A [`HostSecret`] authenticates and hashes, and decrypts nothing; the key of a session is wrapped for a
//!    public key that follows from the epoch key ([`EpochKey::deposit_key`]) and is then forgotten.
//! 5. **Nothing is released before its tag was checked.** On any error the output buffer is empty.
//!
//! # Example
//! ```
//! use backup_crypto::*;
//!
//! let entropy = OsEntropy;
//! let repository = RepositoryId::generate(&entropy);
//! let epoch = EpochId(1);
//! let epoch_key = EpochKey::generate(&entropy);
//!
//! // One wrap for each recipient is stored; the key itself never is.
//! let owner = X25519SecretKey::generate(&entropy);
//! let wrap = Recipient::from(owner.public_key()).wrap(&epoch_key, repository, epoch, &entropy)?;
//!
//! // Seal one object of two segments.
//! let context = ObjectContext { repository, epoch, kind: ObjectKind::Pack, name: "packs/01j/000001" };
//! let sealer = ObjectSealer::generate(Suite::preferred_here(), &epoch_key, &context, &entropy)?;
//! let header = sealer.header().encode();
//! let first = SegmentHeader { index: 0, last: false, plain_len: 5, codec: 0, role: 0 };
//! let footer = SegmentHeader { index: 1, last: true, plain_len: 6, codec: 0, role: 1 };
//! let (mut a, mut b) = (Vec::new(), Vec::new());
//! sealer.seal(first, b"pages", &mut a)?;
//! sealer.seal(footer, b"footer", &mut b)?;
//!
//! // Elsewhere: the owner unwraps the epoch key and opens what was stored under that very name.
//! let wrap = WrappedKey::parse(&wrap.encode())?;
//! let epoch_key = Identity::from(owner).unwrap(&wrap, repository, epoch)?;
//! let opener = ObjectOpener::new(&epoch_key, &context, &ObjectHeader::parse(&header)?)?;
//! let mut plain = Vec::new();
//! opener.open(first, &a, &mut plain)?;
//! assert_eq!(plain, b"pages");
//! assert!(opener.open(first, &b, &mut plain).is_err() && plain.is_empty());
//! # Ok::<(), Error>(())
//! ```
//!
//! # Formats
//! Every byte layout is documented where it is written: [`ObjectHeader`], [`SegmentHeader`], [`WrappedKey`], and the key
//! schedule in [`ObjectContext`]. Golden vectors for all of them are in `tests/golden`.
//!
//! # Features
//! | feature | default | what it does |
//! |---|---|---|
//! | `ring` | yes | the fast [`Backend`] for both suites; without it RustCrypto seals the same bytes |
//! | `test-util` | no | `entropy::SeededEntropy` for tests and simulations |
//!
//! # What is wiped from memory
//! [`EpochKey`], [`HashKey`], [`HostSecret`], [`RawKey`], [`X25519SecretKey`], [`Passphrase`], derived key material, argon2 memory and RustCrypto's cipher
//! states are overwritten when dropped. `ring` does not wipe its expanded key schedules: one schedule of one object stays
//! in freed memory until it is reused. Choose [`Backend::RustCrypto`] where that matters more than speed.

pub mod entropy;
pub mod object;
pub mod recipients;
pub mod suite;

mod epoch;
mod error;
mod hasher;
mod host;
mod kdf;
mod repository;

pub use entropy::{Entropy, OsEntropy};
pub use epoch::{EpochFingerprint, EpochId, EpochKey};
pub use error::{Error, ErrorKind, Result};
pub use hasher::{ContentHasher, HashKey};
pub use host::HostSecret;
pub use object::{
    MAX_SEGMENT, MAX_SEGMENTS, ObjectContext, ObjectHeader, ObjectKind, ObjectOpener, ObjectSealer, SegmentHeader,
    TAG_LEN,
};
pub use recipients::{
    Identity, KeyWrapper, Passphrase, PassphraseParams, RawKey, Recipient, RecipientId, RecipientKind, WrapContext,
    WrappedKey, X25519PublicKey, X25519SecretKey,
};
pub use repository::RepositoryId;
pub use suite::{Backend, Suite};
