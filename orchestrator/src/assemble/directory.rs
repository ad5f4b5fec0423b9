//! The data directory: made with the right modes, checked to be writable, held by one process at a time.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::control::Control;

/// Where everything listens: `addresses.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) api: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) otlp_grpc: SocketAddr,
    pub(crate) otlp_http: SocketAddr,
    #[serde(flatten)]
    pub(crate) receivers: Receivers,
}

/// Receivers that listen only where the configuration says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Receivers {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) elasticsearch: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zipkin: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fluent: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) syslog_tcp: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) syslog_udp: Option<SocketAddr>,
}

pub(crate) struct Directory {
    path: PathBuf,
    admin_token: String,
    /// Held for the life of the process.
    _lock: nix::fcntl::Flock<File>,
}

pub(super) fn open(path: &Path) -> Result<Directory> {
    let shown = path.display();
    let unwritable = || {
        format!(
            "the data directory {shown} cannot be written: choose another with --data-dir, or run as root"
        )
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(unwritable)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).with_context(unwritable)?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path.join("lock"))
        .with_context(unwritable)?;
    let lock = match nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock) {
        Ok(l) => l,
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            bail!("another binnacle uses {shown}: stop it, or choose another directory with --data-dir")
        }
        Err((_, e)) => return Err(e).with_context(|| format!("lock {shown}")),
    };
    let token_path = path.join("admin.token");
    let admin_token = match fs::read_to_string(&token_path) {
        Ok(t) if !t.trim().is_empty() => t.trim().to_owned(),
        _ => {
            let token: String = hex(&rand::random::<[u8; 24]>());
            write_private(&token_path, &token)?;
            token
        }
    };
    write_private(&path.join("pid"), &std::process::id().to_string())?;
    let directory = Directory { path: path.to_owned(), admin_token, _lock: lock };
    directory.remove_addresses();
    Ok(directory)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Mode 0600, whole or not at all.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let written = || format!("write {}", path.display());
    let new = path.with_extension("new");
    let mut f = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&new)
        .with_context(written)?;
    f.write_all(text.as_bytes()).with_context(written)?;
    f.sync_all().with_context(written)?;
    fs::rename(&new, path).with_context(written)
}

impl Directory {
    pub(super) fn admin_token(&self) -> &str {
        &self.admin_token
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn write_kubeconfig(&self, control: &Control, api: SocketAddr) -> Result<()> {
        write_private(&self.path.join("admin.kubeconfig"), &control.kubeconfig(api))
    }

    pub(super) fn write_addresses(&self, addresses: &Addresses) -> Result<()> {
        write_private(&self.path.join("addresses.json"), &serde_json::to_string(addresses)?)
    }

    pub(super) fn remove_addresses(&self) {
        // It may not be there.
        drop(fs::remove_file(self.path.join("addresses.json")));
    }
}

/// The addresses of the process that serves this directory.
pub(crate) fn addresses(data_dir: &Path) -> Result<Addresses> {
    let path = data_dir.join("addresses.json");
    let text = fs::read_to_string(&path).with_context(|| {
        format!("no cluster runs on {}: start one with `binnacle up`", data_dir.display())
    })?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
}

/// The administrator's token.
pub(crate) fn admin_token(data_dir: &Path) -> Result<String> {
    let path = data_dir.join("admin.token");
    let text = fs::read_to_string(&path).with_context(|| {
        format!("{} cannot be read: run as the user who started binnacle, or give --data-dir", path.display())
    })?;
    Ok(text.trim().to_owned())
}
