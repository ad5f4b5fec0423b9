//! Functions over the samples of one window, each a plain loop over two slices.
//!
//! Windows are open on the left and closed on the right, and hold no stale markers. Those of `anchored` and
//! `smoothed` selectors also hold samples beyond their edges.

use signal::HistogramSample;

/// The samples of one series in one window.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a> {
    /// Milliseconds, ascending.
    pub(crate) t: &'a [i64],
    pub(crate) v: &'a [f64],
    /// Start times of the floats, 0 if not known; empty if none is.
    pub(crate) starts: &'a [i64],
    pub(crate) h: &'a [HistogramSample],
    /// The window's edges in milliseconds.
    pub(crate) start: i64,
    pub(crate) end: i64,
}

/// Adds with Neumaier's correction, as Prometheus does (promql/functions.go kahanSumInc).
pub(crate) fn kahan(inc: f64, sum: f64, c: f64) -> (f64, f64) {
    let t = sum + inc;
    let c = if t.is_infinite() {
        0.0
    } else if sum.abs() >= inc.abs() {
        c + ((sum - t) + inc)
    } else {
        c + ((inc - t) + sum)
    };
    (t, c)
}

/// Prometheus: promql/functions.go extrapolatedRate.
pub(crate) fn extrapolated(w: Window<'_>, counter: bool, rate: bool) -> Option<f64> {
    let (first, last) = (*w.v.first()?, *w.v.last()?);
    if w.v.len() < 2 {
        return None;
    }
    let mut delta = last - first;
    if counter {
        let mut before = first;
        for v in &w.v[1..] {
            if *v < before {
                delta += before;
            }
            before = *v;
        }
    }
    let factor = Stretch::of(w.t, w.start, w.end).factor(delta, first, counter);
    let seconds = if rate { (w.end - w.start) as f64 / 1000.0 } else { 1.0 };
    Some(delta * (factor / seconds))
}

/// How the samples of a window lie in it, in seconds. Of no meaning for fewer than two samples.
#[derive(Clone, Copy)]
pub(crate) struct Stretch {
    sampled: f64,
    to_start: f64,
    to_end: f64,
    /// The factor where a counter's zero is no bound.
    unbounded: f64,
}

impl Stretch {
    pub(crate) fn of(t: &[i64], start: i64, end: i64) -> Self {
        let (Some(t0), Some(t1)) = (t.first(), t.last()) else {
            return Stretch { sampled: 0.0, to_start: 0.0, to_end: 0.0, unbounded: 0.0 };
        };
        Stretch::over(*t0, *t1, t.len() as u64, start, end)
    }

    /// Of so many samples, of which the first and the last have these times.
    pub(crate) fn over(t0: i64, t1: i64, count: u64, start: i64, end: i64) -> Self {
        let sampled = (t1 - t0) as f64 / 1000.0;
        let average = sampled / (count.max(2) - 1) as f64;
        let threshold = average * 1.1;
        let edge = |gap: i64| {
            let gap = gap as f64 / 1000.0;
            if gap >= threshold { average / 2.0 } else { gap }
        };
        let (to_start, to_end) = (edge(t0 - start), edge(end - t1));
        Stretch { sampled, to_start, to_end, unbounded: (sampled + to_start + to_end) / sampled }
    }

    /// By how much the difference over the samples grows to that over the window.
    pub(crate) fn factor(self, delta: f64, first: f64, counter: bool) -> f64 {
        // A counter cannot have been below zero: do not extrapolate past the time it would have been zero.
        let bounded = counter && delta > 0.0 && first >= 0.0 && self.sampled * first < self.to_start * delta;
        if bounded {
            (self.sampled + self.sampled * (first / delta) + self.to_end) / self.sampled
        } else {
            self.unbounded
        }
    }
}

/// The difference of the last two samples, for `irate` per second and corrected for a reset.
pub(crate) fn instant_delta(w: Window<'_>, rate: bool) -> Option<f64> {
    let n = w.v.len();
    if n < 2 {
        return None;
    }
    let (before, last) = (w.v[n - 2], w.v[n - 1]);
    let interval = w.t[n - 1] - w.t[n - 2];
    if interval == 0 {
        return None;
    }
    let delta = if rate && last < before { last } else { last - before };
    Some(if rate { delta / (interval as f64 / 1000.0) } else { delta })
}

pub(crate) fn sum(w: Window<'_>) -> Option<f64> {
    let (s, c) = w.v.iter().fold((0.0, 0.0), |(s, c), v| kahan(*v, s, c));
    (!w.v.is_empty()).then(|| if s.is_infinite() { s } else { s + c })
}

