//! Reads a few values out of an object's JSON without making the rest of it: what selectors ask for, and where
//! the resourceVersion goes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// What was found.
#[derive(Debug)]
pub(crate) struct Picked {
    /// In the order of the paths; null counts as absent.
    pub(crate) values: Vec<Option<Value>>,
    /// Behind the brace that opens `metadata`.
    pub(crate) inside_metadata: usize,
}

/// The values at dotted paths; `None` if this is no object with metadata.
pub(crate) fn pick(json: &[u8], paths: &[&str]) -> Option<Picked> {
    let mut found = vec![None; paths.len()];
    let mut metadata = None;
    let mut de = serde_json::Deserializer::from_slice(json);
    let all = paths.iter().copied().enumerate().collect();
    de.deserialize_map(Top { paths: all, found: &mut found, metadata: &mut metadata }).ok()?;
    de.end().ok()?;
    let metadata: &RawValue = metadata?;
    let offset = (metadata.get().as_ptr() as usize).checked_sub(json.as_ptr() as usize)?;
    (json.get(offset) == Some(&b'{')).then_some(Picked { values: found, inside_metadata: offset + 1 })
}

/// An object's `metadata` as it stands there.
pub(crate) fn metadata(json: &[u8]) -> Option<&str> {
    #[derive(serde::Deserialize)]
    struct Only<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    serde_json::from_slice(json).ok().map(|o: Only<'_>| o.metadata.get())
}

/// An object's JSON without its managed fields and with a resourceVersion, and its uid; `None` if this is no object with
/// metadata.
pub(crate) fn without_managers(json: &str, revision: u64) -> Option<(String, String)> {
    let inner = metadata(json.as_bytes())?;
    let start = (inner.as_ptr() as usize).checked_sub(json.as_ptr() as usize)?;
    let fields: Fields<'_> = serde_json::from_str(inner).ok()?;
    let mut out = String::with_capacity(json.len() + 48);
    out.push_str(json.get(..start)?);
    out.push('{');
    let mut uid = String::new();
    for (key, value) in fields.0 {
        match &*key {
            "managedFields" | "resourceVersion" => continue,
            "uid" => uid = serde_json::from_str(value.get()).ok()?,
            _ => {}
        }
        out.push_str(&serde_json::to_string(&key).ok()?);
        out.push(':');
        out.push_str(value.get());
        out.push(',');
    }
    out.push_str(&format!("\"resourceVersion\":\"{revision}\"}}"));
    out.push_str(json.get(start + inner.len()..)?);
    Some((out, uid))
}

/// The fields of an object as they stand there.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut all = Vec::with_capacity(12);
                while let Some(field) = map.next_entry()? {
                    all.push(field);
                }
                Ok(Fields(all))
            }
        }
        de.deserialize_map(Each)
    }
}

/// Paths that are still wanted, with their numbers.
type Paths<'p> = Vec<(usize, &'p str)>;

/// The rest of the paths that begin with a key.
fn below<'p>(paths: &Paths<'p>, key: &str) -> Paths<'p> {
    let rest = |(i, p): &(usize, &'p str)| match p.strip_prefix(key)? {
        "" => Some((*i, "")),
        rest => Some((*i, rest.strip_prefix('.')?)),
    };
    paths.iter().filter_map(rest).collect()
}

/// A key → the paths behind it, and whether it is `metadata`. Keys are looked at, not kept.
struct Key<'a, 'p>(&'a Paths<'p>);

impl<'de, 'p> DeserializeSeed<'de> for Key<'_, 'p> {
    type Value = (Paths<'p>, bool);

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        de.deserialize_str(self)
    }
}

impl<'p> Visitor<'_> for Key<'_, 'p> {
    type Value = (Paths<'p>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok((below(self.0, key), key == "metadata"))
    }
}

struct Top<'a, 'p, 'de> {
    paths: Paths<'p>,
    found: &'a mut Vec<Option<Value>>,
    metadata: &'a mut Option<&'de RawValue>,
}

