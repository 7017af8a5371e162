//! Lengths: one to nine bytes whose first two bits say what they are.

/// What stands where a length stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// A number.
    Number(u64),
    /// A string follows in another way than as its bytes: 0 to 2 are integers, 3 is compressed.
    Encoded(u8),
}

/// The string is an integer of one, two or four bytes.
pub(super) const INT8: u8 = 0;
pub(super) const INT16: u8 = 1;
pub(super) const INT32: u8 = 2;
/// The string is compressed: two lengths (compressed, plain), then the compressed bytes.
pub(super) const LZF: u8 = 3;

/// How many bytes a length takes that begins with `first`. None when no length begins so.
pub(super) fn width(first: u8) -> Option<usize> {
    match first >> 6 {
        0 | 3 => Some(1),
        1 => Some(2),
        _ => match first {
            0x80 => Some(5),
            0x81 => Some(9),
            _ => None,
        },
    }
}

/// Reads a length from exactly as many bytes as its [`width`].
pub(super) fn read(bytes: &[u8]) -> Option<Length> {
    Some(match *bytes {
        [byte] if byte >> 6 == 0 => Length::Number(u64::from(byte)),
        [byte] if byte >> 6 == 3 => Length::Encoded(byte & 0x3f),
        [high, low] if high >> 6 == 1 => Length::Number(u64::from(high & 0x3f) << 8 | u64::from(low)),
        [0x80, a, b, c, d] => Length::Number(u32::from_be_bytes([a, b, c, d]).into()),
        [0x81, a, b, c, d, e, f, g, h] => Length::Number(u64::from_be_bytes([a, b, c, d, e, f, g, h])),
        _ => return None,
    })
}

/// Appends `number` in the shortest way.
pub(super) fn write(number: u64, out: &mut Vec<u8>) {
    match number {
        0..0x40 => out.push(number as u8),
        0x40..0x4000 => out.extend_from_slice(&(number as u16 | 0x4000).to_be_bytes()),
        0x4000..=0xffff_ffff => {
            out.push(0x80);
            out.extend_from_slice(&(number as u32).to_be_bytes());
        }
        _ => {
            out.push(0x81);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

/// Appends `bytes` as a plain string.
pub(super) fn write_string(bytes: &[u8], out: &mut Vec<u8>) {
    write(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_both_ways_in_the_shortest_way() {
        let edges = [(0, 1), (63, 1), (64, 2), (16383, 2), (16384, 5), (u64::from(u32::MAX), 5), (1 << 32, 9)];
        for (number, len) in edges.into_iter().chain([(u64::MAX, 9)]) {
            let mut out = Vec::new();
            write(number, &mut out);
            assert_eq!((out.len(), width(out[0])), (len, Some(len)), "{number}");
            assert_eq!(read(&out), Some(Length::Number(number)));
        }
    }

    #[test]
    fn what_is_no_length_is_none() {
        assert_eq!(width(0x82), None);
        assert_eq!(width(0xbf), None);
        assert_eq!(read(&[0xc3]), Some(Length::Encoded(LZF)));
        assert_eq!(read(&[0x80, 1]), None);
        assert_eq!(read(&[]), None);
    }
}
