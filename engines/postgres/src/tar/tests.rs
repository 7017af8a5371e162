use proptest::prelude::*;

use super::*;

/// Writes a header the way the server does, independently of the reader.
fn header(name: &[u8], kind: u8, size: u64, link: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000600 ");
    block[108..116].copy_from_slice(b"0001750 ");
    block[116..124].copy_from_slice(b"0001750 ");
    if size < 1 << 33 {
        block[124..136].copy_from_slice(format!("{size:011o} ").as_bytes());
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[136..148].copy_from_slice(b"14535230240 ");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:07o} ").as_bytes());
    block
}

fn member(name: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, kind, data.len() as u64, b"");
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn read(archive: &[u8], chunk: usize) -> Result<Vec<(Entry, Vec<u8>)>> {
    let mut reader = Reader::new();
    let mut entries: Vec<(Entry, Vec<u8>)> = Vec::new();
    let mut open = false;
    for part in archive.chunks(chunk.max(1)) {
        reader.push(Bytes::copy_from_slice(part));
        while let Some(event) = reader.next()? {
            match event {
                Event::Entry(entry) => {
                    assert!(!open);
                    open = true;
                    entries.push((entry, Vec::new()));
                }
                Event::Data(data) => entries.last_mut().unwrap().1.extend_from_slice(&data),
                Event::End => {
                    assert!(open);
                    open = false;
                }
            }
        }
    }
    reader.finish()?;
    assert!(!open);
    Ok(entries)
}

#[test]
fn an_archive_may_end_with_or_without_zeros() {
    let mut archive = member(b"backup_label", b'0', b"hello");
    assert_eq!(read(&archive, 7).unwrap()[0].1, b"hello");
    archive.extend_from_slice(&[0; 1024]);
    let entries = read(&archive, 4096).unwrap();
    assert_eq!(entries.len(), 1);
    let entry = &entries[0].0;
    assert_eq!((entry.path.as_slice(), entry.size, entry.mode), (&b"backup_label"[..], 5, 0o600));
    assert_eq!(entry.mtime, 0o14_535_230_240);
    archive.push(1);
    assert!(read(&archive, 4096).is_err());
}

#[test]
fn directories_and_links_lose_their_slash() {
    let mut archive = member(b"./pg_wal/archive_status/", b'5', b"");
    archive.extend(header(b"pg_tblspc/16384/", b'2', 0, b"/srv/space"));
    let entries = read(&archive, 100).unwrap();
    assert_eq!(
        (entries[0].0.path.as_slice(), entries[0].0.kind),
        (&b"pg_wal/archive_status"[..], EntryKind::Directory)
    );
    assert_eq!((entries[1].0.path.as_slice(), entries[1].0.kind), (&b"pg_tblspc/16384"[..], EntryKind::Symlink));
    assert_eq!(entries[1].0.link, b"/srv/space");
}

#[test]
fn sizes_over_eight_gib_are_binary() {
    let mut reader = Reader::new();
    reader.push(header(b"big", b'0', 20 << 30, b"").into());
    let Some(Event::Entry(entry)) = reader.next().unwrap() else { panic!("no entry") };
    assert_eq!(entry.size, 20 << 30);
    assert!(reader.finish().is_err());
}

#[test]
fn long_names_by_pax_and_gnu() {
    let long = [b"base/", &[b'x'; 300][..]].concat();
    let record = |keyword: &str, value: &[u8]| {
        let body = [b" ", keyword.as_bytes(), b"=", value, b"\n"].concat();
        let mut length = body.len();
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        [length.to_string().as_bytes(), &body].concat()
    };
    let pax = [record("mtime", b"12.5"), record("path", &long), record("comment", b"=\n=")].concat();
    let archive = [member(b"PaxHeaders/x", b'x', &pax), member(b"short", b'0', b"data")].concat();
    let entries = read(&archive, 33).unwrap();
    assert_eq!((&entries[0].0.path, entries[0].0.mtime, entries[0].1.as_slice()), (&long, 12, &b"data"[..]));

    let gnu = [&long[..], b"\0"].concat();
    let archive = [member(b"././@LongLink", b'L', &gnu), member(b"short", b'0', b"data")].concat();
    assert_eq!(read(&archive, 33).unwrap()[0].0.path, long);
    assert!(read(&member(b"././@LongLink", b'L', &gnu), 33).is_err());
}

#[test]
fn what_could_leave_the_target_is_refused() {
    for name in [&b"/etc/passwd"[..], b"../x", b"a/../b", b"a//b", b".", b"./", b"a/.", b"", b"/", b".//x", b"a/.."] {
        assert!(read(&member(name, b'0', b""), 512).is_err(), "{name:?}");
    }
    let pax = b"12 path=a\0b\n";
    assert!(read(&[member(b"x", b'x', pax), member(b"y", b'0', b"")].concat(), 512).is_err());
    for kind in *b"13467SD?V" {
        assert!(read(&member(b"x", kind, b""), 512).is_err(), "{}", char::from(kind));
    }
    assert!(read(&member(b"dir", b'5', b"data"), 512).is_err());
    assert!(read(&header(b"link", b'2', 0, b""), 512).is_err());
}

#[test]
fn damage_is_found() {
    let archive = member(b"file", b'0', &[7; 600]);
    for at in [0, 100, 130, 148, 160, 258] {
        let mut damaged = archive.clone();
        damaged[at] ^= 1;
        assert!(read(&damaged, 512).is_err(), "byte {at}");
    }
    for end in [1, 511, 513, 1000, 1111, 1535] {
        assert!(read(&archive[..end], 512).is_err(), "{end}");
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        files in prop::collection::vec(("[a-z0-9_]{1,20}(/[a-z.]{3,9}x){0,3}", prop::collection::vec(any::<u8>(), 0..2000)), 0..8),
        chunk in 1_usize..3000,
        ended: bool,
    ) {
        let mut archive: Vec<u8> = files.iter().flat_map(|(name, data)| member(name.as_bytes(), b'0', data)).collect();
        if ended {
            archive.extend_from_slice(&[0; 1024]);
        }
        let entries = read(&archive, chunk).unwrap();
        prop_assert_eq!(entries.len(), files.len());
        for ((entry, read), (name, data)) in entries.iter().zip(&files) {
            prop_assert_eq!(&entry.path, name.as_bytes());
            prop_assert_eq!(entry.size, data.len() as u64);
            prop_assert_eq!(read, data);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes: Vec<u8>, chunk in 1_usize..600) {
        let _ = read(&bytes, chunk);
        let mut archive = header(b"x", b'x', bytes.len() as u64, b"");
        archive.append(&mut bytes);
        archive.resize(archive.len().next_multiple_of(512), 0);
        archive.extend(member(b"y", b'0', b"z"));
        let _ = read(&archive, chunk);
    }
}
