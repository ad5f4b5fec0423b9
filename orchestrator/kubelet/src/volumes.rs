//! A pod's volumes as directories of the node: `pods/<uid>/volumes/<name>`.
//!
//! Files that come from the API are swapped as upstream's atomic writer does: they stand in a directory with the
//! time in its name, `..data` points there, and each visible file is a link through `..data`. One rename of `..data`
//! changes all files at once.

mod claim;
mod content;
mod follow;
mod token;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{HostPathVolumeSource, Pod, Volume};
use kube::Client;
use nix::mount::{MsFlags, mount};

use crate::Error;
use crate::environment::Facts;

pub(crate) use follow::follow;
pub(crate) use token::Tokens;

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    /// `None` for root.
    pub(crate) owner: Option<u32>,
}

impl File {
    pub(crate) fn plain(bytes: Vec<u8>, mode: u32) -> Self {
        File { bytes, mode, owner: None }
    }
}

/// Files by their paths within the volume.
pub(crate) type Files = BTreeMap<String, File>;

/// True for a volume that shows what the API holds: it is followed, and read only.
fn is_shown(v: &Volume) -> bool {
    v.config_map.is_some() || v.secret.is_some() || v.downward_api.is_some() || v.projected.is_some()
}

/// True for a volume that no container of the pod writes to.
pub(crate) fn is_read_only(v: &Volume) -> bool {
    is_shown(v) || v.persistent_volume_claim.as_ref().is_some_and(|c| c.read_only == Some(true))
}

/// Makes all volumes of a pod; gives where each is.
pub(crate) async fn set_up(
    client: &Client,
    facts: &Facts<'_>,
    tokens: &Tokens,
    pod_dir: &Path,
) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut out = BTreeMap::new();
    let Some(spec) = &facts.pod.spec else { return Ok(out) };
    for v in spec.volumes.iter().flatten() {
        let dir = pod_dir.join("volumes").join(&v.name);
        let path = one(client, facts, tokens, v, &dir).await.map_err(|e| match e {
            Error::Config(why) => {
                Error::Config(format!("MountVolume.SetUp failed for volume \"{}\" : {why}", v.name))
            }
            other => other,
        })?;
        out.insert(v.name.clone(), path);
    }
    Ok(out)
}

async fn one(
    client: &Client,
    facts: &Facts<'_>,
    tokens: &Tokens,
    v: &Volume,
    dir: &Path,
) -> Result<PathBuf, Error> {
    if let Some(name) = claim::name(facts.pod, v) {
        return claim::locate(client, facts.pod, &name).await;
    }
    let create = || fs::create_dir_all(dir).map_err(Error::io(format!("create {dir:?}")));
    if let Some(h) = &v.host_path {
        return host_path(h);
    }
    if let Some(e) = &v.empty_dir {
        create()?;
        if e.medium.as_deref() == Some("Memory") {
            let size = e.size_limit.as_ref().map(|q| format!(",size={}", crate::quantity::parse(q).value()));
            mount_tmpfs(dir, &format!("mode=0777{}", size.unwrap_or_default()))?;
        }
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777))
            .map_err(Error::io(format!("open {dir:?} to all")))?;
        give_to_group(facts.pod, dir)?;
        return Ok(dir.to_owned());
    }
    if let Some(files) = content::files(client, facts, tokens, v).await? {
        create()?;
        let secret = v.secret.is_some() || v.projected.is_some();
        if secret {
            // Secrets never reach a disk.
            mount_tmpfs(dir, "mode=0755")?;
        }
        swap(dir, &files, facts.pod)?;
        return Ok(dir.to_owned());
    }
    Err(Error::Config("this kind of volume is not supported".to_owned()))
}

/// Writes a volume's files again if they changed.
pub(crate) async fn refresh(
    client: &Client,
    facts: &Facts<'_>,
    tokens: &Tokens,
    pod_dir: &Path,
) -> Result<(), Error> {
    for v in facts.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        if let Some(files) = content::files(client, facts, tokens, v).await? {
            swap(&pod_dir.join("volumes").join(&v.name), &files, facts.pod)?;
        }
    }
    Ok(())
}

/// A path of the node, of the type it shall have (kubernetes: volume/hostpath).
fn host_path(h: &HostPathVolumeSource) -> Result<PathBuf, Error> {
    let path = PathBuf::from(&h.path);
    let kind = h.type_.as_deref().unwrap_or("");
    let there = fs::metadata(&path).ok();
    let create = || Error::io(format!("create {path:?}"));
    match (kind, &there) {
        // Without a type: what is there, or a directory.
        ("" | "DirectoryOrCreate", None) => fs::create_dir_all(&path).map_err(create())?,
        ("FileOrCreate", None) => {
            fs::OpenOptions::new().create(true).append(true).open(&path).map_err(create())?;
        }
        _ => {}
    }
    let is = |f: fn(&fs::FileType) -> bool| fs::metadata(&path).is_ok_and(|m| f(&m.file_type()));
    let (fits, what) = match kind {
        "Directory" | "DirectoryOrCreate" => (is(fs::FileType::is_dir), "a directory"),
        "File" | "FileOrCreate" => (is(fs::FileType::is_file), "a file"),
        "Socket" => (is(FileTypeExt::is_socket), "a socket file"),
        "CharDevice" => (is(FileTypeExt::is_char_device), "a character device"),
        "BlockDevice" => (is(FileTypeExt::is_block_device), "a block device"),
        _ => (true, ""),
    };
    if !fits {
        return Err(Error::Config(format!("hostPath type check failed: {} is not {what}", h.path)));
    }
    Ok(path)
}

