//! Objects as Kubernetes' protobuf, both ways, by a table of field numbers.
//!
//! JSON is the form objects have here; a message is read into it and written from it. What Go's types make of a
//! field decides about zeros: where Go cannot tell zero from absent, zero is absent.
//! Source: k8s.io/api v0.35 types.go; k8s.io/apimachinery: pkg/runtime/serializer/protobuf.

use std::collections::HashMap;
use std::io::Read;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

mod extensions;
pub mod wire;

use wire::{Reader, Wire};

static COMPRESSED: &[u8] = include_bytes!("../data/protobuf-1.35.json.gz");

/// What every body begins with.
pub const MAGIC: &[u8] = b"k8s\0";
/// Schemas of custom resources nest without end, others some twenty deep.
const MAX_DEPTH: usize = 64;
/// What definitions of custom resources are made of.
const SCHEMA: &str = "api.apiextensions.v1.JSONSchemaProps";

#[derive(Debug)]
enum Type {
    /// Zero is absent.
    String {
        zero: bool,
    },
    Int {
        zero: bool,
    },
    Bool {
        zero: bool,
    },
    Float {
        zero: bool,
    },
    /// Base64 in JSON.
    Bytes,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// Any JSON, as bytes in a message.
    Raw,
    Message(Box<str>),
    /// A schema, or whether there may be anything.
    SchemaOrBool,
    /// A schema, or one for each element.
    SchemaOrList,
    List(Box<Type>),
    /// From strings.
    Map(Box<Type>),
}

#[derive(Debug)]
struct Field {
    number: u32,
    /// Empty: the message's fields stand beside the others in JSON.
    name: Box<str>,
    ty: Type,
}

type Table = HashMap<Box<str>, Vec<Field>>;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut text = String::new();
    flate2::read::GzDecoder::new(COMPRESSED)
        .read_to_string(&mut text)
        .expect("the embedded table is whole: a test reads it");
    /// Number, name and type of each field.
    type Row = (u32, Box<str>, String);
    let raw: HashMap<Box<str>, Vec<Row>> =
        serde_json::from_str(&text).expect("the embedded table is JSON: a test reads it");
    let field = |(number, name, code): Row| Field { number, name, ty: parse(&code) };
    let own = META.iter().chain(extensions::MESSAGES).map(|(name, fields)| {
        let fields =
            fields.iter().map(|(number, name, code)| (*number, Box::from(*name), (*code).to_owned()));
        (Box::from(*name), fields.collect())
    });
    raw.into_iter().chain(own).map(|(n, fields)| (n, fields.into_iter().map(field).collect())).collect()
});

type Message = (&'static str, &'static [(u32, &'static str, &'static str)]);

/// What only answers hold (k8s.io/apimachinery: pkg/apis/meta/v1/generated.proto).
const META: &[Message] = &[
    (
        "apimachinery.pkg.apis.meta.v1.ListMeta",
        &[
            (1, "selfLink", "S"),
            (2, "resourceVersion", "S"),
            (3, "continue", "S"),
            (4, "remainingItemCount", "i"),
        ],
    ),
    (
        "apimachinery.pkg.apis.meta.v1.Status",
        &[
            (1, "metadata", "mapimachinery.pkg.apis.meta.v1.ListMeta"),
            (2, "status", "S"),
            (3, "message", "S"),
            (4, "reason", "S"),
            (5, "details", "mapimachinery.pkg.apis.meta.v1.StatusDetails"),
            (6, "code", "I"),
        ],
    ),
    (
        "apimachinery.pkg.apis.meta.v1.StatusDetails",
        &[
            (1, "name", "S"),
            (2, "group", "S"),
            (3, "kind", "S"),
            (4, "causes", "[mapimachinery.pkg.apis.meta.v1.StatusCause"),
            (5, "retryAfterSeconds", "I"),
            (6, "uid", "S"),
        ],
    ),
    (
        "apimachinery.pkg.apis.meta.v1.StatusCause",
        &[(1, "reason", "S"), (2, "message", "S"), (3, "field", "S")],
    ),
    (
        "apimachinery.pkg.apis.meta.v1.PartialObjectMetadata",
        &[(1, "metadata", "mapimachinery.pkg.apis.meta.v1.ObjectMeta")],
    ),
];

