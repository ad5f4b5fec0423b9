//! Stages, one line at a time.

use super::*;

fn run(query: &str, body: &str) -> Option<(String, Labels)> {
    let p = crate::parse_log_query(query).expect(query);
    let r = LogRecord {
        body: body.to_owned(),
        severity: signal::Severity::WARN,
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".parse().expect("id"),
        ..LogRecord::default()
    };
    p.apply(&Labels::from_pairs([("app", "a")]), &r).map(|p| (p.line, p.labels))
}

#[test]
fn stages() {
    let passes =
        |q: &str, body: &str, expect: bool| assert_eq!(run(q, body).is_some(), expect, "{q} on {body}");
    passes(r#"{app="a"} |= "x" != "y""#, "x", true);
    passes(r#"{app="a"} |= "x" != "y""#, "xy", false);
    passes(r#"{app="a"} |= "x" or "z""#, "z", true);
    passes(r#"{app="a"} | json | status >= 500 and dur > 1s"#, r#"{"status": 503, "dur": "1.5s"}"#, true);
    passes(r#"{app="a"} | json | status >= 500, dur > 2s"#, r#"{"status": 503, "dur": "1.5s"}"#, false);
    passes(r#"{app="a"} | logfmt | level="info" or size > 1KB"#, "size=2KB", true);
    passes(r#"{app="a"} | level="warn""#, "anything", true);
    passes(r#"{app="a"} | trace_id="4bf92f3577b34da6a3ce929d0e0e4736""#, "anything", true);
    passes(r#"{app="a"} | json | __error__="""#, "no json", false);
    passes(r#"{app="a"} |> "took <_> ms""#, "took 5 ms", true);
    passes(r#"{app="a"} !> "took <_> ms""#, "took 5 ms", false);
    passes(r#"{app="a"} |= ip("10.0.0.0/8")"#, "from 10.1.2.3:80", true);
    passes(r#"{app="a"} != ip("10.0.0.0/8") | json"#, "from 10.1.2.3:80", false);
    passes(r#"{app="a"} | logfmt | addr = ip("10.0.0.1-10.0.0.9")"#, "addr=10.0.0.7", true);
    passes(r#"{app="a"} | logfmt | addr != ip("10.0.0.1-10.0.0.9")"#, "addr=10.0.0.7", false);
    passes(r#"{app="a"} | pattern "<method> <path> <_>" | path="/x""#, "GET /x 200", true);
    passes(r#"{app="a"} | line_format "{{ div 1 0 }}" | __error__="TemplateFormatErr""#, "x", true);
    let unpacked = run(r#"{app="a"} | unpack | keep pod"#, r#"{"_entry": "the line", "pod": "p", "n": 1}"#);
    let (line, labels) = unpacked.expect("passes");
    assert_eq!((line.as_str(), labels.to_string().as_str()), ("the line", r#"{pod="p"}"#));
    let (line, labels) =
        run(r#"{app="a"} | json | line_format "{{.msg}}!" | label_format m=msg | drop level, detected_level, trace_id"#, r#"{"msg": "hi", "app": "other"}"#)
            .expect("passes");
    assert_eq!(line, "hi!");
    assert_eq!(labels.to_string(), r#"{app="a", app_extracted="other", m="hi"}"#);
}
