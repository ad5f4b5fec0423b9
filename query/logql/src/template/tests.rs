//! Templates, with results as Go and Loki give them.

use super::*;

fn rendered(t: &str) -> Result<String, String> {
    let get = |n: &str| match n {
        "a" => Some("Xy"),
        "n" => Some("12"),
        "status" => Some("503"),
        "json" => Some(r#"{"items":[{"id":1},{"id":2}],"ok":true}"#),
        "path" => Some("/api/v1/items"),
        "size" => Some("2KB"),
        "__line__" => Some("the line"),
        "__timestamp__" => Some("1700000000123000000"),
        _ => None,
    };
    Template::parse(t)?.render(&|n| get(n).map(str::to_owned))
}

#[test]
fn templates_render() {
    for (t, expect) in [
        ("plain", "plain"),
        ("{{.a}} and {{ .b }}", "Xy and "),
        ("{{.a | ToUpper}}{{ .b | default \"none\" }}", "XYnone"),
        ("{{ ToLower .a }}", "xy"),
        ("{{ __line__ | upper }}", "THE LINE"),
        ("a  {{- .a -}}  b", "aXyb"),
        ("{{/* nothing */}}x", "x"),
        ("{{ if eq .a \"Xy\" }}yes{{ else }}no{{ end }}", "yes"),
        ("{{ if .b }}b{{ else if gt (int .status) 499 }}bad{{ else }}good{{ end }}", "bad"),
        ("{{ if and .a (not .b) }}1{{ end }}{{ if or .b .a }}2{{ end }}", "12"),
        ("{{ range $i, $x := (fromJson .json).items }}{{ $i }}={{ $x.id }};{{ end }}", "0=1;1=2;"),
        ("{{ range (fromJson .json).none }}x{{ else }}none{{ end }}", "none"),
        ("{{ with .b }}b{{ else }}no b{{ end }}", "no b"),
        ("{{ $x := .a }}{{ $x }}{{ $x = \"z\" }}{{ $x }}{{ $.n }}", "Xyz12"),
        ("{{ trunc 1 .a }}{{ trunc -1 .a }}{{ substr 1 2 .a }}", "Xyy"),
        ("{{ .path | replace \"/\" \"-\" }}", "-api-v1-items"),
        ("{{ Replace .path \"/\" \"-\" 1 }}", "-api/v1/items"),
        ("{{ trimPrefix \"/api\" .path }}{{ TrimSuffix .path \"items\" }}", "/v1/items/api/v1/"),
        ("{{ Trim \"xxaxx\" \"x\" }}{{ trimAll \"$\" \"$5$\" }}", "a5"),
        ("{{ regexReplaceAll \"/v(\\\\d)/\" .path \"/version-${1}/\" }}", "/api/version-1/items"),
        ("{{ regexReplaceAllLiteral \"(ts=)\" \"ts=1\" \"$1\" }}", "$11"),
        ("{{ count \"a\" \"banana\" }}", "3"),
        ("{{ add 1 .n }} {{ sub 5 2 }} {{ mul 2 3 4 }} {{ div 7 2 }} {{ mod 7 2 }}", "13 3 24 3 1"),
        (
            "{{ addf 1.5 2 }} {{ divf 1 4 }} {{ round 123.5555 3 }} {{ max 1 3 2 }} {{ floor 1.7 }}",
            "3.5 0.25 123.556 3 1",
        ),
        ("{{ printf \"%-5s|%5d|%05.1f|%q\" .a 42 3.14159 \"x\" }}", "Xy   |   42|003.1|\"x\""),
        ("{{ alignLeft 4 .a }}|{{ alignRight 4 .a }}|{{ alignRight 1 .a }}", "Xy  |  Xy|y"),
        ("{{ indent 2 \"a\\nb\" }}", "  a\n  b"),
        ("{{ contains \"api\" .path }} {{ hasSuffix \"s\" .path }}", "true true"),
        ("{{ .path | urlencode }} {{ \"a%20b+c\" | urldecode }}", "%2Fapi%2Fv1%2Fitems a b c"),
        ("{{ .a | b64enc | b64dec }}", "Xy"),
        ("{{ bytes .size }} {{ duration_seconds \"1m30s\" }}", "2000 90"),
        ("{{ __timestamp__ | date \"2006-01-02T15:04:05.000Z07:00\" }}", "2023-11-14T22:13:20.123Z"),
        ("{{ date \"Jan _2 15:04\" (unixToTime \"1700000000\") }}", "Nov 14 22:13"),
        ("{{ unixEpoch (toDate \"2006-01-02\" \"2023-11-14\") }}", "1699920000"),
        (
            "{{ unixEpochMillis (toDateInZone \"2006-01-02 15:04\" \"Europe/Berlin\" \"2023-11-14 01:00\") }}",
            "1699920000000",
        ),
        ("{{ repeat 3 \"ab\" }}{{ title \"two words\" }}", "abababTwo Words"),
        ("{{ index (fromJson .json).items 1 }}", "map[id:2]"),
        ("{{ len .a }}", "2"),
    ] {
        assert_eq!(rendered(t).as_deref(), Ok(expect), "{t}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    for t in [
        "{{ nosuch .a }}",
        "{{ .a",
        "{{ if .a }}",
        "{{ end }}",
        "{{ (.a }}",
        "{{ }}",
        "{{ .a | }}",
        "{{ \"x }}",
    ] {
        assert!(Template::parse(t).is_err(), "{t}");
    }
    for t in [
        "{{ div 1 0 }}",
        "{{ fromJson \"{\" }}",
        "{{ trunc }}",
        "{{ $x }}",
        "{{ b64dec \"*\" }}",
        "{{ repeat 2000000 .a }}",
    ] {
        assert!(rendered(t).is_err(), "{t}");
    }
    assert!(Template::parse(&"{{ if .a }}".repeat(1000)).is_err());
    assert!(Template::parse(&format!("{{{{ {} }}}}", "(".repeat(100_000))).is_err());
}
