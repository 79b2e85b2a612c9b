//! Directed graphs that must not have a cycle.

use std::collections::VecDeque;

/// Edges in compressed rows, built once.
pub(crate) struct Graph {
    starts: Vec<u32>,
    targets: Vec<u32>,
}

impl Graph {
    /// A graph of so many nodes. Edges may repeat; an edge from a node to itself is a cycle.
    pub(crate) fn new(nodes: usize, edges: impl Iterator<Item = (u32, u32)> + Clone) -> Graph {
        let mut starts = vec![0; nodes + 1];
        for (from, _) in edges.clone() {
            starts[from as usize + 1] += 1;
        }
        for node in 0..nodes {
            starts[node + 1] += starts[node];
        }
        let mut place = starts.clone();
        let mut targets = vec![0; starts[nodes] as usize];
        for (from, to) in edges {
            targets[place[from as usize] as usize] = to;
            place[from as usize] += 1;
        }
        Graph { starts, targets }
    }

    pub(crate) fn nodes(&self) -> usize {
        self.starts.len() - 1
    }

    pub(crate) fn next(&self, node: u32) -> &[u32] {
        &self.targets[self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize]
    }

    /// An order in which every edge points forwards, or a node on a cycle if there is none (Kahn 1962).
    pub(crate) fn sorted(&self) -> Result<Vec<u32>, ()> {
        let mut waits = vec![0u32; self.nodes()];
        self.targets.iter().for_each(|target| waits[*target as usize] += 1);
        let mut order: Vec<u32> =
            (0..self.nodes() as u32).filter(|node| waits[*node as usize] == 0).collect();
        let mut at = 0;
        while at < order.len() {
            for target in self.next(order[at]) {
                waits[*target as usize] -= 1;
                if waits[*target as usize] == 0 {
                    order.push(*target);
                }
            }
            at += 1;
        }
        if order.len() == self.nodes() { Ok(order) } else { Err(()) }
    }

    /// A short cycle, as its nodes in order: the shortest through any of the first nodes of the first
    /// strongly connected component (Tarjan 1972).
    pub(crate) fn cycle(&self) -> Option<Vec<u32>> {
        let component = self.component()?;
        let mut within = vec![false; self.nodes()];
        component.iter().for_each(|node| within[*node as usize] = true);
        // Enough starts to find a short cycle in most graphs, without quadratic cost in a huge component.
        let starts = (2_000_000 / component.len().max(1)).clamp(1, 64);
        component.iter().take(starts).filter_map(|node| self.around(*node, &within)).min_by_key(Vec::len)
    }

    /// A shortest way from one node to another, both included.
    pub(crate) fn through(&self, from: u32, to: u32) -> Option<Vec<u32>> {
        let mut came_from = vec![u32::MAX; self.nodes()];
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            if node == to {
                let mut path = vec![to];
                while *path.last()? != from {
                    path.push(came_from[*path.last()? as usize]);
                }
                path.reverse();
                return Some(path);
            }
            for target in self.next(node) {
                if *target != from && came_from[*target as usize] == u32::MAX {
                    came_from[*target as usize] = node;
                    queue.push_back(*target);
                }
            }
        }
        None
    }

    /// The first strongly connected component with a cycle in it.
    fn component(&self) -> Option<Vec<u32>> {
        const NEW: u32 = u32::MAX;
        let (mut index, mut low) = (vec![NEW; self.nodes()], vec![0; self.nodes()]);
        let mut on_stack = vec![false; self.nodes()];
        let (mut stack, mut calls, mut counter) = (Vec::new(), Vec::new(), 0);
        for root in 0..self.nodes() as u32 {
            if index[root as usize] != NEW {
                continue;
            }
            calls.push((root, 0));
            while let Some((node, edge)) = calls.pop() {
                let at = node as usize;
                if edge == 0 {
                    (index[at], low[at], on_stack[at]) = (counter, counter, true);
                    counter += 1;
                    stack.push(node);
                } else {
                    // Back from the target before this one.
                    let target = self.next(node)[edge - 1] as usize;
                    low[at] = low[at].min(low[target]);
                }
                let mut called = false;
                for (offset, target) in self.next(node).iter().enumerate().skip(edge) {
                    if index[*target as usize] == NEW {
                        calls.push((node, offset + 1));
                        calls.push((*target, 0));
                        called = true;
                        break;
                    }
                    if on_stack[*target as usize] {
                        low[at] = low[at].min(index[*target as usize]);
                    }
                }
                if called || low[at] != index[at] {
                    continue;
                }
                let mut component = Vec::new();
                while let Some(member) = stack.pop() {
                    on_stack[member as usize] = false;
                    component.push(member);
                    if member == node {
                        break;
                    }
                }
                if component.len() > 1 || self.next(node).contains(&node) {
                    return Some(component);
                }
            }
        }
        None
    }

    /// The shortest way from a node back to itself.
    fn around(&self, start: u32, within: &[bool]) -> Option<Vec<u32>> {
        let mut from = vec![u32::MAX; self.nodes()];
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for target in self.next(node).iter().filter(|target| within[**target as usize]) {
                if *target == start {
                    let mut path = vec![node];
                    while *path.last()? != start {
                        path.push(from[*path.last()? as usize]);
                    }
                    path.reverse();
                    return Some(path);
                }
                if from[*target as usize] == u32::MAX {
                    from[*target as usize] = node;
                    queue.push_back(*target);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_found_and_an_order_where_there_is_none() {
        let edges = [(0, 1), (1, 2), (2, 3), (3, 1), (3, 4)];
        let graph = Graph::new(5, edges.iter().copied());
        let mut cycle = graph.cycle().expect("1, 2, 3");
        cycle.sort();
        assert_eq!(cycle, [1, 2, 3]);
        assert!(graph.sorted().is_err());
        let graph = Graph::new(5, edges[..3].iter().copied());
        assert_eq!((graph.cycle(), graph.sorted()), (None, Ok(vec![0, 4, 1, 2, 3])));
        assert_eq!(Graph::new(2, [(1, 1)].into_iter()).cycle(), Some(vec![1]));
    }
}
