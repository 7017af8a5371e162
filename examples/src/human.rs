//! Sizes, rates and durations for people. Decimal units, as disks and networks are sold.

use std::time::Duration;

/// `bytes` in the largest unit that leaves at least one digit before the point: `999 B`, `1.0 kB`, `312.4 MB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would be printed as 1000.0 of the smaller unit.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `bytes` over `time` as a rate, `-` when no time has passed.
#[must_use]
pub fn rate(bytes: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds <= 0.0 { "-".to_owned() } else { format!("{}/s", size((bytes as f64 / seconds) as u64)) }
}

/// A duration with the precision that matters: `43 ms`, `2.31 s`, `3 min 05 s`, `2 h 10 min`.
#[must_use]
pub fn duration(time: Duration) -> String {
    let millis = time.as_millis();
    match millis {
        0..=999 => format!("{millis} ms"),
        1_000..=59_994 => format!("{:.2} s", time.as_secs_f64()),
        59_995..=3_599_999 => {
            let seconds = (millis + 500) / 1000;
            format!("{} min {:02} s", seconds / 60, seconds % 60)
        }
        _ => format!("{} h {:02} min", millis / 3_600_000, millis / 60_000 % 60),
    }
}

/// A whole number with thin groups of three digits: `1 234 567`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_four_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (312_400_000, "312.4 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn rates_of_no_time_are_not_infinite() {
        assert_eq!(rate(10, Duration::ZERO), "-");
        assert_eq!(rate(3_000_000, Duration::from_millis(1500)), "2.0 MB/s");
    }

    #[test]
    fn durations_change_their_unit_where_people_do() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (2_314, "2.31 s"),
            (59_996, "1 min 00 s"),
            (185_000, "3 min 05 s"),
            (3_600_000, "1 h 00 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn counts_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1 000"), (1_234_567, "1 234 567")] {
            assert_eq!(count(number), text);
        }
    }
}
