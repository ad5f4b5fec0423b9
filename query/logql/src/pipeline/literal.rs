//! Text that a line must hold for a filter to let it through: what the index can look for.

use regex_syntax::hir::{Hir, HirKind};

use crate::ast::LinePattern;
use crate::pipeline::trace;

/// What is shorter is in nearly every line.
const LEAST: usize = 3;
/// Alternatives of one place; more of them say too little.
const MOST: usize = 16;

/// Of each list one must be in the line.
pub(super) type Needs = Vec<Vec<String>>;

/// What a line must hold that one of the patterns lets through.
pub(super) fn needs(any: &[LinePattern]) -> Needs {
    let all: Vec<Needs> = any.iter().map(of_pattern).collect();
    either(all)
}

/// What expressions begin with that find ASCII's letters in any case; see where expressions are parsed.
pub(crate) const FOLDED: &str = "(?i-u)";

/// As [`needs`], of patterns that do not care for case: the letters may stand in any.
pub(super) fn folded(any: &[LinePattern]) -> Needs {
    let of = |p: &LinePattern| match p {
        LinePattern::Regex(r) => {
            let bare = r.as_str().strip_prefix(FOLDED)?;
            regex_syntax::parse(bare).ok().map(|hir| of_hir(&hir))
        }
        _ => None,
    };
    either(any.iter().map(|p| of(p).unwrap_or_default()).collect())
}

fn of_pattern(p: &LinePattern) -> Needs {
    match p {
        // A trace's id finds records that say it beside their text.
        LinePattern::Contains(text) if text.is_empty() || trace(text).is_some() => Vec::new(),
        LinePattern::Contains(text) => vec![vec![text.clone()]],
        LinePattern::Regex(r) => regex_syntax::parse(r.as_str()).map_or(Vec::new(), |hir| of_hir(&hir)),
        LinePattern::Shape(s) => s.texts().filter(|t| t.len() >= LEAST).map(|t| vec![t.to_owned()]).collect(),
        LinePattern::Ip(_) => Vec::new(),
    }
}

fn of_hir(hir: &Hir) -> Needs {
    match hir.kind() {
        HirKind::Literal(l) => match std::str::from_utf8(&l.0) {
            Ok(text) if text.len() >= LEAST => vec![vec![text.to_owned()]],
            _ => Vec::new(),
        },
        HirKind::Capture(c) => of_hir(&c.sub),
        HirKind::Repetition(r) if r.min > 0 => of_hir(&r.sub),
        HirKind::Concat(all) => all.iter().flat_map(of_hir).collect(),
        HirKind::Alternation(all) => either(all.iter().map(of_hir).collect()),
        _ => Vec::new(),
    }
}

/// Of several ways to pass, what each of them needs: of each the list that says most, all in one.
fn either(mut all: Vec<Needs>) -> Needs {
    if all.len() == 1 {
        return all.pop().unwrap_or_default();
    }
    let mut out = Vec::new();
    for needs in all {
        let shortest = |list: &Vec<String>| list.iter().map(String::len).min().unwrap_or(0);
        // Nothing is needed for one of them: nothing is needed.
        let Some(best) = needs.into_iter().max_by_key(shortest) else { return Vec::new() };
        out.extend(best);
    }
    if out.is_empty() || out.len() > MOST { Vec::new() } else { vec![out] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pattern_needs() {
        let check = |pattern: &str, expect: &[&[&str]]| {
            let r = LinePattern::Regex(regex::Regex::new(pattern).expect("a pattern"));
            assert_eq!(needs(&[r]), expect, "{pattern}");
        };
        check("error", &[&["error"]]);
        check("level=(error|fatal) .*timeout", &[&["level="], &["error", "fatal"], &["timeout"]]);
        check("(?i)error", &[]);
        check("error|[0-9]+", &[]);
        check("(abc)?def+", &[]);
        check("(abc)+x", &[&["abc"]]);
        check("a.b", &[]);
        check("(foo1|bar2)(baz)?", &[&["foo1", "bar2"]]);
        let fold =
            |pattern: &str| folded(&[LinePattern::Regex(regex::Regex::new(pattern).expect("a pattern"))]);
        assert_eq!(fold("(?i-u)Error|fatal"), [["Error", "fatal"]]);
        assert_eq!(
            needs(&[LinePattern::Regex(regex::Regex::new("(?i-u)error").expect("a pattern"))]),
            Needs::new()
        );
        assert!(fold("error").is_empty() && fold("(?i)error").is_empty());
        let either = [LinePattern::Contains("a".into()), LinePattern::Contains("b".into())];
        assert_eq!(needs(&either), [["a", "b"]]);
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert!(needs(&[LinePattern::Contains("a".into()), LinePattern::Contains(id.into())]).is_empty());
    }
}
