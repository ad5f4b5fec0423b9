//! From source to a tree. The grammar is the `cel` crate's; macros are nodes here, so that the types of what they
//! bind are known.

use cel::Env;
use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo};

use crate::value::Value;

/// Expressions longer than this are not read.
const MAX_SOURCE: usize = 1 << 20;

/// A node with its place in the source, in characters.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) offset: u32,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Const(Value),
    Ident(String),
    /// `of.field`, `of.?field`
    Select {
        of: Box<Node>,
        field: String,
        optional: bool,
    },
    /// `has(of.field)`
    Has {
        of: Box<Node>,
        field: String,
    },
    Call {
        name: String,
        target: Option<Box<Node>>,
        args: Vec<Node>,
    },
    /// Elements, and whether each stands only if it has a value.
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    /// `Object{field: value}`
    Struct(String, Vec<(String, Node, bool)>),
    Loop(Box<Loop>),
    /// `cel.bind(var, init, body)`
    Bind {
        var: String,
        init: Box<Node>,
        body: Box<Node>,
    },
    /// `of.optMap(var, body)`; flat: `optFlatMap`
    OptMap {
        of: Box<Node>,
        var: String,
        body: Box<Node>,
        flat: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    TransformList,
    TransformMap,
    TransformMapEntry,
}

#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) form: Form,
    pub(crate) range: Node,
    pub(crate) var: String,
    pub(crate) second: Option<String>,
    pub(crate) filter: Option<Node>,
    pub(crate) body: Node,
}

/// What is wrong with a source, in cel-go's form.
pub(crate) fn issue(source: &str, offset: u32, message: &str) -> String {
    let mut line_start = 0;
    let mut line = 1;
    let chars: Vec<char> = source.chars().collect();
    let offset = (offset as usize).min(chars.len());
    for (i, c) in chars.iter().enumerate().take(offset) {
        if *c == '\n' {
            line += 1;
            line_start = i + 1;
        }
    }
    let text: String = chars[line_start..].iter().take_while(|c| **c != '\n').collect();
    let column = offset - line_start;
    format!("ERROR: <input>:{line}:{}: {message}\n | {text}\n | {}^", column + 1, ".".repeat(column))
}

/// The functions that live in a namespace.
const NAMESPACES: [&str; 9] =
    ["optional", "sets", "math", "lists", "strings", "format", "ip", "base64", "cel"];

pub(crate) fn parse(source: &str) -> Result<Node, String> {
    if source.len() > MAX_SOURCE {
        return Err(issue("", 0, "expression code point size exceeds limit"));
    }
    let parser = Env::default()
        .with_optional_support(true)
        .parser()
        .enable_optional_syntax(true)
        .enable_ident_escape_syntax(true);
    let (expr, info) = parser.parse_with_source_info(source).map_err(|e| {
        let all = e.errors.iter().map(|e| {
            let (line, column) = e.pos;
            let before: usize = source
                .lines()
                .take(usize::try_from(line - 1).unwrap_or(0))
                .map(|l| l.chars().count() + 1)
                .sum();
            let at = before + usize::try_from(column - 1).unwrap_or(0);
            issue(source, u32::try_from(at).unwrap_or(u32::MAX), &e.msg)
        });
        all.collect::<Vec<_>>().join("\n")
    })?;
    let reader = Reader { source, info };
    reader.node(expr)
}

struct Reader<'a> {
    source: &'a str,
    info: SourceInfo,
}

