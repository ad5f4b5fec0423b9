//! `binnacle backup` and `binnacle restore`: a cluster's objects and keys in one file, and back.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path};

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;

use super::print;
use super::remote::Remote;
use crate::cli::{BackupArgs, RestoreArgs};

/// Says on a terminal how far it is.
struct Progress {
    what: &'static str,
    shown: bool,
}

impl Progress {
    fn new(what: &'static str) -> Progress {
        Progress { what, shown: std::io::stderr().is_terminal() }
    }

    fn at(&self, amount: &str) {
        if self.shown {
            // A closed stderr leaves nobody to tell.
            drop(write!(std::io::stderr(), "\r{}: {amount}", self.what));
        }
    }

    fn end(&self) {
        if self.shown {
            drop(writeln!(std::io::stderr()));
        }
    }
}

pub(crate) async fn backup(a: BackupArgs) -> Result<()> {
    let remote = Remote::new(&a.data.data_dir)?;
    let shown = a.file.display().to_string();
    if a.file.try_exists()? {
        bail!("{shown} exists already: a backup overwrites nothing");
    }
    let unfinished = a.file.with_extension("unfinished");
    let result = receive(&remote, &unfinished).await;
    match result {
        Ok(bytes) => {
            fs::rename(&unfinished, &a.file).with_context(|| shown.clone())?;
            print(&format!("{shown}: {bytes} bytes. It holds the cluster's keys: keep it as you keep those"))
        }
        Err(e) => {
            drop(fs::remove_file(&unfinished));
            Err(e.context("no backup was made"))
        }
    }
}

async fn receive(remote: &Remote, path: &Path) -> Result<u64> {
    let written = || format!("write {}", path.display());
    let mut options = OpenOptions::new();
    let mut out =
        options.write(true).create(true).truncate(true).mode(0o600).open(path).with_context(written)?;
    let mut body = remote.download("/backup").await?;
    let (mut bytes, progress) = (0, Progress::new("backup"));
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the server ended the backup: see its log, and try again")?;
        if let Some(data) = frame.data_ref() {
            out.write_all(data).with_context(written)?;
            bytes += data.len() as u64;
            progress.at(&format!("{} KiB", bytes >> 10));
        }
    }
    progress.end();
    out.sync_all().with_context(written)?;
    Ok(bytes)
}

pub(crate) fn restore(a: &RestoreArgs) -> Result<()> {
    let dir = &a.data.data_dir;
    let input = File::open(&a.file).with_context(|| a.file.display().to_string())?;
    let taken = |name: &str| -> Result<()> {
        if dir.join(name).try_exists()? {
            bail!(
                "{} holds a cluster already: a restore overwrites nothing, give an empty --data-dir",
                dir.display()
            );
        }
        Ok(())
    };
    taken("pki")?;
    taken("store")?;
    let mut make = fs::DirBuilder::new();
    make.recursive(true).mode(0o700).create(dir).with_context(|| dir.display().to_string())?;
    let progress = Progress::new("restore");
    let restored =
        store::restore(&dir.join("store"), BufReader::new(input), |n| progress.at(&format!("{n} objects")))?;
    progress.end();
    for (name, bytes) in &restored.files {
        let plain = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain {
            bail!("the backup names a file outside the data directory: {name:?}");
        }
        let path = dir.join(name);
        let written = || format!("write {}", path.display());
        if let Some(parent) = path.parent() {
            make.create(parent).with_context(written)?;
        }
        let mut options = OpenOptions::new();
        let mut out =
            options.write(true).create(true).truncate(true).mode(0o600).open(&path).with_context(written)?;
        out.write_all(bytes).with_context(written)?;
        out.sync_all().with_context(written)?;
    }
    print(&format!(
        "{} objects as of revision {} and {} files are in {}: start it with --data-dir",
        restored.objects,
        restored.revision,
        restored.files.len(),
        dir.display()
    ))
}
