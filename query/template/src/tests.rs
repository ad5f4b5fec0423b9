//! What Go's own implementation gives for the same templates.

use std::sync::Arc;

use super::*;

struct Twice;

impl Functions for Twice {
    fn knows(&self, name: &str) -> bool {
        name == "twice"
    }

    fn call(&self, _: &str, a: &[Value]) -> Result<Value, String> {
        a.first().map(|v| Value::Text(format!("{v}{v}"))).ok_or_else(|| "no argument".to_owned())
    }

    fn root(&self, name: &str) -> Result<Value, String> {
        Err(format!("no field {name}"))
    }
}

fn rendered(t: &str) -> Result<String, String> {
    let labels = [("x".to_owned(), "y".to_owned()), ("z".to_owned(), "w".to_owned())];
    let root = Value::Record(Arc::new(vec![
        ("Labels", Value::Texts(Arc::new(labels.into_iter().collect()))),
        ("Value", Value::Float(1_234_567.5)),
        ("List", Value::List(vec![Value::Int(1), Value::Int(2), Value::Int(3)])),
    ]));
    let t = Template::parse(t, &Twice).map_err(|e| format!("parse {}: {e}", e.line))?;
    t.render(root, &Twice).map_err(|e| e.to_string())
}

#[test]
fn renders_as_go_does() {
    let check = |t: &str, expect: &str| assert_eq!(rendered(t).as_deref(), Ok(expect), "{t}");
    check(
        "{{ .Value }} {{ 1000000.0 }} {{ 123456.0 }} {{ 0.00001 }} {{ 1e20 }}",
        "1.2345675e+06 1e+06 123456 1e-05 1e+20",
    );
    check(
        r#"{{ printf "%v %g %.4g %e %f" .Value .Value .Value .Value .Value }}"#,
        "1.2345675e+06 1.2345675e+06 1.235e+06 1.234568e+06 1234567.500000",
    );
    check(r#"{{ printf "%s %d" .Value .Value }}"#, "%!s(float64=1.2345675e+06) %!d(float64=1.2345675e+06)");
    check(
        r#"{{ printf "%5.2f|%-8s|%08.3f|%+d|%t|%v|%c|%U" 3.14159 "ab" 3.14159 5 true nil 65 65 }}"#,
        " 3.14|ab      |0003.142|+5|true|<nil>|A|U+0041",
    );
    check(
        r#"{{ print 1 2 "a" "b" 3 4 }}|{{ println 1 "a" }}|"#,
        "1 2a b3 4|1 a\n|".replace("a b", "ab").as_str(),
    );
    check("{{ .Labels }}|{{ .Labels.x }}|{{ .Labels.none }}|", "map[x:y z:w]|y||");
    check(
        r#"{{ define "t" }}[{{ . }}]{{ end }}{{ template "t" 5 }}{{ block "u" .Value }}<{{ . }}>{{ end }}"#,
        "[5]<1.2345675e+06>",
    );
    check("{{ if gt .Value 5.0 }}big{{ else if lt .Value 2.0 }}small{{ else }}mid{{ end }}", "big");
    check(
        "{{ range $i, $v := .List }}{{ if eq $v 2 }}{{ continue }}{{ end }}{{ $i }}={{ $v }};{{ end }}",
        "0=1;2=3;",
    );
    check("{{ range .List }}{{ if eq . 2 }}{{ break }}{{ end }}{{ . }}{{ else }}x{{ end }}", "1");
    check("{{ range 3 }}{{ . }}{{ end }}", "012");
    check("{{ with $x := .Labels.none }}a{{ else with .Labels.x }}{{ . }}{{ end }}", "y");
    check("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $x := 3 }}{{ end }}{{ $x }}", "2");
    check(
        "{{ eq 1 1 2 }} {{ and 1 0 }} {{ or 0 \"x\" }} {{ not true }} {{ len \"abc\" }}",
        "true 0 x false 3",
    );
    check(
        r#"{{ index .Labels "x" }} {{ html "<a>" }} {{ js "it's" }} {{ urlquery "a b&c" }} {{ slice "abcdef" 1 3 }}"#,
        r"y &lt;a&gt; it\'s a+b%26c bc",
    );
    check("{{ .Labels.x | twice | twice }}{{ twice (.Labels.x) }}", "yyyyyy");
    check("a {{- /* c */ -}} b {{- 1 -}} c", "ab1c");
    check("{{ 'a' }} {{ 0x1F }} {{ -5 }} {{ \"\\u00e9\\t\" }}", "97 31 -5 é\t");
}

#[test]
fn what_does_not_parse_is_said_with_its_line() {
    let check = |t: &str, expect: &str| assert_eq!(rendered(t).expect_err(t), expect, "{t}");
    check("{{ nosuch 1 }}", "parse 1: function \"nosuch\" not defined");
    check("a\n{{ $x }}", "parse 2: undefined variable \"$x\"");
    check("{{ if true }}{{ $x := 1 }}{{ end }}\n{{ $x }}", "parse 2: undefined variable \"$x\"");
    check("{{ if true }}", "parse 1: unexpected EOF");
    check("{{ end }}", "parse 1: unexpected {{end}}");
    check("{{ .x", "parse 1: unclosed action");
    check("{{ break }}", "parse 1: {{break}} outside {{range}}");
    check("{{ gt .Value 5 }}", "error calling gt: incompatible types for comparison");
    check("{{ .Nothing }}", "can't evaluate field Nothing");
    check("{{ template \"t\" }}", "template \"t\" not defined");
    check(
        "{{ define \"t\" }}{{ template \"t\" }}{{ end }}{{ template \"t\" }}",
        "exceeded maximum template depth (100)",
    );
}

#[test]
fn lengths_of_time_print_as_gos() {
    let check = |nanos: i64, expect: &str| assert_eq!(Value::Duration(nanos).to_string(), expect);
    check(0, "0s");
    check(20_000, "20µs");
    check(1_500_000_000, "1.5s");
    check(5_400_000_000_000, "1h30m0s");
    check(-90_000_000_000, "-1m30s");
}
