//! Redaction: what must not be stored is replaced before it is.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use signal::{AttributeValue, LogRecord};

use super::rules::LogRules;

/// Payment cards begin with 2 to 6; a time in nanoseconds, which may have the right check digit, begins with 1.
static CARD: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\b[2-6](?:[ -]?\d){12,18}\b").expect("a regular expression"));
static BEARER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)\b((?:bearer|basic)\s+)[a-z0-9._~+/=-]{8,}").expect("a regular expression")
});
static JWT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*").expect("a regular expression")
});

#[derive(Clone, Debug)]
enum Rule {
    Card,
    Bearer,
    Jwt,
    Other(Regex),
}

/// All redactions of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Redactor(Vec<Rule>);

impl Redactor {
    /// `None` if there is nothing to redact.
    pub(super) fn new(names: &[String]) -> Result<Option<Redactor>, String> {
        let mut rules = Vec::new();
        for name in names {
            rules.push(match name.as_str() {
                "credit-card" => Rule::Card,
                "bearer-token" => Rule::Bearer,
                "jwt" => Rule::Jwt,
                pattern => Rule::Other(Regex::new(pattern).map_err(|e| e.to_string())?),
            });
        }
        Ok((!rules.is_empty()).then_some(Redactor(rules)))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// `None` if nothing matched.
    fn replace(&self, text: &str) -> Option<String> {
        let mut out = Cow::Borrowed(text);
        for rule in &self.0 {
            let replaced = match rule {
                Rule::Card => CARD.replace_all(&out, |c: &regex::Captures<'_>| {
                    let found = &c[0];
                    if luhn(found) { "[credit-card]".to_owned() } else { found.to_owned() }
                }),
                Rule::Bearer => BEARER.replace_all(&out, "$1[token]"),
                Rule::Jwt => JWT.replace_all(&out, "[jwt]"),
                Rule::Other(r) => r.replace_all(&out, "[redacted]"),
            };
            if let Cow::Owned(o) = replaced {
                out = Cow::Owned(o);
            }
        }
        match out {
            Cow::Owned(o) if o != text => Some(o),
            _ => None,
        }
    }
}

/// In the line and in every text attribute.
pub(super) fn apply(rules: &LogRules, record: &mut LogRecord) {
    let Some(redactor) = &rules.redact else { return };
    if let Some(body) = redactor.replace(&record.body) {
        record.body = body;
    }
    for (_, value) in &mut record.attributes.0 {
        if let AttributeValue::String(s) = value
            && let Some(other) = redactor.replace(s)
        {
            *s = other;
        }
    }
}

/// ISO/IEC 7812-1, annex B: the check digit of card numbers.
fn luhn(text: &str) -> bool {
    let digits = text.bytes().rev().filter(u8::is_ascii_digit).map(|b| u32::from(b - b'0'));
    let sum: u32 = digits
        .enumerate()
        .map(|(i, d)| match (i % 2, d * 2) {
            (0, _) => d,
            (_, twice) if twice > 9 => twice - 9,
            (_, twice) => twice,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_replaced_and_nothing_else() {
        let names = ["credit-card", "bearer-token", "jwt", r"password=\S+"].map(str::to_owned);
        let redactor = Redactor::new(&names).expect("rules").expect("some");
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(redactor.replace(text).as_deref(), expect, "{text}")
        };
        check("card 4111 1111 1111 1111 paid", Some("card [credit-card] paid"));
        check("card 5500-0000-0000-0004", Some("card [credit-card]"));
        check("order 4111111111111112 is no card", None);
        check("1795432280330438862 ns", None);
        check("Authorization: Bearer abcdef123456", Some("Authorization: Bearer [token]"));
        check("the bearer of this", None);
        check("t=eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJ!", Some("t=[jwt]!"));
        check("user=a password=secret b", Some("user=a [redacted] b"));
    }
}
