//! A query as one would write it by hand: one line if it is short, else a line for each stage and each level.

use crate::error::Error;
use crate::lex::{Lexed, Token, lex};
use crate::parse::parse;

/// What still goes on one line.
const WIDTH: usize = 100;

/// Lays a query out anew. Errors: it is none.
pub fn format(text: &str) -> Result<String, Error> {
    parse(text)?;
    let tokens = lex(text)?;
    let tokens = tokens.get(..tokens.len() - 1).unwrap_or_default();
    let f = Formatter { text, tokens, in_pipeline: in_pipeline(tokens) };
    let mut out = String::new();
    f.write(&mut out, 0, f.tokens.len(), 0);
    Ok(out)
}

struct Formatter<'a> {
    text: &'a str,
    tokens: &'a [Lexed],
    /// For each token whether it belongs to a selector or its stages.
    in_pipeline: Vec<bool>,
}

/// A pipeline goes from its `{` to the range behind it, or to the parenthesis that was open before it.
fn in_pipeline(tokens: &[Lexed]) -> Vec<bool> {
    let (mut inside, mut depth) = (false, 0i32);
    tokens
        .iter()
        .map(|t| {
            match t.token {
                Token::Op("{") if !inside => (inside, depth) = (true, 0),
                Token::Op("(") => depth += 1,
                Token::Op(")") => {
                    depth -= 1;
                    inside &= depth >= 0;
                }
                Token::Op("[") => inside = false,
                _ => {}
            }
            inside
        })
        .collect()
}

