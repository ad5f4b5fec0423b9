//! A million lines over rotations, a restart of their container and a `kill -9`: none lost, none twice, in order, and the
//! same when the files are rotated away, when the container's next life has begun, and when the pod is deleted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::Cluster;

const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "million", "namespace": "shop"}, "spec": {
    "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 0,
    "volumes": [{"name": "lives", "emptyDir": {}}],
    "containers": [{"name": "writer", "image": "binnacle.io/shop:latest", "imagePullPolicy": "IfNotPresent",
        "volumeMounts": [{"name": "lives", "mountPath": "/lives"}],
        "command": ["sh", "-c", "WRITE"]}]}}"#;
/// The first life ends with an error; the second goes on counting.
const WRITE: &str = "from=1; end=1; [ -e /lives/one ] && { from=500001; end=0; }; : > /lives/one; \
    busybox awk -v from=$from 'BEGIN { for (i = from; i < from + 500000; i++) printf(\\\"%07d PAD\\\\n\\\", i) }'; exit $end";
const LIFE: usize = 500_000;
/// So long that a life takes more files than are kept.
const PAD: usize = 120;
const LATEST: Duration = Duration::from_secs(120);

fn pad() -> String {
    "all work and no play ".chars().cycle().take(PAD).collect()
}

/// That the text is a life's lines, all and in order.
fn is_life(text: &str, from: usize, what: &str) -> Result<()> {
    let pad = pad();
    let mut n = from;
    for line in text.lines() {
        ensure!(line == format!("{n:07} {pad}"), "{what}: line {n} is {line:?}");
        n += 1;
    }
    ensure!(n == from + LIFE, "{what}: {} lines of {LIFE}", n - from);
    Ok(())
}

pub(crate) fn a_million_lines(c: &mut Cluster) -> Result<()> {
    let manifest = c.data_dir().join("million.json");
    let pod = POD.replace("WRITE", &WRITE.replace("PAD", &pad()));
    std::fs::write(&manifest, pod).context("writing a manifest")?;
    c.kubectl(&["create", "-f", &manifest.display().to_string()])?;
    let count = |c: &Cluster| -> Result<f64> {
        let q = r#"sum(count_over_time({namespace="shop",pod="million"}[1h]))"#;
        let found = c.query("logql", q, &[])?;
        Ok(found["data"]["result"][0]["value"][1].as_str().and_then(|v| v.parse().ok()).unwrap_or(0.0))
    };
    c.wait("the first lines", LATEST, |c| Ok((count(c)? > 0.0).then_some(())))?;
    c.kill()?;
    c.start()?;
    c.kubectl(&[
        "wait",
        "pod/million",
        "-n",
        "shop",
        "--for=jsonpath={.status.phase}=Succeeded",
        "--timeout=120s",
    ])?;
    c.wait("a million lines", LATEST, |c| Ok((count(c)? >= 2.0 * LIFE as f64).then_some(())))?;
    ensure!(count(c)? == 2.0 * LIFE as f64, "lines are doubled: {}", count(c)?);
    let logs = |c: &Cluster, more: &[&str]| c.kubectl(&[&["logs", "million", "-n", "shop"], more].concat());
    is_life(&logs(c, &["--previous"])?, 1, "the first life")?;
    is_life(&logs(c, &[])?, LIFE + 1, "the second life")?;
    let tail = logs(c, &["--tail=450000"])?;
    let first = format!("{:07} ", 2 * LIFE - 450_000 + 1);
    ensure!(tail.lines().count() == 450_000 && tail.starts_with(&first), "{} lines", tail.lines().count());
    ensure!(logs(c, &["--limit-bytes=20000000"])?.len() == 20_000_000, "a limit over both sources");
    let follow = logs(c, &["-f"])?;
    is_life(&follow, LIFE + 1, "followed")?;
    c.kubectl(&["delete", "pod", "million", "-n", "shop", "--now"])?;
    is_life(&logs(c, &[])?, LIFE + 1, "the deleted pod")
}
