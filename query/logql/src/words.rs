//! The search box's language, for people: words, `"phrases"`, `field:value`, `-not`, `OR`, parentheses, ranges
//! (`status:>=500`, `dur:[1 TO 5]`), wildcards (`time*out`, `path:/api/*`). It is translated into LogQL.
//!
//! Whatever is typed means something: what is no condition is text. Small letters find capitals, too; a word with
//! a capital finds only that. Text stays before conditions on fields, so that the index is asked first.

mod read;

use std::fmt::Write;

use read::{Node, Term};

/// What a search means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translated {
    /// Filters on the line, to stand behind a stream selector; empty if there are none.
    pub filters: String,
    /// Conditions on fields, behind whatever reads fields out of lines.
    pub conditions: String,
    /// Fields that conditions are about, as labels are called.
    pub fields: Vec<String>,
}

impl Translated {
    /// The search behind a selector, with what reads the fields (`| json`) in its place.
    pub fn query(&self, selector: &str, parser: &str) -> String {
        let mut out = selector.trim().to_owned();
        let parser = if self.conditions.is_empty() { "" } else { parser };
        for part in [self.filters.as_str(), parser, self.conditions.as_str()] {
            if !part.is_empty() {
                out.push(' ');
                out.push_str(part);
            }
        }
        out
    }
}

/// Translates a search. Any text is one.
pub fn translate(text: &str) -> Translated {
    let mut t = Translated::default();
    let mut conjuncts = Vec::new();
    flatten(read::read(text), &mut conjuncts);
    for node in conjuncts {
        let (part, out) = match lines(&node) {
            Some(filter) => (filter, &mut t.filters),
            None => (format!("| {}", condition(&node, &mut t.fields)), &mut t.conditions),
        };
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&part);
    }
    if t.conditions.contains(LINE) {
        // A condition can speak of labels only: the line becomes one for a while.
        t.conditions = format!("| label_format {LINE}=`{{{{ __line__ }}}}` {} | drop {LINE}", t.conditions);
    }
    t.fields.sort();
    t.fields.dedup();
    t
}

/// The line, where it stands in one condition with fields.
const LINE: &str = "line_text";

