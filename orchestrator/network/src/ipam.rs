//! Addresses of pods: which are taken, on disk before they are used.
//!
//! The file is JSON with a version and a checksum, replaced by rename: it is either the old or the new one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Cidr, Error};

const VERSION: u32 = 1;

/// What is on disk: see FORMAT.md.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    checksum: u64,
    state: State,
}

/// What is allocated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    /// The last address given, as its place in the network: the next search starts behind it, so that an
    /// address that was just freed is not at once another pod's.
    last: u32,
    by_uid: BTreeMap<String, Ipv4Addr>,
}

/// The allocator. Not shared: `PodNetwork` holds it under a lock.
#[derive(Debug)]
pub(crate) struct Ipam {
    cidr: Cidr,
    file: PathBuf,
    state: State,
}

impl Ipam {
    /// Opens the file, or begins with nothing allocated.
    pub(crate) fn open(file: &Path, cidr: Cidr) -> Result<Self, Error> {
        let damaged = |why: String| Error::Damaged { path: file.to_owned(), why };
        let mut state = match fs::read(file) {
            Ok(bytes) => {
                let s: Stored = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
                if s.version != VERSION {
                    return Err(damaged(format!("version {} is not {VERSION}", s.version)));
                }
                if s.checksum != checksum(&s.state) {
                    return Err(damaged("its checksum is wrong".to_owned()));
                }
                s.state
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => State::default(),
            Err(e) => return Err(Error::io(format!("read {file:?}"))(e)),
        };
        state.by_uid.retain(|_, ip| cidr.contains(*ip));
        Ok(Ipam { cidr, file: file.to_owned(), state })
    }

    /// Begins with nothing allocated, whatever the file says.
    pub(crate) fn anew(file: &Path, cidr: Cidr) -> Self {
        Ipam { cidr, file: file.to_owned(), state: State::default() }
    }

    /// The pod's address: the one it has, or a free one. It is on disk when this returns.
    pub(crate) fn allocate(&mut self, uid: &str) -> Result<Ipv4Addr, Error> {
        if let Some(ip) = self.state.by_uid.get(uid) {
            return Ok(*ip);
        }
        let (place, ip) = self.free().ok_or(Error::Exhausted(self.cidr))?;
        let before = self.state.clone();
        self.state.last = place;
        self.state.by_uid.insert(uid.to_owned(), ip);
        self.save().inspect_err(|_| self.state = before)?;
        Ok(ip)
    }

    /// Gives the pod's address back.
    pub(crate) fn release(&mut self, uid: &str) -> Result<(), Error> {
        if self.state.by_uid.remove(uid).is_some() {
            self.save()?;
        }
        Ok(())
    }

    pub(crate) fn get(&self, uid: &str) -> Option<Ipv4Addr> {
        self.state.by_uid.get(uid).copied()
    }

    pub(crate) fn uids(&self) -> Vec<String> {
        self.state.by_uid.keys().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.state.by_uid.len()
    }

    /// The next free place: 0 is the network's own address, 1 the bridge's, the last the broadcast.
    fn free(&self) -> Option<(u32, Ipv4Addr)> {
        let end = self.cidr.size() - 1;
        let taken: std::collections::HashSet<Ipv4Addr> = self.state.by_uid.values().copied().collect();
        let start = self.state.last.max(1) + 1;
        (start..end)
            .chain(2..start.min(end))
            .filter_map(|n| Some((n, self.cidr.host(n)?)))
            .find(|(_, ip)| !taken.contains(ip))
    }

    fn save(&self) -> Result<(), Error> {
        let what = || Error::io(format!("write {:?}", self.file));
        let stored = Stored { version: VERSION, checksum: checksum(&self.state), state: self.state.clone() };
        let bytes = serde_json::to_vec(&stored).expect("a map of strings is JSON");
        let tmp = self.file.with_extension("tmp");
        let mut f = File::create(&tmp).map_err(what())?;
        f.write_all(&bytes).map_err(what())?;
        // No fsync: after a crash of the machine no pod is left, and a crash of the process keeps the page cache.
        drop(f);
        fs::rename(&tmp, &self.file).map_err(what())
    }
}

/// FNV-1a over the state's JSON.
fn checksum(state: &State) -> u64 {
    let bytes = serde_json::to_vec(state).expect("a map of strings is JSON");
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr() -> Cidr {
        "10.0.0.0/29".parse().expect("cidr")
    }

    #[test]
    fn addresses_are_unique_kept_and_reused_last() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("ipam.json");
        let mut a = Ipam::open(&file, cidr()).expect("open");
        let first = a.allocate("a").expect("address");
        assert_eq!(first, Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(a.allocate("a").expect("again"), first);
        let others: Vec<_> = ["b", "c", "d", "e"].map(|u| a.allocate(u).expect("address")).to_vec();
        assert_eq!(others.last(), Some(&Ipv4Addr::new(10, 0, 0, 6)));
        assert!(matches!(a.allocate("f"), Err(Error::Exhausted(_))));
        a.release("b").expect("release");
        assert_eq!(a.allocate("f").expect("reused"), Ipv4Addr::new(10, 0, 0, 3));

        let b = Ipam::open(&file, cidr()).expect("reopen");
        assert_eq!(b.get("a"), Some(first));
        assert_eq!(b.get("b"), None);
        assert_eq!(b.len(), 5);
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("ipam.json");
        Ipam::open(&file, cidr()).expect("open").allocate("a").expect("address");
        let text = fs::read_to_string(&file).expect("read").replace("10.0.0.2", "10.0.0.3");
        fs::write(&file, text).expect("write");
        assert!(matches!(Ipam::open(&file, cidr()), Err(Error::Damaged { .. })));
    }
}
