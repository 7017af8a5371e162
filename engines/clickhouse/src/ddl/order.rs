//! An order in which everything can be made: what is referred to comes before what refers to it.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// All nodes in an order, and what stood in its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order<K> {
    /// Every node once. Where nothing is said, the order is that in which they were given.
    pub sorted: Vec<K>,
    /// Nodes that need each other, each needing the next and the last the first. The first of them stands in
    /// [`sorted`](Self::sorted) before what it needs: make it with `ATTACH`, which does not look, or make it again.
    pub cycles: Vec<Vec<K>>,
}

/// Sorts `nodes` by their needs: `(a, b)` says that `a` needs `b`. Needs of what is not among the nodes, and of itself,
/// are none.
///
/// ```
/// # use backup_clickhouse::ddl::order;
/// let order = order(["view", "table", "dictionary"], [("view", "table"), ("table", "dictionary")]);
/// assert_eq!(order.sorted, ["dictionary", "table", "view"]);
/// assert!(order.cycles.is_empty());
/// ```
pub fn order<K: Clone + Eq + Hash>(
    nodes: impl IntoIterator<Item = K>,
    needs: impl IntoIterator<Item = (K, K)>,
) -> Order<K> {
    let mut graph = Graph::new(nodes, needs);
    let (mut sorted, mut cycles) = (Vec::with_capacity(graph.nodes.len()), Vec::new());
    loop {
        while let Some(node) = graph.ready.pop_first() {
            graph.remove(node);
            sorted.push(node);
        }
        let Some(cycle) = graph.cycle() else { break };
        graph.ready.extend(cycle.first());
        cycles.push(cycle);
    }
    let keys = |places: Vec<usize>| places.into_iter().filter_map(|place| graph.nodes.get(place).cloned()).collect();
    Order { sorted: keys(sorted), cycles: cycles.into_iter().map(keys).collect() }
}

struct Graph<K> {
    nodes: Vec<K>,
    /// What each node still needs, and by whom it is needed.
    needs: Vec<BTreeSet<usize>>,
    needed_by: Vec<BTreeSet<usize>>,
    ready: BTreeSet<usize>,
    left: BTreeSet<usize>,
}

impl<K: Clone + Eq + Hash> Graph<K> {
    fn new(nodes: impl IntoIterator<Item = K>, needs: impl IntoIterator<Item = (K, K)>) -> Self {
        let (mut places, mut unique) = (HashMap::new(), Vec::new());
        for node in nodes {
            places.entry(node.clone()).or_insert_with(|| {
                unique.push(node);
                unique.len() - 1
            });
        }
        let count = unique.len();
        let mut graph = Self {
            nodes: unique,
            needs: vec![BTreeSet::new(); count],
            needed_by: vec![BTreeSet::new(); count],
            ready: BTreeSet::new(),
            left: (0..count).collect(),
        };
        for (node, need) in needs {
            let (Some(&node), Some(&need)) = (places.get(&node), places.get(&need)) else { continue };
            if let (true, Some(of_node), Some(of_need)) =
                (node != need, graph.needs.get_mut(node), graph.needed_by.get_mut(need))
            {
                of_node.insert(need);
                of_need.insert(node);
            }
        }
        let free = graph.needs.iter().enumerate().filter(|(_, needs)| needs.is_empty());
        graph.ready = free.map(|(node, _)| node).collect();
        graph
    }

    /// Takes a node out: nobody has to wait for it any more.
    fn remove(&mut self, node: usize) {
        self.left.remove(&node);
        let waiting = self.needed_by.get_mut(node).map(std::mem::take).unwrap_or_default();
        for waiting in waiting {
            let Some(needs) = self.needs.get_mut(waiting) else { continue };
            needs.remove(&node);
            if needs.is_empty() && self.left.contains(&waiting) {
                self.ready.insert(waiting);
            }
        }
    }

    /// Nodes that need each other, if any are left: everybody who is left needs somebody who is left, so going from need
    /// to need comes back to where it was.
    fn cycle(&self) -> Option<Vec<usize>> {
        let (mut path, mut met) = (Vec::new(), HashMap::new());
        let mut node = *self.left.first()?;
        while let std::collections::hash_map::Entry::Vacant(place) = met.entry(node) {
            place.insert(path.len());
            path.push(node);
            node = *self.needs.get(node)?.first()?;
        }
        let mut cycle = path.split_off(*met.get(&node)?);
        let first = cycle.iter().enumerate().min_by_key(|(_, node)| **node)?.0;
        cycle.rotate_left(first);
        Some(cycle)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::order;

    #[test]
    fn nothing_moves_without_a_reason() {
        assert_eq!(order(["c", "a", "b"], []).sorted, ["c", "a", "b"]);
        assert_eq!(order(["c", "a", "b"], [("c", "b"), ("c", "c"), ("a", "elsewhere")]).sorted, ["a", "b", "c"]);
        assert_eq!(order(["a", "a", "b"], []).sorted, ["a", "b"]);
    }

    #[test]
    fn cycles_are_named() {
        let order = order(["x", "b", "a", "c", "y"], [("a", "b"), ("b", "c"), ("c", "a"), ("x", "a"), ("y", "x")]);
        assert_eq!(order.cycles, [["b", "c", "a"]]);
        assert_eq!(order.sorted, ["b", "a", "x", "c", "y"]);
    }

    #[test]
    fn a_long_chain_is_no_deep_one() {
        let needs = (0..50_000u32).map(|node| (node, node + 1));
        let order = order(0..50_000u32, needs);
        assert_eq!((order.sorted.first(), order.sorted.last()), (Some(&49_999), Some(&0)));
    }

    proptest! {
        #[test]
        fn needs_come_first_unless_they_are_in_a_cycle(needs in prop::collection::vec((0u8..12, 0u8..12), 0..40)) {
            let order = order(0u8..12, needs.clone());
            prop_assert_eq!(order.sorted.iter().copied().collect::<BTreeSet<_>>().len(), 12);
            let place = |node: u8| order.sorted.iter().position(|other| *other == node).unwrap();
            let early: BTreeSet<u8> = order.cycles.iter().map(|cycle| cycle[0]).collect();
            for (node, need) in &needs {
                prop_assert!(node == need || place(*need) < place(*node) || early.contains(node));
            }
            for cycle in &order.cycles {
                for (at, node) in cycle.iter().enumerate() {
                    let next = cycle[(at + 1) % cycle.len()];
                    prop_assert!(needs.contains(&(*node, next)));
                }
            }
        }
    }
}
