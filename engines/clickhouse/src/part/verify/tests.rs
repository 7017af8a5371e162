use proptest::prelude::*;
use proptest::sample::Index;

use super::{Column, Finding, PartFacts, PartFormat, Problem, Verifier};
use crate::part::checksums::Codec;
use crate::part::golden::{self, GoldenPart};
use crate::part::{Checksum, Checksums, Error, FileName, Hash128};

type Files = Vec<(String, Vec<u8>)>;

fn verify(files: &[(String, Vec<u8>)], piece: usize) -> PartFacts {
    let mut verifier = Verifier::new();
    for (path, bytes) in files {
        verifier.file(path, bytes.len() as u64);
        bytes.chunks(piece).for_each(|piece| verifier.bytes(piece));
    }
    verifier.finish()
}

fn found(files: &[(String, Vec<u8>)]) -> Vec<Finding> {
    verify(files, 1000).findings
}

fn names(columns: &[Column]) -> Vec<&str> {
    columns.iter().map(|column| column.name.as_str()).collect()
}

#[test]
fn real_parts_are_sound() {
    for part in golden::all() {
        for piece in [1, 17, 1 << 20] {
            let facts = verify(&part.files, piece);
            assert_eq!(facts.findings, []);
            if let Some(hash) = part.hashes.first() {
                assert_eq!(facts.hash_of_all_files, Some(*hash));
            }
        }
        let mut backwards = part.files.clone();
        backwards.reverse();
        assert_eq!(verify(&backwards, 64), verify(&part.files, 64), "the order of files does not matter");
    }
}

#[test]
fn facts_are_what_the_servers_said() {
    let facts = verify(&golden::wide_26().files, 4096);
    assert_eq!((facts.rows, facts.listed_bytes, facts.format), (Some(40), 3437, Some(PartFormat::Wide)));
    assert_eq!(names(&facts.columns), ["id", "dt", "s", "nest.x", "we.ird na/me", "sp", "lc", "t"]);
    assert_eq!(facts.columns[7].data_type, "Tuple(a Int32, b String)");
    assert_eq!(facts.projections, ["p1"]);
    assert!(!facts.unhashed.contains(&"uuid.txt".to_owned()), "this server lists it");
    assert!(facts.unhashed.contains(&"p1.proj/columns.txt".to_owned()));

    let facts = verify(&golden::compact_26().files, 4096);
    assert_eq!((facts.rows, facts.listed_bytes, facts.format), (Some(40), 725, Some(PartFormat::Compact)));
    let facts = verify(&golden::monthly_18().files, 4096);
    assert_eq!((facts.rows, facts.format), (None, Some(PartFormat::Wide)));
    let facts = verify(&golden::one_18().files, 4096);
    assert_eq!(
        (facts.rows, facts.unhashed.as_slice()),
        (Some(1), ["checksums.txt", "columns.txt"].map(String::from).as_slice())
    );
}

/// The part's place of `path`.
fn at(files: &Files, path: &str) -> usize {
    files.iter().position(|(name, _)| name == path).unwrap()
}

fn wide() -> Files {
    golden::wide_26().files
}

#[test]
fn a_missing_file_is_named() {
    for (at, (path, _)) in wide().iter().enumerate() {
        let mut files = wide();
        files.remove(at);
        let findings = found(&files);
        let unlisted = ["columns_substreams.txt", "default_compression_codec.txt", "metadata_version.txt"];
        if unlisted.iter().any(|name| path.ends_with(name)) {
            assert_eq!(findings, [], "{path}: nothing says that it was there");
        } else {
            assert!(findings.contains(&Finding::new(path, Problem::Missing)), "{path}: {findings:?}");
        }
    }
    let without: Files = wide().into_iter().filter(|(path, _)| !path.starts_with("p1.proj/")).collect();
    assert_eq!(found(&without), [Finding::new("p1.proj", Problem::Missing)]);
}

