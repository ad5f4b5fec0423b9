//! Who a container's process is: numbers from the pod, or names from the image's own passwd and group.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// A resolved user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// From passwd, for `HOME`.
    pub(crate) home: Option<String>,
}

/// Resolves `spec` (`user`, `uid`, `user:group`, …; empty is root) and the pod's overrides.
pub(crate) fn resolve(
    layers: &[PathBuf],
    spec: &str,
    run_as_user: Option<i64>,
    run_as_group: Option<i64>,
) -> Result<User, Error> {
    let passwd = read(layers, "etc/passwd");
    let (user, group) = match run_as_user {
        Some(uid) => (uid.to_string(), None),
        None => match spec.split_once(':') {
            Some((u, g)) => (u.to_owned(), Some(g.to_owned())),
            None => (spec.to_owned(), None),
        },
    };
    let user = if user.is_empty() { "0".to_owned() } else { user };
    let entry = passwd
        .lines()
        .map(|l| l.split(':').collect::<Vec<_>>())
        .find(|f| f.len() >= 6 && (f[0] == user || f[2] == user));
    let number = |s: &str| s.parse::<u32>().ok();
    let uid = match (&entry, number(&user)) {
        (_, Some(uid)) => uid,
        (Some(f), None) => number(f[2]).unwrap_or(0),
        (None, None) => {
            return Err(Error::Config(format!(
                "unable to find user {user}: no matching entries in passwd file"
            )));
        }
    };
    let group_file = read(layers, "etc/group");
    let groups_of = |name: &str| -> Vec<u32> {
        group_file
            .lines()
            .map(|l| l.split(':').collect::<Vec<_>>())
            .filter(|f| f.len() >= 4 && f[3].split(',').any(|m| m == name))
            .filter_map(|f| number(f[2]))
            .collect()
    };
    let mut groups = entry.as_ref().map(|f| groups_of(f[0])).unwrap_or_default();
    let primary = match (run_as_group, group) {
        (Some(g), _) => u32::try_from(g).unwrap_or(0),
        (None, Some(g)) => match number(&g) {
            Some(g) => g,
            None => group_file
                .lines()
                .map(|l| l.split(':').collect::<Vec<_>>())
                .find(|f| f.len() >= 3 && f[0] == g)
                .and_then(|f| number(f[2]))
                .ok_or_else(|| {
                    Error::Config(format!("unable to find group {g}: no matching entries in group file"))
                })?,
        },
        (None, None) => entry.as_ref().and_then(|f| number(f[3])).unwrap_or(0),
    };
    groups.sort_unstable();
    groups.dedup();
    Ok(User { uid, gid: primary, groups, home: entry.map(|f| f[5].to_owned()) })
}

/// A file of the image, from the topmost layer that has it. Links are not followed: they could lead out.
fn read(layers: &[PathBuf], name: &str) -> String {
    for layer in layers {
        let path = layer.join(name);
        if plain_file(layer, &path) {
            return crate::files::read_at_most(&path, 1 << 20)
                .map(|b| String::from_utf8_lossy(&b).into_owned())
                .unwrap_or_default();
        }
    }
    String::new()
}

fn plain_file(layer: &Path, path: &Path) -> bool {
    let within = path.parent().is_some_and(|p| fs::symlink_metadata(p).is_ok_and(|m| m.is_dir()));
    within && path.starts_with(layer) && fs::symlink_metadata(path).is_ok_and(|m| m.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_overrides() {
        let dir = tempfile::tempdir().expect("dir");
        fs::create_dir(dir.path().join("etc")).expect("etc");
        fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n")
            .expect("passwd");
        fs::write(dir.path().join("etc/group"), "web:x:34:\ndocker:x:99:web,other\n").expect("group");
        let layers = [dir.path().to_owned()];
        let check = |spec: &str, u, g, uid, gid, groups: &[u32]| {
            let got = resolve(&layers, spec, u, g).expect("user");
            assert_eq!((got.uid, got.gid, got.groups.as_slice()), (uid, gid, groups), "{spec}");
        };
        check("", None, None, 0, 0, &[]);
        check("web", None, None, 33, 34, &[99]);
        check("33", None, None, 33, 34, &[99]);
        check("web:docker", None, None, 33, 99, &[99]);
        check("web", Some(1000), None, 1000, 0, &[]);
        check("1000:2000", None, None, 1000, 2000, &[]);
        check("web", None, Some(7), 33, 7, &[99]);
        assert!(resolve(&layers, "nobody", None, None).is_err());
    }
}
