//! The state tree: values under paths of labels, hashed as certificates need it, of which parts are shown.
//!
//! A subtree keeps its hash, so that what does not change is hashed once. Parts that are not shown stay as hashes, and
//! where a label is asked for that is not there, its neighbours show that it is not (interface specification,
//! "Certification").

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use ic_certification::hash_tree::{HashTreeNode, fork_hash, labeled_hash, leaf_hash};
use ic_certification::{HashTree, empty, fork, labeled, leaf, pruned};

/// A path from the root: one label per level.
pub type Path<'a> = &'a [Vec<u8>];

/// A value, or subtrees under labels.
#[derive(Debug)]
pub struct Tree {
    content: Content,
    digest: OnceLock<[u8; 32]>,
}

#[derive(Debug)]
enum Content {
    Leaf(Vec<u8>),
    Branch(BTreeMap<Vec<u8>, Arc<Tree>>),
    /// Branches one after the other that are one together; none is empty.
    Parts(Vec<Arc<Tree>>),
}

impl Tree {
    /// A value.
    pub fn leaf(value: impl Into<Vec<u8>>) -> Arc<Self> {
        Arc::new(Self { content: Content::Leaf(value.into()), digest: OnceLock::new() })
    }

    /// Subtrees under labels.
    pub fn branch<L: Into<Vec<u8>>>(children: impl IntoIterator<Item = (L, Arc<Self>)>) -> Arc<Self> {
        let children = children.into_iter().map(|(label, child)| (label.into(), child)).collect();
        Arc::new(Self { content: Content::Branch(children), digest: OnceLock::new() })
    }

    /// One branch made of several, the labels of each beyond those of the one before it. Its hash is made of theirs.
    pub fn parts(parts: impl IntoIterator<Item = Arc<Self>>) -> Arc<Self> {
        let parts = parts.into_iter().filter(|part| part.labels().is_some()).collect();
        Arc::new(Self { content: Content::Parts(parts), digest: OnceLock::new() })
    }

    /// The first and the last label of a branch; none if it is empty, or no plain branch.
    fn labels(&self) -> Option<(&[u8], &[u8])> {
        let Content::Branch(children) = &self.content else { return None };
        Some((children.first_key_value()?.0, children.last_key_value()?.0))
    }

    /// The hash of all of it.
    pub fn digest(&self) -> [u8; 32] {
        *self.digest.get_or_init(|| match &self.content {
            Content::Leaf(value) => leaf_hash(value),
            Content::Branch(children) => {
                let hidden = |(label, child): (&Vec<u8>, &Arc<Self>)| pruned(labeled_hash(label, &child.digest()));
                join(children.iter().map(hidden).collect()).digest()
            }
            Content::Parts(parts) => join(parts.iter().map(|part| pruned(part.digest())).collect()).digest(),
        })
    }

