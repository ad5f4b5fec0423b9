//! Pulls images from OCI registries.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use containerd_client::types::Descriptor;
use futures::StreamExt;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{
    IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE,
    OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciImageManifest,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use serde::Deserialize;
use serde_json::Value;

use super::mirror::is_loopback;
use super::{Images, LocalImage, content};
use crate::Error;
use crate::probes::io_text;

/// Who we are to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub registry: String,
    pub user: String,
    pub password: String,
}

/// A pull that failed: the text that becomes the container's message, in containerd's words.
#[derive(Debug, thiserror::Error)]
#[error("failed to pull and unpack image {image:?}: {why}")]
pub struct PullError {
    pub image: String,
    pub why: String,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

impl Credential {
    /// The credentials of a `.dockerconfigjson`; entries that cannot be read are left out.
    pub fn from_docker_config(json: &[u8]) -> Vec<Credential> {
        let config = serde_json::from_slice::<DockerConfig>(json);
        Self::from_auths(config.map(|c| c.auths).unwrap_or_default())
    }

    /// The same of the older `.dockercfg`, which is the list alone.
    pub fn from_docker_cfg(json: &[u8]) -> Vec<Credential> {
        Self::from_auths(serde_json::from_slice(json).unwrap_or_default())
    }

    fn from_auths(auths: BTreeMap<String, DockerAuth>) -> Vec<Credential> {
        auths
            .into_iter()
            .filter_map(|(registry, a)| {
                let (user, password) = match (a.username, a.password) {
                    (Some(u), Some(p)) => (u, p),
                    _ => {
                        let raw = base64::engine::general_purpose::STANDARD.decode(a.auth?).ok()?;
                        let text = String::from_utf8(raw).ok()?;
                        let (u, p) = text.split_once(':')?;
                        (u.to_owned(), p.trim_end_matches('\0').to_owned())
                    }
                };
                let registry = registry.split_once("://").map_or(registry.as_str(), |(_, r)| r);
                let registry = registry.split('/').next()?.to_owned();
                let registry = if registry == "index.docker.io" { "docker.io".to_owned() } else { registry };
                Some(Credential { registry, user, password })
            })
            .collect()
    }
}

fn client(http: bool) -> Client {
    // oci-client's rustls has no provider of its own; a second installation is refused and harmless.
    drop(rustls::crypto::ring::default_provider().install_default());
    let protocol = if http { ClientProtocol::Http } else { ClientProtocol::Https };
    Client::new(ClientConfig {
        protocol,
        connect_timeout: Some(std::time::Duration::from_secs(15)),
        read_timeout: Some(std::time::Duration::from_secs(60)),
        user_agent: concat!("binnacle/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    })
}

impl Images {
    /// Pulls an image from the mirrors of its registry or from there, trying each fitting credential and then none.
    pub async fn pull(&self, name: &str, credentials: &[Credential]) -> Result<Arc<LocalImage>, PullError> {
        let failed = |why: String| PullError { image: name.to_owned(), why };
        let reference = Reference::try_from(name).map_err(|e| failed(e.to_string()))?;
        let registry = reference.registry().to_owned();
        let mut ways: Vec<RegistryAuth> = credentials
            .iter()
            .filter(|c| c.registry == registry)
            .map(|c| RegistryAuth::Basic(c.user.clone(), c.password.clone()))
            .collect();
        ways.push(RegistryAuth::Anonymous);
        for mirror in self.mirrors.iter().filter(|m| m.is_of(&registry)) {
            let mut there = reference.clone();
            there.set_mirror_registry(mirror.host.clone());
            // Whom a registry knows its mirror need not know.
            match self.pull_as(&client(mirror.http), &there, &RegistryAuth::Anonymous).await {
                Ok(image) => return Ok(image),
                Err(e) => {
                    tracing::debug!(image = name, mirror = mirror.host, error = %e, "not from the mirror")
                }
            }
        }
        let mut first = None;
        for auth in ways {
            // A client of its own for each: it keeps the first credentials that it was given.
            match self.pull_as(&client(is_loopback(&registry)), &reference, &auth).await {
                Ok(image) => return Ok(image),
                // What the caller's own credentials came to says more than what nobody's did.
                Err(e) => first = first.or(Some(e)),
            }
        }
        let why = first.map_or_else(|| "no way to ask".to_owned(), |e| e.to_string());
        Err(PullError { image: reference.whole(), why })
    }

    async fn pull_as(
        &self,
        client: &Client,
        reference: &Reference,
        auth: &RegistryAuth,
    ) -> Result<Arc<LocalImage>, Error> {
        let lease = self.containerd.lease().await?;
        let result = self.fetch(client, reference, auth, &lease).await;
        self.containerd.end_lease(lease).await;
        result
    }

    async fn fetch(
        &self,
        client: &Client,
        reference: &Reference,
        auth: &RegistryAuth,
        lease: &crate::containerd::Lease,
    ) -> Result<Arc<LocalImage>, Error> {
        let wrong = |why: String| Error::Pull(why);
        let unresolved = |e: &OciDistributionError| Error::Pull(resolve_text(reference, e));
        let accepted = [
            OCI_IMAGE_MEDIA_TYPE,
            IMAGE_MANIFEST_MEDIA_TYPE,
            OCI_IMAGE_INDEX_MEDIA_TYPE,
            IMAGE_MANIFEST_LIST_MEDIA_TYPE,
        ];
        client.auth(reference, auth, RegistryOperation::Pull).await.map_err(|e| unresolved(&e))?;
        let mut raw =
            client.pull_manifest_raw(reference, auth, &accepted).await.map_err(|e| unresolved(&e))?;
        let mut document: Value = serde_json::from_slice(&raw.0).map_err(|e| wrong(e.to_string()))?;
        if let Some(list) = document["manifests"].as_array() {
            let arch = super::archive::architecture();
            let ours = list
                .iter()
                .find(|m| m["platform"]["os"] == "linux" && m["platform"]["architecture"] == arch)
                .and_then(|m| m["digest"].as_str())
                .ok_or_else(|| wrong(format!("no match for platform linux/{arch} in manifest")))?;
            let by_digest = Reference::with_digest(
                reference.registry().to_owned(),
                reference.repository().to_owned(),
                ours.to_owned(),
            );
            raw = client.pull_manifest_raw(&by_digest, auth, &accepted).await.map_err(|e| unresolved(&e))?;
            document = serde_json::from_slice(&raw.0).map_err(|e| wrong(e.to_string()))?;
        }
        let manifest: OciImageManifest =
            serde_json::from_value(document).map_err(|e| wrong(e.to_string()))?;
        let blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
        for blob in blobs {
            if content::exists(&self.containerd, &blob.digest).await? {
                continue;
            }
            let stream = client.pull_blob_stream(reference, blob).await;
            let stream =
                stream.map_err(|e| wrong(format!("failed to copy {}: {}", blob.digest, text(&e))))?;
            content::write(&self.containerd, lease, &blob.digest, blob.size, stream.stream.boxed()).await?;
        }
        let media_type = manifest.media_type.clone().unwrap_or_else(|| {
            let docker = manifest.layers.iter().any(|l| l.media_type == IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE);
            (if docker { IMAGE_MANIFEST_MEDIA_TYPE } else { OCI_IMAGE_MEDIA_TYPE }).to_owned()
        });
        let (bytes, digest) = raw;
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        content::write_bytes(&self.containerd, lease, &digest, bytes).await?;
        let target = Descriptor { media_type, digest, size, ..Descriptor::default() };
        self.register(lease, &reference.whole(), &target).await
    }
}

/// Why a name leads to no manifest, as containerd says it.
fn resolve_text(reference: &Reference, e: &OciDistributionError) -> String {
    let name = reference.whole();
    let why = match status(e) {
        Some(404) => format!("{name}: not found"),
        Some(code) => {
            let tag = reference.tag().or(reference.digest()).unwrap_or_default();
            let words =
                http::StatusCode::from_u16(code).ok().and_then(|c| c.canonical_reason()).unwrap_or("");
            let host = reference.resolve_registry();
            format!("pulling from host {host} failed with status code [manifests {tag}]: {code} {words}")
        }
        None => text(e),
    };
    format!("failed to resolve reference {name:?}: {why}")
}

/// The HTTP status behind an error, if a registry answered at all.
fn status(e: &OciDistributionError) -> Option<u16> {
    match e {
        OciDistributionError::ImageManifestNotFoundError(_) => Some(404),
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            Some(401)
        }
        OciDistributionError::ServerError { code, .. } => Some(*code),
        OciDistributionError::RegistryError { envelope, .. } => {
            match envelope.errors.first().map(|e| &e.code) {
                Some(OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound) => {
                    Some(404)
                }
                Some(OciErrorCode::Unauthorized) => Some(401),
                Some(OciErrorCode::Denied) => Some(403),
                Some(OciErrorCode::Toomanyrequests) => Some(429),
                _ => None,
            }
        }
        _ => None,
    }
}

/// An error with its innermost cause: reqwest's own text ends before it.
fn text(e: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = e;
    while let Some(s) = inner.source() {
        inner = s;
    }
    let last = inner.downcast_ref::<std::io::Error>().map_or_else(|| inner.to_string(), io_text);
    let first = e.to_string();
    if first.contains(&last) { first } else { format!("{first}: {last}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_docker_configurations() {
        let json = br#"{"auths": {
            "https://index.docker.io/v1/": {"username": "u", "password": "p"},
            "127.0.0.1:5000": {"auth": "YTpiOmM="}, "broken": {}}}"#;
        let all = Credential::from_docker_config(json);
        let find =
            |r: &str| all.iter().find(|c| c.registry == r).map(|c| (c.user.as_str(), c.password.as_str()));
        assert_eq!(find("docker.io"), Some(("u", "p")));
        assert_eq!(find("127.0.0.1:5000"), Some(("a", "b:c")));
        assert_eq!(all.len(), 2);
    }
}
