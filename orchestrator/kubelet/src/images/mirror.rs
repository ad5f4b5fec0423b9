//! Other places where a registry's images are found: asked first, in order, then the registry itself.

use std::str::FromStr;

/// A registry's mirror: `docker.io=https://mirror.example`, `docker.io=http://127.0.0.1:5000`, or `*=…` for them all.
/// Without a scheme a loopback address is asked in the clear and any other over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    registry: String,
    /// With its port, if it has one.
    pub(super) host: String,
    pub(super) http: bool,
}

impl Mirror {
    pub(super) fn is_of(&self, registry: &str) -> bool {
        self.registry == "*" || self.registry == registry
    }
}

impl FromStr for Mirror {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong =
            || format!("{s:?}: give a registry and its mirror, such as docker.io=https://mirror.example");
        let (registry, place) = s.split_once('=').ok_or_else(wrong)?;
        let (http, host) = match place.split_once("://") {
            Some(("http", host)) => (true, host),
            Some(("https", host)) => (false, host),
            Some(_) => return Err(wrong()),
            None => (is_loopback(place), place),
        };
        let host = host.trim_end_matches('/');
        if registry.is_empty() || host.is_empty() || host.contains('/') || registry.contains('/') {
            return Err(wrong());
        }
        Ok(Mirror { registry: registry.to_owned(), host: host.to_owned(), http })
    }
}

/// Whether a registry, with or without its port, is this machine: such a one is asked in the clear.
pub(super) fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(h, _)| h).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_a_registry_and_a_place() {
        let m: Mirror = "docker.io=127.0.0.1:5000".parse().expect("a mirror");
        assert_eq!((m.host.as_str(), m.http), ("127.0.0.1:5000", true));
        assert!(m.is_of("docker.io") && !m.is_of("quay.io"));
        let m: Mirror = "*=mirror.example/".parse().expect("a mirror");
        assert_eq!((m.host.as_str(), m.http, m.is_of("quay.io")), ("mirror.example", false, true));
        let m: Mirror = "a=http://b".parse().expect("a mirror");
        assert!(m.http);
        for wrong in ["", "docker.io", "=a", "a=", "a=ftp://b", "a=b/c", "a=https://"] {
            assert!(wrong.parse::<Mirror>().is_err(), "{wrong}");
        }
    }
}
