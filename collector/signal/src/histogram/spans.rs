//! Buckets as the protocols carry them: runs of neighbours, each with its distance from the one before.

use super::{Bucket, FloatHistogram};

/// A run of neighbouring buckets: the gap before it (for the first, its index), and how many there are.
pub type Span = (i32, u32);

impl FloatHistogram {
    /// Buckets from spans and absolute counts, one for each. `None` if the two do not fit each other.
    pub fn from_spans(spans: &[Span], counts: impl IntoIterator<Item = f64>) -> Option<Vec<Bucket>> {
        let mut counts = counts.into_iter();
        let mut out = Vec::new();
        let mut index = 0i32;
        for (i, (gap, length)) in spans.iter().enumerate() {
            if i > 0 && *gap < 0 {
                return None;
            }
            index = index.checked_add(*gap)?;
            for _ in 0..*length {
                let count = counts.next()?;
                if count != 0.0 {
                    out.push(Bucket { index, count });
                }
                index = index.checked_add(1)?;
            }
        }
        counts.next().is_none().then_some(out)
    }

    /// The same from integer counts, each as the difference from the one before.
    pub fn from_deltas(spans: &[Span], deltas: &[i64]) -> Option<Vec<Bucket>> {
        let mut count = 0i64;
        let counts: Option<Vec<f64>> = deltas
            .iter()
            .map(|d| {
                count = count.checked_add(*d)?;
                Some(count as f64)
            })
            .collect();
        Self::from_spans(spans, counts?)
    }

    /// Spans and absolute counts of buckets.
    pub fn to_spans(buckets: &[Bucket]) -> (Vec<Span>, Vec<f64>) {
        let mut spans: Vec<Span> = Vec::new();
        let mut next = 0;
        for b in buckets {
            match spans.last_mut() {
                Some(last) if b.index == next => last.1 += 1,
                _ => spans.push((b.index - next, 1)),
            }
            next = b.index + 1;
        }
        (spans, buckets.iter().map(|b| b.count).collect())
    }
}
