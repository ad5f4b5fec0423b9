//! Objects as their kinds have them, and what is said of those that are not: in the words of Go's decoder, which
//! upstream's clients show (sigs.k8s.io/json, encoding/json).

use base64::Engine as _;
use serde_json::Value;

use super::{Schemas, Type};
use crate::quantity::Quantity;

/// What a JSON value is, as Go calls it.
pub fn json_type(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Schemas {
    /// Brings an object into the shape its kind has: unknown fields and nulls go; quantities, times and Base64 become
    /// canonical. Gives the paths of unknown fields in the order of the document, or what is wrong with the first
    /// value of another type.
    pub fn conform(&self, ty: &Type, value: &mut Value) -> Result<Vec<String>, String> {
        let mut walk = Walk { schemas: self, path: String::new(), fields: Vec::new(), unknown: Vec::new() };
        walk.value(ty, value, None)?;
        Ok(walk.unknown)
    }
}

struct Walk<'a> {
    schemas: &'a Schemas,
    /// With the keys of maps and the numbers of elements.
    path: String,
    /// The struct fields that led here.
    fields: Vec<&'a str>,
    unknown: Vec<String>,
}

impl<'a> Walk<'a> {
    /// `within` is the struct that the value stands in.
    fn value(&mut self, ty: &'a Type, value: &mut Value, within: Option<u32>) -> Result<(), String> {
        let len = self.path.len();
        match (ty, &mut *value) {
            (Type::Any | Type::Free, _) | (_, Value::Null) => {}
            (Type::Struct(n), Value::Object(m)) => {
                let s = self.schemas.get(*n);
                let mut wrong = None;
                m.retain(|k, v| {
                    let Some(f) = s.field(k) else {
                        let sep = if len == 0 { "" } else { "." };
                        self.unknown.push(format!("{}{sep}{k}", self.path));
                        return false;
                    };
                    if wrong.is_some() {
                        return true;
                    }
                    self.step(k);
                    self.fields.push(&f.name);
                    wrong = self.value(&f.ty, v, Some(*n)).err();
                    self.fields.pop();
                    self.path.truncate(len);
                    // Null is absent.
                    !v.is_null()
                });
                return wrong.map_or(Ok(()), Err);
            }
            (Type::Map(inner), Value::Object(m)) => {
                for (k, v) in m.iter_mut() {
                    self.step(k);
                    match **inner {
                        // A null among values is their zero.
                        Type::String | Type::Bytes if v.is_null() => *v = Value::String(String::new()),
                        _ => self.value(inner, v, within)?,
                    }
                    self.path.truncate(len);
                }
            }
            (Type::List(inner, _), Value::Array(l)) => {
                for (i, v) in l.iter_mut().enumerate() {
                    self.path.push_str(&format!("[{i}]"));
                    self.value(inner, v, within)?;
                    self.path.truncate(len);
                }
            }
            (Type::String, Value::String(_))
            | (Type::Boolean, Value::Bool(_))
            | (Type::Number, Value::Number(_)) => {}
            (Type::Bytes, Value::String(s)) => canonical_base64(s)?,
            (Type::Time | Type::MicroTime, Value::String(s)) => canonical_time(s, *ty == Type::MicroTime)?,
            (Type::Integer | Type::Integer32, Value::Number(n)) => {
                let whole = n.as_i64().or_else(|| {
                    // 1.0 is an integer in JSON.
                    let f = n.as_f64().filter(|_| !n.is_u64())?;
                    (f.fract() == 0.0 && f.abs() < 9e15).then_some(f as i64)
                });
                match whole {
                    Some(i) if *ty == Type::Integer || i32::try_from(i).is_ok() => {
                        if !n.is_i64() {
                            *value = Value::from(i);
                        }
                    }
                    _ => {
                        let what = format!("number {n}");
                        return Err(self.cannot(&what, ty, within));
                    }
                }
            }
            (Type::IntOrString, Value::String(_)) => {}
            (Type::IntOrString, Value::Number(n)) => {
                if n.as_i64().is_none_or(|i| i32::try_from(i).is_err()) {
                    return Err(format!("json: cannot unmarshal number {n} into Go value of type int32"));
                }
            }
            (Type::IntOrString, found) => {
                return Err(format!(
                    "json: cannot unmarshal {} into Go value of type int32",
                    json_type(found)
                ));
            }
            (Type::Quantity, found) => {
                let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
                let q: Quantity = text.parse().map_err(|e: crate::quantity::QuantityError| e.to_string())?;
                *value = Value::String(q.to_string());
            }
            (Type::Time | Type::MicroTime, found) => {
                return Err(format!(
                    "json: cannot unmarshal {} into Go value of type string",
                    json_type(found)
                ));
            }
            (ty, found) => return Err(self.cannot(json_type(found), ty, within)),
        }
        Ok(())
    }

