//! What a caller may see.

use std::collections::BTreeSet;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use signal::{MatchOp, Matcher};

/// Put into each request's extensions by whoever authenticated it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    /// Telemetry of these namespaces only.
    Namespaces(BTreeSet<String>),
}

impl Scope {
    /// Matchers that every selector gets on top of its own.
    pub(crate) fn enforce(&self) -> Vec<Matcher> {
        match self {
            Scope::All => Vec::new(),
            Scope::Namespaces(set) => {
                let names: Vec<String> =
                    set.iter().filter(|n| !n.is_empty()).map(|n| regex::escape(n)).collect();
                // No namespace can be called so: whoever may see none sees nothing.
                let none = || Matcher::equal("namespace", "/");
                let any =
                    || Matcher::new("namespace", MatchOp::Regex, names.join("|")).unwrap_or_else(|_| none());
                vec![if names.is_empty() { none() } else { any() }]
            }
        }
    }

    /// Writing under other names than one's own is only for those who may see all.
    pub(crate) fn may_write(&self) -> bool {
        *self == Scope::All
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Scope {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        parts
            .extensions
            .get::<Scope>()
            .cloned()
            .ok_or_else(|| (StatusCode::UNAUTHORIZED, "authentication is missing").into_response())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_namespaces_match() {
        let check = |names: &[&str], value: &str, expect: bool| {
            let s = Scope::Namespaces(names.iter().map(|n| (*n).to_owned()).collect());
            assert_eq!(s.enforce().iter().all(|m| m.matches(value)), expect, "{names:?} {value}");
        };
        check(&["a", "b"], "b", true);
        check(&["a", "b"], "ab", false);
        check(&["a.c"], "abc", false);
        check(&["a"], "", false);
        check(&[], "", false);
        check(&[""], "", false);
    }
}
