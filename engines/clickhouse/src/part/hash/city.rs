//! CityHash128 1.0.2, plain for compressed blocks and chained for files.
//!
//! Source: `contrib/cityhash102` of ClickHouse (`city.h`: why this version), Google's CityHash 1.0.2 (`city.cc`:
//! `CityHash128WithSeed`, `CityMurmur`), `HashingWriteBuffer.h` (the chain).

use super::Hash128;

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;
const K3: u64 = 0xc949_d7c7_509e_6557;
const MULTIPLIER: u64 = 0x9ddf_ea08_eb38_2d69;

/// After how many bytes the hash of a file is chained on (`DBMS_DEFAULT_HASHING_BLOCK_SIZE`).
const BLOCK: usize = 2048;

/// The hash of a file, computed while it passes: what `checksums.txt` calls the hash of a file.
///
/// It does not matter in which pieces the bytes come.
///
/// ```
/// use backup_clickhouse::part::hash::FileHasher;
///
/// let mut hasher = FileHasher::new();
/// hasher.update(b"10");
/// hasher.update(b"00");
/// let pieces = hasher.finish();
/// let mut hasher = FileHasher::new();
/// hasher.update(b"1000");
/// assert_eq!(hasher.finish(), pieces);
/// ```
#[derive(Clone)]
pub struct FileHasher {
    state: Hash128,
    waiting: [u8; BLOCK],
    filled: usize,
}

impl FileHasher {
    /// The hash of nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: Hash128::new(0, 0), waiting: [0; BLOCK], filled: 0 }
    }

    /// Takes the next bytes of the file.
    pub fn update(&mut self, mut bytes: &[u8]) {
        if self.filled > 0 {
            let missing = BLOCK - self.filled;
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            self.keep(now);
            bytes = later;
            if self.filled < BLOCK {
                return;
            }
            self.state = seeded(&self.waiting, self.state);
            self.filled = 0;
        }
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for block in blocks {
            self.state = seeded(block, self.state);
        }
        self.keep(rest);
    }

    /// Keeps bytes of a block that is not whole yet.
    fn keep(&mut self, bytes: &[u8]) {
        if let Some(place) = self.waiting.get_mut(self.filled..self.filled + bytes.len()) {
            place.copy_from_slice(bytes);
            self.filled += bytes.len();
        }
    }

    /// The hash of everything that was taken.
    #[must_use]
    pub fn finish(&self) -> Hash128 {
        match self.waiting.get(..self.filled) {
            Some(rest) if !rest.is_empty() => seeded(rest, self.state),
            _ => self.state,
        }
    }
}

impl Default for FileHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for FileHasher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FileHasher").field("state", &self.state).field("filled", &self.filled).finish()
    }
}

/// The plain hash: what stands before each compressed block (`CompressedReadBufferBase.cpp`).
#[must_use]
pub fn city_hash128(bytes: &[u8]) -> Hash128 {
    let length = bytes.len() as u64;
    if let Some((seed, rest)) = bytes.split_first_chunk::<16>() {
        return seeded(rest, Hash128::new(word(seed, 0) ^ K3, word(seed, 8)));
    }
    match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            let low = u64::from_le_bytes(*first) ^ length.wrapping_mul(K0);
            seeded(&[], Hash128::new(low, u64::from_le_bytes(*last) ^ K1))
        }
        _ => seeded(bytes, Hash128::new(K0, K1)),
    }
}

/// `CityHash128WithSeed`.
fn seeded(bytes: &[u8], seed: Hash128) -> Hash128 {
    let (pairs, _) = bytes.as_chunks::<128>();
    let Some(first) = pairs.first() else { return murmur(bytes, seed) };
    let mut state = State::new(first, bytes.len() as u64, seed);
    for pair in pairs {
        // Two halves of known length, so that no bound is checked inside.
        let (halves, _) = pair.as_chunks::<64>();
        for half in halves {
            state.step(half);
        }
    }
    state.finish(bytes, bytes.len() % 128)
}

/// What `CityHash128WithSeed` carries from 64 bytes to the next.
struct State {
    x: u64,
    y: u64,
    z: u64,
    v: (u64, u64),
    w: (u64, u64),
}

impl State {
    fn new(first: &[u8; 128], length: u64, seed: Hash128) -> Self {
        let (x, y) = (seed.low(), seed.high());
        let z = length.wrapping_mul(K1);
        let v = (y ^ K1).rotate_right(49).wrapping_mul(K1).wrapping_add(word(first, 0));
        let w = y.wrapping_add(z).rotate_right(35).wrapping_mul(K1).wrapping_add(x);
        Self {
            x,
            y,
            z,
            v: (v, v.rotate_right(42).wrapping_mul(K1).wrapping_add(word(first, 8))),
            w: (w, x.wrapping_add(word(first, 88)).rotate_right(53).wrapping_mul(K1)),
        }
    }

    #[inline]
    fn step(&mut self, bytes: &[u8; 64]) {
        let sum = self.x.wrapping_add(self.y).wrapping_add(self.v.0).wrapping_add(word(bytes, 16));
        let x = sum.rotate_right(37).wrapping_mul(K1) ^ self.w.1;
        let sum = self.y.wrapping_add(self.v.1).wrapping_add(word(bytes, 48));
        self.y = sum.rotate_right(42).wrapping_mul(K1) ^ self.v.0;
        let z = (self.z ^ self.w.0).rotate_right(33);
        self.v = weak(bytes, 0, self.v.1.wrapping_mul(K1), x.wrapping_add(self.w.0));
        self.w = weak(bytes, 32, z.wrapping_add(self.w.1), self.y);
        (self.x, self.z) = (z, x);
    }

