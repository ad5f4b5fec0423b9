//! Which blocks are dropped: those wholly older than the retention, then the oldest while all are too large.

use crate::block::Meta;

/// `blocks` are facts and file sizes. Gives back the numbers of those to drop.
pub(crate) fn plan(blocks: &[(Meta, u64)], oldest_wanted: i64, limit: Option<u64>) -> Vec<u64> {
    let mut by_age: Vec<&(Meta, u64)> = blocks.iter().collect();
    by_age.sort_by_key(|(m, _)| m.max);
    let mut total: u64 = by_age.iter().map(|(_, b)| b).sum();
    let mut drop = Vec::new();
    for (meta, bytes) in by_age {
        if meta.max < oldest_wanted || limit.is_some_and(|l| total > l) {
            drop.push(meta.seq);
            total -= bytes;
        }
    }
    drop
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_by_age_then_by_size() {
        let b = |seq, max, bytes| (Meta { seq, max, ..Meta::default() }, bytes);
        let blocks = [b(1, 100, 10), b(2, 200, 10), b(3, 300, 10)];
        assert_eq!(plan(&blocks, 150, None), [1]);
        assert_eq!(plan(&blocks, 0, Some(15)), [1, 2]);
        assert_eq!(plan(&blocks, 0, Some(30)), [] as [u64; 0]);
    }
}