    /// The tree with everything under `paths` shown, and proof of absence for those that lead nowhere.
    pub fn show(&self, paths: &[Path<'_>]) -> HashTree {
        if paths.is_empty() {
            return pruned(self.digest());
        }
        match &self.content {
            Content::Leaf(value) => leaf(value.clone()),
            Content::Branch(children) if paths.iter().any(|path| path.is_empty()) => {
                join(children.iter().map(|(label, child)| labeled(label.clone(), child.show(&[&[]]))).collect())
            }
            Content::Branch(children) => join(show_children(children, paths)),
            Content::Parts(parts) => join(show_parts(parts, paths)),
        }
    }
}

/// Parts that have labels of the paths, or the neighbours of labels that are in no part; the others as hashes.
fn show_parts(parts: &[Arc<Tree>], paths: &[Path<'_>]) -> Vec<HashTree> {
    let bounds: Vec<_> = parts.iter().map(|part| part.labels().unwrap_or_default()).collect();
    let mut asked: Vec<Vec<Path<'_>>> = vec![Vec::new(); parts.len()];
    for path in paths {
        let Some(label) = path.first().map(Vec::as_slice) else {
            asked.iter_mut().for_each(|paths| paths.push(path));
            continue;
        };
        // The first part that does not end before the label; if it begins after it, the one before has a neighbour too.
        let next = bounds.partition_point(|(_, last)| *last < label);
        let is_between = bounds.get(next).is_none_or(|(first, _)| *first > label);
        let before = if is_between { next.checked_sub(1) } else { None };
        before.into_iter().chain([next]).filter(|at| *at < parts.len()).for_each(|at| asked[at].push(path));
    }
    parts.iter().zip(asked).map(|(part, paths)| part.show(&paths)).collect()
}

/// Children on the paths, neighbours of what is absent with their labels only, and the others as hashes.
fn show_children(children: &BTreeMap<Vec<u8>, Arc<Tree>>, paths: &[Path<'_>]) -> Vec<HashTree> {
    let mut wanted: BTreeMap<&[u8], Vec<Path<'_>>> = BTreeMap::new();
    let mut neighbours: BTreeSet<&[u8]> = BTreeSet::new();
    for (label, rest) in paths.iter().filter_map(|path| path.split_first()) {
        if children.contains_key(label) {
            wanted.entry(label).or_default().push(rest);
            continue;
        }
        let before = children.range::<Vec<u8>, _>(..label).next_back();
        let after = children.range::<Vec<u8>, _>(label..).next();
        neighbours.extend(before.iter().chain(&after).map(|(label, _)| label.as_slice()));
    }
    let show = |(label, child): (&Vec<u8>, &Arc<Tree>)| match wanted.get(label.as_slice()) {
        Some(paths) => labeled(label.clone(), child.show(paths)),
        None if neighbours.contains(label.as_slice()) => labeled(label.clone(), pruned(child.digest())),
        None => pruned(labeled_hash(label, &child.digest())),
    };
    children.iter().map(show).collect()
}

/// Combines siblings by forks that halve them; two hashes side by side become one.
fn join(mut nodes: Vec<HashTree>) -> HashTree {
    let right = nodes.split_off(nodes.len().div_ceil(2));
    if right.is_empty() {
        return nodes.pop().unwrap_or_else(empty);
    }
    let (left, right) = (join(nodes), join(right));
    match (left.as_ref(), right.as_ref()) {
        (HashTreeNode::Pruned(left), HashTreeNode::Pruned(right)) => pruned(fork_hash(left, right)),
        _ => fork(left, right),
    }
}

#[cfg(test)]
mod tests {
    use ic_certification::LookupResult;
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Arc<Tree> {
        let inner = Tree::branch([("a", Tree::leaf("1")), ("b", Tree::leaf("2")), ("d", Tree::leaf("3"))]);
        Tree::branch([("time", Tree::leaf("now")), ("x", inner), ("empty", Tree::branch::<&str>([]))])
    }

    fn path(labels: &[&str]) -> Vec<Vec<u8>> {
        labels.iter().map(|label| label.as_bytes().to_vec()).collect()
    }

    #[test]
    fn shows_what_is_asked_for_and_nothing_else() {
        let tree = sample();
        let (time, b) = (path(&["time"]), path(&["x", "b"]));
        let shown = tree.show(&[&time, &b]);
        assert_eq!(shown.digest(), tree.digest());
        assert_eq!(shown.lookup_path(&time), LookupResult::Found(b"now"));
        assert_eq!(shown.lookup_path(&b), LookupResult::Found(b"2"));
        assert_eq!(shown.lookup_path(["x", "a"]), LookupResult::Unknown);
        assert_eq!(shown.list_paths().len(), 2);
    }

    #[test]
    fn a_subtree_is_shown_whole() {
        let shown = sample().show(&[&path(&["x"])]);
        assert_eq!(shown.lookup_path(["x", "d"]), LookupResult::Found(b"3"));
        assert_eq!(shown.lookup_path(["x", "c"]), LookupResult::Absent);
    }

    #[test]
    fn absence_is_proven_at_every_place() {
        let tree = sample();
        for absent in [&["x", "0"] as &[_], &["x", "c"], &["x", "e"], &["a"], &["z"], &["empty", "a"]] {
            let shown = tree.show(&[&path(absent)]);
            assert_eq!(shown.digest(), tree.digest());
            assert_eq!(shown.lookup_path(absent), LookupResult::Absent, "{absent:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_has_the_hash_of_the_whole(
            labels in proptest::collection::btree_set("[a-e]{1,3}", 0..20),
            asked in proptest::collection::vec("[a-e]{1,3}", 0..6),
            in_parts in proptest::bool::ANY,
        ) {
            let leaf = |label: &String| (label.as_bytes().to_vec(), Tree::leaf(label.as_bytes()));
            let part = |first: char| Tree::branch(labels.iter().filter(|label| label.starts_with(first)).map(leaf));
            let tree = if in_parts { Tree::parts(('a'..='e').map(part)) } else { Tree::branch(labels.iter().map(leaf)) };
            let paths: Vec<_> = asked.iter().map(|label| path(&[label])).collect();
            let shown = tree.show(&paths.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(shown.digest(), tree.digest());
            for label in &asked {
                let found = shown.lookup_path([label]);
                let expected = if labels.contains(label) { LookupResult::Found(label.as_bytes()) } else { LookupResult::Absent };
                prop_assert_eq!(found, expected);
            }
        }
    }
}