#[test]
fn an_additional_file_is_named() {
    for path in
        ["x.bin", "p1.proj/x.bin", "p2.proj/x.bin", "serialization.json.tmp", "a/b", "../x", "p1.proj/../x", "/x", ""]
    {
        let files = [wide(), vec![(path.to_owned(), b"x".to_vec())]].concat();
        let findings = found(&files);
        assert!(findings.iter().any(|finding| path.starts_with(&finding.path)), "{path}: {findings:?}");
    }
    let files = [wide(), vec![wide().remove(3)]].concat();
    assert_eq!(found(&files), [Finding::new(&wide()[3].0, Problem::Twice)]);
}

#[test]
fn a_list_that_cannot_be_read_is_a_finding() {
    let mut files = wide();
    let list = at(&files, "checksums.txt");
    files[list].1[60] ^= 1;
    let facts = verify(&files, 100);
    assert_eq!((facts.hash_of_all_files, facts.findings.len()), (None, 1));
    assert!(matches!(&facts.findings[0].problem, Problem::Unreadable(Error::Corrupt { .. })), "{:?}", facts.findings);
}

#[test]
fn a_list_and_its_files_have_to_be_of_one_part() {
    // Each projection is sound in itself; the part was made with another one.
    let mut files = wide();
    let mut inner = Checksums::parse(golden::wide_26().file("p1.proj/checksums.txt")).unwrap();
    inner.insert(FileName::new("y.bin").unwrap(), Checksum { size: 0, hash: Hash128::default(), uncompressed: None });
    let list = at(&files, "p1.proj/checksums.txt");
    files[list].1 = inner.to_bytes(Codec::Lz4).unwrap();
    files.push(("p1.proj/y.bin".to_owned(), Vec::new()));
    let findings = found(&files);
    assert!(
        matches!(findings.as_slice(), [Finding { path, problem: Problem::Hash { .. } }] if path == "p1.proj"),
        "{findings:?}"
    );
}

#[test]
fn columns_need_files() {
    let columns = |text: &str| {
        let mut files = golden::small_18().files;
        let place = at(&files, "columns.txt");
        files[place].1 = text.as_bytes().to_vec();
        found(&files)
    };
    let head = "columns format version: 1\n";
    assert_eq!(columns(&format!("{head}2 columns:\n`nest.x` Array(Int32)\n`we.ird na/me` Float64\n")), []);
    let findings = columns(&format!("{head}2 columns:\n`s` String\n`i` UInt8\n"));
    assert_eq!(findings, [Finding::new("columns.txt", Problem::ColumnWithoutFile("i".to_owned()))]);
    for text in ["", head, "columns format version: 2\n", "columns format version: 1\n1 columns:\n`s String\n"] {
        assert!(matches!(columns(text).as_slice(), [Finding { problem: Problem::Unreadable(_), .. }]), "{text}");
    }
    for body in
        ["2 columns:\n`s` String\n", "0 columns:\n`s` String\n", "1 columns:\n`s` String", "1 columns:\n's' String\n"]
    {
        assert!(!columns(&format!("{head}{body}")).is_empty(), "{body}");
    }
}

#[test]
fn inverted_indexes_are_listed_without_a_hash() {
    let part = golden::small_18();
    let mut list = Checksums::parse(part.file("checksums.txt")).unwrap();
    list.insert(
        FileName::new("skp_idx_i.gin_dict").unwrap(),
        Checksum { size: 0, hash: Hash128::default(), uncompressed: None },
    );
    let mut files: Files = part.files.into_iter().filter(|(path, _)| path != "checksums.txt").collect();
    files.push(("checksums.txt".to_owned(), list.to_bytes(Codec::Zstd).unwrap()));
    assert_eq!(found(&files), [Finding::new("skp_idx_i.gin_dict", Problem::Missing)]);
    files.push(("skp_idx_i.gin_dict".to_owned(), b"abc".to_vec()));
    let facts = verify(&files, 10);
    assert_eq!(facts.findings, []);
    assert!(facts.unhashed.contains(&"skp_idx_i.gin_dict".to_owned()));
}

