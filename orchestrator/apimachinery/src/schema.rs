//! The schemas of all kinds, compact: what fields there are, and how lists merge.
//!
//! The published definitions lie compressed in the binary. They are read once, without their
//! descriptions, into a table of a few hundred kilobytes; OpenAPI documents read them again when asked.

mod conform;
mod custom;

use std::collections::HashMap;
use std::io::Read;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

pub use conform::json_type;

static COMPRESSED: &[u8] = include_bytes!("../data/kubernetes-1.35.json.gz");
/// Of the kinds that upstream has not.
static OWN: &str = include_str!("../data/binnacle.json");

/// The definitions as JSON text: name → schema, with descriptions. Decompressed at each call.
pub fn definitions_json() -> String {
    let mut out = String::new();
    flate2::read::GzDecoder::new(COMPRESSED)
        .read_to_string(&mut out)
        .expect("the embedded definitions are whole: a test reads them");
    // Two objects become one: the brace that ends the first and the one that begins the second are a comma.
    out.truncate(out.trim_end().len().saturating_sub(1));
    out.push(',');
    out.push_str(
        OWN.trim_start().strip_prefix('{').expect("the own definitions are an object: a test reads them"),
    );
    out
}

/// What [`definitions_json`] is made from, to tell versions of it apart.
pub fn definitions_source() -> [&'static [u8]; 2] {
    [COMPRESSED, OWN.as_bytes()]
}

/// How the elements of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// The list is one value.
    Atomic,
    /// Scalars, each at most once.
    Set,
    /// Objects, told apart by these fields.
    Map(Vec<Key>),
}

/// One of the fields that tell elements of a list apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub name: Box<str>,
    /// What it is where it is not given.
    pub default: Option<Value>,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// An object with known fields, by number.
    Struct(u32),
    /// An object with free keys.
    Map(Box<Type>),
    List(Box<Type>, ListKind),
    String,
    /// Text in Base64.
    Bytes,
    /// `metav1.Time`: RFC 3339 to the second.
    Time,
    /// `metav1.MicroTime`: to the microsecond.
    MicroTime,
    Integer,
    Integer32,
    Number,
    Boolean,
    Quantity,
    IntOrString,
    /// Anything goes; one value to server-side apply.
    Any,
    /// Anything goes; the keys of its objects, however deep, are fields of their own.
    Free,
}

/// A field of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: Box<str>,
    pub ty: Type,
    /// An object that is one value to server-side apply.
    pub atomic: bool,
    /// The field by which a strategic merge patch matches elements.
    pub merge_key: Option<Box<str>>,
    /// A strategic merge patch merges the list instead of replacing it.
    pub merge: bool,
}

#[derive(Clone, Debug)]
pub struct Struct {
    pub name: Box<str>,
    /// Sorted by name.
    pub fields: Vec<Field>,
    pub atomic: bool,
}

impl Struct {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| (*f.name).cmp(name)).ok().map(|i| &self.fields[i])
    }
}

/// All structs, found by group, version and kind.
#[derive(Debug)]
pub struct Schemas {
    structs: Vec<Struct>,
    kinds: HashMap<(String, String, String), u32>,
}

#[derive(Deserialize)]
struct RawKind {
    group: String,
    version: String,
    kind: String,
}

/// A schema as published; what is not named here (descriptions) is skipped unread.
#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "type")]
    ty: Option<String>,
    #[serde(rename = "$ref")]
    reference: Option<String>,
    format: Option<String>,
    properties: Option<HashMap<String, Raw>>,
    items: Option<Box<Raw>>,
    #[serde(rename = "additionalProperties")]
    additional: Option<Box<Raw>>,
    #[serde(rename = "x-kubernetes-list-type")]
    list_type: Option<String>,
    #[serde(rename = "x-kubernetes-list-map-keys")]
    list_keys: Option<Vec<Box<str>>>,
    #[serde(rename = "x-kubernetes-map-type")]
    map_type: Option<String>,
    #[serde(rename = "x-kubernetes-patch-merge-key")]
    merge_key: Option<Box<str>>,
    #[serde(rename = "x-kubernetes-patch-strategy")]
    strategy: Option<String>,
    #[serde(rename = "x-kubernetes-group-version-kind")]
    kinds: Option<Vec<RawKind>>,
}

/// The schemas, read at first use.
pub fn schemas() -> &'static Schemas {
    static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| Schemas::read(&definitions_json()));
    &SCHEMAS
}

