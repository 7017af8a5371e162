//! What someone who holds the store can try, and what must come of it: an error, never other plaintext.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use backup_crypto::entropy::SeededEntropy;
use backup_crypto::*;
use proptest::prelude::*;

const NAME: &str = "packs/01jd0000000000000000000000/000001";

/// A sealed object as a store keeps it, with the segment headers as the storage remembers them.
struct Object {
    key: EpochKey,
    repository: RepositoryId,
    epoch: EpochId,
    kind: ObjectKind,
    name: &'static str,
    header: [u8; ObjectHeader::LEN],
    segments: Vec<(SegmentHeader, Vec<u8>)>,
    plain: Vec<Vec<u8>>,
}

impl Object {
    fn context(&self) -> ObjectContext<'_> {
        ObjectContext { repository: self.repository, epoch: self.epoch, kind: self.kind, name: self.name }
    }

    fn opener(&self) -> Result<ObjectOpener> {
        ObjectOpener::new(&self.key, &self.context(), &ObjectHeader::parse(&self.header)?)
    }

    /// Reads everything, as a careful reader does: in order, to the last segment.
    fn read(&self) -> Result<Vec<Vec<u8>>> {
        let opener = self.opener()?;
        let mut plain = Vec::new();
        for (segment, sealed) in &self.segments {
            let mut out = b"left over from before".to_vec();
            let opened = opener.open(*segment, sealed, &mut out);
            if opened.is_err() {
                assert!(out.is_empty(), "a failure must leave nothing behind");
            }
            opened?;
            plain.push(out);
        }
        Ok(plain)
    }
}

fn object(seed: u64, suite: Suite, lengths: &[usize]) -> Object {
    let entropy = SeededEntropy::new(seed);
    let mut object = Object {
        key: EpochKey::generate(&entropy),
        repository: RepositoryId::generate(&entropy),
        epoch: EpochId(3),
        kind: ObjectKind::Pack,
        name: NAME,
        header: [0; ObjectHeader::LEN],
        segments: Vec::new(),
        plain: Vec::new(),
    };
    seal(&mut object, suite, lengths, &entropy);
    object
}

fn seal(object: &mut Object, suite: Suite, lengths: &[usize], entropy: &SeededEntropy) {
    let sealer = ObjectSealer::generate(suite, &object.key, &object.context(), entropy).unwrap();
    let header = sealer.header().encode();
    object.plain = lengths
        .iter()
        .map(|len| {
            let mut plain = vec![0; *len];
            entropy.fill(&mut plain);
            plain
        })
        .collect();
    let segments = object.plain.iter().enumerate().map(|(index, plain)| {
        let segment = SegmentHeader {
            index: index as u32,
            last: index + 1 == lengths.len(),
            plain_len: plain.len() as u32,
            codec: 0,
            role: index as u8 % 3,
        };
        let mut sealed = Vec::new();
        sealer.seal(segment, plain, &mut sealed).unwrap();
        assert_eq!(sealed.len(), SegmentHeader::sealed_len(plain.len()));
        (segment, sealed)
    });
    object.segments = segments.collect();
    object.header = header;
}

fn segment_refused<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Segment { .. }))
}

fn not_committed<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Commitment { .. }))
}

fn suites() -> impl Strategy<Value = Suite> {
    prop::sample::select(Suite::ALL.to_vec())
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0_usize..600, 2..6)
}