#[test]
fn small_files_are_not_kept_when_they_are_large() {
    let mut verifier = Verifier::new();
    verifier.bytes(b"of no file");
    verifier.file("count.txt", 1 << 20);
    (0..1 << 10).for_each(|_| verifier.bytes(&[b'1'; 1 << 10]));
    let facts = verifier.finish();
    assert_eq!((facts.rows, facts.bytes, facts.files), (None, 1 << 20, 1));
    let problem = Problem::Unreadable(Error::TooLarge { file: "count.txt", limit: 64 });
    assert!(facts.findings.contains(&Finding::new("count.txt", problem)), "{:?}", facts.findings);
}

#[test]
fn a_file_that_no_list_has_must_at_least_come_whole() {
    for announced in [10, 12] {
        let mut verifier = Verifier::new();
        for (path, bytes) in golden::wide_26().files {
            let length = if path == "default_compression_codec.txt" { announced } else { bytes.len() as u64 };
            verifier.file(&path, length);
            verifier.bytes(&bytes);
        }
        let cut = Finding::new("default_compression_codec.txt", Problem::CutOff { announced, found: 10 });
        assert_eq!(verifier.finish().findings, if announced == 10 { vec![] } else { vec![cut] });
    }
}

#[test]
fn files_within_a_file_are_verified_one_by_one() {
    let part = golden::packed_26();
    assert_eq!(
        part.files.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(),
        ["data.packed", "p1.proj/data.packed"]
    );
    for piece in [1, 300, 1 << 20] {
        let facts = verify(&part.files, piece);
        assert_eq!(facts.findings, []);
        assert_eq!((facts.hash_of_all_files, facts.rows), (Some(part.hashes[0]), Some(40)));
        assert_eq!((facts.format, facts.packed, facts.files), (Some(PartFormat::Compact), true, 2));
        assert_eq!((facts.bytes, facts.projections.as_slice()), (1538 + 1509, ["p1".to_owned()].as_slice()));
    }
    let mut files = part.files.clone();
    files.remove(1);
    assert_eq!(found(&files), [Finding::new("p1.proj", Problem::Missing)]);
    files[0].1.push(0);
    let problem = Problem::Unreadable(Error::corrupt("data.packed", 0, "something follows its last file"));
    assert!(found(&files).contains(&Finding::new("data.packed", problem)));
}

#[test]
fn any_broken_byte_within_a_file_is_found_unless_nobody_vouches_for_it() {
    let part = golden::packed_26();
    let whole = &part.files[0].1;
    // The types of columns, the codec and the like are in files that no list has.
    let first = whole.windows(7).position(|window| window == b"columns").unwrap();
    let from = whole[first + 7..].windows(14).position(|window| window == b"columns format").unwrap() + first + 7;
    let to = whole.windows(9).position(|window| window == b"{\"columns").unwrap();
    for at in (0..whole.len()).step_by(2) {
        let mut files = part.files.clone();
        files[0].1[at] ^= 0x10;
        let findings = found(&files);
        assert!(!findings.is_empty() || (from..to).contains(&at), "byte {at}");
    }
    for cut in (0..whole.len()).step_by(7) {
        let mut files = part.files.clone();
        files[0].1.truncate(cut);
        assert!(found(&files).iter().any(|finding| finding.path == "data.packed"), "cut at {cut}");
    }
}

