use super::*;
use crate::error::ErrorKind;
use crate::keyring::tests::keyring;
use backup_core::log::{AsOf, LogEpoch, Notation, TimeSample};
use jiff::Timestamp;
use proptest::prelude::*;

fn lineage() -> Lineage {
    Lineage::new("1")
}

fn piece(start: u64, len: u64) -> Piece {
    Piece { epoch: LogEpoch(3), sequence: 9, start, end: start + len }
}

fn index(end: u64) -> LogIndex {
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    let mut index = LogIndex::default();
    index.samples.push(TimeSample { offset: end, at });
    index.as_of = Some(AsOf(at));
    index
}

fn content(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes[..len / 2]);
    bytes.into()
}

fn sealed(start: u64, content: &[Bytes], record: bool) -> (Sealed, LogSheet) {
    sealed_with(false, start, content, record)
}

fn sealed_with(haste: bool, start: u64, content: &[Bytes], record: bool) -> (Sealed, LogSheet) {
    let len: usize = content.iter().map(Bytes::len).sum();
    let piece = piece(start, len as u64);
    let record = record.then(|| LineageRecord::new(lineage(), "source", Notation::HexHalves, Timestamp::UNIX_EPOCH));
    let sheet = sheet(&lineage(), &piece, (LogPurpose::Import, record), Some([7; 32]), index(piece.end));
    let mut sealer = Sealer::new(&keyring(1), 1).unwrap();
    sealer.set_level(1, haste).unwrap();
    let draft = sealer.draft(piece.name(&lineage()).unwrap(), content, Vec::new()).unwrap();
    (sealer.finish(draft, &sheet).unwrap(), sheet)
}

#[test]
fn an_object_comes_back_whole_and_in_parts() {
    let scratches = Arc::default();
    let lens = [
        vec![0],
        vec![1],
        vec![100, 7],
        vec![SEGMENT, SEGMENT],
        vec![10, 3 * SEGMENT + 5, 0, SEGMENT - 10, 1],
        vec![9, SCATTERED, 5, SCATTERED - 1, 3 * SCATTERED, 7],
    ];
    for (lens, haste) in lens.into_iter().flat_map(|lens| [(lens.clone(), false), (lens, true)]) {
        let whole = content(lens.iter().sum());
        let mut rest = whole.clone();
        let parts: Vec<_> = lens.iter().map(|len| rest.split_to(*len)).collect();
        let (object, said) = sealed_with(haste, 1000, &parts, true);
        assert_eq!(object.digest, *blake3::hash(&object.bytes).as_bytes());
        let opened = open_whole(&keyring(1), &object.name, &object.bytes, &scratches).unwrap();
        assert_eq!(opened.object.sheet(), &said);
        assert!(opened.content.concat() == whole, "{lens:?}");
        if lens.len() == 6 {
            let segments: Vec<_> = opened.content.iter().map(Bytes::len).collect();
            let scattered = vec![9, SCATTERED, SCATTERED + 4, 3 * SCATTERED, 7];
            assert_eq!(segments, if haste { scattered } else { vec![whole.len()] });
        }
        assert!(opened.content.iter().all(|part| !part.is_empty() && part.len() <= SEGMENT));
        // Of any part only the segments that hold it are needed.
        let end = 1000 + whole.len() as u64;
        for (from, to) in [(1000, end), (1001.min(end), end), (1000, end - 1), (end.midpoint(1000), end), (end, end)] {
            if from > to {
                continue;
            }
            let mut scratch = Scratch::new().unwrap();
            let mut read = Vec::new();
            for number in opened.object.segments(&(from..to)) {
                let range = opened.object.stored(number).unwrap();
                let sealed = &object.bytes[range.start as usize..range.end as usize];
                let segment = opened.object.open(number, sealed, &mut scratch).unwrap();
                let held = opened.object.offsets(number);
                assert_eq!(held.end - held.start, segment.len() as u64);
                let (from, to) = (from.clamp(held.start, held.end), to.clamp(held.start, held.end));
                assert!(from < to, "segment {number} is not needed for {from}..{to}");
                read.extend_from_slice(&segment[(from - held.start) as usize..(to - held.start) as usize]);
            }
            assert!(read == whole[(from - 1000) as usize..(to - 1000) as usize], "{from}..{to}");
        }
    }
}

#[test]
fn what_an_object_says_is_found_at_its_end() {
    let (object, said) = sealed(5, &[content(3 * SEGMENT)], false);
    let len = object.bytes.len() as u64;
    let mut scratch = Scratch::new().unwrap();
    let header = &object.bytes[..ObjectHeader::LEN];
    let mut tail = 20;
    let parsed = loop {
        let given = &object.bytes[object.bytes.len() - tail..];
        match LogObject::parse(&keyring(1), &object.name, (header, given, len), &mut scratch).unwrap() {
            Ok(parsed) => break parsed,
            Err(needed) => {
                assert!(needed > tail as u64 && needed <= len);
                tail = needed as usize;
            }
        }
    };
    assert!(tail < 1000, "{tail} bytes were needed");
    assert_eq!(parsed.sheet(), &said);
}

#[test]
fn an_object_under_another_name_does_not_open() {
    let (object, _) = sealed(5, &[content(100)], false);
    let scratches = Arc::default();
    for other in [
        Piece { epoch: LogEpoch(4), ..piece(5, 100) },
        Piece { sequence: 10, ..piece(5, 100) },
        piece(6, 100),
        piece(5, 101),
    ] {
        let name = other.name(&lineage()).unwrap();
        let error = open_whole(&keyring(1), &name, &object.bytes, &scratches).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    }
    let name = piece(5, 100).name(&Lineage::new("2")).unwrap();
    assert!(open_whole(&keyring(1), &name, &object.bytes, &scratches).is_err());
    assert!(open_whole(&keyring(2), &object.name, &object.bytes, &scratches).is_err());
}

#[test]
fn an_object_that_says_what_its_name_does_not_is_damaged() {
    let mut sealer = Sealer::new(&keyring(1), 1).unwrap();
    let scratches = Arc::default();
    let name = piece(5, 100).name(&lineage()).unwrap();
    let said =
        |start, len| sheet(&lineage(), &piece(start, len), (LogPurpose::Stream, None), None, LogIndex::default());
    for (sheet, len) in [(said(6, 100), 100), (said(5, 99), 99), (said(5, 100), 99), (said(5, 100), 101)] {
        let draft = sealer.draft(name.clone(), &[content(len)], Vec::new()).unwrap();
        let object = sealer.finish(draft, &sheet).unwrap();
        let error = open_whole(&keyring(1), &name, &object.bytes, &scratches).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    }
}

proptest! {
    #[test]
    fn a_changed_object_does_not_open(len in 0_usize..5000, at: prop::sample::Index, bit in 0..8_u8, cut: prop::sample::Index) {
        let (object, _) = sealed(77, &[content(len)], false);
        let scratches = Arc::default();
        let mut changed = object.bytes.to_vec();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        prop_assert!(open_whole(&keyring(1), &object.name, &changed, &scratches).is_err());
        let cut = cut.index(object.bytes.len());
        prop_assert!(open_whole(&keyring(1), &object.name, &object.bytes[..cut], &scratches).is_err());
    }

    #[test]
    fn sheets_of_any_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let name = piece(5, 100).name(&lineage()).unwrap();
        let _ = LogSheet::decode(&bytes, &name);
    }
}
