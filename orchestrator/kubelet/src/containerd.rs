//! The connection to containerd, and what is asked of it before anything runs on it.

mod private;
mod shims;

use std::fs;
use std::path::{Path, PathBuf};

use containerd_client::services::v1::{
    CreateNamespaceRequest, Namespace, PluginsRequest, introspection_client::IntrospectionClient,
    leases_client::LeasesClient, namespaces_client::NamespacesClient, version_client::VersionClient,
};
use tonic::transport::Channel;

use crate::Error;
use crate::images::SNAPSHOTTER;

pub(crate) use private::revive;
pub use private::{ensure, stop_private};
pub(crate) use shims::end_forgotten_shims;

/// The oldest containerd whose API has all that is used here.
const OLDEST: (u32, u32) = (1, 6);

/// The largest message containerd may send: lists of containers carry their whole specs.
pub(crate) const MAX_MESSAGE: usize = 64 << 20;

/// A containerd, and our namespace within it. Cheap to clone.
#[derive(Clone)]
pub struct Containerd {
    pub(crate) channel: Channel,
    pub(crate) namespace: String,
}

impl Containerd {
    /// Connects and makes the namespace if it is not there.
    pub async fn connect(socket: &Path, namespace: &str) -> Result<Self, Error> {
        let missing = |why: String| Error::NoContainerd { socket: socket.display().to_string(), why };
        let channel = containerd_client::connect(socket).await.map_err(|e| missing(chain(&e)))?;
        let this = Containerd { channel, namespace: namespace.to_owned() };
        this.version().await.map_err(|e| missing(e.to_string()))?;
        let request = CreateNamespaceRequest {
            namespace: Some(Namespace { name: namespace.to_owned(), ..Namespace::default() }),
        };
        match NamespacesClient::new(this.channel.clone()).create(request).await {
            Err(e) if e.code() != tonic::Code::AlreadyExists => {
                Err(Error::containerd("create the namespace")(e))
            }
            _ => Ok(this),
        }
    }

    /// containerd's version, such as `1.6.20~ds1`.
    pub async fn version(&self) -> Result<String, Error> {
        let mut client = VersionClient::new(self.channel.clone());
        Ok(client.version(()).await.map_err(Error::containerd("ask for its version"))?.into_inner().version)
    }

    /// Fails if this containerd cannot run pods: too old, or without overlayfs. Gives its version.
    pub(crate) async fn check(&self) -> Result<String, Error> {
        let version = self.version().await?;
        if parse_version(&version).is_some_and(|v| v < OLDEST) {
            return Err(Error::OldContainerd { version });
        }
        let filter = format!("type==io.containerd.snapshotter.v1,id=={SNAPSHOTTER}");
        let plugins = IntrospectionClient::new(self.channel.clone())
            .plugins(PluginsRequest { filters: vec![filter] })
            .await
            .map_err(Error::containerd("ask for its plugins"))?
            .into_inner()
            .plugins;
        match plugins.first() {
            None => Err(Error::Missing(
                "containerd's overlayfs snapshotter is not configured; enable it".to_owned(),
            )),
            Some(p) => match &p.init_err {
                Some(e) => Err(Error::Missing(format!(
                    "containerd cannot use overlayfs: {}; the kernel needs CONFIG_OVERLAY_FS (modprobe overlay)",
                    e.message
                ))),
                None => Ok(version),
            },
        }
    }

    /// A request within our namespace.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut r = tonic::Request::new(message);
        let name = self.namespace.parse().expect("a namespace's name is ASCII");
        r.metadata_mut().insert("containerd-namespace", name);
        r
    }

    /// A request whose new objects the lease keeps from the garbage collector.
    pub(crate) fn leased<T>(&self, lease: &Lease, message: T) -> tonic::Request<T> {
        let mut r = self.request(message);
        r.metadata_mut().insert("containerd-lease", lease.id.parse().expect("a lease's id is ASCII"));
        r
    }

    /// Takes a lease. It ends by itself after an hour if nobody ends it.
    pub(crate) async fn lease(&self) -> Result<Lease, Error> {
        use containerd_client::services::v1::CreateRequest;
        let id = format!("binnacle-{}", uuid::Uuid::new_v4());
        let expires = jiff::Timestamp::from_nanosecond(i128::from(signal::time::now().nanos()))
            .unwrap_or(jiff::Timestamp::MAX)
            .saturating_add(jiff::SignedDuration::from_hours(1))
            .unwrap_or(jiff::Timestamp::MAX);
        let labels = [("containerd.io/gc.expire".to_owned(), expires.to_string())].into();
        LeasesClient::new(self.channel.clone())
            .create(self.request(CreateRequest { id: id.clone(), labels }))
            .await
            .map_err(Error::containerd("take a lease"))?;
        Ok(Lease { id })
    }

    pub(crate) async fn end_lease(&self, lease: Lease) {
        use containerd_client::services::v1::DeleteRequest;
        let request = self.request(DeleteRequest { id: lease.id, sync: false });
        if let Err(e) = LeasesClient::new(self.channel.clone()).delete(request).await {
            tracing::debug!(error = %e, "ending a lease; it expires by itself");
        }
    }
}

/// Keeps fresh content and snapshots from containerd's garbage collector until something refers to them.
pub(crate) struct Lease {
    id: String,
}

/// An error with its causes: tonic's own text is only "transport error".
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(s) = source {
        text = format!("{text}: {s}");
        source = s.source();
    }
    text
}

/// Major and minor of `1.6.20~ds1` or `v2.0.1`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Unmounts everything mounted below a directory, the last first.
pub(crate) fn unmount_below(dir: &Path) -> Result<(), Error> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(Error::io("read /proc/self/mounts"))?;
    let below: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|l| l.split(' ').nth(1))
        .map(|p| PathBuf::from(p.replace("\\040", " ")))
        .filter(|p| p.starts_with(dir) && p != dir)
        .collect();
    for path in below.iter().rev() {
        match nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH) {
            Err(e) if !matches!(e, nix::Error::EINVAL | nix::Error::ENOENT) => {
                return Err(Error::io(format!("unmount {path:?}"))(e.into()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let check = |text: &str, expect| assert_eq!(parse_version(text), expect, "{text}");
        check("1.6.20~ds1", Some((1, 6)));
        check("v2.0.1", Some((2, 0)));
        check("1.5.9", Some((1, 5)));
        check("unknown", None);
        assert!((1, 5) < OLDEST && (2, 0) >= OLDEST);
    }
}
