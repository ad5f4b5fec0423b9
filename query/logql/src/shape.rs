//! `<name>` patterns over a line: of the `pattern` parser and of the `|>` filter.

/// Text that must be there, and what stands before it captured under a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LineShape(Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Literal(String),
    /// `None` is `<_>`.
    Capture(Option<String>),
}

impl LineShape {
    pub(crate) fn parse(text: &str) -> Result<LineShape, String> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let capture = rest.strip_prefix('<').and_then(|r| r.split_once('>')).filter(|(name, _)| {
                !name.is_empty()
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                    && !name.starts_with(|c: char| c.is_ascii_digit())
            });
            if let Some((name, after)) = capture {
                if matches!(pieces.last(), Some(Piece::Capture(_))) {
                    return Err("invalid pattern: consecutive capture is not allowed".to_owned());
                }
                let known = |p: &Piece| matches!(p, Piece::Capture(Some(n)) if n == name);
                if pieces.iter().any(known) {
                    return Err(format!("invalid pattern: duplicate capture name: {name}"));
                }
                pieces.push(Piece::Capture((name != "_").then(|| name.to_owned())));
                rest = after;
                continue;
            }
            let end = rest.char_indices().skip(1).find(|(_, c)| *c == '<').map_or(rest.len(), |(i, _)| i);
            match pieces.last_mut() {
                Some(Piece::Literal(l)) => l.push_str(&rest[..end]),
                _ => pieces.push(Piece::Literal(rest[..end].to_owned())),
            }
            rest = &rest[end..];
        }
        Ok(LineShape(pieces))
    }

    pub(crate) fn has_names(&self) -> bool {
        self.0.iter().any(|p| matches!(p, Piece::Capture(Some(_))))
    }

    /// What is not captured.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|p| match p {
            Piece::Literal(l) => Some(l.as_str()),
            Piece::Capture(_) => None,
        })
    }

    /// Whether there is anything that is not captured: without it every line fits.
    pub(crate) fn has_text(&self) -> bool {
        self.0.iter().any(|p| matches!(p, Piece::Literal(_)))
    }

    /// Gives each capture; stops at the first text that is not there, keeping what it found until then.
    pub(crate) fn captures<'l>(&self, line: &'l str, mut each: impl FnMut(&str, &'l str)) {
        let mut rest = line;
        let mut pieces = self.0.iter().peekable();
        while let Some(piece) = pieces.next() {
            match piece {
                Piece::Literal(text) => match rest.find(text.as_str()) {
                    Some(at) => rest = &rest[at + text.len()..],
                    None => return,
                },
                Piece::Capture(name) => {
                    let end = match pieces.peek() {
                        Some(Piece::Literal(text)) => match rest.find(text.as_str()) {
                            Some(at) => at,
                            None => return,
                        },
                        _ => rest.len(),
                    };
                    if let Some(name) = name {
                        each(name, &rest[..end]);
                    }
                    rest = &rest[end..];
                }
            }
        }
    }

    /// Whether all of the line is of this shape.
    pub(crate) fn fits(&self, line: &str) -> bool {
        let mut rest = line;
        let mut open = false;
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) if open => match rest.find(text.as_str()) {
                    Some(at) => rest = &rest[at + text.len()..],
                    None => return false,
                },
                Piece::Literal(text) => match rest.strip_prefix(text.as_str()) {
                    Some(after) => rest = after,
                    None => return false,
                },
                Piece::Capture(_) => {}
            }
            open = matches!(piece, Piece::Capture(_));
        }
        // A last text may also be found later in the line than where it was found first.
        open || rest.is_empty()
            || matches!(self.0.as_slice(), [.., Piece::Capture(_), Piece::Literal(last)] if line.ends_with(last.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let found = |shape: &str, line: &str| {
            let mut out = Vec::new();
            LineShape::parse(shape).expect(shape).captures(line, |n, v| out.push(format!("{n}={v}")));
            out.join(" ")
        };
        let line = r#"10.0.0.1 - frank [01/Jan] "GET /a?b=1 HTTP/1.1" 200 15"#;
        assert_eq!(
            found(r#"<ip> - <user> [<_>] "<method> <path> <_>" <status> <size>"#, line),
            "ip=10.0.0.1 user=frank method=GET path=/a?b=1 status=200 size=15"
        );
        assert_eq!(found("<ip> + <user>", line), "");
        assert_eq!(found("<_> - <user> {", line), "");
        assert_eq!(found("- <user> [", line), "user=frank");
        for (shape, line, expect) in [
            ("GET <_> took <_>ms", "GET /a took 5ms", true),
            ("GET <_> took <_>ms", "GET /a took 5ms more", false),
            ("GET <_> took <_>ms", "POST /a took 5ms", false),
            ("<_> is full", "the disk is full", true),
            ("disk <_>", "the disk is full", false),
            ("<_>disk<_>", "the disk is full", true),
            ("<_>ms", "5ms and 6ms", true),
        ] {
            assert_eq!(LineShape::parse(shape).expect(shape).fits(line), expect, "{shape} on {line}");
        }
        assert!(LineShape::parse("<a><b>").is_err());
        assert!(LineShape::parse("<a> <a>").is_err());
    }
}
