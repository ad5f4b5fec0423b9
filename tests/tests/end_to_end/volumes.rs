//! What pods keep: a claim gets a directory of its pod's node, which outlives the pod and goes with the claim. And a
//! pod that runs gets more room.

use anyhow::{Result, ensure};
use tests::{Cluster, repository};

use crate::SOON;

const NS: &[&str] = &["-n", "volumes"];

fn in_ns(c: &Cluster, args: &[&str]) -> Result<String> {
    c.kubectl(&[NS, args].concat())
}

pub(crate) fn claims_are_kept(c: &mut Cluster) -> Result<()> {
    let healthy = c.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{}/proxy/healthz", c.node())])?;
    ensure!(healthy == "ok", "the node's own API says {healthy:?}");
    let manifest = repository().join("tests/tests/end_to_end/volumes.yaml");
    c.kubectl(&["apply", "-f", &manifest.display().to_string()])?;
    let classes = c.kubectl(&["get", "storageclass"])?;
    ensure!(classes.contains("local-path (default)"), "{classes}");
    c.wait("the claim to wait for its pod", SOON, |c| {
        let described = in_ns(c, &["describe", "pvc", "data"])?;
        Ok(described.contains("waiting for first consumer to be created before binding").then_some(()))
    })?;
    in_ns(c, &["scale", "deployment/writer", "--replicas=1"])?;
    in_ns(c, &["rollout", "status", "deployment/writer", "--timeout=60s"])?;
    let claim = c.kubectl_json(&[NS, &["get", "pvc", "data"]].concat())?;
    ensure!(
        claim["status"]["phase"] == "Bound" && claim["status"]["capacity"]["storage"] == "1Gi",
        "{claim}"
    );
    let name = claim["spec"]["volumeName"].as_str().unwrap_or_default().to_owned();
    let volume = c.kubectl_json(&["get", "pv", &name])?;
    ensure!(volume["status"]["phase"] == "Bound" && volume["spec"]["claimRef"]["name"] == "data", "{volume}");
    let path = volume["spec"]["hostPath"]["path"].as_str().unwrap_or_default().to_owned();
    // Another pod finds what the first one wrote.
    in_ns(c, &["rollout", "restart", "deployment/writer"])?;
    in_ns(c, &["rollout", "status", "deployment/writer", "--timeout=60s"])?;
    let kept = in_ns(c, &["exec", "deployment/writer", "--", "cat", "/data/file"])?;
    ensure!(kept.lines().count() >= 2, "what was written is gone: {kept:?}");
    resize(c)?;
    // A claim in use stays until it is not.
    in_ns(c, &["delete", "pvc", "data", "--wait=false"])?;
    let claim = in_ns(c, &["get", "pvc", "data"])?;
    ensure!(claim.contains("Terminating"), "{claim}");
    in_ns(c, &["delete", "deployment", "writer", "--cascade=foreground", "--timeout=60s"])?;
    c.wait("the claim, its volume and its directory to go", SOON, |c| {
        let left = in_ns(c, &["get", "pvc", "-o", "name"])? + &c.kubectl(&["get", "pv", "-o", "name"])?;
        Ok((left.is_empty() && !std::path::Path::new(&path).try_exists()?).then_some(()))
    })?;
    let described = c.kubectl(&["get", "events", "-n", "volumes"])?;
    ensure!(described.contains("Successfully provisioned volume"), "{described}");
    c.kubectl(&["delete", "namespace", "volumes", "--timeout=60s"])?;
    Ok(())
}

/// More processor for a container that goes on running.
fn resize(c: &mut Cluster) -> Result<()> {
    let pods = c.kubectl_json(&[NS, &["get", "pods", "-l", "app=writer"]].concat())?;
    let running =
        pods["items"].as_array().into_iter().flatten().find(|p| p["metadata"]["deletionTimestamp"].is_null());
    let name = running.and_then(|p| p["metadata"]["name"].as_str()).unwrap_or_default().to_owned();
    let patch = r#"{"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "150m"}, "limits": {"cpu": "300m"}}}]}}"#;
    in_ns(c, &["patch", "pod", &name, "--subresource=resize", "-p", patch])?;
    c.wait("the container to be resized", SOON, |c| {
        let pod = c.kubectl_json(&[NS, &["get", "pod", &name]].concat())?;
        let s = &pod["status"]["containerStatuses"][0];
        ensure!(s["restartCount"] == 0, "it was restarted: {s}");
        Ok((s["resources"]["limits"]["cpu"] == "300m" && s["allocatedResources"]["cpu"] == "150m")
            .then_some(()))
    })
}
