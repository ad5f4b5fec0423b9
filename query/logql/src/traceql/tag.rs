//! A single attribute or intrinsic, by its name: what autocompletion asks for the values of.

use signal::{Attributes, Labels, Span};

use super::ast::{Attribute, Field, INTRINSICS, Intrinsic, Scope};
use super::parse::parse_field;
use super::trace::View;
use super::value::Static;

/// Names that autocompletion offers.
pub const INTRINSIC_TAGS: [&str; 19] = [
    "duration",
    "event:name",
    "event:timeSinceStart",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "link:spanID",
    "link:traceID",
    "name",
    "rootName",
    "rootServiceName",
    "span:duration",
    "span:id",
    "span:kind",
    "span:name",
    "span:status",
    "status",
    "statusMessage",
    "traceDuration",
];

#[derive(Clone, Debug)]
pub struct Tag(Field);

impl Tag {
    /// `resource.service.name`, `.x`, `status`; a bare name that is no intrinsic is an attribute of any scope.
    pub fn parse(text: &str) -> Tag {
        let bare = || Field::Attribute(Attribute { parent: false, scope: Scope::Any, name: text.to_owned() });
        let known = INTRINSICS.iter().any(|(n, _)| *n == text);
        let scoped = ["span.", "resource.", "event.", "link.", "instrumentation.", "parent.", "."]
            .iter()
            .any(|s| text.starts_with(s));
        Tag(if known || scoped { parse_field(text).unwrap_or_else(|_| bare()) } else { bare() })
    }

    /// Its values on a span.
    pub fn values(&self, labels: &Labels, resource: &Attributes, span: &Span) -> Vec<Static> {
        let view = View { labels, resource, span, tree: None };
        let root = !span.parent_span_id.is_valid();
        match &self.0 {
            Field::Intrinsic(Intrinsic::RootName) if root => vec![Static::Text(span.name.clone())],
            Field::Intrinsic(Intrinsic::RootService) if root => {
                vec![Static::Text(labels.get("service_name").unwrap_or("").to_owned())]
            }
            f => view.all(f),
        }
    }
}