impl Reader<'_> {
    fn wrong<T>(&self, offset: u32, message: &str) -> Result<T, String> {
        Err(issue(self.source, offset, message))
    }

    fn node(&self, e: IdedExpr) -> Result<Node, String> {
        let offset = self.info.offset_for(e.id).map_or(0, |(start, _)| start);
        let kind = match e.expr {
            Expr::Literal(l) => Kind::Const(literal(l)),
            Expr::Ident(name) => Kind::Ident(name.trim_start_matches('.').to_owned()),
            Expr::Select(s) if s.test => Kind::Has { of: Box::new(self.node(*s.operand)?), field: s.field },
            Expr::Select(s) => {
                Kind::Select { of: Box::new(self.node(*s.operand)?), field: s.field, optional: false }
            }
            Expr::List(l) => {
                let optional = l.optional_indices;
                let elements = l.elements.into_iter().enumerate();
                Kind::List(
                    elements
                        .map(|(i, e)| Ok((self.node(e)?, optional.contains(&i))))
                        .collect::<Result<_, String>>()?,
                )
            }
            Expr::Map(m) => {
                let mut entries = Vec::new();
                for entry in m.entries {
                    if let EntryExpr::MapEntry(e) = entry.expr {
                        entries.push((self.node(e.key)?, self.node(e.value)?, e.optional));
                    }
                }
                Kind::Map(entries)
            }
            Expr::Struct(s) => {
                let mut fields = Vec::new();
                for entry in s.entries {
                    if let EntryExpr::StructField(f) = entry.expr {
                        fields.push((f.field, self.node(f.value)?, f.optional));
                    }
                }
                Kind::Struct(s.type_name, fields)
            }
            Expr::Call(c) => return self.call(offset, c.func_name, c.target, c.args),
            Expr::Comprehension(_) | Expr::Unspecified => {
                return self.wrong(offset, "unsupported expression");
            }
        };
        Ok(Node { offset, kind })
    }

    fn call(
        &self,
        offset: u32,
        name: String,
        target: Option<Box<IdedExpr>>,
        args: Vec<IdedExpr>,
    ) -> Result<Node, String> {
        let node = |kind| Ok(Node { offset, kind });
        let Some(target) = target else {
            return match (name.as_str(), args.len()) {
                ("has", 1) => match self.only(args)? {
                    Node { kind: Kind::Select { of, field, .. }, .. } => node(Kind::Has { of, field }),
                    _ => self.wrong(offset, "invalid argument to has() macro"),
                },
                ("_?._", 2) => {
                    let mut args = self.nodes(args)?;
                    let field = match args.pop().map(|n| n.kind) {
                        Some(Kind::Const(Value::String(s))) => s.as_ref().to_owned(),
                        _ => return self.wrong(offset, "unsupported optional field selection"),
                    };
                    let of = args.pop().expect("two arguments were matched");
                    node(Kind::Select { of: Box::new(of), field, optional: true })
                }
                _ => node(Kind::Call { name, target: None, args: self.nodes(args)? }),
            };
        };
        if let Expr::Ident(space) = &target.expr
            && NAMESPACES.contains(&space.as_str())
        {
            if (space.as_str(), name.as_str(), args.len()) == ("cel", "bind", 3) {
                let mut args = args.into_iter();
                let (var, init, body) = (args.next(), args.next(), args.next());
                let var = self.variable(offset, var)?;
                let (Some(init), Some(body)) = (init, body) else {
                    return self.wrong(offset, "bind needs a body");
                };
                return node(Kind::Bind {
                    var,
                    init: Box::new(self.node(init)?),
                    body: Box::new(self.node(body)?),
                });
            }
            return node(Kind::Call {
                name: format!("{space}.{name}"),
                target: None,
                args: self.nodes(args)?,
            });
        }
        let target = self.node(*target)?;
        let form = match (name.as_str(), args.len()) {
            ("all", 2 | 3) => Form::All,
            ("exists", 2 | 3) => Form::Exists,
            ("exists_one" | "existsOne", 2 | 3) => Form::ExistsOne,
            ("map", 2 | 3) => Form::Map,
            ("filter", 2) => Form::Filter,
            ("transformList", 3 | 4) => Form::TransformList,
            ("transformMap", 3 | 4) => Form::TransformMap,
            ("transformMapEntry", 3 | 4) => Form::TransformMapEntry,
            ("optMap" | "optFlatMap", 2) => {
                let mut args = args.into_iter();
                let var = self.variable(offset, args.next())?;
                let body = self.node(args.next().expect("two arguments were matched"))?;
                return node(Kind::OptMap {
                    of: Box::new(target),
                    var,
                    body: Box::new(body),
                    flat: name == "optFlatMap",
                });
            }
            _ => return node(Kind::Call { name, target: Some(Box::new(target)), args: self.nodes(args)? }),
        };
        let two = match form {
            Form::All | Form::Exists | Form::ExistsOne => args.len() == 3,
            Form::Map | Form::Filter => false,
            _ => true,
        };
        let mut args = args.into_iter();
        let var = self.variable(offset, args.next())?;
        let second = if two { Some(self.variable(offset, args.next())?) } else { None };
        let mut rest = self.nodes(args.collect())?;
        let body = rest.pop().expect("a macro has a body");
        node(Kind::Loop(Box::new(Loop { form, range: target, var, second, filter: rest.pop(), body })))
    }

    fn variable(&self, offset: u32, e: Option<IdedExpr>) -> Result<String, String> {
        match e.map(|e| e.expr) {
            Some(Expr::Ident(name)) => Ok(name),
            _ => self.wrong(offset, "argument must be a simple name"),
        }
    }

    fn nodes(&self, all: Vec<IdedExpr>) -> Result<Vec<Node>, String> {
        all.into_iter().map(|e| self.node(e)).collect()
    }

    fn only(&self, all: Vec<IdedExpr>) -> Result<Node, String> {
        self.node(all.into_iter().next().expect("one argument was matched"))
    }
}

fn literal(l: LiteralValue) -> Value {
    match l {
        LiteralValue::Boolean(b) => Value::Bool(*b.inner()),
        LiteralValue::Bytes(b) => Value::Bytes(b.inner().into()),
        LiteralValue::Double(d) => Value::Double(*d.inner()),
        LiteralValue::Int(i) => Value::Int(*i.inner()),
        LiteralValue::Null => Value::Null,
        LiteralValue::String(s) => s.inner().into(),
        LiteralValue::UInt(u) => Value::Uint(*u.inner()),
    }
}
