//! Unpacks an image's layers into a chain of snapshots, through containerd's diff service.

use std::collections::HashMap;

use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::services::v1::{ApplyRequest, diff_client::DiffClient};
use containerd_client::types::Descriptor;
use oci_spec::image::{ImageConfiguration, ImageManifest};
use sha2::{Digest, Sha256};

use super::{SNAPSHOTTER, content};
use crate::containerd::{Containerd, Lease};
use crate::error::{Error, found};

/// The names of the snapshots: each stands for its layer and all below (image-spec, "Layer ChainID").
pub(crate) fn chain_ids<S: AsRef<str>>(diff_ids: &[S]) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(diff_ids.len());
    for id in diff_ids {
        let id = id.as_ref();
        out.push(match out.last() {
            None => id.to_owned(),
            Some(parent) => format!("sha256:{}", hex::encode(Sha256::digest(format!("{parent} {id}")))),
        });
    }
    out
}

/// Labels manifest and configuration for the garbage collector and makes the snapshots that are missing.
pub(crate) async fn unpack(c: &Containerd, lease: &Lease, manifest: &Descriptor) -> Result<(), Error> {
    let wrong = |why: String| Error::Image { image: manifest.digest.clone(), why };
    let bytes = content::read(c, &manifest.digest).await?;
    let m: ImageManifest = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
    let config_digest = m.config().digest().to_string();
    let config = content::read(c, &config_digest).await?;
    let config: ImageConfiguration = serde_json::from_slice(&config).map_err(|e| wrong(e.to_string()))?;
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != m.layers().len() {
        return Err(wrong(format!("{} layers but {} diff ids", m.layers().len(), diff_ids.len())));
    }
    let mut refs: HashMap<String, String> =
        [("containerd.io/gc.ref.content.config".to_owned(), config_digest.clone())].into();
    for (i, layer) in m.layers().iter().enumerate() {
        refs.insert(format!("containerd.io/gc.ref.content.l.{i}"), layer.digest().to_string());
    }
    content::label(c, &manifest.digest, refs).await?;

    let chain = chain_ids(diff_ids);
    for (i, layer) in m.layers().iter().enumerate() {
        let parent = i.checked_sub(1).map(|p| chain[p].as_str()).unwrap_or_default();
        let layer = Descriptor {
            media_type: layer.media_type().to_string(),
            digest: layer.digest().to_string(),
            size: i64::try_from(layer.size()).unwrap_or(i64::MAX),
            ..Descriptor::default()
        };
        apply(c, lease, layer, &diff_ids[i], parent, &chain[i]).await?;
    }
    if let Some(top) = chain.last() {
        let key = format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}");
        content::label(c, &config_digest, [(key, top.clone())].into()).await?;
    }
    Ok(())
}

/// One layer onto its parent, unless its snapshot is there.
async fn apply(
    c: &Containerd,
    lease: &Lease,
    layer: Descriptor,
    diff_id: &str,
    parent: &str,
    name: &str,
) -> Result<(), Error> {
    let mut snapshots = SnapshotsClient::new(c.channel.clone());
    let stat = StatSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: name.to_owned() };
    // Leased, so that a snapshot another image left is not collected before ours refers to it.
    let there = found(snapshots.stat(c.leased(lease, stat)).await);
    if there.map_err(Error::containerd("look up a snapshot"))?.is_some() {
        return Ok(());
    }
    let key = format!("extract-{} {name}", uuid::Uuid::new_v4());
    let prepare = PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: key.clone(),
        parent: parent.to_owned(),
        ..PrepareSnapshotRequest::default()
    };
    let mounts = snapshots
        .prepare(c.leased(lease, prepare))
        .await
        .map_err(Error::containerd("prepare a layer"))?
        .into_inner()
        .mounts;
    let result = async {
        let digest = layer.digest.clone();
        let request = ApplyRequest { diff: Some(layer), mounts, ..ApplyRequest::default() };
        let applied = DiffClient::new(c.channel.clone())
            .apply(c.leased(lease, request))
            .await
            .map_err(Error::containerd(format!("unpack {digest}")))?
            .into_inner();
        let got = applied.applied.map(|d| d.digest).unwrap_or_default();
        if got != diff_id {
            let why = format!("layer {digest} unpacks to {got}, its configuration says {diff_id}");
            return Err(Error::Image { image: name.to_owned(), why });
        }
        let commit = CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name: name.to_owned(),
            key: key.clone(),
            ..CommitSnapshotRequest::default()
        };
        match snapshots.commit(c.leased(lease, commit)).await {
            Ok(_) => Ok(true),
            // Another unpack of the same layer was faster.
            Err(e) if e.code() == tonic::Code::AlreadyExists => Ok(false),
            Err(e) => Err(Error::containerd("commit a layer")(e)),
        }
    }
    .await;
    if !matches!(result, Ok(true)) {
        let remove = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key };
        if let Err(e) = SnapshotsClient::new(c.channel.clone()).remove(c.request(remove)).await {
            tracing::debug!(error = %e, "removing an unfinished layer; the garbage collector will");
        }
    }
    result.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_chain_id_is_the_layer_itself() {
        let ids = chain_ids(&["sha256:a", "sha256:b"]);
        assert_eq!(ids[0], "sha256:a");
        assert_eq!(ids[1], format!("sha256:{}", hex::encode(Sha256::digest("sha256:a sha256:b"))));
    }
}
