//! Template text into a tree.

use super::value::Value;
use super::{Node, Operand, Pipeline, functions};

/// Blocks inside blocks, and parentheses.
const DEPTH: usize = 50;

enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// `.a.b`, `$x.a`, `if`, `ToUpper`
    Word(String),
    Text(String),
    Number(String),
    Open,
    /// With the fields that follow it: `(…).a`.
    Close(Vec<String>),
    Pipe,
    Comma,
    Declare,
    Assign,
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, String> {
    let mut p = Parser { pieces: pieces(text)?.into_iter().peekable() };
    let (nodes, ended_by) = p.block(0)?;
    match ended_by {
        None => Ok(nodes),
        Some(_) => Err("template: unexpected {{end}} or {{else}}".to_owned()),
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(at) = rest.find("{{") {
        let mut before = &rest[..at];
        if trim {
            before = before.trim_start();
        }
        let mut inner = &rest[at + 2..];
        if let Some(i) = inner.strip_prefix('-').filter(|i| i.starts_with(char::is_whitespace)) {
            before = before.trim_end();
            inner = i;
        }
        out.push(Piece::Text(before.to_owned()));
        if let Some(comment) = inner.trim_start().strip_prefix("/*") {
            let end = comment.find("*/").ok_or("template: unclosed comment")?;
            let after = comment[end + 2..].trim_start();
            trim = after.starts_with('-');
            rest = after.trim_start_matches('-').strip_prefix("}}").ok_or("template: unclosed comment")?;
            continue;
        }
        let (tokens, after, trims) = tokens(inner)?;
        trim = trims;
        rest = after;
        out.push(Piece::Action(tokens));
    }
    out.push(Piece::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
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
        let Some(c) = rest.chars().next() else { return Err("template: unclosed action".to_owned()) };
        let len = match c {
            '"' => {
                let (s, len) = crate::lex::quoted(rest).ok_or("template: unterminated string")?;
                out.push(Token::Text(s));
                len
            }
            '`' => {
                let end = rest[1..].find('`').ok_or("template: unterminated string")?;
                out.push(Token::Text(rest[1..=end].to_owned()));
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
            '0'..='9' | '-' | '+' => {
                let len = 1 + rest[1..]
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '.'))
                    .unwrap_or(rest.len() - 1);
                out.push(Token::Number(rest[..len].to_owned()));
                len
            }
            c if c.is_alphabetic() || matches!(c, '_' | '.' | '$') => {
                let len = word(rest);
                out.push(Token::Word(rest[..len].to_owned()));
                len
            }
            c => return Err(format!("template: unexpected {c:?} in an action")),
        };
        rest = rest[len..].trim_start();
    }
}

fn names(path: &str) -> Vec<String> {
    path.split('.').filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

struct Parser {
    pieces: std::iter::Peekable<std::vec::IntoIter<Piece>>,
}

impl Parser {
    /// Nodes up to `{{end}}`, `{{else}}` or the end, and that action.
    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, Option<Vec<Token>>), String> {
        if depth > DEPTH {
            return Err("template: too many blocks inside each other".to_owned());
        }
        let mut out = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(t) => {
                    if !t.is_empty() {
                        out.push(Node::Text(t));
                    }
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            let keyword = match tokens.first() {
                Some(Token::Word(w)) => w.as_str(),
                Some(_) => "",
                None => return Err("template: missing value for command".to_owned()),
            };
            match keyword {
                "end" | "else" => return Ok((out, Some(tokens))),
                "if" => out.push(self.branches(tokens, depth)?),
                "with" => {
                    let p = pipeline(&tokens[1..])?;
                    let (body, otherwise) = self.body(depth)?;
                    out.push(Node::With(p, body, otherwise));
                }
                "range" => {
                    let (names, over) = declared(&tokens[1..])?;
                    let (body, otherwise) = self.body(depth)?;
                    out.push(Node::Range { names, over, body, otherwise });
                }
                _ => out.push(match tokens.as_slice() {
                    [Token::Word(name), Token::Declare | Token::Assign, rest @ ..]
                        if name.starts_with('$') =>
                    {
                        Node::Assign(name.clone(), pipeline(rest)?)
                    }
                    all => Node::Show(pipeline(all)?),
                }),
            }
        }
        Ok((out, None))
    }

    /// The body of a block and what stands behind its `{{else}}`.
    fn body(&mut self, depth: usize) -> Result<(Vec<Node>, Vec<Node>), String> {
        let (body, end) = self.block(depth + 1)?;
        match end.as_deref() {
            Some([Token::Word(w)]) if w == "end" => Ok((body, Vec::new())),
            Some([Token::Word(w)]) if w == "else" => {
                let (otherwise, end) = self.block(depth + 1)?;
                match end.as_deref() {
                    Some([Token::Word(w)]) if w == "end" => Ok((body, otherwise)),
                    _ => Err("template: expected {{end}}".to_owned()),
                }
            }
            _ => Err("template: expected {{end}}".to_owned()),
        }
    }

    fn branches(&mut self, first: Vec<Token>, depth: usize) -> Result<Node, String> {
        let mut condition = pipeline(&first[1..])?;
        let mut out = Vec::new();
        loop {
            let (body, end) = self.block(depth + 1)?;
            out.push((condition, body));
            match end.as_deref() {
                Some([Token::Word(w)]) if w == "end" => return Ok(Node::If(out, Vec::new())),
                Some([Token::Word(w)]) if w == "else" => {
                    let (otherwise, end) = self.block(depth + 1)?;
                    return match end.as_deref() {
                        Some([Token::Word(w)]) if w == "end" => Ok(Node::If(out, otherwise)),
                        _ => Err("template: expected {{end}}".to_owned()),
                    };
                }
                Some([Token::Word(a), Token::Word(b), rest @ ..]) if a == "else" && b == "if" => {
                    condition = pipeline(rest)?;
                }
                _ => return Err("template: expected {{end}}".to_owned()),
            }
        }
    }
}

