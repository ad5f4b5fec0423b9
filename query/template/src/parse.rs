//! Template text into a tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Condition, Error, Functions, Node, Operand, Pipeline, Template, Value, What, builtin};

/// Blocks inside blocks, and parentheses.
const DEPTH: usize = 50;

struct Piece {
    line: usize,
    what: PieceKind,
}

enum PieceKind {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// `.a.b`, `$x.a`, `if`, `ToUpper`
    Word(String),
    Text(String),
    Number(String),
    Character(char),
    Open,
    /// With the fields that follow it: `(…).a`.
    Close(Vec<String>),
    Pipe,
    Comma,
    Declare,
    Assign,
}

pub(crate) fn parse(text: &str, functions: &dyn Functions) -> Result<Template, Error> {
    let mut p = Parser {
        pieces: pieces(text)?.into_iter(),
        functions,
        variables: vec!["$".to_owned()],
        named: BTreeMap::new(),
        line: 1,
        loops: 0,
    };
    let (nodes, ended_by) = p.block(0)?;
    match ended_by {
        None => Ok(Template { nodes, named: Arc::new(p.named) }),
        Some(words) => match words.first() {
            Some(Token::Word(w)) => p.fail(format!("unexpected {{{{{w}}}}}")),
            _ => p.fail("unexpected end".to_owned()),
        },
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, Error> {
    let mut out = Vec::new();
    let mut rest = text;
    let mut trim = false;
    let line_at = |rest: &str| text[..text.len() - rest.len()].matches('\n').count() + 1;
    while let Some(at) = rest.find("{{") {
        let mut before = &rest[..at];
        let line = line_at(&rest[at..]);
        let fail = |message: &str| Error { line, message: message.to_owned() };
        if trim {
            before = before.trim_start();
        }
        let mut inner = &rest[at + 2..];
        if let Some(i) = inner.strip_prefix('-').filter(|i| i.starts_with(char::is_whitespace)) {
            before = before.trim_end();
            inner = i;
        }
        out.push(Piece { line, what: PieceKind::Text(before.to_owned()) });
        if let Some(comment) = inner.trim_start().strip_prefix("/*") {
            let end = comment.find("*/").ok_or_else(|| fail("unclosed comment"))?;
            let after = comment[end + 2..].trim_start();
            trim = after.starts_with('-');
            rest = after
                .trim_start_matches('-')
                .strip_prefix("}}")
                .ok_or_else(|| fail("comment ends before closing delimiter"))?;
            continue;
        }
        let (tokens, after, trims) = tokens(inner).map_err(|m| Error { line, message: m })?;
        trim = trims;
        rest = after;
        out.push(Piece { line, what: PieceKind::Action(tokens) });
    }
    let last = if trim { rest.trim_start() } else { rest };
    out.push(Piece { line: line_at(rest), what: PieceKind::Text(last.to_owned()) });
    Ok(out)
}

/// The tokens up to `}}`, what stands behind it, and whether it trims that.
fn tokens(text: &str) -> Result<(Vec<Token>, &str, bool), String> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    let word =
        |s: &str| s.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '$'))).unwrap_or(s.len());
    loop {
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((out, after, false));
        }
        if let Some(after) = rest.strip_prefix("-}}") {
            return Ok((out, after, true));
        }
        let Some(c) = rest.chars().next() else { return Err("unclosed action".to_owned()) };
        let len = match c {
            '"' => {
                let (s, len) = quoted(rest).ok_or("unterminated quoted string")?;
                out.push(Token::Text(s));
                len
            }
            '`' => {
                let end = rest[1..].find('`').ok_or("unterminated raw quoted string")?;
                out.push(Token::Text(rest[1..=end].to_owned()));
                end + 2
            }
            '\'' => {
                let end = rest[1..].find('\'').ok_or("unterminated character constant")?;
                let inner = format!("\"{}\"", &rest[1..=end]);
                let c = quoted(&inner).and_then(|(s, _)| s.chars().next());
                out.push(Token::Character(c.ok_or("malformed character constant")?));
                end + 2
            }
            '(' => {
                out.push(Token::Open);
                1
            }
            ')' => {
                let fields = if rest[1..].starts_with('.') { &rest[1..1 + word(&rest[1..])] } else { "" };
                out.push(Token::Close(names(fields)));
                1 + fields.len()
            }
            '|' => {
                out.push(Token::Pipe);
                1
            }
            ',' => {
                out.push(Token::Comma);
                1
            }
            ':' if rest.starts_with(":=") => {
                out.push(Token::Declare);
                2
            }
            '=' => {
                out.push(Token::Assign);
                1
            }
            c if c.is_ascii_digit()
                || matches!(c, '-' | '+')
                || c == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit()) =>
            {
                let mut last = c;
                let len = rest[1..]
                    .find(|c: char| {
                        let signed = matches!(c, '+' | '-') && matches!(last, 'e' | 'E');
                        last = c;
                        !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_') || signed)
                    })
                    .map_or(rest.len(), |i| i + 1);
                out.push(Token::Number(rest[..len].to_owned()));
                len
            }
            c if c.is_alphabetic() || matches!(c, '_' | '.' | '$') => {
                let len = word(rest);
                out.push(Token::Word(rest[..len].to_owned()));
                len
            }
            c => return Err(format!("unexpected {c:?} in an action")),
        };
        rest = rest[len..].trim_start();
    }
}

