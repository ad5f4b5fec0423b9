//! The node's devices, which a privileged container sees all of.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::{Value, json};

/// Directories of `/dev` that every container has its own of, or that hold no devices.
const OWN: [&str; 8] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
/// Devices listed at most.
const MOST: usize = 4096;

/// Every character and block device below `/dev`, as the OCI spec lists them.
pub(super) fn of_node() -> Vec<Value> {
    let mut out = Vec::new();
    collect(Path::new("/dev"), true, &mut out);
    out
}

fn collect(dir: &Path, top: bool, out: &mut Vec<Value>) {
    // A device may go while we look; what is left is what there is.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if out.len() >= MOST || (top && name.to_str().is_some_and(|n| OWN.contains(&n))) {
            continue;
        }
        let Ok(meta) = entry.metadata() else { continue };
        let kind = meta.file_type();
        if kind.is_dir() {
            collect(&entry.path(), false, out);
        } else if kind.is_char_device() || kind.is_block_device() {
            let rdev = meta.rdev();
            out.push(json!({
                "type": if kind.is_block_device() { "b" } else { "c" },
                "path": entry.path(),
                "major": libc::major(rdev),
                "minor": libc::minor(rdev),
                "fileMode": meta.permissions().mode() & 0o7777,
                "uid": meta.uid(),
                "gid": meta.gid(),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_null_device_is_among_them() {
        let all = of_node();
        let null = all.iter().find(|d| d["path"] == "/dev/null").expect("/dev/null");
        assert_eq!((&null["type"], &null["major"], &null["minor"]), (&json!("c"), &json!(1), &json!(3)));
        assert!(!all.iter().any(|d| d["path"].as_str().is_some_and(|p| p.starts_with("/dev/pts/"))));
    }
}
