//! Images: in containerd's store, from an archive or from a registry, unpacked into snapshots.
//!
//! The road of an image: `images::archive` or `images::pull` brings its blobs into the content store under a
//! lease → [`Images::register`] labels them (containerd's garbage collector follows `gc.ref` labels), unpacks the
//! layers and names the image, in this order: a name that exists is complete.

mod archive;
mod collect;
mod content;
mod mirror;
mod pull;
mod unpack;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, ListImagesRequest, UpdateImageRequest,
    images_client::ImagesClient,
};
use containerd_client::types::Descriptor;
use oci_client::Reference;
use oci_spec::image::{Config as ImageConfig, ImageConfiguration, ImageManifest};
use parking_lot::Mutex;
use signal::Timestamp;

use crate::containerd::{Containerd, Lease};
use crate::error::{Error, found};

pub use mirror::Mirror;
pub use pull::{Credential, PullError};

/// The snapshotter whose snapshots containers stand on.
pub(crate) const SNAPSHOTTER: &str = "overlayfs";
/// Unpacked configurations kept in memory; one is about 2 KiB.
const CACHE: usize = 64;

/// An image that is present and unpacked.
#[derive(Clone, Debug)]
pub struct LocalImage {
    /// The normalised name, such as `docker.io/library/busybox:latest`.
    pub name: String,
    /// The manifest's digest.
    pub digest: String,
    /// The configuration's digest, which is Kubernetes' image ID.
    pub id: String,
    /// The snapshot a container's own is prepared on; empty for an image without layers.
    pub(crate) chain_id: String,
    pub(crate) config: ImageConfig,
    /// Sum of the compressed layers.
    pub size: u64,
}

/// The image store. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    containerd: Containerd,
    cache: Arc<Mutex<HashMap<String, Arc<LocalImage>>>>,
    /// When each image was last asked for, as far as this process knows.
    last_used: Arc<Mutex<HashMap<String, Timestamp>>>,
    mirrors: Arc<[Mirror]>,
}

/// An image's name with registry and tag, as Docker completes them. `None` if it is not one.
pub fn normalise(name: &str) -> Option<String> {
    Reference::try_from(name).ok().map(|r| r.whole())
}

/// Imports an OCI or Docker archive (`.tar`, also gzipped); gives the names of its images.
pub async fn import(containerd: &Containerd, path: &Path) -> Result<Vec<String>, Error> {
    Images::new(containerd.clone()).import(path).await
}

impl Images {
    pub fn new(containerd: Containerd) -> Self {
        Images { containerd, cache: Arc::default(), last_used: Arc::default(), mirrors: Arc::default() }
    }

    /// The same, with registries' mirrors to pull from.
    pub fn with_mirrors(self, mirrors: &[Mirror]) -> Self {
        Images { mirrors: mirrors.into(), ..self }
    }

    fn client(&self) -> ImagesClient<tonic::transport::Channel> {
        ImagesClient::new(self.containerd.channel.clone())
    }

    /// Imports all images of an archive. Those without a name get `import:<short digest>`.
    pub async fn import(&self, path: &Path) -> Result<Vec<String>, Error> {
        let lease = self.containerd.lease().await?;
        let result = async {
            let mut names = Vec::new();
            for found in archive::load(&self.containerd, &lease, path).await? {
                for name in found.names {
                    self.register(&lease, &name, &found.manifest).await?;
                    names.push(name);
                }
            }
            Ok(names)
        }
        .await;
        self.containerd.end_lease(lease).await;
        result
    }

    /// The image if it is present and unpacked.
    pub async fn get(&self, name: &str) -> Result<Option<Arc<LocalImage>>, Error> {
        let Some(name) = normalise(name) else {
            return Err(Error::Image { image: name.to_owned(), why: "not an image name".to_owned() });
        };
        let request = self.containerd.request(GetImageRequest { name: name.clone() });
        let response =
            found(self.client().get(request).await).map_err(Error::containerd("look up an image"))?;
        let Some(target) = response.and_then(|r| r.into_inner().image).and_then(|i| i.target) else {
            return Ok(None);
        };
        self.last_used.lock().insert(name.clone(), signal::time::now());
        if let Some(hit) = self.cache.lock().get(&name).filter(|i| i.digest == target.digest) {
            return Ok(Some(hit.clone()));
        }
        let image = Arc::new(self.describe(&name, &target).await?);
        let mut cache = self.cache.lock();
        if cache.len() >= CACHE {
            cache.clear();
        }
        cache.insert(name, image.clone());
        Ok(Some(image))
    }