/// What Go's quotes hold, and how long they are with them.
fn quoted(s: &str) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = s.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((out, i + 1)),
            '\n' => return None,
            '\\' => {
                let (_, c) = chars.next()?;
                let mut hex = |n: usize, first: &str| {
                    let digits: String =
                        first.chars().chain((0..n).map_while(|_| chars.next().map(|(_, c)| c))).collect();
                    digits
                };
                let code = match c {
                    'x' => u32::from_str_radix(&hex(2, ""), 16).ok()?,
                    'u' => u32::from_str_radix(&hex(4, ""), 16).ok()?,
                    'U' => u32::from_str_radix(&hex(8, ""), 16).ok()?,
                    '0'..='7' => u32::from_str_radix(&hex(2, &c.to_string()), 8).ok()?,
                    'n' => 10,
                    't' => 9,
                    'r' => 13,
                    'a' => 7,
                    'b' => 8,
                    'f' => 12,
                    'v' => 11,
                    c => u32::from(c),
                };
                out.push(char::from_u32(code)?);
            }
            c => out.push(c),
        }
    }
    None
}

fn names(path: &str) -> Vec<String> {
    path.split('.').filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

struct Parser<'a> {
    pieces: std::vec::IntoIter<Piece>,
    functions: &'a dyn Functions,
    /// Those in sight, innermost last.
    variables: Vec<String>,
    named: BTreeMap<String, Vec<Node>>,
    line: usize,
    /// How many `range` are around.
    loops: usize,
}

/// The words that ended a block: `end`, or `else` with what follows it.
type Ending = Option<Vec<Token>>;

