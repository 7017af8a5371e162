//! Snapshot files of Redis and Valkey: never panics, pieces do not matter, and what was rewritten is read again.

#![no_main]

use backup_redis::rdb::{Counter, ExpiryRule, KeyFilter, Rewriter, Rules, Summary};
use libfuzzer_sys::fuzz_target;

fn count(file: &[u8], piece: usize) -> Result<Summary, String> {
    let mut counter = Counter::new();
    let mut position = 0;
    for chunk in file.chunks(piece) {
        position += counter.push(chunk).map_err(|error| error.to_string())? as u64;
        assert_eq!(counter.position(), position);
    }
    counter.finish().map_err(|error| error.to_string())
}

fn rewrite(file: &[u8], rules: Rules, piece: usize) -> Result<Vec<u8>, String> {
    let (mut rewriter, mut out) = (Rewriter::new(rules), Vec::new());
    for chunk in file.chunks(piece) {
        rewriter.push(chunk, &mut out).map_err(|error| error.to_string())?;
    }
    rewriter.finish(&mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

fuzz_target!(|data: &[u8]| {
    let [mode, piece, rest @ ..] = data else { return };
    let mut file = match mode & 3 {
        0 => rest.to_vec(),
        1 => [b"REDIS0012", rest].concat(),
        2 => [b"VALKEY080", rest].concat(),
        _ => [b"REDIS0009", rest].concat(),
    };
    // Without a checksum whatever has a structure is taken, so that the way behind it is gone, too.
    if mode & 4 == 0 {
        file.extend_from_slice(&[255, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    let piece = 1 + usize::from(*piece);
    let whole = count(&file, file.len().max(1));
    assert_eq!(count(&file, piece), whole);
    let expiry = match mode >> 3 & 3 {
        0 => ExpiryRule::Keep,
        1 => ExpiryRule::Shift(86_400_000),
        2 => ExpiryRule::Shift(i64::MIN),
        _ => ExpiryRule::Never,
    };
    let rules = Rules::default().expiry(expiry).rename("a", "b").filter(KeyFilter::all().pattern("*[^x]*"));
    for rules in [Rules::default().expiry(expiry), rules] {
        let Ok(out) = rewrite(&file, rules.clone(), piece) else { continue };
        let again = count(&out, out.len()).unwrap();
        let before = whole.as_ref().unwrap();
        assert!(again.keys() <= before.keys());
        assert_eq!(rewrite(&file, rules, file.len()).unwrap(), out);
    }
});