fn parse(code: &str) -> Type {
    let (head, rest) = code.split_at(1);
    match head {
        "s" | "S" => Type::String { zero: head == "s" },
        "i" | "I" => Type::Int { zero: head == "i" },
        "b" | "B" => Type::Bool { zero: head == "b" },
        "d" | "D" => Type::Float { zero: head == "d" },
        "y" | "Y" => Type::Bytes,
        "q" => Type::Quantity,
        "o" => Type::IntOrString,
        "t" => Type::Time,
        "u" => Type::MicroTime,
        "f" | "r" => Type::Raw,
        "m" => Type::Message(rest.into()),
        "p" => Type::SchemaOrBool,
        "a" => Type::SchemaOrList,
        "[" => Type::List(Box::new(parse(rest))),
        "{" => Type::Map(Box::new(parse(rest))),
        other => unreachable!("the embedded table knows no {other}: a test reads it"),
    }
}

/// The message of a kind, if it is in the table.
fn message_of(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    // `rbac.authorization.k8s.io` lies in the package `rbac`.
    let package = match group {
        "" => "core",
        g => g.split('.').next().unwrap_or(g),
    };
    let name = match (group, kind) {
        (_, "DeleteOptions") | ("core", "Status") | ("meta.k8s.io", "PartialObjectMetadata") => {
            format!("apimachinery.pkg.apis.meta.v1.{kind}")
        }
        _ => format!("api.{package}.{version}.{kind}"),
    };
    TABLE.get(name.as_str()).map(Vec::as_slice)
}

/// Why a body could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    Malformed,
    /// A kind the table does not have.
    Unknown(String),
}

/// A body → JSON.
pub fn decode(bytes: &[u8]) -> Result<Value, Broken> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(Broken::Malformed)?;
    let (mut meta, mut raw): (&[u8], &[u8]) = (&[], &[]);
    let mut r = Reader(envelope);
    while !r.0.is_empty() {
        match r.field().ok_or(Broken::Malformed)? {
            (1, Wire::Bytes(b)) => meta = b,
            (2, Wire::Bytes(b)) => raw = b,
            _ => {}
        }
    }
    let (mut api_version, mut kind) = ("", "");
    let mut r = Reader(meta);
    while !r.0.is_empty() {
        match r.field().ok_or(Broken::Malformed)? {
            (1, Wire::Bytes(b)) => api_version = std::str::from_utf8(b).map_err(|_| Broken::Malformed)?,
            (2, Wire::Bytes(b)) => kind = std::str::from_utf8(b).map_err(|_| Broken::Malformed)?,
            _ => {}
        }
    }
    let fields = message_of(api_version, kind).ok_or_else(|| Broken::Unknown(kind.to_owned()))?;
    let mut out = Map::new();
    for (key, text) in [("apiVersion", api_version), ("kind", kind)] {
        if !text.is_empty() {
            out.insert(key.to_owned(), text.into());
        }
    }
    read(raw, fields, &mut out, 0).ok_or(Broken::Malformed)?;
    Ok(Value::Object(out))
}

