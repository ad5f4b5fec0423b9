//! What goes wrong on the network.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("netlink could not {what}: {source}; {}", hint(source))]
    Netlink { what: String, source: rtnetlink::Error },
    #[error("nft refused the rules: {0}")]
    Nft(String),
    #[error(
        "the kernel has no nftables ({0}); it needs CONFIG_NF_TABLES, CONFIG_NFT_NAT, CONFIG_NFT_FIB_IPV4 and CONFIG_NFT_NUMGEN (modprobe nf_tables)"
    )]
    NoNftables(String),
    #[error("nft could not be run: {0}; install nftables")]
    NftMissing(io::Error),
    #[error("no address left in {0}; remove pods or choose a larger pod network")]
    Exhausted(crate::Cidr),
    #[error("{path:?} is damaged: {why}; remove it after all pods are gone")]
    Damaged { path: PathBuf, why: String },
    #[error("cluster DNS could not listen on {addr}: {source}")]
    Dns { addr: std::net::SocketAddr, source: io::Error },
}

/// What to do about a refusal of the kernel.
fn hint(e: &rtnetlink::Error) -> &'static str {
    match e {
        rtnetlink::Error::NetlinkError(m) if m.raw_code().abs() == nix::libc::EOPNOTSUPP => {
            "the kernel lacks it: CONFIG_BRIDGE and CONFIG_VETH are needed (modprobe bridge veth)"
        }
        _ => "the process needs root",
    }
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
        !matches!(self, Error::Damaged { .. } | Error::NoNftables(_))
    }
}
