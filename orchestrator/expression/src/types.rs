//! What expressions know of values before there are any. Bounds on sizes serve the cost estimate only.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A type, with how big its values can get.
#[derive(Clone, Debug)]
pub enum Type {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    /// Characters at most.
    String(Option<u64>),
    Bytes(Option<u64>),
    Duration,
    Timestamp,
    /// The type of types.
    Type,
    List(Box<Type>, Option<u64>),
    Map(Box<Type>, Box<Type>, Option<u64>),
    Optional(Box<Type>),
    Object(Arc<ObjectType>),
    /// A library's own: a quantity, an address, an authorizer.
    Opaque(&'static str),
}

/// An object with known fields, by the names expressions use.
#[derive(Debug)]
pub struct ObjectType {
    pub name: String,
    pub fields: BTreeMap<String, Type>,
}

impl Type {
    pub fn string() -> Type {
        Type::String(None)
    }

    pub fn list(element: Type) -> Type {
        Type::List(Box::new(element), None)
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Box::new(key), Box::new(value), None)
    }

    pub fn object(name: impl Into<String>, fields: impl IntoIterator<Item = (String, Type)>) -> Type {
        Type::Object(Arc::new(ObjectType { name: name.into(), fields: fields.into_iter().collect() }))
    }

    /// Whether a value of one type can stand where the other is wanted.
    pub(crate) fn fits(&self, wanted: &Type) -> bool {
        match (self, wanted) {
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (
                Type::Null,
                Type::Object(_) | Type::Optional(_) | Type::Opaque(_) | Type::Duration | Type::Timestamp,
            ) => true,
            (Type::Object(_) | Type::Optional(_) | Type::Duration | Type::Timestamp, Type::Null) => true,
            (Type::List(a, _), Type::List(b, _)) => a.fits(b),
            (Type::Map(ka, va, _), Type::Map(kb, vb, _)) => ka.fits(kb) && va.fits(vb),
            (Type::Optional(a), Type::Optional(b)) => a.fits(b),
            (Type::Object(a), Type::Object(b)) => a.name == b.name,
            (Type::Opaque(a), Type::Opaque(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }

    /// One type for two: what they share, or anything.
    pub(crate) fn join(self, other: Type) -> Type {
        if matches!(self, Type::Null) {
            return other;
        }
        if self.fits(&other) && !matches!(self, Type::Dyn) { self } else { Type::Dyn }
    }

    /// How many elements or characters there can be.
    pub(crate) fn bound(&self) -> Option<u64> {
        match self {
            Type::String(n) | Type::Bytes(n) | Type::List(_, n) | Type::Map(_, _, n) => *n,
            _ => None,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::String(_) => f.write_str("string"),
            Type::Bytes(_) => f.write_str("bytes"),
            Type::Duration => f.write_str("google.protobuf.Duration"),
            Type::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Type::Type => f.write_str("type"),
            Type::List(e, _) => write!(f, "list({e})"),
            Type::Map(k, v, _) => write!(f, "map({k}, {v})"),
            Type::Optional(t) => write!(f, "optional_type({t})"),
            Type::Object(o) => f.write_str(&o.name),
            Type::Opaque(name) => f.write_str(name),
        }
    }
}

/// How a property is named in an expression; `None` if it cannot be (KEP-2876, escaping).
pub fn escape(property: &str) -> Option<String> {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if RESERVED.contains(&property) {
        return Some(format!("__{property}__"));
    }
    let mut out = String::new();
    let mut rest = property;
    while let Some(c) = rest.chars().next() {
        let (word, taken) = match c {
            '_' if rest.starts_with("__") => ("__underscores__", 2),
            '.' => ("__dot__", 1),
            '-' => ("__dash__", 1),
            '/' => ("__slash__", 1),
            c if c == '_' || c.is_ascii_alphabetic() || c.is_ascii_digit() && !out.is_empty() => {
                out.push(c);
                rest = &rest[1..];
                continue;
            }
            _ => return None,
        };
        out.push_str(word);
        rest = &rest[taken..];
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn names_of_properties() {
        let check = |name: &str, expect: Option<&str>| assert_eq!(escape(name).as_deref(), expect);
        check("a1", Some("a1"));
        check("namespace", Some("__namespace__"));
        check("x-y.z/w", Some("x__dash__y__dot__z__slash__w"));
        check("a__b", Some("a__underscores__b"));
        check("1a", None);
        check("ä", None);
    }
}