    fn step(&mut self, key: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
    }

    fn cannot(&self, what: &str, ty: &Type, within: Option<u32>) -> String {
        let ty = self.go(ty);
        match within {
            Some(n) => format!(
                "json: cannot unmarshal {what} into Go struct field {}.{} of type {ty}",
                last(&self.schemas.get(n).name, 1),
                self.fields.join(".")
            ),
            None => format!("json: cannot unmarshal {what} into Go value of type {ty}"),
        }
    }

    /// A type as Go writes it.
    fn go(&self, ty: &Type) -> String {
        match ty {
            Type::Struct(n) => last(&self.schemas.get(*n).name, 2).to_owned(),
            Type::Map(inner) => format!("map[string]{}", self.go(inner)),
            Type::List(inner, _) => format!("[]{}", self.go(inner)),
            Type::String => "string".to_owned(),
            Type::Bytes => "[]uint8".to_owned(),
            Type::Time => "v1.Time".to_owned(),
            Type::MicroTime => "v1.MicroTime".to_owned(),
            Type::Integer => "int64".to_owned(),
            Type::Integer32 => "int32".to_owned(),
            Type::Number => "float64".to_owned(),
            Type::Boolean => "bool".to_owned(),
            Type::Quantity => "resource.Quantity".to_owned(),
            Type::IntOrString => "intstr.IntOrString".to_owned(),
            Type::Any | Type::Free => "interface {}".to_owned(),
        }
    }
}

/// The last parts of a dotted name.
fn last(name: &str, parts: usize) -> &str {
    name.rmatch_indices('.').nth(parts - 1).map_or(name, |(at, _)| &name[at + 1..])
}

/// Base64 may come with line breaks, as files of it have; what is kept has none (Go: encoding/base64).
fn canonical_base64(s: &mut String) -> Result<(), String> {
    use base64::DecodeError;
    if s.contains(['\n', '\r']) {
        s.retain(|c| !matches!(c, '\n' | '\r'));
    }
    let Err(e) = base64::engine::general_purpose::STANDARD.decode(s.as_bytes()) else { return Ok(()) };
    let at = match e {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
        DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => s.trim_end_matches('=').len() / 4 * 4,
    };
    Err(format!("illegal base64 data at input byte {at}"))
}

/// Times are kept in UTC, to the second or the microsecond.
fn canonical_time(s: &mut String, micro: bool) -> Result<(), String> {
    let strict = s.len() >= 20 && s.as_bytes().get(10) == Some(&b'T');
    let Some(t) = strict.then(|| s.parse::<jiff::Timestamp>().ok()).flatten() else {
        let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
        return Err(unparsed(s, layout));
    };
    let precision = if micro { 6 } else { 0 };
    // As it was written, mostly.
    let written = s.ends_with('Z') && s.len() == if micro { 27 } else { 20 };
    if !written {
        // Cut off, not rounded.
        let unit = if micro { jiff::Unit::Microsecond } else { jiff::Unit::Second };
        let cut = jiff::TimestampRound::new().smallest(unit).mode(jiff::RoundMode::Floor);
        let t = t.round(cut).map_err(|e| e.to_string())?;
        *s = format!("{t:.precision$}");
    }
    Ok(())
}

