//! Every kind of workload runs, and kubectl reaches into its pods by every way it has.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Cluster, repository};

use crate::SOON;

const NS: &[&str] = &["-n", "workloads"];

fn in_ns(c: &Cluster, args: &[&str]) -> Result<String> {
    c.kubectl(&[NS, args].concat())
}

pub(crate) fn every_workload(c: &mut Cluster) -> Result<()> {
    let manifest = repository().join("tests/tests/end_to_end/workloads.yaml");
    c.kubectl(&["apply", "-f", &manifest.display().to_string()])?;
    jobs(c).context("jobs")?;
    sets(c).context("stateful and daemon sets")?;
    into_pods(c).context("into pods")?;
    disruptions(c).context("disruption budgets")?;
    c.kubectl(&["delete", "namespace", "workloads", "--timeout=60s"])?;
    Ok(())
}

fn jobs(c: &mut Cluster) -> Result<()> {
    in_ns(c, &["wait", "--for=condition=Complete", "job/once", "--timeout=60s"])?;
    let job = c.kubectl_json(&[&["get", "job", "once"], NS].concat())?;
    ensure!(
        job["status"]["succeeded"] == 3 && job["status"]["completedIndexes"] == "0-2",
        "{}",
        job["status"]
    );
    let logs = in_ns(c, &["logs", "-l", "batch.kubernetes.io/job-name=once"])?;
    for i in 0..3 {
        ensure!(logs.contains(&format!("index {i}")), "{logs}");
    }
    in_ns(c, &["wait", "--for=condition=Failed", "job/fails", "--timeout=60s"])?;
    let described = in_ns(c, &["describe", "job", "fails"])?;
    ensure!(described.contains("BackoffLimitExceeded"), "{described}");
    in_ns(c, &["create", "job", "now", "--from=cronjob/nightly"])?;
    in_ns(c, &["wait", "--for=condition=Complete", "job/now", "--timeout=60s"])?;
    // A finished job's pods are not held back by what counted them.
    in_ns(c, &["delete", "job", "once", "fails", "now", "--timeout=60s"])?;
    c.wait("the jobs' pods to go", SOON, |c| {
        let pods = in_ns(c, &["get", "pods", "-l", "batch.kubernetes.io/job-name", "-o", "name"])?;
        Ok(pods.is_empty().then_some(()))
    })
}

fn sets(c: &mut Cluster) -> Result<()> {
    in_ns(c, &["rollout", "status", "statefulset/db", "--timeout=60s"])?;
    in_ns(c, &["rollout", "status", "daemonset/agent", "--timeout=60s"])?;
    let pods = in_ns(c, &["get", "pods", "-l", "app=db", "-o", "name"])?;
    ensure!(pods.lines().eq(["pod/db-0", "pod/db-1"]), "{pods}");
    // Each has a name of its own in the cluster's DNS.
    let page = c.wait("db-1 by its name", SOON, |c| {
        let url = "http://db-1.db.workloads.svc.cluster.local:8080/";
        Ok(in_ns(c, &["exec", "db-0", "--", "wget", "-qO-", url]).ok())
    })?;
    ensure!(page.trim() == "db-1", "{page}");
    in_ns(c, &["set", "env", "daemonset/agent", "A=b"])?;
    in_ns(c, &["rollout", "status", "daemonset/agent", "--timeout=60s"])?;
    let history = in_ns(c, &["rollout", "history", "daemonset/agent"])?;
    ensure!(
        history.lines().filter(|l| l.starts_with(|c: char| c.is_ascii_digit())).count() == 2,
        "{history}"
    );
    in_ns(c, &["rollout", "undo", "daemonset/agent"])?;
    in_ns(c, &["rollout", "status", "daemonset/agent", "--timeout=60s"])?;
    let ds = c.kubectl_json(&[&["get", "daemonset", "agent"], NS].concat())?;
    ensure!(ds["spec"]["template"]["spec"]["containers"][0]["env"].is_null(), "{}", ds["spec"]["template"]);
    Ok(())
}

/// A child that ends with us.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn into_pods(c: &mut Cluster) -> Result<()> {
    let mut command = c.kubectl_command(&[&["port-forward", "db-0", ":8080"], NS].concat());
    let mut forward = Background(command.stdout(Stdio::piped()).spawn()?);
    let mut said = [0; 256];
    let n = forward.0.stdout.as_mut().context("no stdout")?.read(&mut said)?;
    let said = String::from_utf8_lossy(&said[..n]).into_owned();
    let port: u16 = said
        .strip_prefix("Forwarding from 127.0.0.1:")
        .and_then(|s| s.split_once(' ')?.0.parse().ok())
        .with_context(|| format!("port-forward says {said:?}"))?;
    for _ in 0..3 {
        let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        ensure!(page.contains("200 OK") && page.trim_end().ends_with("db-0"), "{page}");
    }
    drop(forward);

    let mut command = c.kubectl_command(&[NS, &["exec", "-i", "db-0", "--", "busybox", "md5sum"]].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    // More than any queue on the way holds.
    let block = [b'x'; 1 << 16];
    for _ in 0..64 {
        stdin.write_all(&block)?;
    }
    drop(stdin);
    let out = child.wait_with_output()?;
    let sum = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(out.status.success() && sum.starts_with("44981362d3ba9b5bacaf017c2f29d355"), "{sum}");
    let missing = c.kubectl_fails(&[&["exec", "db-0"], NS, &["--", "no-such-command"]].concat())?;
    ensure!(missing.contains("executable file not found in $PATH"), "{missing}");
    let previous = c.kubectl_fails(&[&["logs", "db-0", "-p"], NS].concat())?;
    ensure!(previous.contains("previous terminated container \"c\" in pod \"db-0\" not found"), "{previous}");
    Ok(())
}

fn disruptions(c: &mut Cluster) -> Result<()> {
    let node = c.node();
    let drain = ["drain", &node, "--pod-selector=app=db", "--ignore-daemonsets", "--timeout=3s"];
    let refused = c.kubectl_fails(&drain)?;
    ensure!(
        refused.contains("Cannot evict pod as it would violate the pod's disruption budget."),
        "{refused}"
    );
    in_ns(c, &["patch", "pdb", "db", "-p", "{\"spec\":{\"minAvailable\":0}}"])?;
    c.wait("the budget to allow it", SOON, |c| {
        let pdb = c.kubectl_json(&[&["get", "pdb", "db"], NS].concat())?;
        Ok((pdb["status"]["disruptionsAllowed"].as_i64() > Some(0)).then_some(()))
    })?;
    let drain = ["drain", &node, "--pod-selector=app=db", "--ignore-daemonsets", "--timeout=60s"];
    c.kubectl(&drain)?;
    c.kubectl(&["uncordon", &node])?;
    in_ns(c, &["rollout", "status", "statefulset/db", "--timeout=60s"])?;
    Ok(())
}
