use proptest::prelude::*;

use super::*;
use crate::manifest::FileHasher;

fn seal(body: &str) -> String {
    let digest: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{body}\"Manifest-Checksum\": \"{digest}\"}}\n")
}

const BODY: &str = r#"{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{ "Path": "backup_label", "Size": 227, "Last-Modified": "2026-11-24 01:02:03 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "83922606" },
{ "Encoded-Path": "61ff62", "Size": 0, "Last-Modified": "2026-11-24 01:02:03 GMT" },
{ "Path": "base/1/\u00e9", "Size": 8192, "Last-Modified": "2026-11-24 01:02:03 GMT", "Checksum-Algorithm": "SHA256", "Checksum": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
],
"#;

#[test]
fn version_1() {
    let manifest = Manifest::parse(seal(BODY).as_bytes()).unwrap();
    assert_eq!((manifest.summary.version, manifest.summary.system_id), (1, None));
    assert_eq!((manifest.summary.files, manifest.summary.bytes), (3, 8419));
    assert_eq!(manifest.files[1].path, b"a\xffb");
    assert_eq!(manifest.files[1].checksum, None);
    assert_eq!(manifest.files[2].path, "base/1/é".as_bytes());
    assert_eq!(manifest.files[2].checksum.as_ref().unwrap(), &FileHasher::new(ChecksumAlgorithm::Sha256).finish());
    assert_eq!(manifest.summary.wal_ranges[0].end, Lsn(0x200_0100));
}

#[test]
fn crc_stands_there_in_memory_order() {
    // CRC-32C of "123456789" is E3069283 (RFC 3720, B.4).
    let mut hasher = FileHasher::new(ChecksumAlgorithm::Crc32c);
    hasher.update(b"12345");
    hasher.update(b"6789");
    assert_eq!(&*hasher.finish().value, b"\x83\x92\x06\xe3");
}

#[test]
fn version_2_names_the_cluster() {
    let body = BODY.replace("Version\": 1,\n", "Version\": 2,\n\"System-Identifier\": 7512345678901234567,\n");
    let manifest = Manifest::parse(seal(&body).as_bytes()).unwrap();
    assert_eq!(manifest.summary.system_id, Some(7_512_345_678_901_234_567));
    assert!(Manifest::parse(seal(&BODY.replace("Version\": 1", "Version\": 2")).as_bytes()).is_err());
    assert!(Manifest::parse(seal(&BODY.replace("Version\": 1", "Version\": 3")).as_bytes()).is_err());
}

#[test]
fn every_changed_byte_is_found() {
    let sealed = seal(BODY).into_bytes();
    for at in 0..sealed.len() {
        let mut damaged = sealed.clone();
        damaged[at] ^= 0x02;
        assert!(Manifest::parse(&damaged).is_err(), "byte {at}: {}", String::from_utf8_lossy(&damaged[at..]));
    }
    for end in 0..sealed.len() {
        assert!(Manifest::parse(&sealed[..end]).is_err(), "{end}");
    }
    assert!(Manifest::parse(&[&sealed[..], b"\n"].concat()).is_err());
}

#[test]
fn other_grammar_is_refused() {
    for (from, to) in [
        ("\"Size\": 0", "\"Size\": \"0\""),
        ("\"Size\": 0, ", ""),
        ("\"Size\": 0", "\"Size\": 0, \"Size\": 0"),
        ("\"Size\": 0", "\"Size\": 99999999999999999999"),
        ("\"Encoded-Path\": \"61ff62\"", "\"Encoded-Path\": \"61f\""),
        ("\"Encoded-Path\": \"61ff62\"", "\"Path\": \"\""),
        ("\"83922606\"", "\"8392260\""),
        ("\"83922606\"", "\"839226\""),
        ("CRC32C", "MD5"),
        ("\"Timeline\": 1", "\"Timeline\": 0"),
        ("0/2000100", "0/1"),
        ("WAL-Ranges", "WAL"),
        ("},\n{ \"Enc", "}\n{ \"Enc"),
        ("\"Files\": [", "\"Files\": [["),
        ("\"Size\": 0", "\"Size\": 0, \"New\": 1"),
    ] {
        let body = BODY.replace(from, to);
        assert_ne!(body, BODY, "{from}");
        assert!(Manifest::parse(seal(&body).as_bytes()).is_err(), "{to}");
    }
    let twice = format!("{}{}", BODY, &BODY[BODY.find("\"WAL").unwrap()..]);
    assert!(Manifest::parse(seal(&twice).as_bytes()).is_err());
}

proptest! {
    #[test]
    fn pieces_do_not_matter(chunk in 1_usize..300) {
        let sealed = seal(BODY);
        let mut reader = ManifestReader::new();
        let mut count = 0;
        for part in sealed.as_bytes().chunks(chunk) {
            reader.push(part, &mut |_| count += 1).unwrap();
        }
        prop_assert_eq!(reader.finish().unwrap().files, count);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = Manifest::parse(&bytes);
        let _ = Manifest::parse(seal(&String::from_utf8_lossy(&bytes)).as_bytes());
    }
}