impl<'de> Visitor<'de> for Top<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((paths, is_metadata)) = map.next_key_seed(Key(&self.paths))? {
            if is_metadata {
                let raw: &'de RawValue = map.next_value()?;
                *self.metadata = Some(raw);
                let mut inner = serde_json::Deserializer::from_str(raw.get());
                let seed = Below { paths, found: self.found };
                seed.deserialize(&mut inner).map_err(serde::de::Error::custom)?;
            } else {
                map.next_value_seed(Below { paths, found: self.found })?;
            }
        }
        Ok(())
    }
}

struct Below<'a, 'p> {
    paths: Paths<'p>,
    found: &'a mut Vec<Option<Value>>,
}

impl<'de> DeserializeSeed<'de> for Below<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
        match self.paths.first() {
            None => de.deserialize_ignored_any(IgnoredAny).map(drop),
            // Paths do not lie in each other: the end of one is the end of all.
            Some((i, "")) => {
                let value: Value = serde::Deserialize::deserialize(de)?;
                if let Some(place) = self.found.get_mut(*i) {
                    *place = Some(value).filter(|v| !v.is_null());
                }
                Ok(())
            }
            Some(_) => de.deserialize_any(self),
        }
    }
}

/// What is no object has nothing below it.
impl<'de> Visitor<'de> for Below<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((paths, _)) = map.next_key_seed(Key(&self.paths))? {
            map.next_value_seed(Below { paths, found: self.found })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn picks_what_is_there() {
        let paths = ["metadata.labels", "spec.nodeName", "type", "status.a.b", "spec.containers"];
        let check = |text: &str, expect: Value| {
            let found = pick(text.as_bytes(), &paths).expect("an object with metadata");
            let values: Vec<Value> = found.values.into_iter().map(Option::unwrap_or_default).collect();
            assert_eq!(Value::Array(values), expect, "{text}");
            assert!(text[..found.inside_metadata].ends_with("\"metadata\":{"), "{text}");
        };
        check(
            r#"{"kind":"P","metadata":{"name":"a","labels":{"x":"y\n"}},"spec":{"containers":[1,{"nodeName":2}],"nodeName":"n"},"type":"t"}"#,
            json!([{"x": "y\n"}, "n", "t", null, [1, {"nodeName": 2}]]),
        );
        check(
            r#"{"spec":{"metadata":{"labels":1}},"status":{"a":[{"b":1}]},"metadata":{"labels":null}}"#,
            json!([null, null, null, null, null]),
        );
        check(
            r#"{"metadata":{},"status":{"a":{"b":-1.5}},"spec":"x","typed":1}"#,
            json!([null, null, null, -1.5, null]),
        );
        assert_eq!(metadata(br#"{"a":{"metadata":1},"metadata":{"name":"x"}}"#), Some(r#"{"name":"x"}"#));
        for bad in ["", "{}", "[]", "null", r#"{"metadata":1}"#, r#"{"metadata":{}"#, r#"{"metadata":{}}x"#] {
            assert!(pick(bad.as_bytes(), &paths).is_none(), "{bad}");
        }
    }

    #[test]
    fn managers_go_and_everything_else_stays_as_it_was() {
        let stored = r#"{"apiVersion":"v1","metadata":{"name":"a","managedFields":[{"manager":"x \"}]"}],"uid":"u-1","labels":{"b":"ä\n"}},"data":{"k":"}"}}"#;
        let (text, uid) = without_managers(stored, 7).expect("an object");
        assert_eq!(
            text,
            r#"{"apiVersion":"v1","metadata":{"name":"a","uid":"u-1","labels":{"b":"ä\n"},"resourceVersion":"7"},"data":{"k":"}"}}"#
        );
        assert_eq!(uid, "u-1");
        assert_eq!(
            without_managers(r#"{"metadata":{}}"#, 1).expect("an object").0,
            r#"{"metadata":{"resourceVersion":"1"}}"#
        );
        assert!(without_managers("[]", 1).is_none());
    }
}