impl Parser<'_> {
    fn fail<T>(&self, message: String) -> Result<T, Error> {
        Err(Error { line: self.line, message })
    }

    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, Ending), Error> {
        if depth > DEPTH {
            return self.fail("too many blocks inside each other".to_owned());
        }
        let mut out = Vec::new();
        while let Some(piece) = self.pieces.next() {
            self.line = piece.line;
            let line = piece.line;
            let tokens = match piece.what {
                PieceKind::Text(t) => {
                    if !t.is_empty() {
                        out.push(Node { line, what: What::Text(t) });
                    }
                    continue;
                }
                PieceKind::Action(tokens) => tokens,
            };
            let keyword = match tokens.first() {
                Some(Token::Word(w)) => w.as_str(),
                Some(_) => "",
                None => return self.fail("missing value for command".to_owned()),
            };
            let what = match keyword {
                "end" | "else" => return Ok((out, Some(tokens))),
                "if" | "with" => self.branches(&tokens, depth)?,
                "range" => self.range(&tokens[1..], depth)?,
                "define" => {
                    self.define(&tokens[1..], depth)?;
                    continue;
                }
                "block" => {
                    let (name, p) = self.template(&tokens[1..])?;
                    if p.is_none() {
                        return self.fail("missing value for block clause".to_owned());
                    }
                    let body = self.named_body(depth)?;
                    self.named.insert(name.clone(), body);
                    What::Template(name, p)
                }
                "template" => {
                    let (name, p) = self.template(&tokens[1..])?;
                    What::Template(name, p)
                }
                "break" | "continue" if tokens.len() == 1 => {
                    if self.loops == 0 {
                        return self.fail(format!("{{{{{keyword}}}}} outside {{{{range}}}}"));
                    }
                    if keyword == "break" { What::Break } else { What::Continue }
                }
                _ => match tokens.as_slice() {
                    [Token::Word(name), sign @ (Token::Declare | Token::Assign), rest @ ..]
                        if name.starts_with('$') =>
                    {
                        let p = self.pipeline(rest)?;
                        if *sign == Token::Declare {
                            self.variables.push(name.clone());
                            What::Declare(name.clone(), p)
                        } else {
                            self.declared(name)?;
                            What::Assign(name.clone(), p)
                        }
                    }
                    all => What::Show(self.pipeline(all)?),
                },
            };
            out.push(Node { line, what });
        }
        Ok((out, None))
    }

    /// A block with variables of its own, up to its `end` or `else`.
    fn inner(&mut self, depth: usize) -> Result<(Vec<Node>, Vec<Token>), Error> {
        let scope = self.variables.len();
        let (nodes, ending) = self.block(depth + 1)?;
        self.variables.truncate(scope);
        match ending {
            Some(tokens) => Ok((nodes, tokens)),
            None => self.fail("unexpected EOF".to_owned()),
        }
    }

    /// What stands behind a bare `else`, up to `end`.
    fn otherwise(&mut self, depth: usize) -> Result<Vec<Node>, Error> {
        let (nodes, ending) = self.inner(depth)?;
        match ending.as_slice() {
            [Token::Word(w)] if w == "end" => Ok(nodes),
            _ => self.fail("expected end; found {{else}}".to_owned()),
        }
    }

    /// `if` and `with`, each with `else`, `else if` and `else with`.
    fn branches(&mut self, tokens: &[Token], depth: usize) -> Result<What, Error> {
        let Some(Token::Word(keyword)) = tokens.first() else {
            return self.fail("missing value for command".to_owned());
        };
        let scope = self.variables.len();
        let mut condition = self.condition(keyword, &tokens[1..])?;
        let mut branches = Vec::new();
        let otherwise = loop {
            let (body, ending) = self.inner(depth)?;
            branches.push((condition, body));
            match ending.as_slice() {
                [Token::Word(w)] if w == "end" => break Vec::new(),
                [Token::Word(w)] if w == "else" => break self.otherwise(depth)?,
                [Token::Word(a), Token::Word(b), rest @ ..] if a == "else" && b == keyword => {
                    condition = self.condition(keyword, rest)?;
                }
                _ => return self.fail("unexpected words behind else".to_owned()),
            }
        };
        self.variables.truncate(scope);
        Ok(if keyword == "if" { What::If(branches, otherwise) } else { What::With(branches, otherwise) })
    }

    fn condition(&mut self, keyword: &str, tokens: &[Token]) -> Result<Condition, Error> {
        match tokens {
            [] => self.fail(format!("missing value for {keyword}")),
            [Token::Word(name), Token::Declare, rest @ ..] if name.starts_with('$') => {
                let value = self.pipeline(rest)?;
                self.variables.push(name.clone());
                Ok(Condition { name: Some(name.clone()), value })
            }
            all => Ok(Condition { name: None, value: self.pipeline(all)? }),
        }
    }

    fn range(&mut self, tokens: &[Token], depth: usize) -> Result<What, Error> {
        let scope = self.variables.len();
        let at = tokens.iter().position(|t| matches!(t, Token::Declare | Token::Assign));
        let mut names = Vec::new();
        for t in &tokens[..at.unwrap_or(0)] {
            match t {
                Token::Word(w) if w.starts_with('$') => names.push(w.clone()),
                Token::Comma => {}
                _ => return self.fail("range can only initialize variables".to_owned()),
            }
        }
        if names.len() > 2 {
            return self.fail("too many declarations in range".to_owned());
        }
        if tokens.is_empty() {
            return self.fail("missing value for range".to_owned());
        }
        let over = self.pipeline(&tokens[at.map_or(0, |a| a + 1)..])?;
        self.variables.extend(names.iter().cloned());
        self.loops += 1;
        let (body, ending) = self.inner(depth)?;
        self.loops -= 1;
        let otherwise = match ending.as_slice() {
            [Token::Word(w)] if w == "end" => Vec::new(),
            [Token::Word(w)] if w == "else" => self.otherwise(depth)?,
            _ => return self.fail("expected {{end}}".to_owned()),
        };
        self.variables.truncate(scope);
        Ok(What::Range { names, over, body, otherwise })
    }

    fn define(&mut self, tokens: &[Token], depth: usize) -> Result<(), Error> {
        let [Token::Text(name)] = tokens else {
            return self.fail("unexpected words in define clause".to_owned());
        };
        if depth > 0 {
            return self.fail("unexpected {{define}}".to_owned());
        }
        let body = self.named_body(depth)?;
        self.named.insert(name.clone(), body);
        Ok(())
    }

    /// The body of `define` and `block`, which sees no variable from around it.
    fn named_body(&mut self, depth: usize) -> Result<Vec<Node>, Error> {
        let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let loops = std::mem::take(&mut self.loops);
        let (body, ending) = self.inner(depth)?;
        self.variables = outer;
        self.loops = loops;
        match ending.as_slice() {
            [Token::Word(w)] if w == "end" => Ok(body),
            _ => self.fail("unexpected {{else}} in define clause".to_owned()),
        }
    }

    /// The name of a template and what it is given.
    fn template(&mut self, tokens: &[Token]) -> Result<(String, Option<Pipeline>), Error> {
        match tokens {
            [Token::Text(name)] => Ok((name.clone(), None)),
            [Token::Text(name), rest @ ..] => Ok((name.clone(), Some(self.pipeline(rest)?))),
            _ => self.fail("unexpected words in template clause".to_owned()),
        }
    }

    fn declared(&self, name: &str) -> Result<(), Error> {
        if self.variables.iter().any(|v| v == name) {
            return Ok(());
        }
        self.fail(format!("undefined variable {name:?}"))
    }

    fn pipeline(&self, tokens: &[Token]) -> Result<Pipeline, Error> {
        let mut rest = tokens;
        let p = self.commands(&mut rest, 0)?;
        if rest.is_empty() { Ok(p) } else { self.fail("unexpected right paren".to_owned()) }
    }

    fn commands(&self, rest: &mut &[Token], depth: usize) -> Result<Pipeline, Error> {
        if depth > DEPTH {
            return self.fail("too many parentheses inside each other".to_owned());
        }
        let mut out: Pipeline = vec![Vec::new()];
        while let Some((token, after)) = rest.split_first() {
            if matches!(token, Token::Close(_)) {
                break;
            }
            *rest = after;
            let operand = match token {
                Token::Pipe => {
                    out.push(Vec::new());
                    continue;
                }
                Token::Text(t) => Operand::Constant(Value::Text(t.clone())),
                Token::Character(c) => Operand::Constant(Value::Int(i64::from(u32::from(*c)))),
                Token::Number(n) => Operand::Constant(self.number(n)?),
                Token::Open => {
                    let p = self.commands(rest, depth + 1)?;
                    match rest.split_first() {
                        Some((Token::Close(names), after)) => {
                            *rest = after;
                            Operand::Group(p, names.clone())
                        }
                        _ => return self.fail("unclosed left paren".to_owned()),
                    }
                }
                Token::Word(w) => self.word(w)?,
                Token::Comma | Token::Declare | Token::Assign | Token::Close(_) => {
                    return self.fail("unexpected token in an action".to_owned());
                }
            };
            if let Some(command) = out.last_mut() {
                command.push(operand);
            }
        }
        if out.iter().any(Vec::is_empty) {
            return self.fail("missing value for command".to_owned());
        }
        // Only what can be called has a place behind a pipe.
        if out.iter().skip(1).any(|c| matches!(c.first(), Some(Operand::Constant(_)))) {
            return self.fail("non executable command in pipeline".to_owned());
        }
        Ok(out)
    }

    fn word(&self, w: &str) -> Result<Operand, Error> {
        if w.starts_with('.') {
            return Ok(Operand::Field(names(w)));
        }
        if let Some(rest) = w.strip_prefix('$') {
            let (name, path) = rest.split_once('.').unwrap_or((rest, ""));
            let name = format!("${name}");
            self.declared(&name)?;
            return Ok(Operand::Variable(name, names(path)));
        }
        match w {
            "true" => Ok(Operand::Constant(Value::Bool(true))),
            "false" => Ok(Operand::Constant(Value::Bool(false))),
            "nil" => Ok(Operand::Constant(Value::Nil)),
            _ if self.functions.knows(w) || builtin::is_known(w) => Ok(Operand::Function(w.to_owned())),
            _ => self.fail(format!("function {w:?} not defined")),
        }
    }

    fn number(&self, text: &str) -> Result<Value, Error> {
        let plain = text.replace('_', "");
        let (sign, digits) = match plain.strip_prefix('-') {
            Some(d) => (-1, d),
            None => (1, plain.strip_prefix('+').unwrap_or(&plain)),
        };
        let based = [("0x", 16), ("0X", 16), ("0o", 8), ("0b", 2)];
        if let Some((prefix, base)) = based.iter().find(|(p, _)| digits.starts_with(p))
            && let Ok(i) = i64::from_str_radix(&digits[prefix.len()..], *base)
        {
            return Ok(Value::Int(sign * i));
        }
        if let Ok(i) = plain.parse() {
            return Ok(Value::Int(i));
        }
        match plain.parse::<f64>() {
            Ok(f) if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => Ok(Value::Float(f)),
            _ => self.fail(format!("bad number syntax: {text:?}")),
        }
    }
}
