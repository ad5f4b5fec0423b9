//! Browser logins: one-time links and signed cookies.
//!
//! A cookie is `<expiry>.<signature>`; the key comes from the administrator's token, so that logins outlive a
//! restart and end when the token is changed. No session is kept in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::user::UserInfo;
use parking_lot::Mutex;
use ring::hmac;
use signal::Timestamp;
use signal::time::SharedClock;

use crate::assemble::directory::hex;

const CODE_LIFE: Duration = Duration::from_secs(600);
const SESSION_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Links that may be open at once.
const CODES_MOST: usize = 100;
const COOKIE: &str = "binnacle_session";

#[derive(Clone)]
pub(crate) struct Sessions {
    key: Arc<hmac::Key>,
    codes: Arc<Mutex<HashMap<String, Timestamp>>>,
    clock: SharedClock,
}

impl Sessions {
    pub(crate) fn new(admin_token: &str, clock: SharedClock) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, format!("session:{admin_token}").as_bytes());
        Sessions { key: Arc::new(key), codes: Arc::default(), clock }
    }

    /// A new login path, good once.
    pub(crate) fn path(&self) -> String {
        let code = hex(&rand::random::<[u8; 16]>());
        let now = self.clock.now();
        let mut codes = self.codes.lock();
        codes.retain(|_, end| *end > now);
        if codes.len() >= CODES_MOST {
            codes.clear();
        }
        codes.insert(code.clone(), now.saturating_add(CODE_LIFE));
        format!("/ui/login?code={code}")
    }

    pub(crate) fn link(&self, addr: std::net::SocketAddr) -> String {
        format!("http://{addr}{}", self.path())
    }

    /// The `Set-Cookie` header for a code that is still good.
    pub(crate) fn redeem(&self, code: &str) -> Option<String> {
        let now = self.clock.now();
        self.codes.lock().remove(code).filter(|end| *end > now)?;
        let expiry = now.saturating_add(SESSION_LIFE).millis() / 1000;
        let signature = hex(hmac::sign(&self.key, expiry.to_string().as_bytes()).as_ref());
        let seconds = SESSION_LIFE.as_secs();
        Some(format!("{COOKIE}={expiry}.{signature}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict"))
    }

    /// The user of a `Cookie` header, if it holds a session of ours that has not ended.
    pub(crate) fn user(&self, cookies: &str) -> Option<UserInfo> {
        let value = cookies.split(';').find_map(|c| c.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
        let (expiry, signature) = value.split_once('.')?;
        let signature: Option<Vec<u8>> = (0..signature.len() / 2)
            .map(|i| u8::from_str_radix(signature.get(2 * i..2 * i + 2)?, 16).ok())
            .collect();
        hmac::verify(&self.key, expiry.as_bytes(), &signature?).ok()?;
        let end: i64 = expiry.parse().ok()?;
        (end > self.clock.now().millis() / 1000)
            .then(|| UserInfo::new("binnacle-admin", &["system:masters", "system:authenticated"]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_good_once_and_its_cookie_only_with_our_signature() {
        let s = Sessions::new("token", signal::time::system_clock());
        let path = s.path();
        let code = path.rsplit('=').next().expect("a code");
        let cookie = s.redeem(code).expect("the first time");
        assert!(s.redeem(code).is_none(), "the second time");
        let value = cookie.split(';').next().expect("a pair");
        assert!(s.user(value).is_some());
        assert!(s.user(&value.replace('.', "9.")).is_none(), "another expiry");
        assert!(Sessions::new("other", signal::time::system_clock()).user(value).is_none());
    }
}
