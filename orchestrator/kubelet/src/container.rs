//! From a pod's container to what the runtime is asked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, HostAlias, Pod, PodSpec};
use network::{Config as NetworkConfig, Namespaces};

use crate::Error;
use crate::environment::expand;
use crate::images::LocalImage;
use crate::quantity;
use crate::runtime::{Ask, Mount, Termination, User};

/// What is known when a container is about to be made.
pub(crate) struct Surroundings<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) pod_dir: &'a Path,
    pub(crate) volumes: &'a BTreeMap<String, PathBuf>,
    pub(crate) namespaces: Option<Namespaces>,
    pub(crate) cgroup: String,
    pub(crate) memory_capacity: i64,
    pub(crate) attempt: u32,
    /// A process whose PID namespace is the container's, too.
    pub(crate) sees: Option<u32>,
}

/// The spec's ingredients, and where the termination message will stand on the node.
pub(crate) fn ask(
    s: &Surroundings<'_>,
    c: &Container,
    image: &LocalImage,
    user: &User,
    env: &BTreeMap<String, String>,
) -> Result<(Ask, Termination), Error> {
    let spec = s.pod.spec.as_ref().ok_or_else(|| Error::Config("the pod has no spec".to_owned()))?;
    let context = c.security_context.as_ref();
    let pod_context = spec.security_context.as_ref();
    let privileged = context.and_then(|c| c.privileged) == Some(true);
    let (args, mut env_list) = (args(c, image, env)?, env_list(image, user, spec, env));
    if c.tty == Some(true) && !env_list.iter().any(|e| e.starts_with("TERM=")) {
        env_list.push("TERM=xterm".to_owned());
    }
    verify_non_root(s.pod, spec, c, image, user)?;
    let mut groups = user.groups.clone();
    for g in pod_context.and_then(|p| p.supplemental_groups.as_deref()).unwrap_or_default() {
        groups.extend(u32::try_from(*g).ok());
    }
    groups.extend(pod_context.and_then(|p| p.fs_group).and_then(|g| u32::try_from(g).ok()));
    groups.sort_unstable();
    groups.dedup();
    let capabilities = context.and_then(|c| c.capabilities.as_ref());
    let termination = termination_log(s, c)?;
    let mut mounts = etc_mounts(s, c);
    mounts.extend(volume_mounts(s, c, env)?);
    let termination_path = c.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    mounts.push(bind(&termination, termination_path, false));
    let profile = context
        .and_then(|c| c.seccomp_profile.as_ref())
        .or(pod_context.and_then(|c| c.seccomp_profile.as_ref()))
        .map(|p| p.type_.as_str());
    if profile == Some("Localhost") {
        return Err(Error::Config("seccomp profiles of type Localhost are not supported".to_owned()));
    }
    let sysctls = pod_context.and_then(|p| p.sysctls.as_deref()).unwrap_or_default();
    let ask = Ask {
        args,
        env: env_list,
        cwd: c
            .working_dir
            .clone()
            .filter(|w| !w.is_empty())
            .or_else(|| image.config.working_dir().clone())
            .unwrap_or_default(),
        uid: user.uid,
        gid: user.gid,
        groups,
        terminal: c.tty == Some(true),
        stdin: c.stdin == Some(true),
        privileged,
        read_only_root: context.and_then(|c| c.read_only_root_filesystem) == Some(true),
        no_new_privileges: context.and_then(|c| c.allow_privilege_escalation) == Some(false) && !privileged,
        add_capabilities: capabilities.and_then(|c| c.add.clone()).unwrap_or_default(),
        drop_capabilities: capabilities.and_then(|c| c.drop.clone()).unwrap_or_default(),
        unconfined: profile == Some("Unconfined"),
        unmasked_proc: context.and_then(|c| c.proc_mount.as_deref()) == Some("Unmasked"),
        sysctls: sysctls.iter().map(|s| (s.name.clone(), s.value.clone())).collect(),
        mounts,
        limits: quantity::limits(c),
        oom_score_adj: quantity::oom_score_adj(spec, c, s.memory_capacity),
        cgroup: s.cgroup.clone(),
        namespaces: s.namespaces.clone(),
        host_pid: spec.host_pid == Some(true),
        sees: s.sees,
        host_ipc: spec.host_ipc == Some(true),
        pod_uid: s.pod.metadata.uid.clone().unwrap_or_default(),
    };
    let or_end_of_log = c.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    Ok((ask, Termination { file: termination, or_end_of_log }))
}

