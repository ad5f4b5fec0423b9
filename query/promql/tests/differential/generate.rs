//! Queries from a grammar: only what the reference's version knows and means as today's does.

/// A seeded generator, so that a failure comes again.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    pub(crate) fn unit(&mut self) -> f64 {
        self.below(1 << 30) as f64 / (1u64 << 30) as f64
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

const METRICS: [&str; 5] = ["requests_total", "in_flight", "temperature", "replicas", "latency_bucket"];
const RANGE_FUNCTIONS: [&str; 17] = [
    "rate",
    "increase",
    "delta",
    "idelta",
    "irate",
    "deriv",
    "resets",
    "changes",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "count_over_time",
    "last_over_time",
    "present_over_time",
    "stddev_over_time",
    "stdvar_over_time",
];
const FUNCTIONS: [&str; 14] = [
    "abs",
    "ceil",
    "floor",
    "exp",
    "ln",
    "log2",
    "log10",
    "sqrt",
    "sgn",
    "round",
    "sin",
    "cos",
    "deg",
    "timestamp",
];
const AGGREGATIONS: [&str; 8] = ["sum", "avg", "min", "max", "count", "stddev", "stdvar", "group"];
const LABELS: [&str; 3] = ["namespace", "node", "pod"];

fn selector(r: &mut Random) -> String {
    let metric = r.pick(&METRICS);
    select(r, metric)
}

/// A function of a range. Rates are of counters only, which stay far from zero: near it, and a gauge is always near
/// it, the reference's version extrapolates in another order.
fn ranged(r: &mut Random) -> String {
    let f = r.pick(&RANGE_FUNCTIONS);
    let metric = match f {
        "rate" | "increase" => r.pick(&["requests_total", "latency_bucket"]),
        _ => r.pick(&METRICS),
    };
    format!("{f}({}[{}]{})", select(r, metric), range(r), shift(r))
}

fn select(r: &mut Random, metric: &str) -> String {
    let matcher = r.pick(&[
        "",
        "",
        "namespace=\"ns-0\"",
        "pod!=\"web-1\"",
        "pod=~\"web-[0-3]\"",
        "node!~\"node-(0|2)\"",
        "namespace=\"ns-1\",pod=~\".*[35]\"",
        "none=\"\"",
        "code=\"500\"",
    ]);
    if r.below(12) == 0 {
        return format!("{{__name__=\"{metric}\",{matcher}}}").replace(",}", "}");
    }
    if matcher.is_empty() { metric.to_owned() } else { format!("{metric}{{{matcher}}}") }
}

fn shift(r: &mut Random) -> &'static str {
    r.pick(&["", "", "", "", " offset 90s", " offset -30s", " @ end()", " @ start() offset 1m"])
}

fn range(r: &mut Random) -> &'static str {
    r.pick(&["31s", "1m", "97s", "3m", "5m"])
}

fn vector(r: &mut Random, depth: u32) -> String {
    if depth == 0 {
        return if r.below(2) == 0 { format!("{}{}", selector(r), shift(r)) } else { ranged(r) };
    }
    let d = depth - 1;
    match r.below(14) {
        0..=3 => aggregation(r, d),
        4 => format!("{}({})", r.pick(&FUNCTIONS), vector(r, d)),
        5 => format!("clamp({}, {}, {})", vector(r, d), r.below(5), 6 + r.below(50)),
        6 => {
            let op = r.pick(&["+", "-", "*", "/", "%", "^", ">", "<", ">=", "!=", "== bool", "> bool"]);
            let (v, n) = (vector(r, d), r.below(40));
            if r.below(2) == 0 { format!("({v}) {op} {n}") } else { format!("{n} {op} ({v})") }
        }
        7 => matching(r),
        8 => format!(
            "{}(({})[{}:{}])",
            r.pick(&["max_over_time", "sum_over_time", "count_over_time", "avg_over_time"]),
            vector(r, 0),
            r.pick(&["173s", "287s"]),
            r.pick(&["30s", "50s"])
        ),
        9 => {
            let f = r.pick(&["0.5", "0.9", "0.99"]);
            format!(
                "histogram_quantile({f}, sum by (le, {}) (rate(latency_bucket[{}])))",
                r.pick(&LABELS),
                range(r)
            )
        }
        10 => format!("quantile_over_time(0.{}, {}[{}])", r.below(10), selector(r), range(r)),
        11 => format!("label_replace({}, \"copy\", \"x-$1\", \"pod\", \"web-(.*)\")", vector(r, d)),
        12 => format!("predict_linear({}[{}], {})", selector(r), range(r), r.below(600)),
        _ => format!("-({})", vector(r, d)),
    }
}

fn aggregation(r: &mut Random, depth: u32) -> String {
    let inner = vector(r, depth);
    let by = match r.below(3) {
        0 => String::new(),
        1 => format!(" by ({})", r.pick(&LABELS)),
        _ => format!(" without ({}, {})", r.pick(&LABELS), r.pick(&["code", "le", "pod"])),
    };
    match r.below(10) {
        0 => format!("quantile{by} (0.{}, {inner})", r.below(10)),
        // Of whole numbers: values that differ in their last bit would be different labels.
        1 => format!("count_values{by} (\"v\", {}{})", r.pick(&["replicas", "in_flight"]), shift(r)),
        _ => format!("{}{by} ({inner})", r.pick(&AGGREGATIONS)),
    }
}

/// Binary operators between vectors whose sides have the labels for it; some are mistakes on purpose.
fn matching(r: &mut Random) -> String {
    let side = |r: &mut Random| match r.below(3) {
        0 => format!("rate(requests_total{{code=\"500\"}}[{}])", range(r)),
        _ => r.pick(&["in_flight", "temperature", "replicas", "requests_total{code=\"200\"}"]).to_owned(),
    };
    let (a, b) = (side(r), side(r));
    match r.below(6) {
        0 => format!("{a} {} on (namespace, pod) {b}", r.pick(&["+", "-", "*", "/", ">", "<="])),
        1 => format!("{a} {} ignoring (code) {b}", r.pick(&["+", "*", "<", "== bool"])),
        2 => format!("{a} {} on (pod) {b}", r.pick(&["and", "or", "unless"])),
        3 => format!("{a} * on (node) group_left () max by (node) ({b})"),
        4 => format!(
            "sum by (namespace) ({a}) / on (namespace) group_right (node) count by (namespace, node) ({b})"
        ),
        _ => format!("{a} + on (node) {b}"),
    }
}

pub(crate) fn query(r: &mut Random) -> String {
    let depth = r.below(4) as u32;
    vector(r, depth)
}