/// The mean, by sum while that is finite, else by moving averages.
pub(crate) fn avg(w: Window<'_>) -> Option<f64> {
    let (mut s, mut c, mut mean, mut incremental) = (0.0, 0.0, 0.0, false);
    for (i, v) in w.v.iter().enumerate() {
        let n = (i + 1) as f64;
        if !incremental {
            let (ns, nc) = kahan(*v, s, c);
            if i == 0 || !ns.is_infinite() {
                (s, c) = (ns, nc);
                continue;
            }
            incremental = true;
            mean = s / (n - 1.0);
            c /= n - 1.0;
        }
        let q = (n - 1.0) / n;
        (mean, c) = kahan(*v / n, q * mean, q * c);
    }
    let n = w.v.len() as f64;
    (n > 0.0).then(|| if incremental { mean + c } else { s / n + c / n })
}

pub(crate) fn min(w: Window<'_>) -> Option<f64> {
    w.v.iter().copied().reduce(|a, b| if b < a || a.is_nan() { b } else { a })
}

pub(crate) fn max(w: Window<'_>) -> Option<f64> {
    w.v.iter().copied().reduce(|a, b| if b > a || a.is_nan() { b } else { a })
}

/// Welford's variance with Neumaier's correction.
pub(crate) fn variance(values: &[f64]) -> Option<f64> {
    let (mut mean, mut cm, mut aux, mut ca) = (0.0, 0.0, 0.0, 0.0);
    for (i, v) in values.iter().enumerate() {
        let delta = v - (mean + cm);
        (mean, cm) = kahan(delta / (i + 1) as f64, mean, cm);
        (aux, ca) = kahan(delta * (v - (mean + cm)), aux, ca);
    }
    (!values.is_empty()).then(|| (aux + ca) / values.len() as f64)
}

/// The φ-quantile with linear interpolation; NaNs sort first.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let order = |a: &f64, b: &f64| match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        _ => a.partial_cmp(b).expect("neither is NaN"),
    };
    let n = values.len() as f64;
    let rank = q * (n - 1.0);
    let low = rank.floor().max(0.0);
    let weight = rank - rank.floor();
    // Two neighbours in the order are all that is wanted of it.
    let (_, below, rest) = values.select_nth_unstable_by(low as usize, order);
    let below = *below;
    let above = rest.iter().copied().min_by(order).unwrap_or(below);
    below * (1.0 - weight) + above * weight
}

/// Least squares: slope per second, and the value at `at`.
pub(crate) fn regression(w: Window<'_>, at: i64) -> Option<(f64, f64)> {
    let first = *w.v.first()?;
    let (mut n, mut sx, mut cx, mut sy, mut cy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    let (mut sxy, mut cxy, mut sx2, mut cx2) = (0.0, 0.0, 0.0, 0.0);
    let mut constant = true;
    for (t, v) in w.t.iter().zip(w.v) {
        constant &= *v == first;
        n += 1.0;
        let x = (*t - at) as f64 / 1000.0;
        (sx, cx) = kahan(x, sx, cx);
        (sy, cy) = kahan(*v, sy, cy);
        (sxy, cxy) = kahan(x * v, sxy, cxy);
        (sx2, cx2) = kahan(x * x, sx2, cx2);
    }
    if constant {
        return Some(if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) });
    }
    let (sx, sy, sxy, sx2) = (sx + cx, sy + cy, sxy + cxy, sx2 + cx2);
    let covariance = sxy - sx * sy / n;
    let variance = sx2 - sx * sx / n;
    let slope = covariance / variance;
    Some((slope, sy / n - slope * sx / n))
}

/// Holt's linear smoothing with trend.
pub(crate) fn smooth(w: Window<'_>, sf: f64, tf: f64) -> Option<f64> {
    if w.v.len() < 2 {
        return None;
    }
    let (mut s0, mut s1, mut b) = (0.0, w.v[0], w.v[1] - w.v[0]);
    for (i, v) in w.v.iter().enumerate().skip(1) {
        if i > 1 {
            b = tf * (s1 - s0) + (1.0 - tf) * b;
        }
        let x = sf * v;
        let y = (1.0 - sf) * (s1 + b);
        (s0, s1) = (s1, x + y);
    }
    Some(s1)
}

pub(crate) fn changes(w: Window<'_>) -> Option<f64> {
    let n = w.v.windows(2).filter(|p| p[0] != p[1] && !(p[0].is_nan() && p[1].is_nan())).count();
    (!w.v.is_empty()).then_some(n as f64)
}

pub(crate) fn resets(w: Window<'_>) -> Option<f64> {
    (!w.v.is_empty()).then(|| w.v.windows(2).filter(|p| p[1] < p[0]).count() as f64)
}

/// The time in seconds of the extreme sample; of equal ones the last.
pub(crate) fn time_of(w: Window<'_>, better: impl Fn(f64, f64) -> bool) -> Option<f64> {
    let mut best = 0;
    for i in 1..w.v.len() {
        if better(w.v[i], w.v[best]) || w.v[best].is_nan() {
            best = i;
        }
    }
    w.t.get(best).map(|t| *t as f64 / 1000.0)
}

