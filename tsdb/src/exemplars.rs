//! Exemplars: examples behind series. The newest are kept in memory; the log brings them back after a restart.

use std::collections::{HashMap, VecDeque};

use signal::{Exemplar, Labels, Matcher};

/// All of them together; about 200 bytes each.
const MOST: usize = 10_000;

/// A ring of exemplars in order of arrival.
#[derive(Default)]
pub(crate) struct Exemplars {
    ring: VecDeque<Exemplar>,
    /// Time and value of each series' newest.
    newest: HashMap<Labels, (i64, u64), ahash::RandomState>,
}

impl Exemplars {
    /// An exemplar that a target shows again and again counts once.
    pub(crate) fn push(&mut self, e: Exemplar) {
        let this = (e.timestamp, e.value.to_bits());
        if self.newest.get(&e.series).is_some_and(|known| *known == this || known.0 > this.0) {
            return;
        }
        if self.ring.len() == MOST
            && let Some(gone) = self.ring.pop_front()
            && self.newest.get(&gone.series) == Some(&(gone.timestamp, gone.value.to_bits()))
        {
            self.newest.remove(&gone.series);
        }
        self.newest.insert(e.series.clone(), this);
        self.ring.push_back(e);
    }

    /// In order of series, then of time.
    pub(crate) fn select(&self, selectors: &[Vec<Matcher>], start: i64, end: i64) -> Vec<Exemplar> {
        let fits = |e: &&Exemplar| {
            (start..=end).contains(&e.timestamp)
                && selectors.iter().any(|s| s.iter().all(|m| m.matches(e.series.get(&m.name).unwrap_or(""))))
        };
        let mut out: Vec<Exemplar> = self.ring.iter().filter(fits).cloned().collect();
        out.sort_by(|a, b| a.series.cmp(&b.series).then(a.timestamp.cmp(&b.timestamp)));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal::Labels;

    #[test]
    fn the_newest_stay_and_repetitions_count_once() {
        let mut all = Exemplars::default();
        let e = |pod: &str, t| Exemplar {
            series: Labels::from_pairs([("pod", pod)]),
            labels: Labels::from_pairs([("trace_id", "x")]),
            value: 1.0,
            timestamp: t,
        };
        for t in [2, 2, 1, 3] {
            all.push(e("b", t));
        }
        all.push(e("a", 5));
        let any = vec![vec![]];
        let times: Vec<i64> = all.select(&any, 0, 9).iter().map(|e| e.timestamp).collect();
        assert_eq!(times, [5, 2, 3]);
        assert_eq!(all.select(&[vec![Matcher::equal("pod", "b")]], 3, 9).len(), 1);
        (0..2 * MOST as i64).for_each(|t| all.push(e("c", 10 + t)));
        assert_eq!(all.ring.len(), MOST);
    }
}
