//! Parameters from the address and from a posted form, and the times and lengths in them.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::response::Response;
use http::header;
use signal::Timestamp;

use crate::App;
use crate::error::Failure;

/// All parameters, in order; a name may come several times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl FromRequest<App> for Params {
    type Rejection = Response;

    async fn from_request(req: Request, app: &App) -> Result<Self, Response> {
        let mut all = parse(req.uri().query().unwrap_or(""));
        let is_form = req
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.starts_with("application/x-www-form-urlencoded"));
        if req.method() == http::Method::POST && is_form {
            let body = body(req, app.config.body_bytes).await.map_err(Failure::prometheus)?;
            all.extend(parse(&String::from_utf8_lossy(&body)));
        }
        Ok(Params(all))
    }
}

pub(crate) async fn body(req: Request, limit: usize) -> Result<Bytes, Failure> {
    axum::body::to_bytes(req.into_body(), limit).await.map_err(|_| {
        Failure::TooLarge(format!("the body is longer than {limit} bytes, or did not arrive whole"))
    })
}

fn parse(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|p| !p.is_empty())
        .map(|p| {
            let (n, v) = p.split_once('=').unwrap_or((p, ""));
            (decode(n), decode(v))
        })
        .collect()
}

fn decode(s: &str) -> String {
    let mut out = Vec::with_capacity(s.len());
    let bytes = s.as_bytes();
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        let hex = bytes.get(i + 1..i + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (b, hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(v)) => {
                out.push(v);
                i += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(b),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Params {
    /// The first value that is not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    /// The same with one more, before all others.
    pub(crate) fn with(&self, name: &str, value: &str) -> Params {
        let mut all = vec![(name.to_owned(), value.to_owned())];
        all.extend(self.0.iter().filter(|(n, _)| n != name).cloned());
        Params(all)
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<usize>, Failure> {
        self.get(name)
            .map(|v| {
                v.parse()
                    .map_err(|_| Failure::Bad(format!("invalid parameter {name:?}: not a number: {v:?}")))
            })
            .transpose()
    }

    /// Prometheus' times: seconds with fraction, or RFC 3339. In milliseconds.
    pub(crate) fn millis(&self, name: &str) -> Result<Option<i64>, Failure> {
        self.get(name)
            .map(|v| {
                seconds(v)
                    .map(|s| (s * 1000.0).round() as i64)
                    .or_else(|| Some(rfc3339(v)?.millis()))
                    .ok_or_else(|| {
                        Failure::Bad(format!(
                            "invalid parameter {name:?}: cannot parse {v:?} to a valid timestamp"
                        ))
                    })
            })
            .transpose()
    }

    /// Loki's and Tempo's times: nanoseconds, or seconds if the number is short, or RFC 3339.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, Failure> {
        self.get(name)
            .map(|v| {
                let number = v.parse::<i64>().ok().map(|n| {
                    if n.unsigned_abs() < 10_000_000_000 { Timestamp::from_secs(n) } else { Timestamp(n) }
                });
                number
                    .or_else(|| seconds(v).map(|s| Timestamp((s * 1e9) as i64)))
                    .or_else(|| rfc3339(v))
                    .ok_or_else(|| Failure::Bad(format!("could not parse {name:?}: {v:?} is no time")))
            })
            .transpose()
    }

    /// Seconds with fraction, or a duration such as `5m`.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>, Failure> {
        self.get(name)
            .map(|v| {
                duration(v).ok_or_else(|| {
                    Failure::Bad(format!(
                        "invalid parameter {name:?}: cannot parse {v:?} to a valid duration"
                    ))
                })
            })
            .transpose()
    }
}

fn seconds(v: &str) -> Option<f64> {
    v.parse::<f64>().ok().filter(|s| s.is_finite() && s.abs() < 9.2e12)
}

fn rfc3339(v: &str) -> Option<Timestamp> {
    let t: jiff::Timestamp = v.parse().ok()?;
    Some(Timestamp(i64::try_from(t.as_nanosecond()).ok()?))
}

pub(crate) fn duration(v: &str) -> Option<Duration> {
    if let Some(s) = seconds(v) {
        return (s > 0.0).then(|| Duration::from_secs_f64(s.min(1e10)));
    }
    u64::try_from(promql::parse_duration(v)?).ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_values_and_times() {
        let p = Params(parse(
            "query=up%7Ba%3D%22b+c%22%7D&match[]=a&match[]=b&time=1.5&t=2024-01-02T03:04:05Z&n=1700000000000000000&s=1700000000&step=15s",
        ));
        assert_eq!(p.get("query"), Some("up{a=\"b c\"}"));
        assert_eq!(p.all("match[]").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(p.millis("time").expect("time"), Some(1500));
        assert_eq!(p.millis("t").expect("time"), Some(1_704_164_645_000));
        assert_eq!(p.time("n").expect("time"), Some(Timestamp(1_700_000_000_000_000_000)));
        assert_eq!(p.time("s").expect("time"), Some(Timestamp::from_secs(1_700_000_000)));
        assert_eq!(p.duration("step").expect("step"), Some(Duration::from_secs(15)));
        assert!(p.millis("query").is_err());
    }
}
