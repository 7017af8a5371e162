//! Changes of a text at places that are known.

use std::ops::Range;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    range: Range<usize>,
    with: String,
}

impl Edit {
    pub(super) const fn replace(range: Range<usize>, with: String) -> Self {
        Self { range, with }
    }

    pub(super) const fn insert(at: usize, with: String) -> Self {
        Self { range: at..at, with }
    }

    /// Takes something away, with the blank before it.
    pub(super) fn remove_word(text: &str, range: Range<usize>) -> Self {
        let blank = text.get(..range.start).is_some_and(|before| before.ends_with([' ', '\n', '\t']));
        Self { range: range.start - usize::from(blank)..range.end, with: String::new() }
    }
}

/// The text with all changes. Two that meet are never made here; should they, the first wins.
pub(super) fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let (mut out, mut position) = (String::with_capacity(text.len()), 0);
    for edit in edits {
        if let Some(kept) = text.get(position..edit.range.start) {
            push(&mut out, kept);
            push(&mut out, &edit.with);
            position = edit.range.end;
        }
    }
    push(&mut out, text.get(position..).unwrap_or_default());
    out
}

/// Adds a piece, with a blank before it where it would otherwise grow together with what is there: two words become one,
/// and two quotes a quote within a name.
fn push(out: &mut String, piece: &str) {
    let grows = |last: u8, first: u8| {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        word(last) && word(first) || last == first && matches!(first, b'\'' | b'"' | b'`')
    };
    if let (Some(last), Some(first)) = (out.bytes().last(), piece.bytes().next())
        && grows(last, first)
    {
        out.push(' ');
    }
    out.push_str(piece);
}
