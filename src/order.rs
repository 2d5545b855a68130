//! Indices in the order of their keys. One sort for all: each type that std sorts, or collects into
//! a `BTreeSet`, brings 3 KB of code.

/// The indices of keys, the smallest first; equal ones keep their order.
pub(crate) fn ascending(keys: &[u64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|at| keys[*at]);
    order
}

/// The indices of sizes, the largest first; equal ones keep their order.
pub(crate) fn largest_first(sizes: impl Iterator<Item = u64>) -> Vec<usize> {
    let keys: Vec<u64> = sizes.map(|size| u64::MAX - size).collect();
    ascending(&keys)
}
