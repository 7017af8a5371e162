//! Listpacks: many small elements in one run of bytes, as `listpack.c` of the servers has them.

use std::borrow::Cow;

/// Total length and number of elements.
const HEADER: usize = 6;
const END: u8 = 0xff;

/// One element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

impl<'a> Element<'a> {
    /// The element as a string.
    pub(super) fn text(self) -> Cow<'a, [u8]> {
        match self {
            Self::Int(number) => Cow::Owned(number.to_string().into_bytes()),
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
        }
    }
}

/// Goes through a listpack: each element, and its bytes as they stand. Ends with an error text where it is none.
pub(super) fn elements(pack: &[u8]) -> impl Iterator<Item = Result<(Element<'_>, &[u8]), &'static str>> {
    let mut rest = match pack.get(..HEADER) {
        Some(header) if u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize == pack.len() => {
            pack.get(HEADER..)
        }
        _ => Some(&[][..]),
    };
    std::iter::from_fn(move || {
        let bytes = rest?;
        if bytes == [END] {
            rest = None;
            return None;
        }
        let next = element(bytes).and_then(|(element, len)| {
            let whole = len + back_len(len);
            let (this, behind) = (bytes.get(..whole)?, bytes.get(whole..)?);
            rest = Some(behind);
            Some((element, this))
        });
        if next.is_none() {
            rest = None;
        }
        Some(next.ok_or("a listpack that is none"))
    })
}

/// The first element and its length, without the length that stands behind it.
fn element(bytes: &[u8]) -> Option<(Element<'_>, usize)> {
    let string = |start: usize, len: usize| {
        let end = start.checked_add(len)?;
        Some((Element::Bytes(bytes.get(start..end)?), end))
    };
    Some(match *bytes {
        [a @ 0..=0x7f, ..] => (Element::Int(a.into()), 1),
        [a @ 0x80..=0xbf, ..] => return string(1, usize::from(a & 0x3f)),
        [a @ 0xc0..=0xdf, b, ..] => {
            let number = i64::from(a & 0x1f) << 8 | i64::from(b);
            (Element::Int(if number >= 1 << 12 { number - (1 << 13) } else { number }), 2)
        }
        [a @ 0xe0..=0xef, b, ..] => return string(2, usize::from(a & 0x0f) << 8 | usize::from(b)),
        [0xf0, a, b, c, d, ..] => return string(5, u32::from_le_bytes([a, b, c, d]) as usize),
        [0xf1, a, b, ..] => (Element::Int(i16::from_le_bytes([a, b]).into()), 3),
        [0xf2, a, b, c, ..] => (Element::Int((i32::from_le_bytes([0, a, b, c]) >> 8).into()), 4),
        [0xf3, a, b, c, d, ..] => (Element::Int(i32::from_le_bytes([a, b, c, d]).into()), 5),
        [0xf4, a, b, c, d, e, f, g, h, ..] => (Element::Int(i64::from_le_bytes([a, b, c, d, e, f, g, h])), 9),
        _ => return None,
    })
}

/// Bytes of the length that stands behind an element of `len` bytes.
fn back_len(len: usize) -> usize {
    match len {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

/// Writes a listpack.
#[derive(Debug)]
pub(super) struct Builder {
    out: Vec<u8>,
    count: usize,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { out: vec![0; HEADER], count: 0 }
    }

    /// Appends an element as it stood in another listpack.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.count += 1;
    }

    /// Appends a number of eight bytes, as the servers write times.
    pub(super) fn int(&mut self, number: i64) {
        self.out.push(0xf4);
        self.out.extend_from_slice(&number.to_le_bytes());
        self.out.push(9);
        self.count += 1;
    }

    /// Appends a short string.
    #[cfg(test)]
    pub(super) fn short(&mut self, bytes: &[u8]) {
        assert!(bytes.len() < 64);
        self.out.push(0x80 | bytes.len() as u8);
        self.out.extend_from_slice(bytes);
        self.out.push(bytes.len() as u8 + 1);
        self.count += 1;
    }

    /// The listpack. None when it is too long to be one.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        self.out.push(END);
        let len = u32::try_from(self.out.len()).ok()?;
        // The servers count when there are more than fit into the number.
        let count = u16::try_from(self.count).unwrap_or(u16::MAX);
        self.out.get_mut(..4)?.copy_from_slice(&len.to_le_bytes());
        self.out.get_mut(4..HEADER)?.copy_from_slice(&count.to_le_bytes());
        Some(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listpack of raw elements with the lengths behind them.
    fn pack(elements: &[&[u8]]) -> Vec<u8> {
        let mut builder = Builder::new();
        for element in elements {
            builder.raw(element);
        }
        builder.finish().unwrap()
    }

    #[test]
    fn every_encoding_is_read() {
        let long = [&[0xe0 | 1, 0x2c][..], &[b'y'; 300], &[2, 0xae]].concat();
        let pack = pack(&[
            &[5, 1],
            &[0x82, b'a', b'b', 3],
            &[0xdf, 0xff, 2],
            &[0xc1, 0, 2],
            &long,
            &[0xf1, 0, 0x80, 3],
            &[0xf2, 1, 0, 0x80, 4],
            &[0xf3, 0xff, 0xff, 0xff, 0x7f, 5],
            &[0xf4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 9],
            &[0xf0, 1, 0, 0, 0, b'z', 6],
        ]);
        let read: Vec<Element<'_>> = elements(&pack).map(|element| element.unwrap().0).collect();
        let y = [b'y'; 300];
        let expected = [
            Element::Int(5),
            Element::Bytes(b"ab"),
            Element::Int(-1),
            Element::Int(256),
            Element::Bytes(&y),
            Element::Int(-32768),
            Element::Int(-8_388_607),
            Element::Int(i64::from(i32::MAX)),
            Element::Int(i64::MAX),
            Element::Bytes(b"z"),
        ];
        assert_eq!(read, expected);
        for cut in 0..pack.len() {
            assert!(elements(&pack[..cut]).any(|element| element.is_err()), "{cut}");
        }
    }
}