/// `runAsNonRoot`, in upstream's words (kubelet: kuberuntime/security_context.go).
fn verify_non_root(
    pod: &Pod,
    spec: &PodSpec,
    c: &Container,
    image: &LocalImage,
    user: &User,
) -> Result<(), Error> {
    let (own, of_pod) = (c.security_context.as_ref(), spec.security_context.as_ref());
    let wanted = own.and_then(|c| c.run_as_non_root).or(of_pod.and_then(|c| c.run_as_non_root));
    if wanted != Some(true) {
        return Ok(());
    }
    let place = format!("(pod: {:?}, container: {})", crate::status::full_name(pod), c.name);
    let asked = own.and_then(|c| c.run_as_user).or(of_pod.and_then(|c| c.run_as_user));
    let of_image = image.config.user().as_deref().unwrap_or("").split(':').next().unwrap_or_default();
    match asked {
        Some(0) => Err(Error::Config(format!("container's runAsUser breaks non-root policy {place}"))),
        Some(_) => Ok(()),
        None if !of_image.is_empty() && of_image.parse::<u32>().is_err() => Err(Error::Config(format!(
            "container has runAsNonRoot and image has non-numeric user ({of_image}), cannot verify user is non-root {place}"
        ))),
        None if user.uid == 0 => {
            Err(Error::Config(format!("container has runAsNonRoot and image will run as root {place}")))
        }
        None => Ok(()),
    }
}

/// Command and arguments: the container's words over the image's (kubernetes docs: "command overrides ENTRYPOINT").
fn args(c: &Container, image: &LocalImage, env: &BTreeMap<String, String>) -> Result<Vec<String>, Error> {
    let own =
        |l: &Option<Vec<String>>| -> Vec<String> { l.iter().flatten().map(|s| expand(s, env)).collect() };
    let (command, args) = (own(&c.command), own(&c.args));
    let entrypoint = image.config.entrypoint().clone().unwrap_or_default();
    let cmd = image.config.cmd().clone().unwrap_or_default();
    let list = match (command.is_empty(), args.is_empty()) {
        (false, _) => [command, args].concat(),
        (true, false) => [entrypoint, args].concat(),
        (true, true) => [entrypoint, cmd].concat(),
    };
    if list.is_empty() {
        return Err(Error::Config("no command specified".to_owned()));
    }
    Ok(list)
}

/// The image's environment under the container's; `PATH`, `HOME` and `HOSTNAME` are always set.
fn env_list(image: &LocalImage, user: &User, spec: &PodSpec, env: &BTreeMap<String, String>) -> Vec<String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    all.insert("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    all.insert("HOME".to_owned(), user.home.clone().unwrap_or_else(|| "/".to_owned()));
    if let Some(h) = spec.hostname.as_ref() {
        all.insert("HOSTNAME".to_owned(), h.clone());
    }
    for e in image.config.env().iter().flatten() {
        if let Some((k, v)) = e.split_once('=') {
            all.insert(k.to_owned(), v.to_owned());
        }
    }
    all.extend(env.iter().map(|(k, v)| (k.clone(), v.clone())));
    all.into_iter().map(|(k, v)| format!("{k}={v}")).collect()
}

fn bind(source: &Path, destination: &str, read_only: bool) -> Mount {
    Mount {
        source: source.to_owned(),
        destination: destination.to_owned(),
        read_only,
        propagation: "rprivate",
    }
}

fn termination_log(s: &Surroundings<'_>, c: &Container) -> Result<PathBuf, Error> {
    let path = s.pod_dir.join("containers").join(&c.name).join(format!("termination-{}", s.attempt));
    let what = || Error::io(format!("create {path:?}"));
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).map_err(what())?;
    fs::write(&path, "").map_err(what())?;
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).map_err(what())?;
    Ok(path)
}

