use super::index::{Trailer, parse_footer};
use super::*;
use crate::error::ErrorKind;
use crate::keyring::Keyring;
use crate::keyring::tests::keyring;
use backup_core::SessionId;
use backup_core::catalog::PackId;
use proptest::prelude::*;

fn id(number: u32) -> PackId {
    PackId { session: SessionId::from_bytes([3; 16]), number }
}

fn pack(keyring: &Keyring, number: u32, segments: &[Vec<u8>]) -> FinishedPack {
    let mut builder = PackBuilder::new(id(number), keyring, Vec::new()).unwrap();
    let mut compressor = Compressor::new(1).unwrap();
    let hash = &keyring.hash_key(keyring.current()).unwrap();
    for content in segments {
        let segment = builder.add(Role::Data, &mut compressor, content, content_id_of(hash, content)).unwrap();
        builder.note(Piece { segment, offset: 0, len: content.len() as u32, id: content_id_of(hash, content) });
    }
    let expected = builder.len();
    let pack = builder.finish().unwrap();
    assert_eq!(pack.object.len(), expected);
    pack
}

fn read(keyring: &Keyring, number: u32, object: &[u8]) -> Result<Vec<Vec<u8>>> {
    let index = PackIndex::of_object(keyring, id(number), object)?;
    let mut scratch = Scratch::new()?;
    (0..index.segments().len() as u32)
        .map(|segment| {
            let range = index.range(segment)?;
            let mut content = Vec::new();
            index.open(segment, &object[range.start as usize..range.end as usize], &mut scratch, &mut content)?;
            Ok(content)
        })
        .collect()
}

fn contents() -> Vec<Vec<u8>> {
    let noise = blake3::Hasher::new().finalize_xof();
    let mut random = vec![0; 300_000];
    let mut noise = noise;
    noise.fill(&mut random);
    vec![b"hello".to_vec(), vec![0; SEGMENT], random, Vec::new(), b"row row row your boat ".repeat(9_000)]
}

#[test]
fn what_was_packed_comes_back() {
    let keyring = keyring(1);
    let pack = pack(&keyring, 0, &contents());
    assert_eq!(read(&keyring, 0, &pack.object).unwrap(), contents());
    let index = PackIndex::of_object(&keyring, id(0), &pack.object).unwrap();
    let codecs: Vec<_> = index.segments().iter().map(|s| s.codec).collect();
    assert_eq!(codecs, [Codec::Raw, Codec::Zstd, Codec::Raw, Codec::Raw, Codec::Zstd]);
    assert_eq!(index.pieces().len(), 5);
}

#[test]
fn the_index_needs_only_the_ends() {
    let keyring = keyring(1);
    let object = pack(&keyring, 0, &contents()).object;
    let len = object.len() as u64;
    let (header, short) = (&object[..80], &object[object.len() - 20..]);
    let needed = PackIndex::parse(&keyring, id(0), header, short, len).unwrap().unwrap_err();
    let tail = &object[object.len() - needed as usize..];
    let index = PackIndex::parse(&keyring, id(0), header, tail, len).unwrap().unwrap();
    assert_eq!(index.segments().len(), 5);
    assert_eq!(PackIndex::parse(&keyring, id(0), header, tail, len + 1).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn a_pack_under_another_name_is_refused() {
    let keyring = keyring(1);
    let pack = pack(&keyring, 0, &contents());
    assert_eq!(read(&keyring, 1, &pack.object).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn every_flipped_byte_is_found() {
    let keyring = keyring(1);
    let contents = [b"a small pack".to_vec(), b"of two segments".to_vec()];
    let object = pack(&keyring, 0, &contents).object;
    for at in 0..object.len() {
        let mut flipped = object.clone();
        flipped[at] ^= 0x40;
        let error = read(&keyring, 0, &flipped).expect_err(&format!("byte {at}"));
        assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment), "byte {at}: {error}");
        assert!(read(&keyring, 0, &object[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn what_the_codec_claims_is_not_believed() {
    let mut decompressor = Decompressor::new().unwrap();
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let mut out = Vec::new();
    let error = decompressor.decompress(Codec::Zstd, &bomb, 1000, &mut out).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(out.capacity() < 1 << 20);
}

proptest! {
    #[test]
    fn footers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_footer(&bytes);
        let _ = Trailer::parse(&bytes, bytes.len() as u64);
    }
}

#[test]
fn with_or_without_room_the_same_is_appended() {
    let text = b"all work and no play ".repeat(9_000);
    let noise: Vec<u8> =
        (0..200_000_u32).flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..1].to_vec()).collect();
    for (content, codec) in [(&text, Codec::Zstd), (&noise, Codec::Raw), (&Vec::new(), Codec::Raw)] {
        let mut compressor = Compressor::new(1).unwrap();
        let (known, packed) = compressor.compress(content).map(|(codec, packed)| (codec, packed.to_vec())).unwrap();
        assert_eq!(known, codec);
        let (mut roomy, mut tight) = (Vec::with_capacity(1 << 20), b"before".to_vec());
        roomy.extend_from_slice(b"before");
        for _ in 0..2 {
            assert_eq!(compressor.append(content, &mut roomy).unwrap(), codec);
            assert_eq!(compressor.append(content, &mut tight).unwrap(), codec);
        }
        let twice = [b"before", packed.as_slice(), packed.as_slice()].concat();
        assert!(roomy == twice && tight == twice, "{codec:?}");
        assert_eq!(roomy.capacity(), 1 << 20);
    }
}