impl Schemas {
    fn read(text: &str) -> Schemas {
        let raw: HashMap<String, Raw> =
            serde_json::from_str(text).expect("the embedded definitions are JSON: a test reads them");
        let mut names: Vec<&String> =
            raw.iter().filter(|(_, r)| r.properties.is_some()).map(|(n, _)| n).collect();
        names.sort();
        let numbers: HashMap<&str, u32> =
            names.iter().enumerate().map(|(i, n)| (n.as_str(), i as u32)).collect();
        let mut out = Schemas { structs: Vec::with_capacity(names.len()), kinds: HashMap::new() };
        for (i, name) in names.iter().enumerate() {
            let r = &raw[*name];
            let mut fields: Vec<Field> =
                r.properties.iter().flatten().map(|(n, f)| field(n, f, &numbers)).collect();
            fields.sort_by(|a, b| a.name.cmp(&b.name));
            let atomic = r.map_type.as_deref() == Some("atomic");
            out.structs.push(Struct { name: name.as_str().into(), fields, atomic });
            for k in r.kinds.iter().flatten() {
                out.kinds.insert((k.group.clone(), k.version.clone(), k.kind.clone()), i as u32);
            }
        }
        out
    }

    pub fn get(&self, number: u32) -> &Struct {
        &self.structs[number as usize]
    }

    /// The type of a kind.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<Type> {
        let key = (group.to_owned(), version.to_owned(), kind.to_owned());
        self.kinds.get(&key).map(|n| Type::Struct(*n))
    }

    /// Group, version and kind of all kinds.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.kinds.keys().map(|(g, v, k)| (g.as_str(), v.as_str(), k.as_str()))
    }
}

fn field(name: &str, r: &Raw, numbers: &HashMap<&str, u32>) -> Field {
    let strategy = r.strategy.as_deref().unwrap_or_default();
    Field {
        name: name.into(),
        ty: resolve(r, numbers),
        atomic: r.map_type.as_deref() == Some("atomic"),
        merge_key: r.merge_key.clone(),
        merge: strategy.split(',').any(|s| s == "merge"),
    }
}

fn key(name: &str) -> Key {
    // The one key of the built-in kinds that has a default.
    Key { name: name.into(), default: (name == "protocol").then(|| "TCP".into()) }
}

fn resolve(r: &Raw, numbers: &HashMap<&str, u32>) -> Type {
    if let Some(reference) = &r.reference {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return match name.rsplit('.').next().unwrap_or_default() {
            "Quantity" => Type::Quantity,
            "IntOrString" => Type::IntOrString,
            "Time" => Type::Time,
            "MicroTime" => Type::MicroTime,
            _ => numbers.get(name).map_or(Type::Any, |n| Type::Struct(*n)),
        };
    }
    match r.ty.as_deref() {
        Some("string") if r.format.as_deref() == Some("int-or-string") => Type::IntOrString,
        Some("string") if r.format.as_deref() == Some("byte") => Type::Bytes,
        Some("string") => Type::String,
        Some("integer") if r.format.as_deref() == Some("int32") => Type::Integer32,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        Some("array") => {
            let kind = match (r.list_type.as_deref(), &r.list_keys) {
                (Some("set"), _) => ListKind::Set,
                (Some("map"), Some(keys)) => ListKind::Map(keys.iter().map(|k| key(k)).collect()),
                _ => ListKind::Atomic,
            };
            Type::List(Box::new(r.items.as_ref().map_or(Type::Any, |i| resolve(i, numbers))), kind)
        }
        Some("object") => match &r.additional {
            Some(a) => Type::Map(Box::new(resolve(a, numbers))),
            None => Type::Any,
        },
        _ => Type::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_pods() {
        let s = schemas();
        let Some(Type::Struct(pod)) = s.kind("", "v1", "Pod") else { panic!("pods are a kind") };
        let Type::Struct(spec) = s.get(pod).field("spec").expect("spec").ty else { panic!("a struct") };
        let containers = s.get(spec).field("containers").expect("containers");
        assert_eq!(containers.merge_key.as_deref(), Some("name"));
        assert!(containers.merge);
        let name = Key { name: "name".into(), default: None };
        assert!(matches!(&containers.ty, Type::List(_, ListKind::Map(keys)) if keys[..] == [name]));
    }
}
