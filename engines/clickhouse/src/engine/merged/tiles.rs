//! What a part was merged from, by names and numbers of rows. Nothing here looks at a file.

use std::cmp::Reverse;

use crate::part::PartName;

/// Where the rows of a part can be taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is in the parent.
    Parent,
    /// The parent has these parts in its place.
    Stood(Vec<String>),
    /// It lies retired on the server's disk, in this one of the table's directories.
    Retired(usize),
}

/// A part whose rows may be in a merged one.
#[derive(Debug, Clone)]
pub(super) struct Tile {
    pub(super) name: PartName,
    /// `hash_of_all_files`; empty where it is not known yet.
    pub(super) hash: String,
    pub(super) rows: u64,
    pub(super) origin: Origin,
}

impl Tile {
    /// Puts them in the order in which they are tried: as they lie one behind the other; of those that begin together first what is stored
    /// already, then the largest, as those in it may be gone.
    pub(super) fn sort(tiles: &mut [Self]) {
        tiles.sort_by_key(|Self { name, origin, .. }| {
            let new = matches!(origin, Origin::Retired(_));
            (name.min_block(), new, Reverse((name.max_block(), name.level(), name.mutation())))
        });
    }
}

/// How a table numbers its parts, and what its merges do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habit {
    /// Numbers may be given before a part is visible.
    pub(super) early_numbers: bool,
    /// No merge removes a row.
    pub(super) keeps_rows: bool,
}

/// The tiles, of those in order, whose rows are in the part `name`, which has `rows` of them. None where that is not certain.
///
/// A number may be missing between two tiles where nothing can hide there: a part that has more rows than its tiles have is refused anyhow,
/// so it would have to be hidden by a merge that removes as many; or the tile behind it is of the parent, which saw all that has a lower number.
pub(super) fn of<'t>(tiles: &'t [Tile], name: &PartName, rows: u64, habit: Habit) -> Option<Vec<&'t Tile>> {
    let mut chosen: Vec<&Tile> = Vec::new();
    let (mut next, mut gaps) = (name.min_block(), false);
    // A mutation that came behind a part has changed its rows.
    let fits = |tile: &&Tile| name.covers(&tile.name) && tile.name.data_version() >= name.mutation();
    for tile in tiles.iter().filter(fits) {
        if tile.name.min_block() < next {
            // A tile that was chosen has its rows.
            continue;
        }
        if tile.name.min_block() > next {
            if chosen.is_empty() {
                return None;
            }
            gaps |= habit.early_numbers || matches!(tile.origin, Origin::Retired(_));
        }
        next = tile.name.max_block() + 1;
        chosen.push(tile);
    }
    let sum: u64 = chosen.iter().map(|tile| tile.rows).sum();
    // Rows that are only marked as deleted go with the next merge; a mutation marks them.
    let hidden = gaps && !(habit.keeps_rows && chosen.iter().all(|tile| tile.name.mutation() == 0));
    (next == name.max_block() + 1 && sum == rows && !hidden).then_some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Habit = Habit { early_numbers: false, keeps_rows: true };
    const REPLACING: Habit = Habit { keeps_rows: false, ..PLAIN };
    const REPLICATED: Habit = Habit { early_numbers: true, keeps_rows: false };

    fn tile(name: &str, rows: u64, origin: Origin) -> Tile {
        Tile { name: PartName::guess(name).unwrap(), hash: String::new(), rows, origin }
    }

    fn known(parts: &[(&str, u64)]) -> Vec<Tile> {
        parts.iter().map(|(name, rows)| tile(name, *rows, Origin::Parent)).collect()
    }

    /// The names of the tiles of a part.
    fn chosen(tiles: &[Tile], name: &str, rows: u64, habit: Habit) -> Option<Vec<String>> {
        let mut tiles = tiles.to_vec();
        Tile::sort(&mut tiles);
        let chosen = of(&tiles, &PartName::guess(name).unwrap(), rows, habit)?;
        Some(chosen.iter().map(|tile| tile.name.to_string()).collect())
    }

    fn names(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_merge_is_known_by_its_blocks_and_its_rows() {
        let parts = known(&[("all_1_1_0", 5), ("all_6_6_0", 7), ("all_2_4_1", 6), ("all_2_2_0", 3)]);
        assert_eq!(chosen(&parts, "all_1_4_2", 11, REPLICATED), names(&["all_1_1_0", "all_2_4_1"]));
        // The missing number is that of another partition.
        let all = names(&["all_1_1_0", "all_2_4_1", "all_6_6_0"]);
        assert_eq!(chosen(&parts, "all_1_6_2", 18, REPLACING), all);
        assert_eq!(chosen(&parts, "all_1_6_2", 18, REPLICATED), None, "the missing one may have come since");
        for (what, name, rows) in [
            ("rows are missing", "all_1_6_2", 17),
            ("one that is not known is at its end", "all_1_7_2", 18),
            ("and at its beginning", "all_0_6_2", 18),
            ("another partition", "c_1_6_2", 18),
            ("a mutation", "all_1_6_2_7", 18),
            ("none of it is known", "all_8_9_1", 0),
        ] {
            assert_eq!(chosen(&parts, name, rows, PLAIN), None, "{what}");
        }
    }

    #[test]
    fn what_came_since_is_taken_from_where_it_lies() {
        let mut parts = known(&[("all_1_1_0", 5), ("all_2_2_0", 6)]);
        parts.extend(
            [("all_1_2_1", 11), ("all_3_3_0", 1), ("all_5_5_0", 2), ("all_3_5_1", 3), ("all_3_5_1_9", 3)]
                .map(|(name, rows)| tile(name, rows, Origin::Retired(0))),
        );
        let wanted = names(&["all_1_1_0", "all_2_2_0", "all_3_5_1"]);
        assert_eq!(
            chosen(&parts, "all_1_5_2", 14, REPLACING),
            wanted,
            "what is stored already, and few parts of the rest"
        );
        let parts: Vec<_> = parts.into_iter().filter(|tile| !tile.name.to_string().starts_with("all_3_5")).collect();
        let wanted = names(&["all_1_1_0", "all_2_2_0", "all_3_3_0", "all_5_5_0"]);
        assert_eq!(chosen(&parts, "all_1_5_2", 14, PLAIN), wanted, "no row is missing");
        assert_eq!(
            chosen(&parts, "all_1_5_2", 14, REPLACING),
            None,
            "one may have come, and as many rows been replaced"
        );
    }

    #[test]
    fn mutations_that_were_before_a_part_do_not_matter() {
        let parts = known(&[("all_1_3_1_4", 5), ("all_5_5_0", 6)]);
        assert_eq!(chosen(&parts, "all_1_5_2_4", 11, PLAIN), names(&["all_1_3_1_4", "all_5_5_0"]));
        let parts = known(&[("all_1_3_1", 5), ("all_5_5_0", 6)]);
        assert_eq!(chosen(&parts, "all_1_5_2_4", 11, PLAIN), None);
        // Rows may be marked as deleted in the first, and others have come.
        let mut parts = known(&[("all_1_3_1_4", 5)]);
        parts.push(tile("all_7_7_0", 6, Origin::Retired(0)));
        assert_eq!(chosen(&parts, "all_1_7_2_4", 11, PLAIN), None);
    }
}