fn mount_tmpfs(dir: &Path, options: &str) -> Result<(), Error> {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    let mounted = nix::sys::statfs::statfs(dir).is_ok_and(|s| s.filesystem_type().0 == TMPFS_MAGIC)
        && is_mount_point(dir);
    if mounted {
        return Ok(());
    }
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))
        .map_err(|e| Error::io(format!("mount a tmpfs on {dir:?}"))(e.into()))
}

/// Shared memory of a pod's containers, as large as containerd's default.
pub(crate) fn mount_shm(dir: &Path) -> Result<(), Error> {
    mount_tmpfs(dir, "mode=1777,size=65536k")
}

fn is_mount_point(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (here, above) = (fs::metadata(dir), fs::metadata(dir.join("..")));
    matches!((here, above), (Ok(h), Ok(a)) if h.dev() != a.dev())
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.as_ref()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// `fsGroup`: the volume's root belongs to the group, and what is made in it will.
fn give_to_group(pod: &Pod, dir: &Path) -> Result<(), Error> {
    let Some(group) = fs_group(pod) else { return Ok(()) };
    let what = || Error::io(format!("give {dir:?} to group {group}"));
    std::os::unix::fs::chown(dir, None, Some(group)).map_err(what())?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o2777)).map_err(what())
}

/// Makes `dir` show exactly these files, all at once.
fn swap(dir: &Path, files: &Files, pod: &Pod) -> Result<(), Error> {
    write_swap(dir, files, fs_group(pod)).map_err(Error::io(format!("write the volume {dir:?}")))
}

fn write_swap(dir: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    let data = dir.join("..data");
    let current = fs::read_link(&data).ok();
    if let Some(c) = &current
        && same(&dir.join(c), files)?
    {
        return Ok(());
    }
    let stamp = format!("..{}", uuid::Uuid::new_v4().simple());
    let fresh = dir.join(&stamp);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (name, File { bytes, mode, owner }) in files {
        let path = fresh.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, bytes)?;
        // With a group of its own a file is readable to it, as upstream has it.
        let mode = if group.is_some() { mode | 0o440 } else { *mode };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        if owner.is_some() || group.is_some() {
            std::os::unix::fs::chown(&path, *owner, group)?;
        }
    }
    let tmp = dir.join("..data_tmp");
    match fs::remove_file(&tmp) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    symlink(&stamp, &tmp)?;
    fs::rename(&tmp, &data)?;
    // Visible names: the first part of each path leads through ..data.
    let names: std::collections::BTreeSet<&str> =
        files.keys().map(|f| f.split('/').next().unwrap_or(f)).collect();
    for name in &names {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), &link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with("..") {
            if name != "..data" && name != stamp {
                fs::remove_dir_all(entry.path())?;
            }
        } else if !names.contains(name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// True if the directory holds these files and no others.
fn same(dir: &Path, files: &Files) -> io::Result<bool> {
    for (name, file) in files {
        match fs::read(dir.join(name)) {
            Ok(b) if b == file.bytes => {}
            Ok(_) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    Ok(count(dir)? == files.len())
}

fn count(dir: &Path) -> io::Result<usize> {
    let mut n = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        n += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(n)
}

/// Unmounts and removes all volumes of a pod.
pub(crate) fn tear_down(pod_dir: &Path) -> Result<(), Error> {
    crate::containerd::unmount_below(pod_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_paths_have_the_type_they_shall_have() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("file");
        let check = |kind: &str, path: &Path, expect: &str| {
            let source =
                HostPathVolumeSource { path: path.display().to_string(), type_: Some(kind.to_owned()) };
            let got = host_path(&source).map_or_else(|e| e.to_string(), |_| "fits".to_owned());
            assert_eq!(got.replace(&source.path, "P"), expect, "{kind} {path:?}");
        };
        check("", &file, "fits");
        check("", &dir.path().join("a/b"), "fits");
        check("Directory", &file, "hostPath type check failed: P is not a directory");
        check("Directory", &dir.path().join("none"), "hostPath type check failed: P is not a directory");
        check("DirectoryOrCreate", &dir.path().join("c"), "fits");
        check("DirectoryOrCreate", &file, "hostPath type check failed: P is not a directory");
        check("File", dir.path(), "hostPath type check failed: P is not a file");
        check("FileOrCreate", &dir.path().join("d"), "fits");
        check("Socket", &file, "hostPath type check failed: P is not a socket file");
        check("CharDevice", Path::new("/dev/null"), "fits");
        check("CharDevice", &file, "hostPath type check failed: P is not a character device");
        check("BlockDevice", &file, "hostPath type check failed: P is not a block device");
    }

    #[test]
    fn files_are_swapped_at_once_and_old_ones_go() {
        let dir = tempfile::tempdir().expect("dir");
        let files = |list: &[(&str, &str)]| -> Files {
            list.iter().map(|(n, t)| ((*n).to_owned(), File::plain(t.as_bytes().to_vec(), 0o644))).collect()
        };
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
        write_swap(dir.path(), &files(&[("a", "1"), ("b/c", "2")]), None).expect("write");
        assert_eq!((read("a").as_deref(), read("b/c").as_deref()), (Some("1"), Some("2")));
        let before = fs::read_link(dir.path().join("..data")).expect("link");
        write_swap(dir.path(), &files(&[("a", "1"), ("b/c", "2")]), None).expect("same");
        assert_eq!(fs::read_link(dir.path().join("..data")).expect("link"), before);
        write_swap(dir.path(), &files(&[("a", "3")]), None).expect("write");
        assert_eq!((read("a").as_deref(), read("b/c")), (Some("3"), None));
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 3);
    }
}