fn flatten(node: Node, out: &mut Vec<Node>) {
    match node {
        Node::And(all) => all.into_iter().for_each(|n| flatten(n, out)),
        node => out.push(node),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

/// A filter on the line, if that is all it takes.
fn lines(node: &Node) -> Option<String> {
    match node {
        Node::Term(t) => text_filter(t, false),
        Node::Not(inner) => match &**inner {
            Node::Term(t) => text_filter(t, true),
            Node::Or(all) => any(all).map(|r| format!("!~ {}", quoted(&r))),
            _ => None,
        },
        Node::Or(all) => any(all).map(|r| format!("|~ {}", quoted(&r))),
        Node::And(_) => None,
    }
}

fn text_filter(t: &Term, negate: bool) -> Option<String> {
    let Term::Text { text, .. } = t else { return None };
    let regex = regex_of(t)?;
    if regex == regex::escape(text) {
        return Some(format!("{} {}", if negate { "!=" } else { "|=" }, quoted(text)));
    }
    Some(format!("{} {}", if negate { "!~" } else { "|~" }, quoted(&regex)))
}

/// Texts of which one must be there.
fn any(all: &[Node]) -> Option<String> {
    let each = all.iter().map(|n| match n {
        Node::Term(t) => regex_of(t),
        Node::Or(inner) => any(inner),
        _ => None,
    });
    let each: Vec<String> = each.collect::<Option<_>>()?;
    // One flag for all, if all have it.
    let bare: Option<Vec<&str>> = each.iter().map(|r| r.strip_prefix("(?i)")).collect();
    Some(match bare {
        Some(bare) => format!("(?i){}", bare.join("|")),
        None => each.iter().map(|r| format!("(?:{r})")).collect::<Vec<_>>().join("|"),
    })
}

/// A text as a regular expression, with `(?i)` before it if its letters are small ones.
fn regex_of(t: &Term) -> Option<String> {
    let Term::Text { text, wildcards } = t else { return None };
    let pattern = if *wildcards { wildcard(text, r"\S*", r"\S") } else { regex::escape(text) };
    let letters = text.chars().any(char::is_alphabetic);
    let small = letters && !text.chars().any(char::is_uppercase) && crate::pipeline::trace(text).is_none();
    Some(if small { format!("(?i){pattern}") } else { pattern })
}

fn wildcard(text: &str, many: &str, one: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '*' => out.push_str(many),
            '?' => out.push_str(one),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    out
}

/// A condition on labels; the line among them, where it must be.
fn condition(node: &Node, fields: &mut Vec<String>) -> String {
    let joined = |all: &[Node], word: &str, fields: &mut Vec<String>| {
        let parts: Vec<String> = all
            .iter()
            .map(|n| match n {
                Node::Or(_) | Node::And(_) => format!("({})", condition(n, fields)),
                n => condition(n, fields),
            })
            .collect();
        parts.join(word)
    };
    match node {
        Node::And(all) => joined(all, " and ", fields),
        Node::Or(all) => joined(all, " or ", fields),
        Node::Term(t) => term(t, false, fields),
        Node::Not(inner) => match &**inner {
            Node::Term(t) => term(t, true, fields),
            // Not any of them is none of each; not all of them is some not.
            Node::Or(all) => condition(&Node::And(all.iter().cloned().map(not).collect()), fields),
            Node::And(all) => {
                format!("({})", condition(&Node::Or(all.iter().cloned().map(not).collect()), fields))
            }
            Node::Not(inner) => condition(inner, fields),
        },
    }
}

fn not(n: Node) -> Node {
    match n {
        Node::Not(inner) => *inner,
        n => Node::Not(Box::new(n)),
    }
}

fn term(t: &Term, negate: bool, fields: &mut Vec<String>) -> String {
    let (field, value) = match t {
        Term::Text { .. } => {
            let r = regex_of(t).unwrap_or_default();
            let r =
                r.strip_prefix("(?i)").map_or_else(|| format!("(?s).*{r}.*"), |r| format!("(?is).*{r}.*"));
            return format!("{LINE}{}{}", if negate { "!~" } else { "=~" }, quoted(&r));
        }
        Term::Field { field, value } => (label(field), value),
    };
    if !fields.contains(&field) {
        fields.push(field.clone());
    }
    let mut out = String::new();
    let written = match value {
        read::Value::Is { text, wildcards } if *wildcards && text == "*" => {
            write!(out, "{field}{}\"\"", if negate { "=" } else { "!=" })
        }
        read::Value::Is { text, wildcards: true } => {
            let r = quoted(&wildcard(text, ".*", "."));
            write!(out, "{field}{}{r}", if negate { "!~" } else { "=~" })
        }
        read::Value::Is { text, .. } => {
            // Levels are kept in small letters.
            let text = if field == "detected_level" { text.to_lowercase() } else { text.clone() };
            write!(out, "{field}{}{}", if negate { "!=" } else { "=" }, quoted(&text))
        }
        read::Value::OneOf(all) => {
            let r = all.iter().map(|v| regex::escape(v)).collect::<Vec<_>>().join("|");
            write!(out, "{field}{}{}", if negate { "!~" } else { "=~" }, quoted(&r))
        }
        read::Value::Bounds(bounds) => {
            let sides = bounds.iter().map(|(op, n)| {
                let op = if negate { opposite(op) } else { op };
                format!("{field}{op}{n}")
            });
            let all = sides.collect::<Vec<_>>().join(if negate { " or " } else { " and " });
            if bounds.len() > 1 { write!(out, "({all})") } else { write!(out, "{all}") }
        }
    };
    written.map_or_else(|_| String::new(), |()| out)
}

fn opposite(op: &str) -> &'static str {
    match op {
        ">" => "<=",
        ">=" => "<",
        "<" => ">=",
        _ => ">",
    }
}

/// What a field is called among labels.
fn label(field: &str) -> String {
    match field.to_ascii_lowercase().as_str() {
        "level" | "severity" => "detected_level".to_owned(),
        "trace" | "traceid" | "trace_id" => "trace_id".to_owned(),
        "span" | "spanid" | "span_id" => "span_id".to_owned(),
        _ => crate::fields::name(field),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_and_what_they_mean() {
        for (search, expect) in [
            ("", ""),
            ("   ", ""),
            ("error", r#"|~ "(?i)error""#),
            ("Error", r#"|= "Error""#),
            ("500", r#"|= "500""#),
            ("a.b", r#"|~ "(?i)a\\.b""#),
            ("connection refused", r#"|~ "(?i)connection" |~ "(?i)refused""#),
            ("connection AND refused", r#"|~ "(?i)connection" |~ "(?i)refused""#),
            (r#""Bad Gateway""#, r#"|= "Bad Gateway""#),
            (r#""bad gateway""#, r#"|~ "(?i)bad gateway""#),
            ("-health", r#"!~ "(?i)health""#),
            ("-Health", r#"!= "Health""#),
            ("NOT Health", r#"!= "Health""#),
            (r#"-"GET /x""#, r#"!= "GET /x""#),
            ("error OR timeout", r#"|~ "(?i)error|timeout""#),
            ("error | timeout", r#"|~ "(?i)error|timeout""#),
            ("error OR Timeout", r#"|~ "(?:(?i)error)|(?:Timeout)""#),
            ("-(a OR b)", r#"!~ "(?i)a|b""#),
            ("(a OR b) c", r#"|~ "(?i)a|b" |~ "(?i)c""#),
            ("time*out", r#"|~ "(?i)time\\S*out""#),
            ("status:500", r#"| status="500""#),
            ("status:>=500", r#"| status>=500"#),
            ("status:<500", r#"| status<500"#),
            ("-status:>=500", r#"| status<500"#),
            ("dur:[1 TO 5]", r#"| (dur>=1 and dur<=5)"#),
            ("dur:{1s TO 5s}", r#"| (dur>1s and dur<5s)"#),
            ("dur:[* TO 5ms]", r#"| dur<=5ms"#),
            ("size:>1.5MB", r#"| size>1.5MB"#),
            ("-dur:[1 TO 5]", r#"| (dur<1 or dur>5)"#),
            ("path:/api/*", r#"| path=~"/api/.*""#),
            ("user:*", r#"| user!="""#),
            ("-user:*", r#"| user="""#),
            (r#"user:"Ann B""#, r#"| user="Ann B""#),
            ("user:(ann OR bob)", r#"| user=~"ann|bob""#),
            ("-user:ann", r#"| user!="ann""#),
            ("level:ERROR", r#"| detected_level="error""#),
            ("http.status:404", r#"| http_status="404""#),
            ("error status:>=500", r#"|~ "(?i)error" | status>=500"#),
            ("status:>=500 error", r#"|~ "(?i)error" | status>=500"#),
            ("a:1 OR b:2", r#"| a="1" or b="2""#),
            ("a:1 (b:2 OR c:3)", r#"| a="1" | b="2" or c="3""#),
            (
                "Error OR status:>=500",
                r#"| label_format line_text=`{{ __line__ }}` | line_text=~"(?s).*Error.*" or status>=500 | drop line_text"#,
            ),
            // What is no condition is text.
            ("http://x/y", r#"|~ "(?i)http://x/y""#),
            ("12:30", r#"|= "12:30""#),
            ("error:", r#"|~ "(?i)error:""#),
            (":", r#"|= ":""#),
            ("-", r#"|= "-""#),
            ("OR", r#"|= "OR""#),
            ("(", r#"|= "(""#),
            (")", r#"|= ")""#),
            ("\"open", r#"|~ "(?i)open""#),
            ("a OR", r#"|~ "(?i)a""#),
            ("status:>x", r#"| status=">x""#),
            ("x:[1 TO", r#"|~ "(?i)x:\\[1" |= "TO""#),
            ("4bf92f3577b34da6a3ce929d0e0e4736", r#"|= "4bf92f3577b34da6a3ce929d0e0e4736""#),
            ("trace:4bf92f3577b34da6a3ce929d0e0e4736", r#"| trace_id="4bf92f3577b34da6a3ce929d0e0e4736""#),
        ] {
            let t = translate(search);
            let query = t.query(r#"{app="a"}"#, "");
            assert_eq!(query.strip_prefix(r#"{app="a"}"#).unwrap_or("?").trim(), expect, "{search}");
            crate::parse(&query).unwrap_or_else(|e| panic!("{search} became {query}: {e}"));
        }
        assert_eq!(translate("a b:1").query("{x=\"y\"}", "| json"), r#"{x="y"} |~ "(?i)a" | json | b="1""#);
        assert_eq!(translate("a").query("{x=\"y\"}", "| json"), r#"{x="y"} |~ "(?i)a""#);
        let deep = "(".repeat(10_000);
        crate::parse(&translate(&deep).query("{a=\"b\"}", "")).expect("is text");
    }
}
