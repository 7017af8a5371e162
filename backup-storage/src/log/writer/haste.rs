//! How little a writer that is behind compresses.

/// zstd levels of a writer that is behind: the first one at once, the next one when that did not help for [`STEP`] pieces. A source that
/// gets too far ahead runs out of disk, or of patience. On the log of a busy PostgreSQL, −5 takes 0.6 of the time of level 1 for a third
/// more bytes, −40 takes 0.3 of it for three quarters more (−20 takes longer for as many).
const HURRIED: [i32; 2] = [-5, -40];
/// How many pieces are sealed at one of these levels before the next one is tried.
const STEP: usize = 4;

/// How many more pieces were begun behind than not, of late.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Haste(usize);

impl Haste {
    /// A piece is begun while others wait for whoever seals, or not.
    pub(super) fn step(&mut self, behind: bool) {
        self.0 = if behind { (self.0 + 1).min(2 * STEP) } else { self.0.saturating_sub(1) };
    }

    pub(super) fn is_any(self) -> bool {
        self.0 > 0
    }

    /// The level of the piece that was begun last, in a repository that compresses at level `usual`.
    pub(super) fn level(self, usual: i32) -> i32 {
        match self.0 {
            0 => usual,
            pieces => usual.min(HURRIED[(pieces / STEP).min(HURRIED.len() - 1)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stays_behind_compresses_less_and_comes_back_piece_by_piece() {
        let mut haste = Haste::default();
        assert_eq!((haste.is_any(), haste.level(3)), (false, 3));
        let mut levels = |behind, pieces| -> Vec<i32> {
            let level = |_| {
                haste.step(behind);
                haste.level(3)
            };
            (0..pieces).map(level).collect()
        };
        assert_eq!(levels(true, 5), [-5, -5, -5, -40, -40]);
        assert_eq!(levels(true, 100)[99], -40);
        assert_eq!(levels(false, 9), [-40, -40, -40, -40, -5, -5, -5, 3, 3], "however long it was behind");
        assert_eq!(levels(true, 1), [-5]);
        haste.step(true);
        assert_eq!(haste.level(-100), -100, "what is cheaper stays");
    }
}
