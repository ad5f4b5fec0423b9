//! Why a pod waits or took its time; and an end that leaves nothing.

use anyhow::{Result, ensure};
use tests::Cluster;

use crate::{SOON, pod_of};

pub(crate) fn explain_why(c: &mut Cluster) -> Result<()> {
    c.kubectl(&["create", "deployment", "greedy", "--image=binnacle.io/shop:latest", "-n", "shop"])?;
    c.kubectl(&["set", "resources", "deployment/greedy", "-n", "shop", "--requests=cpu=1000"])?;
    let pod = c.wait("a pod that fits nowhere", SOON, |c| {
        let pods = c.kubectl_json(&["get", "pods", "-n", "shop", "-l", "app=greedy"])?;
        let pending =
            pods["items"].as_array().into_iter().flatten().find(|p| p["spec"]["nodeName"].is_null());
        Ok(pending.and_then(|p| p["metadata"]["name"].as_str()).map(str::to_owned))
    })?;
    c.wait("the scheduler's verdict", SOON, |c| {
        let text = c.binnacle(&["explain", "pod", &pod, "-n", "shop"])?;
        Ok((text.contains("NodeResourcesFit") && text.contains("Insufficient cpu")).then_some(()))
    })?;
    let described = c.kubectl(&["describe", "pod", "-n", "shop", &pod])?;
    ensure!(described.contains("0/1 nodes are available: 1 Insufficient cpu."), "{described}");
    c.kubectl(&["delete", "deployment", "greedy", "-n", "shop"])?;
    c.wait("the trace of a pod's start", SOON, |c| {
        // The autoscaler may take away the one that was asked for before.
        let web = pod_of(c, "web")?;
        let text = c.binnacle(&["explain", "pod", &web, "-n", "shop"])?;
        let stations = ["apiserver", "scheduler: schedule pod", "kubelet"];
        Ok(stations.iter().all(|s| text.contains(s)).then_some(()))
    })
}

pub(crate) fn leave_nothing(c: &mut Cluster) -> Result<()> {
    c.kubectl(&["delete", "namespace", "shop", "--timeout=60s"])?;
    let (dir, bridge) = (c.dir.clone(), c.bridge());
    c.purge()?;
    let links = std::process::Command::new("ip").args(["-o", "link"]).output()?;
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    ensure!(!links.contains(&bridge), "the bridge is left:\n{links}");
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    ensure!(!mounts.contains(&dir.display().to_string()), "mounts are left:\n{mounts}");
    let tables = std::process::Command::new("nft").args(["list", "tables"]).output()?;
    let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
    ensure!(!tables.contains(&bridge), "nftables tables are left:\n{tables}");
    for entry in std::fs::read_dir("/sys/fs/cgroup")? {
        let left = entry?.path().join("binnacle-test-e2e");
        ensure!(!left.try_exists()?, "a cgroup is left: {}", left.display());
    }
    for process in std::fs::read_dir("/proc")? {
        let cmdline = std::fs::read_to_string(process?.path().join("cmdline")).unwrap_or_default();
        ensure!(!cmdline.contains(&dir.display().to_string()), "a process is left: {cmdline:?}");
    }
    Ok(())
}
