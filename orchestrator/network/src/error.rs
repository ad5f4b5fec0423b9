//! What goes wrong on the network.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("netlink could not {what}: {source}; the process needs root")]
    Netlink { what: String, source: rtnetlink::Error },
    #[error("nft refused the rules: {0}")]
    Nft(String),
    #[error("nft could not be run: {0}; install nftables")]
    NftMissing(io::Error),
    #[error("no address left in {0}; remove pods or choose a larger pod network")]
    Exhausted(crate::Cidr),
    #[error("{path:?} is damaged: {why}; remove it after all pods are gone")]
    Damaged { path: PathBuf, why: String },
    #[error("cluster DNS could not listen on {addr}: {source}")]
    Dns { addr: std::net::SocketAddr, source: io::Error },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    pub(crate) fn netlink(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
        let what = what.into();
        move |source| Error::Netlink { what, source }
    }

    /// True if the same call may succeed later.
    pub fn retryable(&self) -> bool {
        !matches!(self, Error::Damaged { .. })
    }
}
