//! What cannot work is refused with one line that says what to do, and leaves nothing half-made.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use tests::{Cluster, required};

fn up(c: &Cluster, instead: &[(&str, &str)], path: Option<&str>) -> Result<Output> {
    let mut flags = c.flags();
    for (flag, value) in instead {
        let at = flags.iter().position(|f| f == flag).with_context(|| format!("no flag {flag}"))?;
        (*value).clone_into(&mut flags[at + 1]);
    }
    let mut command = Command::new(required("BINNACLE_BIN")?);
    command.arg("up").args(flags).stdin(Stdio::null());
    if let Some(path) = path {
        command.env("PATH", path);
    }
    Ok(command.output()?)
}

/// Fails with exactly one `binnacle:` line, which has all of `words`.
fn refused(output: &Output, words: &[&str]) -> Result<()> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "it succeeded:\n{stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|l| l.starts_with("binnacle: ")).collect();
    ensure!(errors.len() == 1, "not one error line, but:\n{stderr}");
    for word in words {
        ensure!(errors[0].contains(word), "the error does not say {word:?}: {}", errors[0]);
    }
    Ok(())
}

fn nothing_is_left(c: &Cluster) -> Result<()> {
    let links = Command::new("ip").args(["-o", "link"]).output()?;
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    ensure!(!links.contains(&c.bridge()), "the bridge is left:\n{links}");
    ensure!(!c.dir.join("containerd.sock").try_exists()?, "containerd was started");
    Ok(())
}

#[test]
fn what_cannot_work_is_refused() -> Result<()> {
    let mut c = Cluster::new("no", 146)?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    for flag in ["--api-addr", "--http-addr", "--otlp-grpc-addr", "--otlp-http-addr", "--kubelet-addr"] {
        let output = up(&c, &[(flag, &address)], None)?;
        refused(&output, &[&address, flag]).with_context(|| format!("{flag} is in use"))?;
        nothing_is_left(&c).with_context(|| format!("{flag} is in use"))?;
    }
    let file = c.dir.join("file");
    std::fs::write(&file, "in the way")?;
    let below = file.join("data").display().to_string();
    refused(&up(&c, &[("--data-dir", &below)], None)?, &[&below, "--data-dir"]).context("unwritable data")?;
    nothing_is_left(&c).context("unwritable data")?;
    refused(&up(&c, &[], Some("/nowhere"))?, &["containerd", "install containerd"])
        .context("no containerd")?;
    nothing_is_left(&c).context("no containerd")?;
    full_disk(&c).context("a full disk")?;
    c.purge()
}

/// A data directory on a file system with less room than a cluster needs.
fn full_disk(c: &Cluster) -> Result<()> {
    let small = c.dir.join("small");
    std::fs::create_dir(&small)?;
    mount(&small, "64k")?;
    let data = small.join("data").display().to_string();
    let output = up(c, &[("--data-dir", &data)], None);
    let unmounted = Command::new("umount").arg(&small).status()?;
    refused(&output?, &["No space left on device"])?;
    ensure!(unmounted.success(), "something still uses the full disk");
    nothing_is_left(c)
}

fn mount(at: &Path, size: &str) -> Result<()> {
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
        .arg(at)
        .status()?;
    ensure!(status.success(), "mount a file system of {size} at {}", at.display());
    Ok(())
}
