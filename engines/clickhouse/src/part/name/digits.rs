//! Numbers in names, as servers write them.

/// A number that a server could have written: without sign and leading noughts, and not above what it counts with.
pub(super) fn number(field: &str) -> Option<u64> {
    let canonical = field == "0" || !field.starts_with('0');
    if !canonical || !field.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    field.parse().ok().filter(|number| *number <= i64::MAX.unsigned_abs())
}

/// The month of a day, `20240131`, if it is one: its first six digits.
pub(super) fn month_of(field: &str) -> Option<&str> {
    let day = u32::try_from(number(field)?).ok()?;
    let sound = field.len() == 8 && (1..=12).contains(&(day / 100 % 100)) && (1..=31).contains(&(day % 100));
    if sound { field.get(..6) } else { None }
}