#[test]
fn an_index_of_files_is_bounded_and_strict() {
    let entry = |name: &str, offset: u64, size: u64| {
        [&[name.len() as u8], name.as_bytes(), &offset.to_le_bytes(), &size.to_le_bytes()].concat()
    };
    let packed = |version: u8, count: u64, rest: &[u8]| [&[version], count.to_le_bytes().as_slice(), rest].concat();
    let problem = |bytes: Vec<u8>| found(&[("data.packed".to_owned(), bytes)]).remove(0).problem.to_string();
    assert!(problem(packed(2, 0, &[])).contains("version 2"));
    assert!(problem(packed(0, u64::MAX, &entry("a", 0, 0))).contains("cut off"));
    assert!(problem(packed(0, 1, &entry("a/b", 29, 0))).contains("separator"));
    assert!(problem(packed(0, 1, &entry("..", 28, 0))).contains("not a file"));
    assert!(problem(packed(0, 1, &entry("a", 28, 0))).contains("not behind"));
    assert!(problem(packed(0, 1, &entry("a", 27, u64::MAX))).contains("not behind"));
    assert!(problem(packed(0, 1, &[255, 255, 255])).contains("longer"));
    let many = packed(0, u64::MAX, &entry("a", 0, 0).repeat(500_000));
    assert!(problem(many).contains("more than"));
    // The entries are not in the order of the bytes, and both have one name.
    let entries = [entry("x", 63, 1), vec![0; 8], entry("x", 61, 2), vec![0; 8], b"abc".to_vec()].concat();
    let findings = found(&[("data.packed".to_owned(), packed(1, 2, &entries))]);
    assert_eq!(findings[0], Finding::new("x", Problem::Twice));
    assert!(findings.iter().all(|finding| finding.path != "data.packed"), "{findings:?}");
}

/// The places of files for whose bytes a server vouches.
fn vouched(part: &GoldenPart) -> Vec<usize> {
    let unhashed = verify(&part.files, 1000).unhashed;
    let vouched = |path: &String| !unhashed.contains(path) || path.ends_with("checksums.txt");
    (0..part.files.len()).filter(|at| vouched(&part.files[*at].0) && !part.files[*at].1.is_empty()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_broken_byte_is_named(part in 0usize..6, file in any::<Index>(), byte in any::<Index>(), bit in 0u8..8) {
        let part = golden::all().remove(part);
        let mut files = part.files.clone();
        let (path, bytes) = &mut files[*file.get(&vouched(&part))];
        let place = byte.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let path = path.clone();
        let findings = found(&files);
        prop_assert!(findings.iter().any(|finding| finding.path == path), "{path}: {findings:?}");
    }

    #[test]
    fn any_cut_is_named(part in 0usize..6, file in any::<Index>(), cut in any::<Index>(), honest in any::<bool>()) {
        let part = golden::all().remove(part);
        let mut verifier = Verifier::new();
        let chosen = *file.get(&vouched(&part));
        for (at, (path, bytes)) in part.files.iter().enumerate() {
            let length = if at == chosen { cut.index(bytes.len()) } else { bytes.len() };
            // Whoever brings the file knows of the cut, or does not.
            verifier.file(path, if honest { length } else { bytes.len() } as u64);
            verifier.bytes(&bytes[..length]);
        }
        let (path, findings) = (&part.files[chosen].0, verifier.finish().findings);
        prop_assert!(findings.iter().any(|finding| finding.path == *path), "{path}: {findings:?}");
    }

    #[test]
    fn files_in_each_others_place_are_named(part in 0usize..6, one in any::<Index>(), other in any::<Index>()) {
        let part = golden::all().remove(part);
        let (mut files, vouched) = (part.files.clone(), vouched(&part));
        let (one, other) = (*one.get(&vouched), *other.get(&vouched));
        let moved = files[one].1.clone();
        files[one].1 = std::mem::replace(&mut files[other].1, moved);
        let findings = found(&files);
        for path in [&part.files[one].0, &part.files[other].0] {
            // Without a list that can be read nothing is known of the others.
            let named = findings.iter().any(|finding| finding.path == *path || finding.path.ends_with("checksums.txt"));
            prop_assert!(named || part.files[one].1 == part.files[other].1, "{path}: {findings:?}");
        }
    }
}
