//! `line_format` and `label_format` templates: text with `{{.label}}`, and a few functions behind `|`.

#[derive(Clone, Debug)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Value { from: String, functions: Vec<(String, Vec<String>)> },
}

const FUNCTIONS: [&str; 10] =
    ["ToUpper", "ToLower", "upper", "lower", "trim", "default", "trunc", "replace", "TrimSpace", "title"];

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("{{") {
            parts.push(Part::Text(rest[..at].to_owned()));
            let inner = &rest[at + 2..];
            let end = inner.find("}}").ok_or("template: unclosed action")?;
            parts.push(action(inner[..end].trim_matches('-').trim())?);
            rest = &inner[end + 2..];
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Template(parts))
    }

    pub(crate) fn render<'l>(&self, get: impl Fn(&str) -> Option<&'l str>) -> String {
        let mut out = String::new();
        for p in &self.0 {
            match p {
                Part::Text(t) => out.push_str(t),
                Part::Value { from, functions } => {
                    let value = get(from).unwrap_or("").to_owned();
                    out.push_str(&functions.iter().fold(value, |v, (f, args)| apply(f, args, v)));
                }
            }
        }
        out
    }
}

/// `.a`, `.a | f "x"`, `f "x" .a`, `__line__`.
fn action(text: &str) -> Result<Part, String> {
    let mut stages = text.split('|').map(words);
    let first = stages.next().ok_or("template: empty action")??;
    let mut functions = Vec::new();
    let from = match first.as_slice() {
        [one] => source(one)?,
        [f, args @ .., last] => {
            functions.push((known(f)?, args.to_vec()));
            source(last)?
        }
        [] => return Err("template: empty action".to_owned()),
    };
    for s in stages {
        let s = s?;
        let (f, args) = s.split_first().ok_or("template: empty action")?;
        functions.push((known(f)?, args.to_vec()));
    }
    Ok(Part::Value { from, functions })
}

fn known(f: &str) -> Result<String, String> {
    if FUNCTIONS.contains(&f) {
        Ok(f.to_owned())
    } else {
        Err(format!("template: function {f:?} not defined"))
    }
}

fn source(word: &str) -> Result<String, String> {
    match word.strip_prefix('.') {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ if word == "__line__" || word == "__timestamp__" => Ok(word.to_owned()),
        _ => Err(format!("template: {word:?} is not a label; write .{word}")),
    }
}

fn words(s: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut rest = s.trim();
    while !rest.is_empty() {
        if let Some(q) = rest.strip_prefix('"').or(rest.strip_prefix('`')) {
            let end = q.find(['"', '`']).ok_or("template: unterminated string")?;
            out.push(q[..end].to_owned());
            rest = q[end + 1..].trim_start();
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            out.push(rest[..end].to_owned());
            rest = rest[end..].trim_start();
        }
    }
    Ok(out)
}

fn apply(f: &str, args: &[String], v: String) -> String {
    let arg = |i: usize| args.get(i).map_or("", String::as_str);
    match f {
        "ToUpper" | "upper" => v.to_uppercase(),
        "ToLower" | "lower" => v.to_lowercase(),
        "trim" | "TrimSpace" => v.trim().to_owned(),
        "title" => {
            let mut c = v.chars();
            c.next().map_or(String::new(), |first| first.to_uppercase().chain(c).collect())
        }
        "default" if v.is_empty() => arg(0).to_owned(),
        "trunc" => v.chars().take(arg(0).parse().unwrap_or(usize::MAX)).collect(),
        "replace" => v.replace(arg(0), arg(1)),
        _ => v,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders() {
        let check = |t: &str, expect: &str| {
            let t = Template::parse(t).expect(t);
            assert_eq!(t.render(|n| (n == "a").then_some("Xy")), expect);
        };
        check("{{.a}} and {{ .b }}", "Xy and ");
        check("{{.a | ToUpper}}{{ .b | default \"none\" }}", "XYnone");
        check("{{ ToLower .a }}", "xy");
        assert!(Template::parse("{{ nosuch .a }}").is_err());
    }
}
