//! URLs, addresses and networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::eval::{Result, error};
use crate::signatures::opaque;
use crate::value::{Object, Value};

pub(crate) fn call(name: &str, args: &[Value]) -> Option<Result<Value>> {
    let [Value::String(s)] = args else { return None };
    Some(match name {
        "isURL" => Ok(is_url(s).into()),
        "url" if is_url(s) => Ok(Value::Opaque(Arc::new(Url(s.as_ref().to_owned())))),
        "url" => error(format!(
            "URL parse error during conversion from string: parse {s:?}: invalid URI for request"
        )),
        "isIP" => Ok(address(s).is_ok().into()),
        "ip" => match address(s) {
            Ok(ip) => Ok(Value::Opaque(Arc::new(Address(ip)))),
            Err(e) => error(e),
        },
        "ip.isCanonical" => match address(s) {
            Ok(ip) => Ok((ip.to_string() == **s).into()),
            Err(e) => error(e),
        },
        "isCIDR" => Ok(network(s).is_ok().into()),
        "cidr" => match network(s) {
            Ok(n) => Ok(Value::Opaque(Arc::new(n))),
            Err(e) => error(e),
        },
        _ => return None,
    })
}

/// Absolute, or a path from the root (Go: url.ParseRequestURI).
pub(crate) fn is_url(s: &str) -> bool {
    if s.is_empty() || s.chars().any(|c| c.is_control() || c == ' ') {
        return false;
    }
    if s.starts_with('/') {
        return true;
    }
    s.split_once(':').is_some_and(|(scheme, rest)| {
        let good = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        let host = rest.strip_prefix("//").map(|r| r.split(['/', '?', '#']).next().unwrap_or_default());
        good && host.is_none_or(|h| match h.rsplit_once(':') {
            Some((_, port)) if !h.ends_with(']') => port.bytes().all(|b| b.is_ascii_digit()),
            _ => true,
        })
    })
}

#[derive(Debug)]
struct Url(String);

impl Object for Url {
    fn type_name(&self) -> &'static str {
        opaque("url").expect("URLs are a type")
    }

    fn call(&self, method: &str, _: &[Value]) -> Option<std::result::Result<Value, String>> {
        let (whole, _) = self.0.split_once('#').unwrap_or((&self.0, ""));
        let (front, query) = whole.split_once('?').unwrap_or((whole, ""));
        let (scheme, rest) = match front.split_once("://") {
            Some((s, r)) if !front.starts_with('/') => (s, r),
            _ => ("", front),
        };
        let (authority, path) = if scheme.is_empty() {
            ("", rest)
        } else {
            rest.find('/').map_or((rest, ""), |i| rest.split_at(i))
        };
        let host = authority.rsplit_once('@').map_or(authority, |(_, h)| h);
        let (name, port) = match host.rsplit_once(':') {
            Some((n, p)) if !host.ends_with(']') => (n, p),
            _ => (host, ""),
        };
        Some(Ok(match method {
            "getScheme" => scheme.into(),
            "getHost" => host.into(),
            "getHostname" => name.trim_matches(['[', ']']).into(),
            "getPort" => port.into(),
            "getEscapedPath" => path.into(),
            "getQuery" => {
                let mut all: Vec<(Value, Vec<Value>)> = Vec::new();
                for pair in query.split('&').filter(|p| !p.is_empty()) {
                    let (k, v) = pair.split_once('=').unwrap_or((pair, ""));
                    let k = decode(k).into();
                    match all.iter_mut().find(|(x, _)| x.equals(&k)) {
                        Some((_, values)) => values.push(decode(v).into()),
                        None => all.push((k, vec![decode(v).into()])),
                    }
                }
                Value::Map(Arc::new(all.into_iter().map(|(k, v)| (k, v.into())).collect()))
            }
            "#text" => self.0.as_str().into(),
            _ => return None,
        }))
    }
}

