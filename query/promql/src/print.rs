//! An expression back into text, as Prometheus prints it: on one line, or laid out over several.

use std::fmt::{self, Display, Formatter, Write};

use signal::{METRIC_NAME, MatchOp};

use crate::ast::{Aggregation, At, Cardinality, Edges, Expr, Kind, Length, Matching, Selector};
use crate::lex::print_duration;
use crate::value::format_value;

/// Lines longer than this are broken up by [`pretty`].
const WIDTH: usize = 100;

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Number(v) => f.write_str(&format_value(*v)),
            Kind::String(s) => f.write_str(&quote(s)),
            Kind::Bytes(s) => f.write_str(s),
            Kind::Selector(s) => {
                selector(f, s)?;
                edges(f, s)?;
                modifiers(f, s.at, s.offset.as_ref())
            }
            Kind::Matrix { selector: s, range } => {
                selector(f, s)?;
                write!(f, "[{range}]")?;
                edges(f, s)?;
                modifiers(f, s.at, s.offset.as_ref())
            }
            Kind::Subquery { expr, range, step, offset, at } => {
                write!(f, "{expr}[{range}:")?;
                if let Some(s) = step {
                    write!(f, "{s}")?;
                }
                f.write_str("]")?;
                modifiers(f, *at, offset.as_ref())
            }
            Kind::Unary { negate, expr } => write!(f, "{}{expr}", if *negate { "-" } else { "+" }),
            Kind::Binary { op, lhs, rhs, bool_modifier, matching } => {
                write!(f, "{lhs} {}", op.as_str())?;
                if *bool_modifier {
                    f.write_str(" bool")?;
                }
                if let Some(m) = matching {
                    write!(f, "{m}")?;
                }
                write!(f, " {rhs}")
            }
            Kind::Paren(e) => write!(f, "({e})"),
            Kind::Call { name, args } => {
                write!(f, "{name}(")?;
                list(f, args)?;
                f.write_str(")")
            }
            Kind::Aggregate(a) => {
                aggregate_head(f, a)?;
                f.write_str("(")?;
                if let Some(p) = &a.param {
                    write!(f, "{p}, ")?;
                }
                write!(f, "{})", a.expr)
            }
        }
    }
}

fn aggregate_head(f: &mut impl Write, a: &Aggregation) -> fmt::Result {
    f.write_str(&a.op)?;
    if a.without || !a.grouping.is_empty() {
        let word = if a.without { "without" } else { "by" };
        write!(f, " {word} ({}) ", a.grouping.iter().map(|g| quote_label(g)).collect::<Vec<_>>().join(", "))?;
    }
    Ok(())
}

/// As Go's `strconv.Quote`: what is no printable character becomes an escape that the lexer knows.
fn quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c == '\'' || c.escape_debug().eq([c]) => out.push(c),
            c if c < ' ' || c == '\x7f' => escape(&mut out, format_args!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) < 0x10000 => escape(&mut out, format_args!("\\u{:04x}", u32::from(c))),
            c => escape(&mut out, format_args!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

fn escape(out: &mut String, escaped: fmt::Arguments<'_>) {
    fmt::Write::write_fmt(out, escaped).expect("writing to a string cannot fail");
}

fn quote_label(name: &str) -> String {
    let plain = name
        .bytes()
        .enumerate()
        .all(|(i, b)| b == b'_' || b.is_ascii_alphabetic() || i > 0 && b.is_ascii_digit());
    if plain && !name.is_empty() { name.to_owned() } else { quote(name) }
}

fn plain_metric(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .enumerate()
            .all(|(i, b)| b == b'_' || b == b':' || b.is_ascii_alphabetic() || i > 0 && b.is_ascii_digit())
}

fn list(f: &mut Formatter<'_>, args: &[Expr]) -> fmt::Result {
    for (i, a) in args.iter().enumerate() {
        write!(f, "{}{a}", if i > 0 { ", " } else { "" })?;
    }
    Ok(())
}

fn selector(f: &mut Formatter<'_>, s: &Selector) -> fmt::Result {
    let mut parts = Vec::new();
    let mut skipped = false;
    if let Some(name) = &s.name {
        if plain_metric(name) {
            f.write_str(name)?;
        } else {
            parts.push(quote(name));
        }
    }
    for m in &s.matchers {
        if !skipped && m.name == METRIC_NAME && m.op == MatchOp::Equal && Some(&m.value) == s.name.as_ref() {
            skipped = true;
            continue;
        }
        parts.push(format!("{}{}{}", quote_label(&m.name), m.op.as_str(), quote(&m.value)));
    }
    // The second argument of `info` may match everything, and then says so.
    if parts.is_empty() && s.name.is_some() { Ok(()) } else { write!(f, "{{{}}}", parts.join(",")) }
}

fn edges(f: &mut Formatter<'_>, s: &Selector) -> fmt::Result {
    f.write_str(match s.edges {
        Edges::Plain => "",
        Edges::Anchored => " anchored",
        Edges::Smoothed => " smoothed",
    })
}

fn modifiers(f: &mut Formatter<'_>, at: Option<At>, offset: Option<&Length>) -> fmt::Result {
    match at {
        Some(At::Time(ms)) => write!(f, " @ {:.3}", ms as f64 / 1000.0)?,
        Some(At::Start) => f.write_str(" @ start()")?,
        Some(At::End) => f.write_str(" @ end()")?,
        None => {}
    }
    match offset {
        Some(l) => write!(f, " offset {l}"),
        None => Ok(()),
    }
}

impl Display for Length {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Length::Millis(ms) => f.write_str(&print_duration(*ms)),
            Length::Step => f.write_str("step()"),
            Length::Range => f.write_str("range()"),
            Length::Negate(l) => write!(f, "-{l}"),
            Length::Op(op, a, b) => write!(f, "{a} {} {b}", op.as_str()),
            Length::Min(a, b) => write!(f, "min({a}, {b})"),
            Length::Max(a, b) => write!(f, "max({a}, {b})"),
            Length::Paren(l) => write!(f, "({l})"),
        }
    }
}