/// `None`: not well formed. Unknown fields are skipped.
fn read(bytes: &[u8], fields: &[Field], out: &mut Map<String, Value>, depth: usize) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut r = Reader(bytes);
    while !r.0.is_empty() {
        let (number, wire) = r.field()?;
        let Some(f) = fields.iter().find(|f| f.number == number) else { continue };
        match (&f.ty, wire) {
            (Type::Message(name), Wire::Bytes(b)) if f.name.is_empty() => {
                read(b, TABLE.get(name)?, out, depth + 1)?;
            }
            (Type::List(element), wire) => {
                let list = out.entry(&*f.name).or_insert_with(|| Value::Array(Vec::new())).as_array_mut()?;
                match (&**element, wire) {
                    // Numbers may come packed.
                    (Type::Int { .. }, Wire::Bytes(b)) => {
                        let mut packed = Reader(b);
                        while !packed.0.is_empty() {
                            list.push((packed.varint()? as i64).into());
                        }
                    }
                    (element, wire) => list.push(value(element, wire, depth)?),
                }
            }
            (Type::Map(inner), Wire::Bytes(b)) => {
                let (mut key, mut v) = ("", None);
                let mut pair = Reader(b);
                while !pair.0.is_empty() {
                    match pair.field()? {
                        (1, Wire::Bytes(k)) => key = std::str::from_utf8(k).ok()?,
                        (2, w) => v = Some(value(inner, w, depth)?),
                        _ => {}
                    }
                }
                let map = out.entry(&*f.name).or_insert_with(|| Value::Object(Map::new())).as_object_mut()?;
                map.insert(key.to_owned(), v.unwrap_or_else(|| zero(inner)));
            }
            (ty, wire) => {
                let v = value(ty, wire, depth)?;
                if !is_absent(ty, &v) {
                    out.insert((*f.name).to_owned(), v);
                }
            }
        }
    }
    Some(())
}

/// Whether JSON leaves this value out.
fn is_absent(ty: &Type, v: &Value) -> bool {
    match ty {
        Type::String { zero: false } => v == "",
        Type::Int { zero: false } => *v == 0,
        Type::Bool { zero: false } => *v == false,
        Type::Float { zero: false } => v.as_f64() == Some(0.0),
        _ => v.is_null(),
    }
}

/// What a map has for a key without a value.
fn zero(ty: &Type) -> Value {
    match ty {
        Type::Int { .. } => 0.into(),
        Type::Bool { .. } => false.into(),
        Type::Message(_) => Value::Object(Map::new()),
        _ => "".into(),
    }
}

fn value(ty: &Type, wire: Wire<'_>, depth: usize) -> Option<Value> {
    Some(match (ty, wire) {
        (Type::String { .. }, Wire::Bytes(b)) => std::str::from_utf8(b).ok()?.into(),
        (Type::Int { .. }, Wire::Varint(v)) => (v as i64).into(),
        (Type::Bool { .. }, Wire::Varint(v)) => (v != 0).into(),
        (Type::Float { .. }, Wire::Fixed64(v)) => f64::from_bits(v).into(),
        (Type::Bytes, Wire::Bytes(b)) => STANDARD.encode(b).into(),
        (Type::Quantity, Wire::Bytes(b)) => {
            let text = wire::text(b, 1)?;
            if text.is_empty() { "0".into() } else { text.into() }
        }
        (Type::IntOrString, Wire::Bytes(b)) => match wire::number(b, 1)? {
            1 => wire::text(b, 3)?.into(),
            _ => wire::number(b, 2)?.into(),
        },
        (Type::Time | Type::MicroTime, Wire::Bytes(b)) => time(ty, b)?,
        // Nothing is no JSON; upstream leaves it out.
        (Type::Raw, Wire::Bytes(b)) => match wire::bytes(b, 1)? {
            [] => Value::Null,
            json => serde_json::from_slice(json).ok()?,
        },
        (Type::Message(name), Wire::Bytes(b)) => {
            let fields = TABLE.get(name)?;
            let mut inner = Map::new();
            read(b, fields, &mut inner, depth + 1)?;
            match named_list(fields) {
                Some(_) => inner.shift_remove("").unwrap_or_else(|| Value::Array(Vec::new())),
                None => Value::Object(inner),
            }
        }
        (Type::SchemaOrBool | Type::SchemaOrList, Wire::Bytes(b)) => schema_or(ty, b, depth + 1)?,
        _ => return None,
    })
}

