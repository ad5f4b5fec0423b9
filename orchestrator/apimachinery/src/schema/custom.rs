//! The compact form of a schema that came with a CustomResourceDefinition, for server-side apply.

use serde_json::Value;

use super::{Field, Key, ListKind, Schemas, Struct, Type, schemas};

impl Schemas {
    /// What `metadata` is.
    pub fn metadata(&self) -> Type {
        match self.kind("", "v1", "Pod").map(|t| self.field_of(&t, "metadata")) {
            Some(Some(ty)) => ty,
            _ => Type::Any,
        }
    }

    fn field_of(&self, ty: &Type, name: &str) -> Option<Type> {
        match ty {
            Type::Struct(n) => self.get(*n).field(name).map(|f| f.ty.clone()),
            _ => None,
        }
    }

    /// Reads a structural schema (OpenAPI v3 with Kubernetes' extensions) of a whole resource.
    pub fn of_structural(schema: &Value) -> (Schemas, Type) {
        let mut out = Schemas { structs: Vec::new(), kinds: std::collections::HashMap::new() };
        let metadata = out.adopt(&schemas().metadata());
        let root = out.resource(schema, &metadata);
        (out, root)
    }

    /// Copies a type of the built-in kinds, with all it is made of.
    fn adopt(&mut self, ty: &Type) -> Type {
        match ty {
            Type::Struct(n) => {
                let theirs = schemas().get(*n);
                let fields =
                    theirs.fields.iter().map(|f| Field { ty: self.adopt(&f.ty), ..f.clone() }).collect();
                self.push(&theirs.name, fields, theirs.atomic)
            }
            Type::Map(inner) => Type::Map(Box::new(self.adopt(inner))),
            Type::List(inner, kind) => Type::List(Box::new(self.adopt(inner)), kind.clone()),
            other => other.clone(),
        }
    }

    fn push(&mut self, name: &str, mut fields: Vec<Field>, atomic: bool) -> Type {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        self.structs.push(Struct { name: name.into(), fields, atomic });
        Type::Struct(u32::try_from(self.structs.len() - 1).expect("a schema is at most some megabytes"))
    }

    /// A schema of an object with apiVersion, kind and metadata.
    fn resource(&mut self, schema: &Value, metadata: &Type) -> Type {
        let mut fields: Vec<Field> = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(k, _)| !matches!(k.as_str(), "apiVersion" | "kind" | "metadata"))
            .map(|(k, v)| self.field(k, v, metadata))
            .collect();
        fields.push(plain("apiVersion", Type::String));
        fields.push(plain("kind", Type::String));
        fields.push(plain("metadata", metadata.clone()));
        self.push("", fields, schema["x-kubernetes-map-type"] == "atomic")
    }

    fn field(&mut self, name: &str, v: &Value, metadata: &Type) -> Field {
        Field {
            ty: self.value(v, metadata),
            atomic: v["x-kubernetes-map-type"] == "atomic",
            ..plain(name, Type::Any)
        }
    }

    fn value(&mut self, v: &Value, metadata: &Type) -> Type {
        if v["x-kubernetes-int-or-string"] == true {
            return Type::IntOrString;
        }
        if v["x-kubernetes-embedded-resource"] == true {
            return self.resource(v, metadata);
        }
        match v["type"].as_str() {
            Some("string") => Type::String,
            Some("integer") => Type::Integer,
            Some("number") => Type::Number,
            Some("boolean") => Type::Boolean,
            Some("array") => Type::List(Box::new(self.value(&v["items"], metadata)), list_kind(v)),
            Some("object") => {
                let properties = v["properties"].as_object().filter(|p| !p.is_empty());
                match (properties, v.get("additionalProperties")) {
                    (Some(p), _) => {
                        let fields = p.iter().map(|(k, v)| self.field(k, v, metadata)).collect();
                        self.push("", fields, v["x-kubernetes-map-type"] == "atomic")
                    }
                    (None, Some(a)) if a.is_object() && v["x-kubernetes-map-type"] != "atomic" => {
                        Type::Map(Box::new(self.value(a, metadata)))
                    }
                    _ if v["x-kubernetes-map-type"] == "atomic" => Type::Any,
                    _ => Type::Free,
                }
            }
            _ => Type::Free,
        }
    }
}

fn list_kind(v: &Value) -> ListKind {
    let keys = v["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let default = |k: &str| v["items"]["properties"][k].get("default").map(whole);
    match v["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(keys.map(|k| Key { name: k.into(), default: default(k) }).collect()),
        _ => ListKind::Atomic,
    }
}

/// `2.0` is written as 2.
fn whole(v: &Value) -> Value {
    match v.as_f64() {
        Some(f) if !v.is_i64() && f.fract() == 0.0 && f.abs() < 9e15 => (f as i64).into(),
        _ => v.clone(),
    }
}

fn plain(name: &str, ty: Type) -> Field {
    Field { name: name.into(), ty, atomic: false, merge_key: None, merge: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fieldset;
    use serde_json::json;

    #[test]
    fn fields_of_a_custom_resource() {
        let (schemas, ty) = Schemas::of_structural(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
                "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
                    "type": "object", "properties": {"name": {"type": "string"}, "value": {"type": "string"}}}},
                "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            }}}}),
        );
        let o = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"list": [{"name": "n", "value": "v"}], "whole": {"a": "1"}, "free": {"x": {"y": 1}}}});
        let expect = json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {
            "f:list": {"k:{\"name\":\"n\"}": {".": {}, "f:name": {}, "f:value": {}}}, "f:whole": {}, "f:free": {"f:x": {".": {}, "f:y": {}}}}});
        assert_eq!(Value::Object(fieldset::of(&schemas, &ty, &o)), expect);
    }
}
