//! Where the cluster's objects are kept, from the flags: embedded or etcd, encrypted or not.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use store::{EtcdConfig, EtcdTls, Keys};

/// The cluster store's settings in force.
#[derive(Clone)]
pub(crate) struct ClusterStore {
    /// As given.
    name: String,
    /// `None` is the embedded store.
    pub(crate) etcd: Option<EtcdConfig>,
    /// What Secrets are encrypted with.
    pub(crate) keys: Option<Keys>,
}

impl fmt::Debug for ClusterStore {
    /// Without keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (encrypted: {})", self.name, self.keys.is_some())
    }
}

impl fmt::Display for ClusterStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The files that go with `--store etcd://…`.
pub(super) struct EtcdFiles<'a> {
    pub(super) ca: Option<&'a Path>,
    pub(super) cert: Option<&'a Path>,
    pub(super) key: Option<&'a Path>,
}

impl ClusterStore {
    pub(super) fn new(name: String, files: &EtcdFiles<'_>, keys: Option<&Path>) -> Result<Self> {
        let keys = match keys {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("--encryption-key-file {}", path.display()))?;
                let keys = Keys::parse(&text).map_err(anyhow::Error::msg);
                Some(keys.with_context(|| format!("--encryption-key-file {}", path.display()))?)
            }
            None => None,
        };
        let etcd = match name.strip_prefix("etcd://") {
            Some(hosts) => Some(etcd(hosts, files).with_context(|| format!("--store {name}"))?),
            None if name == "embedded" => None,
            None => bail!("--store {name}: give \"embedded\" or etcd://HOST:PORT[,HOST:PORT…]"),
        };
        Ok(ClusterStore { name, etcd, keys })
    }
}

fn etcd(hosts: &str, files: &EtcdFiles<'_>) -> Result<EtcdConfig> {
    let read =
        |path: &Path, flag: &str| std::fs::read(path).with_context(|| format!("{flag} {}", path.display()));
    let tls = match files.ca {
        Some(ca) => Some(EtcdTls {
            ca: read(ca, "--etcd-cafile")?,
            identity: match (files.cert, files.key) {
                (Some(c), Some(k)) => Some((read(c, "--etcd-certfile")?, read(k, "--etcd-keyfile")?)),
                (None, None) => None,
                _ => bail!("--etcd-certfile and --etcd-keyfile go together"),
            },
        }),
        None => {
            ensure!(files.cert.is_none() && files.key.is_none(), "--etcd-certfile needs --etcd-cafile");
            None
        }
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoints = Vec::new();
    for host in hosts.trim_end_matches('/').split(',') {
        let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        ensure!(matches!(port, Some(Ok(1..))), "{host:?} is no HOST:PORT");
        endpoints.push(format!("{scheme}://{host}"));
    }
    Ok(EtcdConfig { tls, ..EtcdConfig::new(endpoints) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expect: Result<&[&str], &str>) {
        let files = EtcdFiles { ca: None, cert: None, key: None };
        match (ClusterStore::new(name.to_owned(), &files, None), expect) {
            (Ok(s), Ok(endpoints)) => assert_eq!(s.etcd.map(|e| e.endpoints).unwrap_or_default(), endpoints),
            (Err(e), Err(part)) => assert!(format!("{e:#}").contains(part), "{e:#}"),
            (got, _) => panic!("{name}: {got:?}"),
        }
    }

    #[test]
    fn stores_are_named() {
        check("embedded", Ok(&[]));
        check("etcd://10.0.0.1:2379", Ok(&["http://10.0.0.1:2379"]));
        check("etcd://a:2379,b:2379/", Ok(&["http://a:2379", "http://b:2379"]));
        check("etcd://a", Err("\"a\" is no HOST:PORT"));
        check("etcd://", Err("is no HOST:PORT"));
        check("sqlite", Err("give \"embedded\" or etcd://"));
    }
}
