//! Files that are good, and what is said of those that are not.

use super::*;

#[test]
fn a_file_is_read() {
    let groups = parse(
        "groups:\n- name: g\n  interval: 30s\n  limit: 5\n  query_offset: 10s\n  labels: {team: a, severity: low}\n  rules:\n  \
         - record: 'job:up:sum'\n    expr: sum(up)\n    labels: {severity: 1}\n  \
         - alert: Down\n    expr: up == 0\n    for: 1h30m\n    keep_firing_for: 0s\n    annotations: {summary: '{{ $labels.job }}', empty: }\n\
         - name: empty\n---\nsecond: document\n",
    )
    .expect("good");
    assert_eq!(groups.len(), 2);
    let g = &groups[0];
    assert_eq!(
        (g.interval, g.limit, g.query_offset),
        (Some(Duration::from_secs(30)), 5, Some(Duration::from_secs(10)))
    );
    assert_eq!(g.rules[0].labels, Labels::from_pairs([("team", "a"), ("severity", "1")]));
    let alert = g.rules[1].alert.as_ref().expect("an alert");
    assert_eq!(alert.hold, Duration::from_secs(5400));
    assert_eq!(alert.annotations.get("empty").map(String::as_str), Some(""));
    assert_eq!(parse(""), Ok(Vec::new()));
    assert_eq!(parse("groups:\n"), Ok(Vec::new()));
}

#[test]
fn what_is_wrong_is_said_as_promtool_says_it() {
    let check = |rules: &str, expect: &str| {
        let text = format!("groups:\n  - name: g\n    rules:\n      - {rules}\n");
        let errors = parse(&text).expect_err(rules);
        assert_eq!(errors.join("\n"), expect, "{rules}");
    };
    check(
        "alert: A\n        expr: rate(up)",
        "5:15: group \"g\", rule 1, \"A\": could not parse expression: 1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
    );
    check(
        "alert: A\n        expr: up\n        annotation: {a: b}",
        "yaml: unmarshal errors:\n  line 6: field annotation not found in type rulefmt.Rule",
    );
    check(
        "alert: A\n        expr: up\n        labels: {__name__: b}",
        "group \"g\", rule 1, \"A\": invalid label name: __name__",
    );
    check(
        "record: 'a{b=\"c\"}'\n        expr: up",
        "4:17: group \"g\", rule 1, \"a{b=\\\"c\\\"}\": braces present in the recording rule name; should it be in expr?: a{b=\"c\"}",
    );
    check("expr: up", "4:9: group \"g\", rule 1, \"\": one of 'record' or 'alert' must be set");
    check("record: a", "4:9: group \"g\", rule 1, \"a\": field 'expr' must be set in rule");
    check(
        "record: a\n        alert: b\n        expr: up",
        "4:17: 5:16: group \"g\", rule 1, \"b\": only one of 'record' and 'alert' must be set",
    );
    check(
        "record: a\n        expr: up\n        for: 1m",
        "4:17: group \"g\", rule 1, \"a\": invalid field 'for' in recording rule",
    );
    check(
        "record: a\n        expr: up\n        keep_firing_for: 1m",
        "4:17: group \"g\", rule 1, \"a\": invalid field 'keep_firing_for' in recording rule",
    );
    check(
        "record: a\n        expr: up\n        annotations: {a: b}",
        "4:17: group \"g\", rule 1, \"a\": invalid field 'annotations' in recording rule",
    );
    check(
        "alert: A\n        expr: up\n        for: 1 minute",
        "4:9: group \"g\", rule 1, \"A\": not a valid duration string: \"1 minute\"",
    );
    check(
        "alert: A\n        expr: up\n        annotations: {a: '{{ $nothing }}'}",
        "group \"g\", rule 1, \"A\": annotation \"a\": template: __alert_A:1: undefined variable \"$nothing\"",
    );
    check(
        "alert: A\n        expr: up\n        labels: {a: '{{ nothing 1 }}'}",
        "group \"g\", rule 1, \"A\": label \"a\": template: __alert_A:1: function \"nothing\" not defined",
    );
}

#[test]
fn groups_have_names_of_their_own() {
    let errors = parse("groups:\n  - name: a\n  - name: a\n  - rules: []\n").expect_err("two wrongs");
    assert_eq!(
        errors,
        ["3:5: groupname: \"a\" is repeated in the same file", "4:5: Groupname must not be empty"]
    );
}

#[test]
fn rules_alike_are_found() {
    let groups = parse(
        "groups:\n- name: a\n  rules:\n  - {record: r, expr: a, labels: {x: y}}\n  - {record: r, expr: b, labels: {x: y}}\n  - {record: r, expr: b}\n",
    );
    let told = duplicates(&groups.expect("good")).expect("two alike");
    assert_eq!(
        told,
        "1 duplicate rule(s) found.\nMetric: r\nLabel(s):\n\tx: y\nMight cause inconsistency while recording expressions"
    );
}
