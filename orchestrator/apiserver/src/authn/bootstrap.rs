//! Bootstrap tokens: `ID.SECRET`, kept as Secrets of kube-system, for machines that are no members yet
//! (kubernetes: plugin/pkg/auth/authenticator/token/bootstrap).

use apimachinery::user::UserInfo;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use signal::Timestamp;

use crate::cache::Cache;
use crate::kinds;
use crate::object;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

/// Id and secret, if it is such a token: six and sixteen small letters and digits.
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let good =
        |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (good(id, 6) && good(secret, 16)).then_some((id, secret))
}

/// Who shows this token; `None` if it is no bootstrap token at all.
pub(crate) fn authenticate(cache: &Cache, token: &str, now: Timestamp) -> Option<Result<UserInfo, String>> {
    let (id, secret) = parse(token)?;
    let secrets = kinds::by_resource("", "secrets").expect("secrets are a kind");
    let Some(found) = cache.get(secrets.index, &format!("kube-system/bootstrap-token-{id}")) else {
        return Some(Err("no such bootstrap token".to_owned()));
    };
    Some(judge(&found.value(), id, secret, now))
}

fn data(o: &Value, key: &str) -> String {
    let text = object::get(o, "data").and_then(|d| d.get(key)).and_then(Value::as_str);
    let bytes = text.and_then(|t| STANDARD.decode(t).ok()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// When a token ends, if the secret is one and it does. Where that cannot be read the token is good for nothing, but
/// stays for people to see.
pub(crate) fn expiration(o: &Value) -> Option<Timestamp> {
    let until = Some(o).filter(|o| object::text(o, "type") == Some(TYPE)).map(|o| data(o, "expiration"))?;
    object::parse_time(&until)
}

fn judge(o: &Value, id: &str, secret: &str, now: Timestamp) -> Result<UserInfo, String> {
    let data = |key: &str| data(o, key);
    if object::is_deleting(o) || object::text(o, "type") != Some(TYPE) {
        return Err("the bootstrap token's secret is of another type, or goes away".to_owned());
    }
    // Digests, so that the comparison tells nothing about the secret by its time.
    let kept = data("token-secret");
    if kept.is_empty() || Sha256::digest(&kept) != Sha256::digest(secret) || data("token-id") != id {
        return Err("the bootstrap token's secret does not match".to_owned());
    }
    let until = data("expiration");
    if !until.is_empty() {
        match object::parse_time(&until) {
            Some(t) if now < t => {}
            Some(_) => return Err("the bootstrap token has expired".to_owned()),
            None => return Err("the bootstrap token's expiration is no time".to_owned()),
        }
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err("the bootstrap token is not for authentication".to_owned());
    }
    let extra = data("auth-extra-groups");
    let mut groups = vec![GROUP];
    for g in extra.split(',').map(str::trim).filter(|g| !g.is_empty()) {
        let good = g.strip_prefix("system:bootstrappers:").is_some_and(|rest| {
            !rest.is_empty()
                && rest.len() <= 256
                && rest
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b':' || b == b'-')
                && rest.bytes().last().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        });
        if !good {
            return Err(format!(
                "bootstrap group {g:?} is invalid: it must begin with system:bootstrappers:"
            ));
        }
        groups.push(g);
    }
    Ok(UserInfo::new(format!("system:bootstrap:{id}"), &groups))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(change: impl FnOnce(&mut Value), expect: Result<&[&str], &str>) {
        let mut plain = json!({"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "expiration": "2030-01-01T00:00:00Z", "auth-extra-groups": "system:bootstrappers:x"});
        change(&mut plain);
        let kind = plain.get("type").and_then(Value::as_str).unwrap_or(TYPE).to_owned();
        let data: serde_json::Map<String, Value> = plain
            .as_object()
            .expect("fields")
            .iter()
            .map(|(k, v)| (k.clone(), STANDARD.encode(v.as_str().unwrap_or_default()).into()))
            .collect();
        let o = json!({"type": kind, "data": data});
        let now = object::parse_time("2029-01-01T00:00:00Z").expect("a time");
        let got = judge(&o, "abcdef", "0123456789abcdef", now);
        match (got, expect) {
            (Ok(u), Ok(groups)) => {
                assert_eq!(u.name, "system:bootstrap:abcdef");
                assert_eq!(u.groups, groups);
            }
            (Err(e), Err(part)) => assert!(e.contains(part), "{e}"),
            (got, _) => panic!("{got:?}"),
        }
    }

    #[test]
    fn secrets_are_judged() {
        check(|_| {}, Ok(&["system:bootstrappers", "system:bootstrappers:x", "system:authenticated"]));
        check(|d| d["token-secret"] = "0123456789abcdeg".into(), Err("does not match"));
        check(|d| d["token-secret"] = "".into(), Err("does not match"));
        check(|d| d["expiration"] = "2028-01-01T00:00:00Z".into(), Err("expired"));
        check(|d| d["expiration"] = "soon".into(), Err("no time"));
        check(|d| d["usage-bootstrap-authentication"] = "false".into(), Err("not for authentication"));
        check(|d| d["type"] = "Opaque".into(), Err("another type"));
        check(
            |d| d["auth-extra-groups"] = "system:masters".into(),
            Err("must begin with system:bootstrappers:"),
        );
    }

    #[test]
    fn tokens_have_a_form() {
        assert!(parse("abcdef.0123456789abcdef").is_some());
        for no in
            ["abcdef", "abcde.0123456789abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde", "a.b.c"]
        {
            assert!(parse(no).is_none(), "{no}");
        }
    }
}