fn decode(s: &str) -> String {
    let (b, mut out, mut i) = (s.as_bytes(), Vec::new(), 0);
    while i < b.len() {
        let hex = (b[i] == b'%').then(|| s.get(i + 1..i + 3)).flatten();
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(v) => {
                out.push(v);
                i += 3;
            }
            None => {
                out.push(if b[i] == b'+' { b' ' } else { b[i] });
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn address(s: &str) -> std::result::Result<IpAddr, String> {
    let ip: IpAddr = s.parse().map_err(|_| {
        format!(
            "IP Address {s:?} parse error during conversion from string: ParseAddr({s:?}): unable to parse IP"
        )
    })?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {s:?} is not allowed"))
        }
        ip => Ok(ip),
    }
}

fn network(s: &str) -> std::result::Result<Network, String> {
    let bad = || {
        format!(
            "CIDR {s:?} parse error during conversion from string: network address parse error during conversion from string: netip.ParsePrefix({s:?}): no '/'"
        )
    };
    let (ip, prefix) = s.split_once('/').ok_or_else(bad)?;
    let ip = address(ip)?;
    let prefix: u8 = prefix.parse().map_err(|_| bad())?;
    if prefix > if ip.is_ipv4() { 32 } else { 128 } {
        return Err(bad());
    }
    Ok(Network { ip, prefix })
}

#[derive(Debug)]
struct Address(IpAddr);

impl Object for Address {
    fn type_name(&self) -> &'static str {
        opaque("ip").expect("addresses are a type")
    }

    fn call(&self, method: &str, _: &[Value]) -> Option<std::result::Result<Value, String>> {
        let v6_local = |a: &Ipv6Addr| a.segments()[0] & 0xffc0 == 0xfe80;
        let link_multicast = match &self.0 {
            IpAddr::V4(a) => a.octets()[..3] == [224, 0, 0],
            IpAddr::V6(a) => a.segments()[0] & 0xff0f == 0xff02,
        };
        let link_local = match &self.0 {
            IpAddr::V4(a) => a.is_link_local(),
            IpAddr::V6(a) => v6_local(a),
        };
        let broadcast = matches!(&self.0, IpAddr::V4(a) if *a == Ipv4Addr::BROADCAST);
        Some(Ok(match method {
            "family" => (if self.0.is_ipv4() { 4 } else { 6 }).into(),
            "isUnspecified" => self.0.is_unspecified().into(),
            "isLoopback" => self.0.is_loopback().into(),
            "isLinkLocalMulticast" => link_multicast.into(),
            "isLinkLocalUnicast" => link_local.into(),
            "isGlobalUnicast" => {
                let special = self.0.is_unspecified() || self.0.is_loopback() || self.0.is_multicast();
                (!special && !link_local && !broadcast).into()
            }
            "#text" => self.0.to_string().into(),
            _ => return None,
        }))
    }
}

#[derive(Debug)]
struct Network {
    ip: IpAddr,
    prefix: u8,
}

impl Network {
    fn masked(&self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(a) => {
                let mask = u32::MAX.checked_shl(u32::from(32 - self.prefix.min(32))).unwrap_or(0);
                Ipv4Addr::from(u32::from(a) & mask).into()
            }
            IpAddr::V6(a) => {
                let mask = u128::MAX.checked_shl(u32::from(128 - self.prefix)).unwrap_or(0);
                Ipv6Addr::from(u128::from(a) & mask).into()
            }
        }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.ip.is_ipv4() && self.masked(ip) == self.masked(self.ip)
    }
}

/// What an argument says of itself, or is.
fn text(v: &Value) -> Option<String> {
    match v {
        Value::String(s) => Some(s.as_ref().to_owned()),
        Value::Opaque(o) => match o.call("#text", &[])? {
            Ok(Value::String(s)) => Some(s.as_ref().to_owned()),
            _ => None,
        },
        _ => None,
    }
}

impl Object for Network {
    fn type_name(&self) -> &'static str {
        opaque("cidr").expect("networks are a type")
    }

    fn call(&self, method: &str, args: &[Value]) -> Option<std::result::Result<Value, String>> {
        Some(match (method, args) {
            ("containsIP", [v]) => address(&text(v)?).map(|ip| self.contains(ip).into()),
            ("containsCIDR", [v]) => {
                network(&text(v)?).map(|n| (n.prefix >= self.prefix && self.contains(n.ip)).into())
            }
            ("ip", []) => Ok(Value::Opaque(Arc::new(Address(self.ip)))),
            ("masked", []) => {
                Ok(Value::Opaque(Arc::new(Network { ip: self.masked(self.ip), prefix: self.prefix })))
            }
            ("prefixLength", []) => Ok(i64::from(self.prefix).into()),
            ("#text", []) => Ok(format!("{}/{}", self.ip, self.prefix).into()),
            _ => return None,
        })
    }
}
