//! `image import` and `image list`: the local runtime's images.

use anyhow::{Context, Result};
use kubelet::{containerd, images};

use super::print;
use crate::cli::{ImageArgs, ImageWhat};

pub(crate) async fn run(a: ImageArgs) -> Result<()> {
    let (ImageWhat::Import { config, .. } | ImageWhat::List { config }) = &a.what;
    let c = config.clone().load()?;
    let namespace = c.containerd_namespace();
    let runtime = containerd::ensure(&c.containerd_socket, &c.data_dir, &namespace)
        .await
        .context("reach containerd: `binnacle doctor` checks this machine")?;
    match &a.what {
        ImageWhat::Import { archive, .. } => {
            let names = images::import(&runtime, archive)
                .await
                .with_context(|| format!("import {}", archive.display()))?;
            names.iter().try_for_each(|n| print(&format!("imported {n}")))
        }
        ImageWhat::List { .. } => {
            let all = images::Images::new(runtime).list().await.context("list images")?;
            all.iter().try_for_each(|(name, digest)| print(&format!("{name}  {digest}")))
        }
    }
}
