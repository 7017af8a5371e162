//! Compressed strings (LZF), in the format of `lzf_d.c`: runs of bytes, and copies of what came before.

/// Unpacks `packed`, of which an own header says that it becomes `len` bytes.
///
/// Returns what can be unpacked when `packed` was cut off, and None when it is not what LZF writes: a copy from before
/// the beginning, or more than `len` bytes. Allocates at most what the bytes that are there can become.
pub(super) fn unpack(packed: &[u8], len: u64) -> Option<Vec<u8>> {
    // Three bytes become at most 264.
    let bound = (packed.len() as u64).saturating_mul(88).min(len);
    let mut out = Vec::with_capacity(usize::try_from(bound).ok()?);
    let mut at = packed.iter().copied();
    while let Some(control) = at.next() {
        if control < 0x20 {
            let run = usize::from(control) + 1;
            out.extend(at.by_ref().take(run));
        } else {
            let mut run = usize::from(control >> 5);
            if run == 7 {
                let Some(more) = at.next() else { break };
                run += usize::from(more);
            }
            let Some(low) = at.next() else { break };
            let back = (usize::from(control & 0x1f) << 8 | usize::from(low)) + 1;
            let from = out.len().checked_sub(back)?;
            // A copy may read what it has just written, so it goes byte by byte.
            for index in from..from + run + 2 {
                out.push(*out.get(index)?);
            }
        }
        if out.len() as u64 > len {
            return None;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_copies() {
        // "ab", then a copy of eleven bytes from two back.
        let packed = [1, b'a', b'b', 7 << 5, 2, 1];
        assert_eq!(unpack(&packed, 13).unwrap(), b"ababababababa");
        assert_eq!(unpack(&packed[..4], 13).unwrap(), b"ab");
        assert_eq!(unpack(&packed, 12), None);
        assert_eq!(unpack(&[1 << 5, 0], 3), None);
        assert_eq!(unpack(&[], u64::MAX).unwrap(), b"");
    }
}