/// The pod's hosts, hostname, resolv.conf and shared memory, unless the container mounts its own there.
fn etc_mounts(s: &Surroundings<'_>, c: &Container) -> Vec<Mount> {
    let own: Vec<&str> = c.volume_mounts.iter().flatten().map(|m| m.mount_path.as_str()).collect();
    let etc = s.pod_dir.join("etc");
    let read_only = c.security_context.as_ref().and_then(|c| c.read_only_root_filesystem) == Some(true);
    [
        (etc.join("hosts"), "/etc/hosts"),
        (etc.join("hostname"), "/etc/hostname"),
        (etc.join("resolv.conf"), "/etc/resolv.conf"),
    ]
    .into_iter()
    .filter(|(_, to)| !own.contains(to))
    .map(|(from, to)| bind(&from, to, read_only))
    .chain((!own.contains(&"/dev/shm")).then(|| bind(&s.pod_dir.join("shm"), "/dev/shm", false)))
    .collect()
}

fn volume_mounts(
    s: &Surroundings<'_>,
    c: &Container,
    env: &BTreeMap<String, String>,
) -> Result<Vec<Mount>, Error> {
    let mut out = Vec::new();
    let Some(spec) = &s.pod.spec else { return Ok(out) };
    for m in c.volume_mounts.iter().flatten() {
        let Some(root) = s.volumes.get(&m.name) else {
            return Err(Error::Config(format!("cannot find volume \"{}\" to mount into container", m.name)));
        };
        let below = match (&m.sub_path, &m.sub_path_expr) {
            (_, Some(e)) if !e.is_empty() => Some(expand(e, env)),
            (Some(p), _) if !p.is_empty() => Some(p.clone()),
            _ => None,
        };
        let source = match below {
            Some(p) => sub_path(root, &p)?,
            None => root.clone(),
        };
        let propagation = match m.mount_propagation.as_deref() {
            Some("HostToContainer") => "rslave",
            Some("Bidirectional") => "rshared",
            _ => "rprivate",
        };
        let destination = Path::new("/").join(&m.mount_path).display().to_string();
        // What the API holds is shown, never written to.
        let shown =
            spec.volumes.iter().flatten().any(|v| v.name == m.name && crate::volumes::is_read_only(v));
        let read_only = shown || m.read_only == Some(true);
        out.push(Mount { source, destination, read_only, propagation });
    }
    Ok(out)
}

/// A path within a volume, made if it is missing. Links must not lead out of the volume.
fn sub_path(root: &Path, below: &str) -> Result<PathBuf, Error> {
    let parts = Path::new(below);
    if parts.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(Error::Config(format!("subPath {below:?} must not leave its volume")));
    }
    let path = root.join(parts);
    let what = || Error::io(format!("open {path:?}"));
    if fs::metadata(&path).is_err() {
        fs::create_dir_all(&path).map_err(what())?;
    }
    let (real, root) = (path.canonicalize().map_err(what())?, root.canonicalize().map_err(what())?);
    if !real.starts_with(&root) {
        return Err(Error::Config(format!("subPath {below:?} leads out of its volume")));
    }
    Ok(real)
}

/// Writes the pod's `etc` files and its shared memory.
pub(crate) fn write_etc(
    pod: &Pod,
    pod_dir: &Path,
    ip: Option<std::net::Ipv4Addr>,
    network: &NetworkConfig,
) -> Result<(), Error> {
    let dir = pod_dir.join("etc");
    fs::create_dir_all(&dir).map_err(Error::io(format!("create {dir:?}")))?;
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        fs::write(&path, text).map_err(Error::io(format!("write {path:?}")))
    };
    let host = hostname(pod);
    write("hostname", format!("{host}\n"))?;
    write("hosts", hosts(pod, &host, ip, &network.cluster_domain))?;
    let host_resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    write("resolv.conf", resolv_conf(pod, network, &host_resolv))?;
    let shm = pod_dir.join("shm");
    fs::create_dir_all(&shm).map_err(Error::io(format!("create {shm:?}")))?;
    crate::volumes::mount_shm(&shm)
}

/// The pod's own host name: `spec.hostname`, else its name, at most 63 characters.
pub(crate) fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let name = spec.and_then(|s| s.hostname.clone()).filter(|h| !h.is_empty());
    let name = name.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