/// A schema, or what may stand in its place.
fn schema_or(ty: &Type, b: &[u8], depth: usize) -> Option<Value> {
    let (mut schema, mut allows, mut list) = (None, false, Vec::new());
    let schema_of = |b: &[u8]| value(&Type::Message(SCHEMA.into()), Wire::Bytes(b), depth);
    let mut r = Reader(b);
    while !r.0.is_empty() {
        match (ty, r.field()?) {
            (Type::SchemaOrBool, (1, Wire::Varint(v))) => allows = v != 0,
            (Type::SchemaOrBool, (2, Wire::Bytes(b))) | (Type::SchemaOrList, (1, Wire::Bytes(b))) => {
                schema = Some(schema_of(b)?);
            }
            (Type::SchemaOrList, (2, Wire::Bytes(b))) => list.push(schema_of(b)?),
            _ => {}
        }
    }
    Some(match (schema, ty) {
        (Some(schema), _) => schema,
        (None, Type::SchemaOrBool) => allows.into(),
        (None, _) => list.into(),
    })
}

/// A list with a name of its own is a message with one field without a name.
fn named_list(fields: &[Field]) -> Option<&Field> {
    fields.first().filter(|f| f.name.is_empty() && matches!(f.ty, Type::List(_)))
}

fn time(ty: &Type, b: &[u8]) -> Option<Value> {
    if b.is_empty() {
        return Some(Value::Null);
    }
    let (seconds, nanos) = (wire::number(b, 1)?, wire::number(b, 2)?);
    let nanos = if matches!(ty, Type::MicroTime) { i32::try_from(nanos).ok()? } else { 0 };
    let t = jiff::Timestamp::new(seconds, nanos).ok()?;
    Some(match ty {
        Type::MicroTime => t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into(),
        _ => t.to_string().into(),
    })
}

/// Whether objects of a kind, and lists of them, have a message.
pub fn knows(api_version: &str, kind: &str) -> bool {
    message_of(api_version, kind).is_some()
}

/// JSON → a body; `None` if the table does not have its kind. What has another type than the table says is left out.
/// A list's kind is that of its objects and `List`.
pub fn encode(object: &Value) -> Option<Vec<u8>> {
    let text = |k: &str| object.get(k).and_then(Value::as_str).unwrap_or_default();
    let items = object.get("items").and_then(Value::as_array);
    if let (Some(items), Some(kind)) = (items, text("kind").strip_suffix("List")) {
        let item = message_of(text("apiVersion"), kind)?;
        let mut raw = Vec::new();
        if let Some(metadata) = object.get("metadata") {
            put(&mut raw, 1, &Type::Message("apimachinery.pkg.apis.meta.v1.ListMeta".into()), metadata);
        }
        for o in items.iter().filter_map(Value::as_object) {
            let mut b = Vec::new();
            write(o, item, &mut b);
            wire::put_bytes(&mut raw, 2, &b);
        }
        return Some(envelope(text("apiVersion"), text("kind"), &raw));
    }
    let fields = message_of(text("apiVersion"), text("kind"))?;
    let mut raw = Vec::new();
    write(object.as_object()?, fields, &mut raw);
    Some(envelope(text("apiVersion"), text("kind"), &raw))
}

/// An event of a watch as a frame: its length as four bytes, then a `WatchEvent` with the object as a body of its own.
pub fn encode_event(event: &Value) -> Option<Vec<u8>> {
    let object = encode(event.get("object")?)?;
    let (mut raw, mut message) = (Vec::new(), Vec::new());
    wire::put_bytes(&mut raw, 1, &object);
    wire::put_bytes(&mut message, 1, event.get("type")?.as_str()?.as_bytes());
    wire::put_bytes(&mut message, 2, &raw);
    let mut out = u32::try_from(message.len()).ok()?.to_be_bytes().to_vec();
    out.append(&mut message);
    Some(out)
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    wire::put_bytes(&mut meta, 1, api_version.as_bytes());
    wire::put_bytes(&mut meta, 2, kind.as_bytes());
    let mut out = MAGIC.to_vec();
    wire::put_bytes(&mut out, 1, &meta);
    wire::put_bytes(&mut out, 2, raw);
    // Upstream writes the encoding and the media type, both empty.
    wire::put_bytes(&mut out, 3, &[]);
    wire::put_bytes(&mut out, 4, &[]);
    out
}