impl Display for Matching {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names = |l: &[String]| l.iter().map(|g| quote_label(g)).collect::<Vec<_>>().join(", ");
        if self.on || !self.labels.is_empty() {
            write!(f, " {} ({})", if self.on { "on" } else { "ignoring" }, names(&self.labels))?;
        }
        match self.cardinality {
            Cardinality::OneToOne => {}
            Cardinality::ManyToOne => write!(f, " group_left ({})", names(&self.include))?,
            Cardinality::OneToMany => write!(f, " group_right ({})", names(&self.include))?,
        }
        match self.fill {
            (Some(a), Some(b)) if a.to_bits() == b.to_bits() => write!(f, " fill ({})", format_value(a)),
            (a, b) => {
                if let Some(a) = a {
                    write!(f, " fill_left ({})", format_value(a))?;
                }
                if let Some(b) = b {
                    write!(f, " fill_right ({})", format_value(b))?;
                }
                Ok(())
            }
        }
    }
}

/// Laid out over lines, two spaces for each level, wherever one line would be too long.
pub fn pretty(e: &Expr) -> String {
    let mut out = String::new();
    write_pretty(&mut out, e, 0);
    out
}

fn write_pretty(out: &mut String, e: &Expr, level: usize) {
    let flat = e.to_string();
    let pad = "  ".repeat(level);
    if flat.len() <= WIDTH {
        out.push_str(&pad);
        out.push_str(&flat);
        return;
    }
    let block = |out: &mut String, head: &str, inner: &[&Expr], tail: &str| {
        out.push_str(&format!("{pad}{head}(\n"));
        for (i, e) in inner.iter().enumerate() {
            write_pretty(out, e, level + 1);
            out.push_str(if i + 1 < inner.len() { ",\n" } else { "\n" });
        }
        out.push_str(&format!("{pad}){tail}"));
    };
    match &e.kind {
        Kind::Paren(inner) => block(out, "", &[inner], ""),
        Kind::Call { name, args } => block(out, name, &args.iter().collect::<Vec<_>>(), ""),
        Kind::Aggregate(a) => {
            let mut head = String::new();
            aggregate_head(&mut head, a).expect("writing to a string cannot fail");
            let inner: Vec<&Expr> = a.param.as_deref().into_iter().chain([&*a.expr]).collect();
            block(out, &head, &inner, "");
        }
        Kind::Binary { op, lhs, rhs, bool_modifier, matching } => {
            write_pretty(out, lhs, level + 1);
            let matching = matching.as_ref().map_or(String::new(), ToString::to_string);
            let word = if *bool_modifier { " bool" } else { "" };
            out.push_str(&format!("\n{pad}{}{word}{matching}\n", op.as_str()));
            write_pretty(out, rhs, level + 1);
        }
        _ => {
            out.push_str(&pad);
            out.push_str(&flat);
        }
    }
}

#[cfg(test)]
mod tests {
    /// Found by the fuzzer: Rust's own escapes of a NUL and of other controls are not PromQL's.
    #[test]
    fn what_is_printed_is_parsed_again() {
        let query = "m{a=\"\\x00\\x7f\\u200b\\U000e0001\\\"\\\\\\n'ä\"} + label_replace(m, \"a\", \"\\a\\v\", \"b\", \".*\")";
        let once = crate::parse(query).expect("parses").to_string();
        assert!(once.contains(r#"a="\x00\x7f\u200b\U000e0001\"\\\n'ä""#), "{once}");
        assert_eq!(crate::parse(&once).expect("parses again").to_string(), once);
        assert_eq!(crate::parse("info(i,{})").expect("parses").to_string(), "info(i, {})");
    }
}
