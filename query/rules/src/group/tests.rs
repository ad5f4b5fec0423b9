//! Groups over a store in memory, with time as the tests say.

use std::collections::BTreeSet;

use promql::{Engine, Limits, Options};
use signal::time::system_clock;
use signal::{Accepted, SeriesSource};

use super::*;
use crate::file::parse;
use crate::texts::labels_value;
use crate::unit_test::memory::Memory;

const MINUTE: i64 = 60_000;

struct World {
    store: Arc<Memory>,
    engine: Engine,
}

impl World {
    /// With input series, one value a minute.
    fn new(series: &[(&str, &str)]) -> World {
        let store = Arc::new(Memory::new(0, MINUTE, series.iter().copied()).expect("series"));
        World { engine: Engine::new(store.clone(), Limits::default()), store }
    }

    fn with<T>(&self, f: impl FnOnce(&Ground<'_>) -> T) -> T {
        f(&Ground {
            engine: &self.engine,
            options: Options::default(),
            source: &*self.store,
            write: &|batch| {
                self.store.append(&batch);
                Ok(Accepted { accepted: batch.samples(), ..Accepted::default() })
            },
            clock: &system_clock(),
            external_labels: &labels_value(&Labels::empty()),
            external_url: "",
            resend: Duration::from_secs(60),
        })
    }

    fn evaluate(&self, group: &mut Group, minute: i64) -> Evaluated {
        self.store.load_until(minute * MINUTE);
        self.with(|g| group.evaluate(g, minute * MINUTE))
    }

    /// What a query gives at a minute: series and values.
    fn ask(&self, query: &str, minute: i64) -> BTreeSet<String> {
        let r = self.engine.instant(query, minute * MINUTE).expect("evaluates");
        let promql::Value::Vector(all) = r.value else { panic!("no vector") };
        all.iter().map(|(l, p)| format!("{l} {}", p.value)).collect()
    }
}

fn group(rules: &str, restored: bool) -> Group {
    let spec = parse(&format!("groups:\n- name: g\n{rules}")).expect("good").remove(0);
    Group::new(spec, "f.yaml".into(), Duration::from_secs(60), restored)
}

fn set(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|s| (*s).to_owned()).collect()
}

#[test]
fn rules_see_what_those_before_them_gave_and_series_end() {
    let w = World::new(&[("m{a=\"1\"}", "1 1 1 stale"), ("m{a=\"2\"}", "2x9")]);
    let mut g = group(
        "  rules:\n  - {record: r, expr: m * 10, labels: {b: c}}\n  - {record: s, expr: sum(r)}\n",
        true,
    );
    w.evaluate(&mut g, 2);
    assert_eq!(w.ask("r", 2), set(&["r{a=\"1\", b=\"c\"} 10", "r{a=\"2\", b=\"c\"} 20"]));
    assert_eq!(w.ask("s", 2), set(&["s 30"]));
    w.evaluate(&mut g, 3);
    assert_eq!(w.ask("r", 3), set(&["r{a=\"2\", b=\"c\"} 20"]));
    assert_eq!(w.ask("s", 3), set(&["s 20"]));
}

#[test]
fn what_cannot_be_is_the_rules_error_and_its_health() {
    let w = World::new(&[("m{a=\"1\"}", "1x9"), ("m{a=\"2\"}", "2x9")]);
    let check = |group_and_rule: &str, expect: &str| {
        let mut g = group(group_and_rule, true);
        let done = w.evaluate(&mut g, 1);
        assert_eq!((done.failures, g.rules[0].health), (1, Health::Bad));
        assert_eq!(g.rules[0].last_error.as_deref(), Some(expect));
    };
    check(
        "  rules: [{record: r, expr: m, labels: {a: x}}]\n",
        "vector contains metrics with the same labelset after applying rule labels",
    );
    check(
        "  rules: [{alert: A, expr: m, labels: {a: x}}]\n",
        "vector contains metrics with the same labelset after applying alert labels",
    );
    check("  limit: 1\n  rules: [{record: r, expr: m}]\n", "exceeded limit of 1 with 2 series");
    check("  limit: 1\n  rules: [{alert: A, expr: m}]\n", "exceeded limit of 1 with 2 alerts");
    check("  rules: [{record: r, expr: '\"text\"'}]\n", "rule result is not a vector or scalar");
    check("  rules: [{record: r, expr: 'm[1m]'}]\n", "rule result is not a vector or scalar");
}

#[test]
fn a_group_that_looks_back_writes_there() {
    let w = World::new(&[("m", "0+1x20")]);
    let mut g = group("  query_offset: 2m\n  rules: [{record: r, expr: m}]\n", true);
    w.evaluate(&mut g, 10);
    assert_eq!(w.ask("r", 8), set(&["r 8"]));
    assert_eq!(w.ask("timestamp(r)", 10), set(&["{} 480"]));
}

