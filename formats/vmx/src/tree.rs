//! From parents' numbers to trees, whatever the numbers say.

use crate::notes::Notes;
use crate::snapshots::Snapshot;
use adit_core::Finding;
use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};

/// A snapshot that is not yet in its tree.
pub(crate) struct Node {
    pub(crate) snapshot: Snapshot,
    pub(crate) parent: Option<u64>,
}

/// Builds the trees. Every node comes out exactly once: one whose parent is missing, is in a
/// loop, or lies `depth_max` deep becomes a root of its own.
pub(crate) fn plant(nodes: Vec<Node>, depth_max: u64, problems: &mut Notes) -> Vec<Snapshot> {
    let parents = parents(&nodes, problems);
    let order = order(&parents, &nodes, depth_max, problems);
    let mut open: Vec<Option<Snapshot>> =
        nodes.into_iter().map(|node| Some(node.snapshot)).collect();
    let mut roots = Vec::new();
    // Children before parents: when a node moves into its parent, it is complete.
    for (at, parent) in order.into_iter().rev() {
        let Some(mut node) = open.get_mut(at).and_then(Option::take) else { continue };
        node.children.reverse();
        match parent.and_then(|parent| open.get_mut(parent)?.as_mut()) {
            Some(parent) => parent.children.push(node),
            None => roots.push(node),
        }
    }
    roots.reverse();
    roots
}

/// The index of every node's parent.
fn parents(nodes: &[Node], problems: &mut Notes) -> Vec<Option<usize>> {
    let mut by_uid = HashMap::new();
    for (at, node) in nodes.iter().enumerate() {
        let uid = node.snapshot.uid;
        match by_uid.entry(uid) {
            Slot::Vacant(free) => {
                free.insert(at);
            }
            Slot::Occupied(_) => {
                let text = format!("uid {uid} is given twice; children go to the first");
                problems.push(Finding::error("vmsd-uid", text));
            }
        }
    }
    nodes
        .iter()
        .map(|node| {
            let parent = node.parent?;
            let found = by_uid.get(&parent).copied();
            // 0 is how a first snapshot names no parent.
            if found.is_none() && parent != 0 {
                let text = format!(
                    "snapshot {:?} (uid {}) grew from uid {parent}, which is not described",
                    node.snapshot.name, node.snapshot.uid
                );
                problems.push(Finding::error("vmsd-parent-missing", text));
            }
            found
        })
        .collect()
}

/// Every node once, parents first, with the parent it is to have.
fn order(
    parents: &[Option<usize>],
    nodes: &[Node],
    depth_max: u64,
    problems: &mut Notes,
) -> Vec<(usize, Option<usize>)> {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); parents.len()];
    for (at, parent) in parents.iter().enumerate() {
        if let Some(list) = parent.and_then(|parent| children.get_mut(parent)) {
            list.push(at);
        }
    }
    let mut seen = vec![false; parents.len()];
    let mut order = Vec::with_capacity(parents.len());
    let starts = parents.iter().enumerate().filter(|(_, parent)| parent.is_none());
    // What no root leads to hangs on a loop.
    let rest = parents.iter().enumerate().filter(|(_, parent)| parent.is_some());
    for (start, parent) in starts.chain(rest) {
        if seen.get(start) != Some(&false) {
            continue;
        }
        let mut start = start;
        if parent.is_some() {
            start = in_loop(parents, start);
            problems.push(loop_note(nodes, start));
        }
        let mut todo = vec![(start, None, 1u64)];
        while let Some((at, parent, depth)) = todo.pop() {
            if seen.get_mut(at).is_none_or(|seen| std::mem::replace(seen, true)) {
                continue;
            }
            let (parent, depth) = if depth > depth_max {
                let text = format!("the tree is deeper than {depth_max}; the rest stands apart");
                problems.push(Finding::warning("vmsd-depth", text));
                (None, 1)
            } else {
                (parent, depth)
            };
            order.push((at, parent));
            let below = children.get(at).map(Vec::as_slice).unwrap_or_default();
            todo.extend(below.iter().rev().map(|&c| (c, Some(at), depth.saturating_add(1))));
        }
    }
    order
}

/// A node of the loop that the parents of `at` end in. Everything around it hangs below it.
fn in_loop(parents: &[Option<usize>], mut at: usize) -> usize {
    let mut passed = HashSet::new();
    while passed.insert(at) {
        at = parents.get(at).copied().flatten().unwrap_or(at);
    }
    at
}

fn loop_note(nodes: &[Node], at: usize) -> Finding {
    let uid = nodes.get(at).map_or(0, |node| node.snapshot.uid);
    Finding::error("vmsd-loop", format!("the snapshots around uid {uid} grew from each other"))
}