/// `$i, $v := …` of a range.
fn declared(tokens: &[Token]) -> Result<(Vec<String>, Pipeline), String> {
    let Some(at) = tokens.iter().position(|t| matches!(t, Token::Declare | Token::Assign)) else {
        return Ok((Vec::new(), pipeline(tokens)?));
    };
    let mut names = Vec::new();
    for t in &tokens[..at] {
        match t {
            Token::Word(w) if w.starts_with('$') => names.push(w.clone()),
            Token::Comma => {}
            _ => return Err("template: expected a variable before :=".to_owned()),
        }
    }
    Ok((names, pipeline(&tokens[at + 1..])?))
}

fn pipeline(tokens: &[Token]) -> Result<Pipeline, String> {
    let mut rest = tokens;
    let p = commands(&mut rest, 0)?;
    if rest.is_empty() { Ok(p) } else { Err("template: unexpected ) in an action".to_owned()) }
}

fn commands(rest: &mut &[Token], depth: usize) -> Result<Pipeline, String> {
    if depth > DEPTH {
        return Err("template: too many parentheses inside each other".to_owned());
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
            Token::Number(n) => Operand::Constant(number(n)?),
            Token::Open => {
                let p = commands(rest, depth + 1)?;
                match rest.split_first() {
                    Some((Token::Close(names), after)) => {
                        *rest = after;
                        Operand::Group(p, names.clone())
                    }
                    _ => return Err("template: unclosed left paren".to_owned()),
                }
            }
            Token::Word(w) => word(w)?,
            Token::Comma | Token::Declare | Token::Assign | Token::Close(_) => {
                return Err("template: unexpected token in an action".to_owned());
            }
        };
        if let Some(command) = out.last_mut() {
            command.push(operand);
        }
    }
    if out.iter().any(Vec::is_empty) {
        return Err("template: missing value for command".to_owned());
    }
    Ok(out)
}

fn word(w: &str) -> Result<Operand, String> {
    if w.starts_with('.') {
        return Ok(Operand::Field(names(w)));
    }
    if let Some(rest) = w.strip_prefix('$') {
        let (name, path) = rest.split_once('.').unwrap_or((rest, ""));
        return Ok(Operand::Variable(format!("${name}"), names(path)));
    }
    match w {
        "true" => Ok(Operand::Constant(Value::Bool(true))),
        "false" => Ok(Operand::Constant(Value::Bool(false))),
        "nil" => Ok(Operand::Constant(Value::Nil)),
        _ if functions::is_known(w) => Ok(Operand::Function(w.to_owned())),
        _ => Err(format!("template: function {w:?} not defined; a label is written .{w}")),
    }
}

fn number(text: &str) -> Result<Value, String> {
    if let Ok(i) = text.parse() {
        return Ok(Value::Int(i));
    }
    text.parse().map(Value::Float).map_err(|_| format!("template: bad number {text:?}"))
}