#[test]
fn a_changed_group_keeps_what_its_rules_knew() {
    let w = World::new(&[("m", "1x20")]);
    let mut old = group(
        "  rules:\n  - {alert: A, expr: m, for: 5m}\n  - {record: gone, expr: m}\n  - {record: stays, expr: m}\n",
        true,
    );
    w.evaluate(&mut old, 1);
    let mut new = group(
        "  interval: 30s\n  rules:\n  - {record: stays, expr: m + 1}\n  - {alert: A, expr: m > 0, for: 5m}\n",
        true,
    );
    new.inherit(old);
    w.evaluate(&mut new, 2);
    // The alert has waited since the first minute; what no rule gives any more has ended.
    assert_eq!(w.ask("ALERTS_FOR_STATE", 2), set(&["ALERTS_FOR_STATE{alertname=\"A\"} 60"]));
    assert_eq!(w.ask("gone", 2), set(&[]));
    assert_eq!(w.ask("stays", 2), set(&["stays 2"]));
    w.with(|g| new.end(g, 3 * MINUTE));
    assert_eq!(w.ask("stays", 3), set(&[]));
    assert_eq!(w.ask("ALERTS", 3), set(&[]));
}

#[test]
fn alerts_go_on_waiting_after_a_restart() {
    let how = Restoring { outage: Duration::from_secs(3600), grace: Duration::from_secs(600) };
    // Minutes of the wait, of the end and of the new beginning, and the minute since which it counts as active.
    let check = |wait: i64, down: i64, up: i64, since: i64| {
        let w = World::new(&[("m", "1x300")]);
        let rules =
            format!("  rules: [{{alert: A, expr: m, for: {wait}m, labels: {{x: '{{{{ $value }}}}'}}}}]\n");
        let mut before = group(&rules, true);
        for minute in 0..=down {
            w.evaluate(&mut before, minute);
        }
        let mut after = group(&rules, false);
        for minute in [up, up + 1] {
            w.evaluate(&mut after, minute);
            // Nothing is written over what was known before that is read.
            assert_eq!(w.store.select(&all_since(up)).expect("reads").count(), 0);
        }
        w.with(|g| after.restore(g, (up + 1) * MINUTE, how));
        let a = after.rules[0].alerts.active().next().expect("active");
        assert_eq!(a.active_at, since * MINUTE, "for {wait} down {down} up {up}");
        w.evaluate(&mut after, up + 2);
        assert!(!w.ask("ALERTS", up + 2).is_empty());
    };
    // The time nobody looked does not count: half an hour had gone by.
    check(60, 30, 40, 11);
    // It fired: it fires again.
    check(60, 70, 80, 0);
    // Little was left: it waits for ten minutes.
    check(60, 55, 58, 59 + 10 - 60);
    // Too long ago, and too short a wait to bother.
    check(60, 30, 120, 120);
    check(5, 3, 5, 5);
}

fn all_since(minute: i64) -> Select {
    let matchers = vec![Matcher::equal(METRIC_NAME, "ALERTS_FOR_STATE")];
    Select { matchers, start: minute * MINUTE, end: i64::MAX }
}

#[test]
fn an_alert_that_had_ended_begins_anew() {
    let w = World::new(&[("m", "1x10 _x4 stale _x20 1x50")]);
    let rules = "  rules: [{alert: A, expr: m, for: 1h}]\n";
    let mut before = group(rules, true);
    for minute in 0..=20 {
        w.evaluate(&mut before, minute);
    }
    let mut after = group(rules, false);
    w.evaluate(&mut after, 40);
    w.evaluate(&mut after, 41);
    let how = Restoring { outage: Duration::from_secs(3600), grace: Duration::from_secs(600) };
    w.with(|g| after.restore(g, 41 * MINUTE, how));
    assert_eq!(after.rules[0].alerts.active().next().expect("active").active_at, 40 * MINUTE);
}

#[test]
fn groups_are_spread_over_their_interval_always_the_same_way() {
    let g = group("  rules: []\n", true);
    let slot = g.slot(1_000_000_000);
    assert!(slot <= 1_000_000_000 && slot > 1_000_000_000 - MINUTE);
    assert_eq!(g.slot(slot), slot);
    assert_eq!(g.slot(slot + MINUTE - 1), slot);
    assert_eq!(g.slot(slot + MINUTE), slot + MINUTE);
    let mut other = group("  rules: []\n", true);
    other.spec.name = "another".to_owned();
    assert_ne!(other.slot(1_000_000_000), slot);
}