/// What Go's time.Parse says: the part of the layout at which it stopped.
fn unparsed(s: &str, layout: &str) -> String {
    const PARTS: [(&str, usize); 11] = [
        ("2006", 4),
        ("-", 0),
        ("01", 2),
        ("-", 0),
        ("02", 2),
        ("T", 0),
        ("15", 2),
        (":", 0),
        ("04", 2),
        (":", 0),
        ("05", 2),
    ];
    let tell = |rest: &str, part: &str| {
        format!("parsing time {s:?} as {layout:?}: cannot parse {rest:?} as {part:?}")
    };
    let mut rest = s;
    for (part, digits) in PARTS {
        let fits = match digits {
            0 => rest.strip_prefix(part),
            n => rest.get(..n).filter(|d| d.bytes().all(|b| b.is_ascii_digit())).map(|_| &rest[n..]),
        };
        match fits {
            Some(behind) => rest = behind,
            None => return tell(rest, part),
        }
    }
    let zone = rest.trim_start_matches(['.', ',']).trim_start_matches(|c: char| c.is_ascii_digit());
    let is_zone = zone == "Z" || zone.len() == 6 && zone.starts_with(['+', '-']) && &zone[3..4] == ":";
    if !is_zone {
        return tell(zone, "Z07:00");
    }
    let number = |at: std::ops::Range<usize>| s[at].parse().unwrap_or(0u32);
    let what = match (number(5..7), number(11..13), number(14..16), number(17..19)) {
        (0 | 13.., ..) => "month",
        (_, 24.., ..) => "hour",
        (_, _, 60.., _) => "minute",
        (.., 60..) => "second",
        _ => "day",
    };
    format!("parsing time {s:?}: {what} out of range")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::schemas;
    use serde_json::json;

    #[test]
    fn conforms() {
        let s = schemas();
        let ty = s.kind("", "v1", "Pod").expect("pods are a kind");
        let mut pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "labels": null},
            "spec": {"containers": [{"name": "c", "bar": {}, "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}}}], "foo": 1}});
        let unknown = s.conform(&ty, &mut pod).expect("types are right");
        assert_eq!(unknown, ["spec.containers[0].bar", "spec.foo"]);
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "1", "memory": "1Gi"}));
        assert!(pod["metadata"].get("labels").is_none());
    }

    #[test]
    fn says_what_go_says() {
        let s = schemas();
        let check = |kind: (&str, &str), mut o: Value, expect: &str| {
            let ty = s.kind(kind.0, "v1", kind.1).expect("a kind");
            assert_eq!(s.conform(&ty, &mut o), Err(expect.to_owned()), "{o}");
        };
        let pod = |spec: Value| json!({"metadata": {"name": "a"}, "spec": spec});
        check(
            ("apps", "Deployment"),
            json!({"spec": {"replicas": "x"}}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        );
        check(
            ("", "Pod"),
            pod(json!({"containers": [{"env": [{"name": "a", "value": 1}]}]})),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
        );
        check(
            ("", "ConfigMap"),
            json!({"data": {"a": 1}}),
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        );
        check(
            ("", "Pod"),
            pod(json!({"containers": "x"})),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
        );
        check(
            ("", "Pod"),
            json!({"metadata": {"name": "a", "labels": []}}),
            "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        );
        check(
            ("", "Pod"),
            pod(json!({"priority": 3_000_000_000u64})),
            "json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32",
        );
        check(
            ("", "Pod"),
            json!({"metadata": {"creationTimestamp": "soon"}}),
            r#"parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006""#,
        );
        check(
            ("", "Pod"),
            json!({"metadata": {"creationTimestamp": "2026-13-01T00:00:00Z"}}),
            r#"parsing time "2026-13-01T00:00:00Z": month out of range"#,
        );
        check(("", "Secret"), json!({"data": {"a": "a-b"}}), "illegal base64 data at input byte 1");
        check(
            ("", "Pod"),
            json!({"spec": 1}),
            "json: cannot unmarshal number into Go struct field Pod.spec of type v1.PodSpec",
        );
    }

    #[test]
    fn times_and_bytes_become_canonical() {
        let s = schemas();
        let ty = s.kind("", "v1", "Secret").expect("a kind");
        let mut o = json!({"metadata": {"creationTimestamp": "2026-01-01T02:00:00.9+02:00"}, "data": {"a": "aGV\nsbG8="}});
        s.conform(&ty, &mut o).expect("types are right");
        assert_eq!(o["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(o["data"]["a"], "aGVsbG8=");
        let ty = s.kind("coordination.k8s.io", "v1", "Lease").expect("a kind");
        let mut o = json!({"spec": {"renewTime": "2026-01-01T00:00:00.5Z"}});
        s.conform(&ty, &mut o).expect("types are right");
        assert_eq!(o["spec"]["renewTime"], "2026-01-01T00:00:00.500000Z");
    }
}