impl Formatter<'_> {
    fn op(&self, at: usize) -> &str {
        match self.tokens.get(at).map(|t| &t.token) {
            Some(Token::Op(o)) => o,
            _ => "",
        }
    }

    fn word(&self, at: usize) -> &str {
        match self.tokens.get(at).map(|t| &t.token) {
            Some(Token::Ident(w)) => w,
            _ => "",
        }
    }

    /// What stands between two tokens on one line.
    fn gap(&self, at: usize) -> &'static str {
        let (before, here) = (self.op(at - 1), self.op(at));
        if matches!(before, "(" | "{" | "[") || matches!(here, ")" | "}" | "]" | ",") {
            return "";
        }
        if here == "[" {
            return if before == "}" { "" } else { " " };
        }
        if here == "(" {
            let list = matches!(
                self.word(at - 1),
                "by" | "without"
                    | "on"
                    | "ignoring"
                    | "group_left"
                    | "group_right"
                    | "and"
                    | "or"
                    | "unless"
                    | "bool"
            );
            return if self.word(at - 1).is_empty() || list { " " } else { "" };
        }
        let compares = |o: &str| matches!(o, "=" | "!=" | "=~" | "!~" | "==" | ">" | "<" | ">=" | "<=");
        if self.in_pipeline.get(at) == Some(&true) {
            // A label before it makes `!=` a comparison; a string before it makes it a filter.
            let tight = |i: usize| compares(self.op(i)) && i > 0 && self.is_label(i - 1);
            if tight(at) || tight(at - 1) {
                return "";
            }
            // A hyphen within a flag (`--keep-empty`) stays where it is.
            let joined = self.tokens.get(at - 1).map(|t| t.end) == self.tokens.get(at).map(|t| t.start);
            if before == "-" || here == "-" && joined {
                return "";
            }
        } else if before == "-" && (at < 2 || !self.op(at - 2).is_empty() && self.op(at - 2) != ")") {
            return "";
        }
        " "
    }

    fn is_label(&self, at: usize) -> bool {
        !self.word(at).is_empty() && !matches!(self.word(at), "json" | "logfmt" | "unpack" | "decolorize")
    }

    fn one_line(&self, from: usize, to: usize) -> String {
        let mut out = String::new();
        for at in from..to {
            if at > from {
                out.push_str(self.gap(at));
            }
            if let Some(t) = self.tokens.get(at) {
                out.push_str(&self.text[t.start..t.end]);
            }
        }
        out
    }

    fn write(&self, out: &mut String, from: usize, to: usize, indent: usize) {
        let line = self.one_line(from, to);
        if line.len() + indent <= WIDTH {
            out.push_str(&line);
            return;
        }
        // The first parenthesis that holds more than a list of names.
        let mut depth = 0i32;
        let mut open = None;
        for at in from..to {
            match self.op(at) {
                "(" => {
                    if depth == 0 && open.is_none() && self.holds_selector(at, to) {
                        open = Some(at);
                    }
                    depth += 1;
                }
                ")" => depth -= 1,
                "{" if depth == 0 && open.is_none() => return self.stages(out, from, to, indent),
                _ => {}
            }
        }
        let Some((open, close)) = open.and_then(|o| Some((o, self.closing(o, to)?))) else {
            out.push_str(&line);
            return;
        };
        out.push_str(&self.one_line(from, open));
        if open > from {
            out.push_str(self.gap(open));
        }
        out.push_str("(\n");
        out.push_str(&" ".repeat(indent + 2));
        self.write(out, open + 1, close, indent + 2);
        out.push('\n');
        out.push_str(&" ".repeat(indent));
        out.push(')');
        if close + 1 < to {
            out.push_str(self.gap(close + 1));
            self.write(out, close + 1, to, indent);
        }
    }

    fn closing(&self, open: usize, to: usize) -> Option<usize> {
        let mut depth = 0i32;
        (open..to).find(|at| {
            depth += match self.op(*at) {
                "(" => 1,
                ")" => -1,
                _ => 0,
            };
            depth == 0
        })
    }

    fn holds_selector(&self, open: usize, to: usize) -> bool {
        self.closing(open, to).is_some_and(|close| (open..close).any(|at| self.op(at) == "{"))
    }

    /// A selector and its stages, each on a line of its own.
    fn stages(&self, out: &mut String, from: usize, to: usize, indent: usize) {
        let mut depth = 0i32;
        for at in from..to {
            let op = self.op(at);
            let starts = match op {
                "|" | "|=" | "|~" | "|>" | "!>" => true,
                "!=" | "!~" => !self.is_label(at - 1),
                _ => false,
            };
            if starts && depth == 0 {
                out.push('\n');
                out.push_str(&" ".repeat(indent + 2));
            } else if at > from {
                out.push_str(self.gap(at));
            }
            match op {
                "(" | "{" => depth += 1,
                ")" | "}" => depth -= 1,
                _ => {}
            }
            if let Some(t) = self.tokens.get(at) {
                out.push_str(&self.text[t.start..t.end]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_laid_out() {
        let check = |text: &str, expect: &str| {
            let got = format(text).expect(text);
            assert_eq!(got, expect);
            assert_eq!(format(&got).expect("is a query"), got, "again");
        };
        check(
            r#"{ app = "a" ,b=~"c" }|="x"!="y" |json|status>=500 or  a="b""#,
            r#"{app="a", b=~"c"} |= "x" != "y" | json | status>=500 or a="b""#,
        );
        check(r#"sum(rate({app="a"}[5m]))by(pod)/2"#, r#"sum(rate({app="a"}[5m])) by (pod) / 2"#);
        check(
            r#"sum by(a)(rate({app="a"}|logfmt --strict[5m] offset 1h))>-1"#,
            r#"sum by (a) (rate({app="a"} | logfmt --strict [5m] offset 1h)) > -1"#,
        );
        check(
            r#"{namespace="a-long-namespace", container="another"} |= "some text" | json | status >= 500 | line_format "{{.message}}""#,
            "{namespace=\"a-long-namespace\", container=\"another\"}\n  |= \"some text\"\n  | json\n  | status>=500\n  | line_format \"{{.message}}\"",
        );
        check(
            r#"sum by (namespace, pod) (rate({namespace="a-long-namespace"} |= "some text" | json | status >= 500 [5m])) / 2"#,
            "sum by (namespace, pod) (\n  rate({namespace=\"a-long-namespace\"} |= \"some text\" | json | status>=500 [5m])\n) / 2",
        );
        assert!(format("{").is_err());
    }
}
