//! What stands behind a stream selector.

use regex::Regex;
use signal::MatchOp;

use super::Parser;
use crate::ast::{Condition, Convert, LinePattern, LogfmtOptions, Source, Stage};
use crate::error::Error;
use crate::fields;
use crate::ip::IpRange;
use crate::lex::Token;
use crate::pipeline::literal::FOLDED;
use crate::shape::LineShape;
use crate::template::Template;

impl Parser<'_> {
    pub(super) fn stages(&mut self) -> Result<Vec<Stage>, Error> {
        let mut out = Vec::new();
        loop {
            let line = match self.peek() {
                Token::Op("|=") => Some((false, "=")),
                Token::Op("!=") => Some((true, "=")),
                Token::Op("|~") => Some((false, "~")),
                Token::Op("!~") => Some((true, "~")),
                Token::Op("|>") => Some((false, ">")),
                Token::Op("!>") => Some((true, ">")),
                _ => None,
            };
            if let Some((negate, kind)) = line {
                self.at += 1;
                let mut any = vec![self.line_pattern(kind)?];
                while self.take_word("or") {
                    any.push(self.line_pattern(kind)?);
                }
                out.push(Stage::Line { negate, any });
            } else if self.take_op("|") {
                out.push(self.stage()?);
            } else {
                return Ok(out);
            }
        }
    }

    fn line_pattern(&mut self, kind: &str) -> Result<LinePattern, Error> {
        if kind == "=" && self.is_ip() {
            return self.ip().map(LinePattern::Ip);
        }
        let at = self.start();
        let s = self.string()?;
        match kind {
            "~" => Ok(LinePattern::Regex(self.regex(&s)?)),
            ">" => self.shape(&s, at).map(LinePattern::Shape),
            _ => Ok(LinePattern::Contains(s)),
        }
    }

    fn shape(&self, text: &str, at: usize) -> Result<LineShape, Error> {
        LineShape::parse(text).map_err(|e| Error::at(self.text, at, e))
    }

    fn is_ip(&self) -> bool {
        matches!(self.peek(), Token::Ident(w) if w == "ip") && self.peek_at(1) == &Token::Op("(")
    }

    /// `ip("…")`
    fn ip(&mut self) -> Result<IpRange, Error> {
        self.at += 2;
        let at = self.start();
        let s = self.string()?;
        self.expect_op(")")?;
        IpRange::parse(&s).map_err(|e| Error::at(self.text, at, e))
    }

    /// An expression that begins with `(?i)` and has nothing but ASCII in it finds ASCII's letters only (not `ſ` for
    /// `s`): so the index, which knows small letters, can be asked.
    fn regex(&self, pattern: &str) -> Result<Regex, Error> {
        if let Some(bare) = pattern.strip_prefix("(?i)").filter(|p| p.is_ascii())
            && let Ok(r) = Regex::new(&format!("{FOLDED}{bare}"))
        {
            return Ok(r);
        }
        Regex::new(pattern).map_err(|e| {
            Error::at(self.text, self.previous_end(), format!("invalid regular expression: {e}"))
        })
    }

    fn stage(&mut self) -> Result<Stage, Error> {
        let Token::Ident(word) = self.peek().clone() else {
            return self.condition().map(Stage::Label);
        };
        // `json="x"` is a condition on a label that happens to be called so.
        let is_stage =
            !matches!(self.peek_at(1), Token::Op("=" | "!=" | "=~" | "!~" | "==" | ">" | "<" | ">=" | "<="))
                || self.peek_at(1) == &Token::Op("!=")
                    && matches!(word.as_str(), "json" | "logfmt" | "unpack" | "decolorize")
                || self.peek_at(1) == &Token::Op("!~")
                    && matches!(word.as_str(), "json" | "logfmt" | "unpack" | "decolorize");
        if !is_stage {
            return self.condition().map(Stage::Label);
        }
        self.at += 1;
        Ok(match word.as_str() {
            "json" => {
                let mut all = Vec::new();
                for (to, from, at) in self.extractions()? {
                    let path = fields::path(&from).map_err(|e| Error::at(self.text, at, e))?;
                    all.push((to, path));
                }
                Stage::Json(all)
            }
            "logfmt" => {
                let mut options = LogfmtOptions::default();
                while self.peek() == &Token::Op("-") {
                    self.flag(&mut options)?;
                }
                let all = self.extractions()?;
                Stage::Logfmt(options, all.into_iter().map(|(to, from, _)| (to, from)).collect())
            }
            "regexp" => {
                let at = self.start();
                let s = self.string()?;
                let r = self.regex(&s)?;
                self.captures(&r, at)?;
                Stage::Regexp(r)
            }
            "pattern" => {
                let at = self.start();
                let s = self.string()?;
                let shape = self.shape(&s, at)?;
                if !shape.has_names() || !shape.has_text() {
                    let e = "invalid pattern: at least one named capture and one text beside it are needed";
                    return Err(Error::at(self.text, at, e));
                }
                Stage::Pattern(shape)
            }
            "unpack" => Stage::Unpack,
            "line_format" => Stage::LineFormat(self.template()?),
            "label_format" => {
                let mut all = Vec::new();
                loop {
                    let at = self.start();
                    let to = self.ident()?;
                    if all.iter().any(|(n, _)| *n == to) {
                        let e =
                            format!("multiple label name '{to}' not allowed in a single format operation");
                        return Err(Error::at(self.text, at, e));
                    }
                    self.expect_op("=")?;
                    let source = match self.peek() {
                        Token::Ident(_) => Source::Label(self.ident()?),
                        _ => Source::Template(self.template()?),
                    };
                    all.push((to, source));
                    if !self.take_op(",") {
                        break;
                    }
                }
                Stage::LabelFormat(all)
            }
            "drop" | "keep" => {
                let mut all = Vec::new();
                loop {
                    let name = self.ident()?;
                    let m = match self.match_op() {
                        Some(op) => Some(self.matcher(name.clone(), op)?),
                        None => None,
                    };
                    all.push((name, m));
                    if !self.take_op(",") {
                        break;
                    }
                }
                if word == "drop" { Stage::Drop(all) } else { Stage::Keep(all) }
            }
            "unwrap" => {
                let name = self.ident()?;
                let convert = match name.as_str() {
                    "duration" | "duration_seconds" => Convert::Duration,
                    "bytes" => Convert::Bytes,
                    _ => Convert::Number,
                };
                if self.take_op("(") {
                    let label = self.ident()?;
                    self.expect_op(")")?;
                    Stage::Unwrap { label, convert }
                } else {
                    Stage::Unwrap { label: name, convert: Convert::Number }
                }
            }
            "decolorize" => Stage::Decolorize,
            _ => {
                self.at -= 1;
                return Err(self.unexpected(&format!("unknown stage {word:?}")));
            }
        })
    }

    fn template(&mut self) -> Result<Template, Error> {
        let at = self.start();
        let s = self.string()?;
        Template::parse(&s).map_err(|e| Error::at(self.text, at, e))
    }

    /// `--strict`, `--keep-empty`
    fn flag(&mut self, options: &mut LogfmtOptions) -> Result<(), Error> {
        let at = self.start();
        for _ in 0..2 {
            self.expect_op("-")?;
        }
        let mut name = self.ident()?;
        // The next flag begins with a hyphen, too, but not right here.
        while self.start() == self.previous_end() && self.take_op("-") {
            name = format!("{name}-{}", self.ident()?);
        }
        match name.as_str() {
            "strict" => options.strict = true,
            "keep-empty" => options.keep_empty = true,
            _ => return Err(Error::at(self.text, at, format!("unknown parser flag --{name}"))),
        }
        Ok(())
    }

    /// A parser by a regular expression needs names for what it finds, each one a label could have.
    fn captures(&self, r: &Regex, at: usize) -> Result<(), Error> {
        let names: Vec<&str> = r.capture_names().flatten().collect();
        if names.is_empty() {
            return Err(Error::at(self.text, at, "at least one named capture must be supplied"));
        }
        match names.iter().find(|n| fields::name(n) != **n) {
            Some(n) => Err(Error::at(self.text, at, format!("invalid extracted label name '{n}'"))),
            None => Ok(()),
        }
    }

    /// `a="b.c", d` behind `json` and `logfmt`: the label, what it is read from, and where that stands.
    fn extractions(&mut self) -> Result<Vec<(String, String, usize)>, Error> {
        let mut all = Vec::new();
        while let Token::Ident(_) = self.peek() {
            let mut at = self.start();
            let to = self.ident()?;
            let from = if self.take_op("=") {
                at = self.start();
                self.string()?
            } else {
                to.clone()
            };
            all.push((to, from, at));
            if !self.take_op(",") {
                break;
            }
        }
        Ok(all)
    }

    fn condition(&mut self) -> Result<Condition, Error> {
        let mut left = self.conjunction()?;
        while self.take_word("or") {
            left = Condition::Or(Box::new(left), Box::new(self.conjunction()?));
        }
        Ok(left)
    }

    fn conjunction(&mut self) -> Result<Condition, Error> {
        let mut left = self.comparison()?;
        while self.take_word("and") || self.take_op(",") || self.begins_comparison() {
            left = Condition::And(Box::new(left), Box::new(self.comparison()?));
        }
        Ok(left)
    }

    /// Conditions may also stand side by side.
    fn begins_comparison(&self) -> bool {
        let compares =
            matches!(self.peek_at(1), Token::Op("=" | "==" | "!=" | "=~" | "!~" | ">" | "<" | ">=" | "<="));
        matches!(self.peek(), Token::Ident(_)) && compares
    }

    fn comparison(&mut self) -> Result<Condition, Error> {
        self.count_node()?;
        if self.take_op("(") {
            let c = self.condition()?;
            self.expect_op(")")?;
            return Ok(c);
        }
        let label = self.ident()?;
        let op = match self.peek() {
            Token::Op(o @ ("=" | "==" | "!=" | "=~" | "!~" | ">" | "<" | ">=" | "<=")) => *o,
            _ => return Err(self.unexpected("expecting a comparison")),
        };
        self.at += 1;
        if self.is_ip() && matches!(op, "=" | "==" | "!=") {
            let range = self.ip()?;
            return Ok(Condition::Ip { label, negate: op == "!=", range });
        }
        if let Token::Str(_) = self.peek() {
            let op = match op {
                "=" | "==" => MatchOp::Equal,
                "!=" => MatchOp::NotEqual,
                "=~" => MatchOp::Regex,
                "!~" => MatchOp::NotRegex,
                _ => return Err(self.unexpected("expecting a number")),
            };
            return self.matcher(label, op).map(Condition::Match);
        }
        let negate = self.take_op("-");
        let Token::Number(n) = self.peek().clone() else {
            return Err(self.unexpected("expecting a string or a number"));
        };
        let (value, convert) = match n.parse::<f64>() {
            Ok(v) => (v, Convert::Number),
            Err(_) => match (fields::duration(&n), fields::bytes(&n)) {
                (Some(v), _) => (v, Convert::Duration),
                (None, Some(v)) => (v, Convert::Bytes),
                _ => return Err(self.unexpected("expecting a number, a duration or a size")),
            },
        };
        self.at += 1;
        let op = if op == "=" { "==" } else { op };
        Ok(Condition::Compare { label, op, value: if negate { -value } else { value }, convert })
    }
}
