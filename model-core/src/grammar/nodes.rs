//! Places in the rules and where to go on after them, each stored once. What follows a place is a chain of nodes, and many
//! chains share their ends, so that nesting costs a node and not a copy.

/// The chain that is over.
pub(super) const NOTHING: u32 = u32::MAX;
/// Buckets to begin with, a power of two.
const BUCKETS: usize = 256;

/// A place in an alternative, and what follows the alternative.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    /// Index among the grammar's symbols.
    pub(super) symbol: u32,
    /// Node to go on with, or [`NOTHING`].
    pub(super) then: u32,
    /// The next older node of the same bucket.
    older: u32,
    /// The last round that came by.
    round: u32,
}

/// All nodes, the oldest first; `then` is always older than the node.
#[derive(Debug, Clone)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    /// The newest node of each bucket.
    newest: Vec<u32>,
    round: u32,
}

impl Default for Nodes {
    fn default() -> Self {
        Self { nodes: Vec::new(), newest: vec![NOTHING; BUCKETS], round: 0 }
    }
}

impl Nodes {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn get(&self, id: u32) -> Option<Node> {
        self.nodes.get(id as usize).copied()
    }

    /// The node of this place and continuation, made if there is none.
    pub(super) fn find(&mut self, symbol: u32, then: u32) -> u32 {
        let bucket = self.bucket(symbol, then);
        let mut at = self.newest[bucket];
        while let Some(node) = self.nodes.get(at as usize) {
            if node.symbol == symbol && node.then == then {
                return at;
            }
            at = node.older;
        }
        let id = self.nodes.len() as u32;
        self.nodes.push(Node { symbol, then, older: self.newest[bucket], round: 0 });
        self.newest[bucket] = id;
        if self.nodes.len() > self.newest.len() {
            self.double_buckets();
        }
        id
    }

    /// Buckets stay short, however many nodes a grammar leads to.
    fn double_buckets(&mut self) {
        self.newest = vec![NOTHING; 2 * self.newest.len()];
        for id in 0..self.nodes.len() {
            let Node { symbol, then, .. } = self.nodes[id];
            let bucket = self.bucket(symbol, then);
            self.nodes[id].older = std::mem::replace(&mut self.newest[bucket], id as u32);
        }
    }

    fn bucket(&self, symbol: u32, then: u32) -> usize {
        let mixed = (symbol ^ then.rotate_left(13)).wrapping_mul(0x9E37_79B1);
        (mixed >> (u32::BITS - self.newest.len().trailing_zeros())) as usize
    }

    /// Begins a round, in which no node has been visited.
    pub(super) fn begin_round(&mut self) {
        self.round = self.round.checked_add(1).unwrap_or_else(|| {
            self.nodes.iter_mut().for_each(|node| node.round = 0);
            1
        });
    }

    /// Whether this is the first visit of a node in this round.
    pub(super) fn visit(&mut self, id: u32) -> bool {
        let round = self.round;
        self.nodes.get_mut(id as usize).is_some_and(|node| std::mem::replace(&mut node.round, round) != round)
    }

    /// Forgets all nodes but the oldest `count`.
    pub(super) fn truncate(&mut self, count: usize) {
        while self.nodes.len() > count
            && let Some(node) = self.nodes.pop()
        {
            let bucket = self.bucket(node.symbol, node.then);
            self.newest[bucket] = node.older;
        }
    }

    /// Keeps only what `kept` and their continuations need; rewrites the ids in `kept`.
    pub(super) fn keep(&mut self, kept: &mut [u32]) {
        let mut needed = vec![false; self.nodes.len()];
        kept.iter().for_each(|&id| needed[id as usize] = true);
        for (id, node) in self.nodes.iter().enumerate().rev() {
            if needed[id] && node.then != NOTHING {
                needed[node.then as usize] = true;
            }
        }
        let old = std::mem::take(self);
        let mut moved = vec![NOTHING; old.nodes.len()];
        for (id, node) in old.nodes.iter().enumerate().filter(|&(id, _)| needed[id]) {
            let then = moved.get(node.then as usize).copied().unwrap_or(NOTHING);
            moved[id] = self.find(node.symbol, then);
        }
        kept.iter_mut().for_each(|id| *id = moved[*id as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_nodes_are_one_until_they_are_forgotten() {
        let mut nodes = Nodes::default();
        let ids: Vec<u32> = (0..1000).map(|symbol| nodes.find(symbol, NOTHING)).collect();
        assert_eq!(nodes.find(7, NOTHING), ids[7]);
        let upper = nodes.find(7, ids[7]);
        assert_eq!((nodes.len(), nodes.find(7, ids[7])), (1001, upper));
        nodes.truncate(500);
        assert_eq!(nodes.find(499, NOTHING), ids[499]);
        assert_eq!(nodes.find(999, NOTHING), 500, "a forgotten node is made again");
    }

    #[test]
    fn many_nodes_are_found_in_few_steps() {
        let mut nodes = Nodes::default();
        let mut last = NOTHING;
        for i in 0..1u32 << 17 {
            last = nodes.find(i % 50, last);
        }
        let longest = nodes
            .newest
            .iter()
            .map(|&newest| std::iter::successors(nodes.get(newest), |node| nodes.get(node.older)).count());
        assert!(nodes.len() > 80_000, "{}", nodes.len());
        let longest = longest.max().unwrap();
        assert!(longest < 64, "{longest} of {} nodes in one bucket", nodes.len());
    }

    #[test]
    fn a_node_is_visited_once_a_round() {
        let mut nodes = Nodes::default();
        let id = nodes.find(1, NOTHING);
        nodes.round = u32::MAX - 1;
        for _ in 0..3 {
            nodes.begin_round();
            assert!(nodes.visit(id));
            assert!(!nodes.visit(id));
        }
    }

    #[test]
    fn what_is_kept_keeps_its_continuations() {
        let mut nodes = Nodes::default();
        let far = nodes.find(1, NOTHING);
        nodes.find(2, NOTHING);
        let near = nodes.find(3, far);
        let mut kept = [near, far];
        nodes.keep(&mut kept);
        assert_eq!((nodes.len(), kept), (2, [1, 0]));
        let node = nodes.get(1).unwrap();
        assert_eq!((node.symbol, node.then), (3, 0));
    }
}
