//! Rewriting: what comes out is a file that a scanner reads, with what the rules say and nothing else.

use proptest::prelude::*;

use super::sample::{SampleFile, arbitrary_file, types};
use super::*;
use crate::{Error, Result};

const REDIS: RdbVersion = RdbVersion::redis(12);

fn rewrite(file: &[u8], rewriter: Rewriter, piece: usize) -> Result<(Vec<u8>, Rewritten)> {
    let (mut rewriter, mut out) = (rewriter, Vec::new());
    for chunk in file.chunks(piece.max(1)) {
        rewriter.push(chunk, &mut out)?;
    }
    let rewritten = rewriter.finish(&mut out)?;
    assert_eq!(rewritten.bytes, out.len() as u64);
    Ok((out, rewritten))
}

fn by(file: &[u8], rules: Rules) -> Result<Vec<u8>> {
    rewrite(file, Rewriter::new(rules), file.len()).map(|(out, _)| out)
}

/// A key with its database, name, expiry, type and value.
type Key = (u64, String, Option<i64>, u8, Vec<u8>);

/// Every key, in the order of the file.
#[derive(Debug, Default, PartialEq)]
struct Keys(Vec<Key>);

impl Visitor for Keys {
    fn key(&mut self, head: &KeyHead<'_>) -> Result<()> {
        let key = String::from_utf8_lossy(&head.name()?).into_owned();
        self.0.push((head.database, key, head.expires, head.value_type.0, Vec::new()));
        Ok(())
    }

    fn piece(&mut self, part: Part, bytes: &[u8]) -> Result<()> {
        if let (Part::Value, Some(last)) = (part, self.0.last_mut()) {
            last.4.extend_from_slice(bytes);
        }
        Ok(())
    }
}

fn keys(file: &[u8]) -> Keys {
    let (mut scanner, mut keys) = (Scanner::new(), Keys::default());
    assert_eq!(scanner.push(file, &mut keys).unwrap(), file.len());
    assert_eq!(scanner.finish().unwrap(), ChecksumState::Verified);
    keys
}

fn names(file: &[u8]) -> Vec<String> {
    keys(file).0.into_iter().map(|key| key.1).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_changes_but_hints(valkey: bool, seed: u64, piece in 1..300_usize) {
        let version = if valkey { RdbVersion::valkey(80) } else { RdbVersion::redis(16) };
        let (file, expected) = arbitrary_file(version, seed, 8);
        let (out, rewritten) = rewrite(&file, Rewriter::new(Rules::default()), piece).unwrap();
        prop_assert_eq!(keys(&out), keys(&file));
        prop_assert_eq!((rewritten.keys, rewritten.left_out), (expected.keys, 0));
        // The second time there is nothing left to be made shorter.
        prop_assert_eq!(by(&out, Rules::default()).unwrap(), out);
    }

    #[test]
    fn what_is_broken_is_not_finished(seed: u64, at: usize, bit in 0..8) {
        let (mut file, _) = arbitrary_file(REDIS, seed, 6);
        let at = at % file.len();
        file[at] ^= 1_u8 << bit;
        prop_assert!(by(&file, Rules::default()).is_err());
        prop_assert!(by(&file[..at], Rules::default()).is_err());
    }

    #[test]
    fn any_bytes_are_rewritten_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), shift: i64) {
        let file = [b"REDIS0012".as_slice(), &bytes].concat();
        for expiry in [ExpiryRule::Shift(shift), ExpiryRule::Never] {
            if let Ok(out) = by(&file, Rules::default().expiry(expiry).rename("a", "b")) {
                keys(&out);
            }
        }
    }
}

fn sample() -> Vec<u8> {
    SampleFile::new(REDIS)
        .aux("redis-ver", "7.4.0")
        .aux("repl-id", "x")
        .aux("repl-offset", "5")
        .function("#!lua name=lib\n")
        .database(0)
        .sizes(3, 1)
        .string("user:1", b"a")
        .expires(5_000_000_000_000)
        .idle(7)
        .string("user:2", b"b")
        .key(1, b"other", b"\x01\x01x")
        .database(3)
        .sizes(1, 0)
        .frequency(200)
        .string("user:3", b"c")
        .finish()
}

#[test]
fn keys_are_chosen() {
    let file = sample();
    let choose = |filter| names(&by(&file, Rules::default().filter(filter)).unwrap());
    assert_eq!(choose(KeyFilter::all().database(3)), ["user:3"]);
    assert_eq!(choose(KeyFilter::all().prefix("user:")), ["user:1", "user:2", "user:3"]);
    assert_eq!(choose(KeyFilter::all().pattern("*[12]")), ["user:1", "user:2"]);
    assert_eq!(choose(KeyFilter::all().kind(Kind::List)), ["other"]);
    let slot = slot_of(b"user:2");
    assert_eq!(choose(KeyFilter::all().slots(slot..=slot)), ["user:2"]);
}

