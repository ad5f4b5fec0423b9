//! Texts as Prometheus expands them.

use super::*;

fn expanded(text: &str, value: f64) -> String {
    let labels = Labels::from_pairs([("__name__", "m"), ("instance", "a.b.c:80"), ("x", "y")]);
    let query = |q: &str| match q {
        "fails" => Err("no such query".to_owned()),
        "none" => Ok(Vec::new()),
        _ => Ok(["b", "a"].into_iter().map(|x| (Labels::from_pairs([("x", x)]), 2.5)).collect()),
    };
    let external = labels_value(&Labels::from_pairs([("cluster", "c1")]));
    let texts = Texts {
        query: &query,
        now: 1_700_000_000_500,
        external_url: "http://h:1/p",
        external_labels: &external,
    };
    texts.expand("A", text, &labels_value(&labels), value)
}

#[test]
fn functions_give_what_prometheus_gives() {
    let check = |text: &str, value: f64, expect: &str| assert_eq!(expanded(text, value), expect, "{text}");
    check("plain", 0.0, "plain");
    check(
        "{{ $labels.x }} {{ .Labels.instance }} {{ $value }} {{ .Value }} {{ $labels.none }}|",
        0.25,
        "y a.b.c:80 0.25 0.25 |",
    );
    check(
        "{{ $externalLabels.cluster }} {{ $externalURL }} {{ externalURL }} {{ pathPrefix }}",
        0.0,
        "c1 http://h:1/p http://h:1/p /p",
    );
    check(
        "{{ range query \"m\" | sortByLabel \"x\" }}{{ .Labels.x }}={{ .Value }} {{ end }}",
        0.0,
        "a=2.5 b=2.5 ",
    );
    check(
        "{{ with query \"none\" }}some{{ else }}none{{ end }} {{ query \"m\" | first | label \"x\" }} {{ query \"m\" | first | value }}",
        0.0,
        "none b 2.5",
    );
    check(
        "{{ humanize $value }} {{ humanize1024 $value }} {{ humanizeDuration $value }} {{ humanizePercentage $value }}",
        1_234_567.5,
        "1.235M 1.177Mi 14d 6h 56m 7s 1.235e+08%",
    );
    check(
        "{{ humanize $value }} {{ humanize1024 $value }} {{ humanizeDuration $value }} {{ humanizePercentage $value }}",
        0.0215,
        "21.5m 0.0215 21.5ms 2.15%",
    );
    check(
        "{{ humanize 0.0 }} {{ humanize 1000.0 }} {{ humanize \"-1500\" }} {{ humanizeDuration 0 }} {{ humanizeDuration 61.5 }} {{ humanizeDuration -3.25 }}",
        0.0,
        "0 1k -1.5k 0s 1m 1s -3.25s",
    );
    check(
        "{{ humanizeTimestamp 1435065584.128 }} {{ toTime 0 }}",
        0.0,
        "2015-06-23 13:19:44.128 +0000 UTC 1970-01-01 00:00:00 +0000 UTC",
    );
    check("{{ $value }} {{ humanize $value }}", f64::INFINITY, "+Inf +Inf");
    check(
        "{{ stripPort $labels.instance }} {{ stripDomain $labels.instance }} {{ stripDomain \"1.2.3.4:5\" }} {{ stripPort \"[::1]:5\" }}",
        0.0,
        "a.b.c a:80 1.2.3.4:5 ::1",
    );
    check(
        "{{ title \"it's a test-case\" }} {{ toUpper \"a\" }} {{ \"B\" | toLower }} {{ match \"^a+$\" \"aa\" }}",
        0.0,
        "It's A Test-Case A b true",
    );
    check(
        "{{ reReplaceAll \"(.*):(.*)\" \"${2}-$1\" $labels.instance }} {{ urlQueryEscape \"a b\" }}",
        0.0,
        "80-a.b.c a+b",
    );
    check(
        "{{ tableLink \"up{a=\\\"b\\\"}\" }} {{ graphLink \"up\" }}",
        0.0,
        "/graph?g0.expr=up%7Ba%3D%22b%22%7D&g0.tab=1 /graph?g0.expr=up&g0.tab=0",
    );
    check(
        "{{ parseDuration \"1h30m\" }} {{ now }} {{ toDuration 90 }} {{ (toTime 0).Format \"2006\" }}",
        0.0,
        "5400 1.7000000005e+09 1m30s 1970",
    );
    check(
        "{{ range $k, $v := args 1 \"b\" }}{{ $k }}:{{ $v }} {{ end }}{{ safeHtml \"<b>\" }}",
        0.0,
        "arg0:1 arg1:b <b>",
    );
}

#[test]
fn what_fails_says_so_in_its_place() {
    let check = |text: &str, expect: &str| {
        let expect = format!(
            "<error expanding template: error executing template __alert_A: template: __alert_A:1: {expect}>"
        );
        assert_eq!(expanded(text, 0.0), expect, "{text}");
    };
    check("{{ query \"fails\" }}", "error calling query: no such query");
    check("{{ first (query \"none\") }}", "error calling first: first() called on vector with no elements");
    check("{{ gt $value 5 }}", "error calling gt: incompatible types for comparison");
    check(
        "{{ humanize \"x\" }}",
        "error calling humanize: strconv.ParseFloat: parsing \"x\": invalid syntax",
    );
}