    /// Reads what an image is from its manifest and configuration.
    async fn describe(&self, name: &str, manifest: &Descriptor) -> Result<LocalImage, Error> {
        let wrong = |why: String| Error::Image { image: name.to_owned(), why };
        let bytes = content::read(&self.containerd, &manifest.digest).await?;
        let m: ImageManifest = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        let config = content::read(&self.containerd, m.config().digest().as_ref()).await?;
        let config: ImageConfiguration = serde_json::from_slice(&config).map_err(|e| wrong(e.to_string()))?;
        let chain = unpack::chain_ids(config.rootfs().diff_ids());
        Ok(LocalImage {
            name: name.to_owned(),
            digest: manifest.digest.clone(),
            id: m.config().digest().to_string(),
            chain_id: chain.last().cloned().unwrap_or_default(),
            config: config.config().clone().unwrap_or_default(),
            size: m.layers().iter().map(|l| l.size()).sum(),
        })
    }

    /// Labels the blobs of a manifest that is in the content store, unpacks it and names it.
    pub(crate) async fn register(
        &self,
        lease: &Lease,
        name: &str,
        manifest: &Descriptor,
    ) -> Result<Arc<LocalImage>, Error> {
        let name = normalise(name)
            .ok_or_else(|| Error::Image { image: name.to_owned(), why: "not an image name".to_owned() })?;
        let image = self.describe(&name, manifest).await?;
        unpack::unpack(&self.containerd, lease, manifest).await?;
        let record = Image {
            name: name.clone(),
            target: Some(manifest.clone()),
            labels: [("io.cri-containerd.image".to_owned(), "managed".to_owned())].into(),
            ..Image::default()
        };
        let create = CreateImageRequest { image: Some(record.clone()), ..CreateImageRequest::default() };
        match self.client().create(self.containerd.leased(lease, create)).await {
            Ok(_) => {}
            Err(e) if e.code() == tonic::Code::AlreadyExists => {
                let update = UpdateImageRequest { image: Some(record), ..UpdateImageRequest::default() };
                let request = self.containerd.leased(lease, update);
                self.client().update(request).await.map_err(Error::containerd("rename an image"))?;
            }
            Err(e) => return Err(Error::containerd("name an image")(e)),
        }
        let image = Arc::new(image);
        self.cache.lock().insert(name, image.clone());
        Ok(image)
    }

    /// All images: name and the manifest's digest.
    pub async fn list(&self) -> Result<Vec<(String, String)>, Error> {
        let request = self.containerd.request(ListImagesRequest { filters: Vec::new() });
        let list = self.client().list(request).await.map_err(Error::containerd("list images"))?;
        let images = list.into_inner().images.into_iter();
        Ok(images.map(|i| (i.name, i.target.map(|t| t.digest).unwrap_or_default())).collect())
    }

    /// Forgets an image; its content goes with containerd's next garbage collection.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        self.cache.lock().remove(name);
        self.last_used.lock().remove(name);
        let delete = DeleteImageRequest { name: name.to_owned(), sync: false, ..Default::default() };
        let request = self.containerd.request(delete);
        found(self.client().delete(request).await).map_err(Error::containerd("remove an image"))?;
        Ok(())
    }
}

/// Removes all images of our namespace; containerd collects their content later.
pub(crate) async fn purge(containerd: &Containerd) -> Result<(), Error> {
    let images = Images::new(containerd.clone());
    for (name, _) in images.list().await? {
        images.remove(&name).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        let check = |name: &str, expect: Option<&str>| assert_eq!(normalise(name).as_deref(), expect);
        check("busybox", Some("docker.io/library/busybox:latest"));
        check("shop:dev", Some("docker.io/library/shop:dev"));
        check("me/shop:dev", Some("docker.io/me/shop:dev"));
        check("127.0.0.1:5000/shop", Some("127.0.0.1:5000/shop:latest"));
        check("UPPER CASE", None);
    }
}