#[test]
fn a_changed_file_counts_right_and_stands_in_no_stream() {
    let count = |file: &[u8]| {
        let mut counter = Counter::new();
        counter.push(file).unwrap();
        counter.finish().unwrap()
    };
    let whole = count(&by(&sample(), Rules::default()).unwrap());
    assert_eq!(whole.replication(), Some(("x", 5)));
    for rules in [
        Rules::default().filter(KeyFilter::all().prefix("user:")),
        Rules::default().filter(KeyFilter::all().database(0)),
        Rules::default().expiry(ExpiryRule::Never),
        Rules::default().rename("user:", "u:"),
    ] {
        let summary = count(&by(&sample(), rules.clone()).unwrap());
        assert_eq!(summary.replication(), None, "{rules:?}");
        assert_eq!(summary.field("redis-ver"), Some("7.4.0"));
        assert_eq!(summary.functions, ["lib"]);
        assert_eq!(summary.differing().count(), 0, "{rules:?}");
    }
    let sized = count(&by(&sample(), Rules::default().expiry(ExpiryRule::Never)).unwrap());
    assert_eq!(sized.databases[0].declared, Some((3, 0)));
}

#[test]
fn expiries_move_or_go() {
    let expiries = |rule| -> Vec<Option<i64>> {
        keys(&by(&sample(), Rules::default().expiry(rule)).unwrap()).0.into_iter().map(|key| key.2).collect()
    };
    assert_eq!(expiries(ExpiryRule::Keep), [None, Some(5_000_000_000_000), None, None]);
    assert_eq!(expiries(ExpiryRule::Shift(86_400_000)), [None, Some(5_000_086_400_000), None, None]);
    assert_eq!(expiries(ExpiryRule::Shift(i64::MIN)), [None, Some(1), None, None]);
    assert_eq!(expiries(ExpiryRule::Never), [None; 4]);
    let hash = [&7_000_000_i64.to_le_bytes()[..], b"\x01\x05\x01f\x01v"].concat();
    let file = SampleFile::new(REDIS).key(24, b"h", &hash).finish();
    let never = keys(&by(&file, Rules::default().expiry(ExpiryRule::Never)).unwrap());
    assert_eq!(never.0, [(0, "h".into(), None, 4, b"\x01\x01f\x01v".to_vec())]);
    let later = keys(&by(&file, Rules::default().expiry(ExpiryRule::Shift(500))).unwrap());
    assert_eq!(later.0[0].4[..8], 7_000_500_i64.to_le_bytes());
}

#[test]
fn keys_get_other_names_and_places() {
    let rules = Rules::default().filter(KeyFilter::all().database(0)).rename("user:", "customer:").into_database(9);
    let out = keys(&by(&sample(), rules).unwrap());
    let places: Vec<_> = out.0.iter().map(|key| (key.0, key.1.as_str())).collect();
    assert_eq!(places, [(9, "customer:1"), (9, "customer:2"), (9, "other")]);
    let everything = names(&by(&sample(), Rules::default().rename("", "old:")).unwrap());
    assert_eq!(everything, ["old:user:1", "old:user:2", "old:other", "old:user:3"]);
}

#[test]
fn two_keys_never_become_one() {
    let unsupported = |rules| matches!(by(&sample(), rules), Err(Error::Unsupported(_)));
    assert!(unsupported(Rules::default().into_database(1)));
    assert!(unsupported(Rules::default().rename("user:", "oth")));
    assert!(!unsupported(Rules::default().rename("user:", "user:old:")));
}

#[test]
fn other_versions_are_written_where_they_have_the_types() {
    let file = SampleFile::new(RdbVersion::valkey(80)).string("a", b"1").finish();
    let to = |file: &[u8], version| rewrite(file, Rewriter::new(Rules::default()).for_version(version), file.len());
    let (out, _) = to(&file, RdbVersion::redis(9)).unwrap();
    assert_eq!((&out[..9], names(&out)), (b"REDIS0009".as_slice(), vec!["a".to_string()]));
    let entry = [b"\x01\x01f\x01v".as_slice(), &9_i64.to_le_bytes()].concat();
    let hash = SampleFile::new(RdbVersion::valkey(80)).key(22, b"h", &entry).finish();
    assert!(matches!(to(&hash, RdbVersion::redis(12)), Err(Error::Unsupported(_))));
    let persisted = Rewriter::new(Rules::default().expiry(ExpiryRule::Never)).for_version(RdbVersion::redis(9));
    let (out, _) = rewrite(&hash, persisted, 3).unwrap();
    assert_eq!(keys(&out).0[0].3, 4);
    for value_type in types(REDIS).filter(|value_type| *value_type > 15) {
        let file = SampleFile::new(REDIS).key(value_type, b"k", b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00");
        let refused = to(&file.finish(), RdbVersion::redis(9));
        assert!(matches!(refused, Err(Error::Unsupported(_))), "{value_type} {refused:?}");
    }
}

#[test]
fn what_is_not_known_is_not_rewritten() {
    let file = SampleFile::new(RdbVersion::redis(16)).key(27, b"s", b"?").finish();
    assert!(matches!(by(&file, Rules::default()), Err(Error::Unsupported(_))));
}