/// The median of distances from the median.
pub(crate) fn mad(w: Window<'_>) -> Option<f64> {
    if w.v.is_empty() {
        return None;
    }
    if w.v.iter().any(|v| v.is_nan()) {
        return Some(f64::NAN);
    }
    let median = quantile(0.5, &mut w.v.to_vec());
    Some(quantile(0.5, &mut w.v.iter().map(|v| (v - median).abs()).collect::<Vec<_>>()))
}

/// A straight line between two points. A counter that was reset in between began at zero.
pub(crate) fn interpolate(a: (i64, f64), b: (i64, f64), at: i64, counter: bool) -> f64 {
    let from = if counter && b.1 < a.1 { 0.0 } else { a.1 };
    from + (b.1 - from) * (at - a.0) as f64 / (b.0 - a.0) as f64
}

/// Of ascending times, the last at or before the window's start (or the first of all), and the first at or after
/// its end if the selector is smoothed, else the last of all. `None` if nothing lies in the window.
pub(crate) fn extent(
    times: impl Fn(usize) -> i64,
    n: usize,
    start: i64,
    end: i64,
    smoothed: bool,
) -> Option<(usize, usize)> {
    let mut last = n.checked_sub(1)?;
    let before = |limit: usize, f: &dyn Fn(i64) -> bool| (0..limit).take_while(|i| f(times(*i))).count();
    let first = before(last, &|t| t <= start).saturating_sub(1);
    if smoothed {
        last = before(last, &|t| t < end);
    }
    (times(last) > start && !(smoothed && times(first) > end)).then_some((first, last))
}

/// The values at the two edges of an extended window.
fn edges(w: Window<'_>, first: usize, last: usize, smoothed: bool, counter: bool) -> (f64, f64) {
    let point = |i: usize| (w.t[i], w.v[i]);
    let left = if smoothed && w.t[first] < w.start {
        interpolate(point(first), point(first + 1), w.start, counter)
    } else {
        w.v[first]
    };
    let right = if smoothed && last > 0 && w.t[last] > w.end {
        interpolate(point(last - 1), point(last), w.end, counter)
    } else {
        w.v[last]
    };
    (left, right)
}

/// `rate`, `increase` and `delta` of anchored and smoothed selectors (Prometheus: extendedRate).
pub(crate) fn extended(w: Window<'_>, smoothed: bool, counter: bool, rate: bool) -> Option<f64> {
    let (first, last) = extent(|i| w.t[i], w.t.len(), w.start, w.end, smoothed)?;
    let (left, right) = edges(w, first, last, smoothed, counter);
    let mut out = right - left;
    if counter {
        // The edges have seen to resets across them; those inside remain.
        let from = first + usize::from(w.t[first] <= w.start);
        let to = if w.t[last] >= w.end { last } else { last + 1 };
        let mut before = left;
        for v in w.v.get(from..to).unwrap_or(&[]).iter().copied().chain([right]) {
            if v < before {
                out += before;
            }
            before = v;
        }
    }
    Some(if rate { out / ((w.end - w.start) as f64 / 1000.0) } else { out })
}

/// The samples inside an extended window, with one at each edge.
pub(crate) fn extended_points(w: Window<'_>, smoothed: bool) -> Vec<(i64, f64)> {
    let Some((first, last)) = extent(|i| w.t[i], w.t.len(), w.start, w.end, smoothed) else {
        return Vec::new();
    };
    let (left, right) = edges(w, first, last, smoothed, false);
    let from = first + usize::from(w.t[first] <= w.start);
    let to = if w.t[last] >= w.end { last } else { last + 1 };
    let inside = (from..to.max(from)).map(|i| (w.t[i], w.v[i]));
    [(w.start, left)].into_iter().chain(inside).chain([(w.end, right)]).collect()
}

/// Where a window that may be anchored begins to count: the first float and the first histogram. The last sample at
/// or before the start is the anchor, what stands before it is not looked at. `None` if nothing lies in the window.
pub(crate) fn anchor(w: Window<'_>) -> Option<(usize, usize)> {
    let floats = w.t.partition_point(|t| *t <= w.start);
    let histograms = w.h.partition_point(|h| h.timestamp <= w.start);
    if floats >= w.t.len() && histograms >= w.h.len() {
        return None;
    }
    let float = floats.checked_sub(1).map(|i| w.t[i]);
    let histogram = histograms.checked_sub(1).map(|i| w.h[i].timestamp);
    Some(match (float, histogram) {
        (None, None) => (0, 0),
        (Some(f), h) if h.is_none_or(|h| f >= h) => (floats - 1, histograms),
        _ => (floats, histograms - 1),
    })
}
