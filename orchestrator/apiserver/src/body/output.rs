//! How an answer is written for those who want it otherwise than as JSON on one line: YAML, or JSON for people
//! (apimachinery: pkg/runtime/serializer/json; apiserver: pkg/endpoints/handlers/negotiation).

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::error::ApiError;
use crate::protobuf;
use crate::request::Query;

const YAML: &str = "application/yaml";
/// Programs behind which somebody sits and reads.
const READERS: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Yaml,
    /// JSON on many lines.
    Pretty,
}

impl Output {
    /// `None` for JSON on one line.
    pub(crate) fn of(headers: &HeaderMap, query: &Query) -> Option<Output> {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if prefers_yaml(text(header::ACCEPT)) {
            return Some(Output::Yaml);
        }
        let agent = text(header::USER_AGENT);
        let pretty = match query.get("pretty") {
            Some(said) => matches!(said, "1" | "t" | "T" | "true" | "TRUE" | "True"),
            None => READERS.iter().any(|r| agent.starts_with(r)),
        };
        pretty.then_some(Output::Pretty)
    }

    /// The same answer written so, if it is JSON.
    pub(crate) async fn answer(self, answer: Response) -> Response {
        let is_json = answer.headers().get(header::CONTENT_TYPE).is_some_and(|t| t == "application/json");
        if !is_json || answer.headers().contains_key(header::CONTENT_ENCODING) {
            return answer;
        }
        let (mut parts, body) = answer.into_parts();
        let bytes = match body.collect().await {
            Ok(b) => b.to_bytes(),
            Err(e) => return ApiError::internal(e).into_response(),
        };
        parts.headers.remove(header::CONTENT_LENGTH);
        let written = match self {
            Output::Pretty => Bytes::from(pretty(&bytes)),
            Output::Yaml => match yaml(&bytes) {
                Ok(text) => {
                    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(YAML));
                    text.into()
                }
                Err(e) => return ApiError::internal(e).into_response(),
            },
        };
        Response::from_parts(parts, Body::from(written))
    }
}

/// Whether YAML comes before JSON and protobuf.
fn prefers_yaml(accept: &str) -> bool {
    let media = accept.split(',').map(|m| m.split(';').next().unwrap_or_default().trim());
    let mut known = media.filter(|m| *m == protobuf::MEDIA_TYPE || protobuf::is_json(m));
    known.next() == Some(YAML)
}

fn yaml(json: &[u8]) -> Result<String, String> {
    let mut v: Value = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    // Keys in their order, as everybody's YAML has them.
    v.sort_all_objects();
    let mut text = serde_saphyr::to_string(&v).map_err(|e| e.to_string())?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// JSON with a line for every value, two blanks a level, as Go indents it.
fn pretty(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 3 / 2);
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    let mut bytes = json.iter().copied().peekable();
    while let Some(b) = bytes.next() {
        if quoted {
            out.push(b);
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match b {
            b' ' | b'\n' | b'\r' | b'\t' => {}
            b'"' => {
                quoted = true;
                out.push(b);
            }
            b'{' | b'[' => {
                out.push(b);
                while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
                // What is empty stays on its line.
                match bytes.next_if(|n| *n == b + 2) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        line(&mut out, depth);
                    }
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(b);
            }
            b',' => {
                out.push(b);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_go_does() {
        let json = br#"{"a":[{"b":"c:,{\"}"},1],"d":{},"e":[ ],"f":null}"#;
        let expect = r#"{
  "a": [
    {
      "b": "c:,{\"}"
    },
    1
  ],
  "d": {},
  "e": [],
  "f": null
}"#;
        assert_eq!(String::from_utf8(pretty(json)).expect("text"), expect);
    }

    #[test]
    fn written_as_asked() {
        let check = |accept: &'static str, agent: &'static str, query: &str, expect: Option<Output>| {
            let mut h = HeaderMap::new();
            h.insert(header::ACCEPT, HeaderValue::from_static(accept));
            h.insert(header::USER_AGENT, HeaderValue::from_static(agent));
            assert_eq!(Output::of(&h, &Query::parse(query)), expect, "{accept} {agent} {query}");
        };
        check("application/yaml", "kubectl", "", Some(Output::Yaml));
        check("text/html, application/yaml;q=0.9, */*", "", "", Some(Output::Yaml));
        check("application/json, application/yaml", "", "", None);
        check("*/*", "curl/8.0", "", Some(Output::Pretty));
        check("*/*", "curl/8.0", "pretty=false", None);
        check("*/*", "kubectl/v1.35", "pretty=true", Some(Output::Pretty));
        check("application/json", "Go-http-client/2.0", "pretty=0", None);
    }

    #[test]
    fn yaml_has_its_keys_in_order() {
        assert_eq!(
            yaml(br#"{"b":{"d":"true","c":[1,"x"]},"a":null}"#).expect("YAML"),
            "a: null\nb:\n  c:\n  - 1\n  - x\n  d: \"true\"\n"
        );
    }
}
