//! Bounds, resets and arithmetic of native histograms.

use super::*;

fn h(schema: i32, buckets: &[f64]) -> FloatHistogram {
    FloatHistogram {
        schema,
        count: buckets.iter().sum(),
        sum: 1.0,
        positive: FloatHistogram::buckets(0, buckets),
        ..FloatHistogram::default()
    }
}

#[test]
fn bounds_follow_the_schema() {
    let check =
        |index, schema, expect: f64| assert_eq!(bound(index, schema, &[]), expect, "{index} {schema}");
    check(0, 0, 1.0);
    check(1, 0, 2.0);
    check(-2, 0, 0.25);
    check(1, 1, std::f64::consts::SQRT_2);
    check(1, -1, 4.0);
    check(1024, 0, f64::MAX);
    check(1025, 0, f64::INFINITY);
    check(-1074, 0, f64::from_bits(1));
    assert_eq!(bound(0, CUSTOM_SCHEMA, &[5.0, 10.0]), 5.0);
    assert_eq!(bound(2, CUSTOM_SCHEMA, &[5.0, 10.0]), f64::INFINITY);
    assert_eq!(bound(-1, CUSTOM_SCHEMA, &[5.0, 10.0]), f64::NEG_INFINITY);
}

#[test]
fn resolutions_meet_at_the_lower() {
    let mut a = h(1, &[0.0, 1.0, 2.0]);
    a.add(&h(0, &[0.0, 4.0])).expect("same kind");
    assert_eq!((a.schema, a.count), (0, 7.0));
    assert_eq!(a.positive, FloatHistogram::buckets(1, &[7.0]));
}

#[test]
fn a_wider_zero_bucket_swallows_buckets() {
    let mut a = h(0, &[1.0, 2.0]);
    let b = FloatHistogram { zero_threshold: 1.0, zero_count: 3.0, count: 3.0, ..FloatHistogram::default() };
    a.add(&b).expect("same kind");
    assert_eq!((a.zero_threshold, a.zero_count), (1.0, 4.0));
    assert_eq!(a.positive, FloatHistogram::buckets(1, &[2.0]));
    let mut s = HistogramSum::new(&h(0, &[1.0, 2.0]));
    s.add(&b).expect("same kind");
    assert_eq!(s.finish(), a);
}

#[test]
fn resets_are_found_bucket_by_bucket() {
    let check =
        |a: &[f64], b: &[f64], expect| assert_eq!(h(0, b).is_reset_after(&h(0, a)), expect, "{a:?} {b:?}");
    check(&[1.0, 2.0], &[1.0, 3.0], false);
    check(&[1.0, 2.0], &[0.0, 4.0], true);
    check(&[1.0, 2.0], &[2.0, 1.0, 5.0], true);
    assert!(h(1, &[1.0]).is_reset_after(&h(0, &[1.0])), "the resolution cannot grow");
    assert_eq!(h(0, &[2.0]).stored_hint(Some(&h(0, &[1.0]))), ResetHint::NotReset);
    assert_eq!(h(0, &[1.0]).stored_hint(Some(&h(0, &[2.0]))), ResetHint::Unknown);
}

#[test]
fn sums_keep_what_rounding_loses() {
    let with_sum = |sum| FloatHistogram { sum, count: 1.0, ..FloatHistogram::default() };
    let mut s = HistogramSum::new(&with_sum(1.0));
    for v in [1e100, 1.0, -1e100] {
        s.add(&with_sum(v)).expect("same kind");
    }
    assert_eq!(s.finish().sum, 2.0);
    let huge = |count| FloatHistogram { count, ..FloatHistogram::default() };
    let mut m = HistogramMean::new(&huge(1.6e308));
    m.add(&huge(1e308)).expect("same kind");
    assert!((m.finish().count - 1.3e308).abs() < 1e300);
}

#[test]
fn prints_as_prometheus_does() {
    let mut a = h(0, &[1.0, 2.0]);
    a.negative = FloatHistogram::buckets(1, &[0.5]);
    (a.zero_count, a.zero_threshold) = (3.0, 0.001);
    assert_eq!(a.to_string(), "{count:3, sum:1, [-2,-1):0.5, [-0.001,0.001]:3, (0.5,1]:1, (1,2]:2}");
    for (v, s) in [(1_234_567.0, "1.234567e+06"), (123_456.5, "123456.5"), (1e-5, "1e-05"), (-0.25, "-0.25")]
    {
        assert_eq!(general(v), s);
    }
}

#[test]
fn spans_hold_runs_of_neighbours() {
    let check = |spans: &[Span], counts: &[f64], expect: Option<&[(i32, f64)]>| {
        let got = FloatHistogram::from_spans(spans, counts.iter().copied());
        let got = got.map(|b| b.iter().map(|b| (b.index, b.count)).collect::<Vec<_>>());
        assert_eq!(got.as_deref(), expect, "{spans:?} {counts:?}");
    };
    check(&[(-2, 2), (1, 1)], &[1.0, 2.0, 3.0], Some(&[(-2, 1.0), (-1, 2.0), (1, 3.0)]));
    check(&[(0, 2)], &[1.0], None);
    check(&[(0, 1)], &[1.0, 2.0], None);
    check(&[(0, 1), (-1, 1)], &[1.0, 2.0], None);
    let buckets = FloatHistogram::from_deltas(&[(-2, 2), (1, 1)], &[1, 1, 1]).expect("fits");
    assert_eq!(FloatHistogram::to_spans(&buckets), (vec![(-2, 2), (1, 1)], vec![1.0, 2.0, 3.0]));
}
