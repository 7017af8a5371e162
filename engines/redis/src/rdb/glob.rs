//! Patterns of keys, as `KEYS` and `SCAN` read them, over bytes.

/// Whether `text` matches `pattern`: `*`, `?`, `[abc]`, `[^a-z]`, and a backslash before what is meant as it is.
///
/// Takes at most the product of both lengths in time, whatever the pattern is.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Behind the last star, and how far it reached.
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                star = Some((at, seen));
                continue;
            }
            Some(_) => {
                if let Some(width) = one(pattern.get(at..).unwrap_or_default(), text[seen]) {
                    at += width;
                    seen += 1;
                    continue;
                }
            }
            None => {}
        }
        let Some((behind, reached)) = star else { return false };
        (at, seen) = (behind, reached + 1);
        star = Some((behind, reached + 1));
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

/// How many bytes of `pattern` match the one byte. None when they do not.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', set @ ..] => class(set, byte).map(|width| width + 1),
        [b'\\', exact, ..] => (*exact == byte).then_some(2),
        [exact, ..] => (*exact == byte).then_some(1),
        [] => None,
    }
}

/// The same for what stands behind `[`. A class that is not closed ends with the pattern, as the servers read it.
fn class(set: &[u8], byte: u8) -> Option<usize> {
    let negated = set.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        match set.get(at..).unwrap_or_default() {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', exact, ..] => {
                found |= *exact == byte;
                at += 2;
            }
            [low, b'-', high, ..] => {
                found |= (*low.min(high)..=*low.max(high)).contains(&byte);
                at += 3;
            }
            [exact, ..] => {
                found |= *exact == byte;
                at += 1;
            }
        }
    }
    (found != negated).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_on_the_servers() {
        let yes = [
            ("*", ""),
            ("", ""),
            ("a*", "abc"),
            ("*c", "abc"),
            ("a*b*c", "a12b34c"),
            ("h?llo", "hello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-b]llo", "hbllo"),
            ("h[b-a]llo", "hallo"),
            ("a\\*b", "a*b"),
            ("user:*:name", "user:1:2:name"),
            ("**a", "ba"),
            ("[\\]]", "]"),
            ("[abc", "c"),
        ];
        for (pattern, text) in yes {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        let no = [
            ("", "a"),
            ("a", ""),
            ("a*", "ba"),
            ("h[^e]llo", "hello"),
            ("h?llo", "hllo"),
            ("a\\*b", "axb"),
            ("*a*b", "ba"),
            ("[a-c]", "d"),
            ("user:*:name", "user:1"),
        ];
        for (pattern, text) in no {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn no_pattern_takes_for_ever() {
        assert!(!matches(&b"*a".repeat(2000), &[b'b'; 4000]));
    }
}