    /// The last `tail` bytes, in pieces of 32 from the end; the last piece reaches back into what was taken already.
    fn finish(mut self, bytes: &[u8], tail: usize) -> Hash128 {
        let z = self.z;
        self.y = self.y.wrapping_add(self.w.0.rotate_right(37).wrapping_mul(K0).wrapping_add(z));
        self.x = self.x.wrapping_add(self.v.0.wrapping_add(z).rotate_right(49).wrapping_mul(K0));
        for piece in bytes.rchunks_exact(32).take(tail.div_ceil(32)) {
            let Some(piece) = piece.first_chunk::<32>() else { continue };
            self.y = self.y.wrapping_sub(self.x).rotate_right(42).wrapping_mul(K0).wrapping_add(self.v.1);
            self.w.0 = self.w.0.wrapping_add(word(piece, 16));
            self.x = self.x.rotate_right(49).wrapping_mul(K0).wrapping_add(self.w.0);
            self.w.0 = self.w.0.wrapping_add(self.v.0);
            self.v = weak(piece, 0, self.v.0, self.v.1);
        }
        let x = mix16(self.x, self.v.0);
        let y = mix16(self.y, self.w.0);
        let low = mix16(x.wrapping_add(self.v.1), self.w.1).wrapping_add(y);
        Hash128::new(low, mix16(x.wrapping_add(self.w.1), y.wrapping_add(self.v.1)))
    }
}

/// `CityMurmur`: fewer than 128 bytes.
fn murmur(bytes: &[u8], seed: Hash128) -> Hash128 {
    let length = bytes.len() as u64;
    let (mut a, mut b) = (seed.low(), seed.high());
    let (mut c, mut d);
    match (bytes.last_chunk::<16>(), bytes.len() > 16) {
        (Some(end), true) => {
            c = mix16(word(end, 8).wrapping_add(K1), a);
            d = mix16(b.wrapping_add(length), c.wrapping_add(word(end, 0)));
            a = a.wrapping_add(d);
            // A last piece is never gone through: its bytes are in `c` and `d`.
            let (pieces, _) = bytes.as_chunks::<16>();
            for piece in pieces.iter().take((bytes.len() - 1) / 16) {
                a = (a ^ shift(word(piece, 0).wrapping_mul(K1)).wrapping_mul(K1)).wrapping_mul(K1);
                b ^= a;
                c = (c ^ shift(word(piece, 8).wrapping_mul(K1)).wrapping_mul(K1)).wrapping_mul(K1);
                d ^= c;
            }
        }
        _ => {
            a = shift(a.wrapping_mul(K1)).wrapping_mul(K1);
            c = b.wrapping_mul(K1).wrapping_add(short(bytes));
            let first = bytes.first_chunk::<8>().map_or(c, |first| u64::from_le_bytes(*first));
            d = shift(a.wrapping_add(first));
        }
    }
    a = mix16(a, c);
    b = mix16(d, b);
    Hash128::new(a ^ b, mix16(b, a))
}

/// `HashLen0to16`.
fn short(bytes: &[u8]) -> u64 {
    let length = bytes.len() as u64;
    if bytes.len() > 8
        && let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>())
    {
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        return mix16(first, last.wrapping_add(length).rotate_right(bytes.len() as u32)) ^ last;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let first = u64::from(u32::from_le_bytes(*first));
        return mix16(length.wrapping_add(first << 3), u64::from(u32::from_le_bytes(*last)));
    }
    match (bytes.first(), bytes.get(bytes.len() / 2), bytes.last()) {
        (Some(first), Some(middle), Some(last)) => {
            let y = u64::from(*first) + (u64::from(*middle) << 8);
            let z = length + (u64::from(*last) << 2);
            shift(y.wrapping_mul(K2) ^ z.wrapping_mul(K3)).wrapping_mul(K2)
        }
        _ => K2,
    }
}

/// `WeakHashLen32WithSeeds` of the 32 bytes at `at`.
#[inline]
fn weak<const N: usize>(bytes: &[u8; N], at: usize, a: u64, b: u64) -> (u64, u64) {
    let (w, x, y, z) = (word(bytes, at), word(bytes, at + 8), word(bytes, at + 16), word(bytes, at + 24));
    let a = a.wrapping_add(w);
    let b = b.wrapping_add(a).wrapping_add(z).rotate_right(21);
    let sum = a.wrapping_add(x).wrapping_add(y);
    (sum.wrapping_add(z), b.wrapping_add(sum.rotate_right(44)).wrapping_add(a))
}

/// `HashLen16`.
fn mix16(low: u64, high: u64) -> u64 {
    let a = (low ^ high).wrapping_mul(MULTIPLIER);
    let b = (high ^ a ^ (a >> 47)).wrapping_mul(MULTIPLIER);
    (b ^ (b >> 47)).wrapping_mul(MULTIPLIER)
}

/// `ShiftMix`.
const fn shift(value: u64) -> u64 {
    value ^ (value >> 47)
}

/// The word at a place that the callers know to be inside: the compiler sees it, so nothing is checked at run time.
#[inline]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