proptest! {
    #[test]
    fn what_was_sealed_opens(seed: u64, suite in suites(), lengths in lengths()) {
        let object = object(seed, suite, &lengths);
        prop_assert_eq!(object.read().unwrap(), object.plain);
    }

    #[test]
    fn any_flipped_bit_of_the_header_is_found(seed: u64, suite in suites(), at in 0..ObjectHeader::LEN, bit in 0..8) {
        let mut object = object(seed, suite, &[10, 20]);
        object.header[at] ^= 1_u8 << bit;
        let error = object.opener().unwrap_err();
        prop_assert_eq!(error.kind(), ErrorKind::Damaged, "{}", error);
    }

    #[test]
    fn any_flipped_bit_of_a_segment_is_found(
        seed: u64, suite in suites(), lengths in lengths(), which: prop::sample::Index, at: prop::sample::Index, bit in 0..8,
    ) {
        let mut object = object(seed, suite, &lengths);
        let sealed = &mut which.get_mut(&mut object.segments[..]).1;
        *at.get_mut(&mut sealed[..]) ^= 1_u8 << bit;
        prop_assert!(segment_refused(&object.read()));
    }

    #[test]
    fn any_change_to_what_is_said_about_a_segment_is_found(
        seed: u64, suite in suites(), lengths in lengths(), which: prop::sample::Index, field in 0..5, by in 1_u8..,
    ) {
        let mut object = object(seed, suite, &lengths);
        let segment = &mut which.get_mut(&mut object.segments[..]).0;
        match field {
            0 => segment.index ^= u32::from(by),
            1 => segment.last ^= true,
            2 => segment.plain_len ^= u32::from(by),
            3 => segment.codec ^= by,
            _ => segment.role ^= by,
        }
        prop_assert!(segment_refused(&object.read()));
    }

    #[test]
    fn swapped_segments_are_found(
        seed: u64, suite in suites(), len in 0_usize..300, count in 2_usize..6, a: prop::sample::Index, b: prop::sample::Index,
    ) {
        let mut object = object(seed, suite, &vec![len; count]);
        let (a, b) = (a.index(count), b.index(count));
        prop_assume!(a != b);
        let moved = object.segments[a].1.clone();
        object.segments[a].1 = std::mem::replace(&mut object.segments[b].1, moved);
        prop_assert!(segment_refused(&object.read()));
    }

    #[test]
    fn cut_segments_are_found(seed: u64, suite in suites(), lengths in lengths(), which: prop::sample::Index, cut in 1_usize..700) {
        let mut object = object(seed, suite, &lengths);
        let sealed = &mut which.get_mut(&mut object.segments[..]).1;
        sealed.truncate(sealed.len().saturating_sub(cut));
        prop_assert!(segment_refused(&object.read()));
    }

    /// Leaving segments away and calling an earlier one the last does not make a shorter object.
    #[test]
    fn a_shortened_object_is_found(seed: u64, suite in suites(), lengths in lengths(), keep: prop::sample::Index) {
        let mut object = object(seed, suite, &lengths);
        object.segments.truncate(1 + keep.index(lengths.len() - 1));
        object.segments.last_mut().unwrap().0.last = true;
        prop_assert!(segment_refused(&object.read()));
    }

    #[test]
    fn a_cut_header_is_found(seed: u64, suite in suites(), keep in 0..ObjectHeader::LEN) {
        let header = object(seed, suite, &[1]).header;
        let truncated = matches!(ObjectHeader::parse(&header[..keep]), Err(Error::Truncated { found, .. }) if found == keep);
        prop_assert!(truncated);
    }

    #[test]
    fn an_object_opens_only_in_its_own_place(seed: u64, suite in suites(), what in 0..5, by in 1_u8..) {
        let mut object = object(seed, suite, &[40, 2]);
        match what {
            0 => object.name = "packs/01jd0000000000000000000000/000002",
            1 => object.name = "packs/01jd0000000000000000000000/00000",
            2 => object.repository = {
                let mut bytes = *object.repository.as_bytes();
                bytes[usize::from(by) % 16] ^= by;
                RepositoryId::from_bytes(bytes)
            },
            3 => object.epoch.0 ^= u32::from(by),
            _ => object.kind = ObjectKind::Journal,
        }
        prop_assert_eq!(object.opener().unwrap_err().kind(), ErrorKind::Damaged);
        // Nor does it when the plain header is made to fit the other place.
        object.header[10] = object.kind as u8;
        object.header[12..16].copy_from_slice(&object.epoch.0.to_le_bytes());
        prop_assert!(not_committed(&object.opener()));
    }

    /// Two objects of one repository, same epoch, same lengths: neither whole nor in parts can one stand for the other.
    #[test]
    fn objects_cannot_be_swapped(seed: u64, suite in suites(), same_name: bool, which in 0_usize..2) {
        let mut first = object(seed, suite, &[64, 64]);
        let mut second = object(seed, suite, &[1]);
        if !same_name {
            second.name = "packs/01jd0000000000000000000000/000002";
        }
        seal(&mut second, suite, &[64, 64], &SeededEntropy::new(seed.wrapping_add(1)));
        prop_assert_eq!(second.read().unwrap(), second.plain.clone());

        let stolen = second.segments[which].1.clone();
        let own = std::mem::replace(&mut first.segments[which].1, stolen);
        prop_assert!(segment_refused(&first.read()), "a segment of another object");
        first.segments[which].1 = own;

        let own = std::mem::replace(&mut first.header, second.header);
        // Under the same name the other header is a valid one, and then none of the segments opens.
        prop_assert!(first.read().is_err(), "the header of another object");
        first.header = own;

        first.header = second.header;
        first.segments = second.segments.clone();
        prop_assert_eq!(first.read().is_ok(), same_name, "a whole object under another name");
    }

    #[test]
    fn another_key_is_told_before_anything_is_decrypted(seed: u64, suite in suites()) {
        let mut object = object(seed, suite, &[5]);
        object.key = EpochKey::generate(&SeededEntropy::new(seed ^ 1));
        prop_assert!(not_committed(&object.opener()));
    }

    #[test]
    fn another_suite_is_found(seed: u64, suite in suites()) {
        let mut object = object(seed, suite, &[5]);
        object.header[9] ^= 3;
        prop_assert!(not_committed(&object.opener()));
    }

    #[test]
    fn arbitrary_bytes_never_open(seed: u64, suite in suites(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let object = object(seed, suite, &[5, 9]);
        let mut out = Vec::new();
        prop_assert!(object.opener().unwrap().open(object.segments[0].0, &bytes, &mut out).is_err());
        prop_assert!(out.is_empty());
    }
}

#[test]
fn no_index_is_sealed_twice() {
    let object = object(1, Suite::ChaCha20Poly1305, &[3]);
    let sealer = ObjectSealer::new(Suite::Aes256Gcm, &object.key, &object.context(), [1; 32]).unwrap();
    let segment = SegmentHeader { index: 0, last: false, plain_len: 1, codec: 0, role: 0 };
    let mut out = b"pack so far".to_vec();
    sealer.seal(segment, b"a", &mut out).unwrap();
    let before = out.clone();
    let error = sealer.seal(segment, b"b", &mut out).unwrap_err();
    assert!(matches!(error, Error::SegmentRepeated { index: 0, .. }));
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(out, before, "nothing of the refused segment stays behind");
}

#[test]
fn limits_hold_on_both_sides() {
    let object = object(1, Suite::ChaCha20Poly1305, &[3]);
    let sealer = ObjectSealer::new(Suite::Aes256Gcm, &object.key, &object.context(), [1; 32]).unwrap();
    let opener = ObjectOpener::new(&object.key, &object.context(), sealer.header()).unwrap();
    let fine = SegmentHeader { index: 0, last: false, plain_len: MAX_SEGMENT as u32, codec: 0, role: 0 };
    let largest = vec![7; MAX_SEGMENT];
    let mut out = Vec::new();
    assert!(matches!(sealer.seal(fine, &vec![7; MAX_SEGMENT + 1], &mut out), Err(Error::LimitExceeded { .. })));
    for bad in [SegmentHeader { index: MAX_SEGMENTS, ..fine }, SegmentHeader { plain_len: fine.plain_len + 1, ..fine }]
    {
        assert!(matches!(sealer.seal(bad, b"", &mut out), Err(Error::LimitExceeded { .. })));
        assert!(matches!(opener.open(bad, &[0; 16], &mut Vec::new()), Err(Error::Segment { .. })));
    }
    assert!(out.is_empty());
    sealer.seal(fine, &largest, &mut out).unwrap();
    let mut plain = Vec::new();
    opener.open(fine, &out, &mut plain).unwrap();
    assert!(plain == largest);
    out.push(0);
    assert!(matches!(opener.open(fine, &out, &mut plain), Err(Error::Segment { .. })));
    assert!(plain.is_empty());
}

#[test]
fn names_must_be_bindable() {
    let object = object(1, Suite::ChaCha20Poly1305, &[3]);
    for name in [String::new(), "n".repeat(1025)] {
        let context = ObjectContext { name: &name, ..object.context() };
        let refused = ObjectSealer::new(Suite::Aes256Gcm, &object.key, &context, [1; 32]);
        assert!(matches!(refused, Err(Error::InvalidName { len }) if len == name.len()));
    }
}

#[test]
fn threads_seal_one_object_together() {
    let object = object(1, Suite::ChaCha20Poly1305, &[3]);
    let sealer = ObjectSealer::new(Suite::preferred_here(), &object.key, &object.context(), [1; 32]).unwrap();
    let opener = ObjectOpener::new(&object.key, &object.context(), sealer.header()).unwrap();
    let segment = |index| SegmentHeader { index, last: false, plain_len: 4, codec: 0, role: 0 };
    std::thread::scope(|scope| {
        for worker in 0..4_u32 {
            let (sealer, opener) = (&sealer, &opener);
            scope.spawn(move || {
                for index in (worker..200).step_by(4) {
                    let (mut sealed, mut plain) = (Vec::new(), Vec::new());
                    sealer.seal(segment(index), &index.to_le_bytes(), &mut sealed).unwrap();
                    opener.open(segment(index), &sealed, &mut plain).unwrap();
                    assert_eq!(plain, index.to_le_bytes());
                }
            });
        }
    });
    assert!(sealer.seal(segment(0), b"", &mut Vec::new()).is_err());
}

#[test]
fn sealing_a_tail_is_sealing() {
    let object = object(1, Suite::ChaCha20Poly1305, &[3]);
    let segment = SegmentHeader { index: 0, last: false, plain_len: 5, codec: 0, role: 0 };
    for backend in Backend::ALL {
        for suite in Suite::ALL {
            let new = || ObjectSealer::with_backend(*backend, suite, &object.key, &object.context(), [1; 32]).unwrap();
            let (mut copied, mut in_place) = (b"header".to_vec(), b"headerpages".to_vec());
            new().seal(segment, b"pages", &mut copied).unwrap();
            new().seal_tail(segment, &mut in_place, 6).unwrap();
            assert_eq!(copied, in_place);
            let opener = ObjectOpener::with_backend(*backend, &object.key, &object.context(), new().header()).unwrap();
            let mut buffer = copied[6..].to_vec();
            opener.open_in_place(segment, &mut buffer).unwrap();
            assert_eq!(buffer, b"pages");
        }
    }
}