fn hosts(pod: &Pod, host: &str, ip: Option<std::net::Ipv4Addr>, domain: &str) -> String {
    let Some(ip) = ip else {
        // In the node's network, the node's names hold.
        let of_node = fs::read_to_string("/etc/hosts").unwrap_or_default();
        return format!("# Kubernetes-managed hosts file (host network).\n{of_node}{}", aliases(pod));
    };
    let mut text =
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            .to_owned();
    let spec = pod.spec.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    match spec.and_then(|s| s.subdomain.as_deref()).filter(|s| !s.is_empty()) {
        Some(sub) => text += &format!("{ip}\t{host}.{sub}.{namespace}.svc.{domain}\t{host}\n"),
        None => text += &format!("{ip}\t{host}\n"),
    }
    text + &aliases(pod)
}

/// The pod's own entries.
fn aliases(pod: &Pod) -> String {
    let list = pod.spec.as_ref().and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    if list.is_empty() {
        return String::new();
    }
    let entry =
        |a: &HostAlias| format!("{}\t{}\n", a.ip, a.hostnames.as_deref().unwrap_or_default().join("\t"));
    format!("\n# Entries added by HostAliases.\n{}", list.iter().map(entry).collect::<String>())
}

fn resolv_conf(pod: &Pod, network: &NetworkConfig, host: &str) -> String {
    let spec = pod.spec.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let domain = &network.cluster_domain;
    let host_network = spec.and_then(|s| s.host_network) == Some(true);
    let policy = spec.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let (mut servers, mut search, mut options): (Vec<String>, Vec<String>, Vec<String>) =
        (Vec::new(), Vec::new(), Vec::new());
    let host_lines = |key: &str| -> Vec<String> {
        host.lines()
            .filter_map(|l| l.trim().strip_prefix(key))
            .flat_map(|l| l.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    };
    match policy {
        "None" => {}
        "Default" => {
            (servers, search, options) =
                (host_lines("nameserver"), host_lines("search"), host_lines("options"));
        }
        "ClusterFirst" if host_network => {
            (servers, search, options) =
                (host_lines("nameserver"), host_lines("search"), host_lines("options"));
        }
        _ => {
            servers.push(network.dns_ip.to_string());
            search.extend([format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()]);
            search.extend(host_lines("search"));
            options.push("ndots:5".to_owned());
        }
    }
    if let Some(own) = spec.and_then(|s| s.dns_config.as_ref()) {
        servers.extend(own.nameservers.iter().flatten().cloned());
        search.extend(own.searches.iter().flatten().cloned());
        for o in own.options.iter().flatten() {
            let Some(name) = &o.name else { continue };
            options.retain(|x| x != name && !x.starts_with(&format!("{name}:")));
            options.push(o.value.as_ref().map_or_else(|| name.clone(), |v| format!("{name}:{v}")));
        }
    }
    let mut text = String::new();
    if !search.is_empty() {
        text += &format!("search {}\n", search.join(" "));
    }
    // A resolver reads three.
    for s in servers.into_iter().take(3) {
        text += &format!("nameserver {s}\n");
    }
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}))
            .expect("pod")
    }

    #[test]
    fn dns_policies() {
        let net = NetworkConfig::new("d".into(), "n".to_owned(), std::net::Ipv4Addr::LOCALHOST);
        let host = "search example.org\nnameserver 9.9.9.9\n";
        let check = |spec, expect: &str| assert_eq!(resolv_conf(&pod(spec), &net, host), expect);
        let cluster = "search n.svc.cluster.local svc.cluster.local cluster.local example.org\n\
            nameserver 10.43.0.10\noptions ndots:5\n";
        check(json!({"containers": []}), cluster);
        check(json!({"containers": [], "dnsPolicy": "Default"}), "search example.org\nnameserver 9.9.9.9\n");
        check(
            json!({"containers": [], "dnsPolicy": "None",
                "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}}),
            "nameserver 1.1.1.1\noptions ndots:2\n",
        );
    }

    #[test]
    fn sub_paths_stay_within() {
        let dir = tempfile::tempdir().expect("dir");
        assert!(sub_path(dir.path(), "a/b").is_ok());
        assert!(sub_path(dir.path(), "../x").is_err());
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).expect("link");
        assert!(sub_path(dir.path(), "out").is_err());
    }
}