fn write(object: &Map<String, Value>, fields: &[Field], out: &mut Vec<u8>) {
    for f in fields {
        if f.name.is_empty() {
            if let Type::Message(name) = &f.ty
                && let Some(inner) = TABLE.get(name)
            {
                let mut b = Vec::new();
                write(object, inner, &mut b);
                if !b.is_empty() {
                    wire::put_bytes(out, f.number, &b);
                }
            }
            continue;
        }
        match (object.get(&*f.name), &f.ty) {
            (None | Some(Value::Null), _) => {}
            (Some(Value::Array(list)), Type::List(element)) => {
                list.iter().for_each(|v| put(out, f.number, element, v));
            }
            (Some(Value::Object(map)), Type::Map(inner)) => {
                for (k, v) in map {
                    let mut pair = Vec::new();
                    wire::put_bytes(&mut pair, 1, k.as_bytes());
                    put(&mut pair, 2, inner, v);
                    wire::put_bytes(out, f.number, &pair);
                }
            }
            (Some(v), ty) => put(out, f.number, ty, v),
        }
    }
}

fn put(out: &mut Vec<u8>, number: u32, ty: &Type, v: &Value) {
    match (ty, v) {
        (Type::String { .. }, Value::String(s)) => wire::put_bytes(out, number, s.as_bytes()),
        (Type::Int { .. }, v) => {
            if let Some(n) = v.as_i64() {
                wire::put_varint(out, number, n as u64);
            }
        }
        (Type::Bool { .. }, Value::Bool(b)) => wire::put_varint(out, number, u64::from(*b)),
        (Type::Float { .. }, v) => {
            if let Some(n) = v.as_f64() {
                wire::put_fixed64(out, number, n.to_bits());
            }
        }
        (Type::Bytes, Value::String(s)) => {
            if let Ok(b) = STANDARD.decode(s) {
                wire::put_bytes(out, number, &b);
            }
        }
        (Type::Quantity, Value::String(s)) => {
            let mut b = Vec::new();
            wire::put_bytes(&mut b, 1, s.as_bytes());
            wire::put_bytes(out, number, &b);
        }
        (Type::IntOrString, v) => {
            let mut b = Vec::new();
            wire::put_varint(&mut b, 1, u64::from(v.is_string()));
            wire::put_varint(&mut b, 2, v.as_i64().unwrap_or(0) as u64);
            wire::put_bytes(&mut b, 3, v.as_str().unwrap_or_default().as_bytes());
            wire::put_bytes(out, number, &b);
        }
        (Type::Time | Type::MicroTime, Value::String(s)) => {
            if let Ok(t) = s.parse::<jiff::Timestamp>() {
                let mut b = Vec::new();
                wire::put_varint(&mut b, 1, t.as_second() as u64);
                wire::put_varint(&mut b, 2, i64::from(t.subsec_nanosecond()) as u64);
                wire::put_bytes(out, number, &b);
            }
        }
        (Type::Raw, v) => {
            let mut b = Vec::new();
            wire::put_bytes(&mut b, 1, v.to_string().as_bytes());
            wire::put_bytes(out, number, &b);
        }
        (Type::Message(name), v) => {
            let Some(fields) = TABLE.get(name) else { return };
            let mut b = Vec::new();
            match (named_list(fields), v) {
                (Some(Field { number, ty: Type::List(element), .. }), Value::Array(l)) => {
                    l.iter().for_each(|v| put(&mut b, *number, element, v));
                }
                (_, Value::Object(m)) => write(m, fields, &mut b),
                _ => return,
            }
            wire::put_bytes(out, number, &b);
        }
        (Type::SchemaOrBool, v) => {
            let mut b = Vec::new();
            wire::put_varint(&mut b, 1, u64::from(*v != false));
            if v.is_object() {
                put(&mut b, 2, &Type::Message(SCHEMA.into()), v);
            }
            wire::put_bytes(out, number, &b);
        }
        (Type::SchemaOrList, v) => {
            let mut b = Vec::new();
            let schema = Type::Message(SCHEMA.into());
            match v {
                Value::Array(l) => l.iter().for_each(|v| put(&mut b, 2, &schema, v)),
                v => put(&mut b, 1, &schema, v),
            }
            wire::put_bytes(out, number, &b);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
