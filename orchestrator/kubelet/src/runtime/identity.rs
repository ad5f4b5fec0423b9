//! Which container a record in containerd is: what its labels say.

use std::collections::HashMap;

use containerd_client::services::v1::Container;
use sha2::{Digest, Sha256};

const POD_UID: &str = "io.kubernetes.pod.uid";
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const ATTEMPT: &str = "io.kubernetes.container.restartCount";
const SPEC_HASH: &str = "io.kubernetes.container.hash";
const IMAGE_ID: &str = "binnacle.io/image-id";
const CGROUP: &str = "binnacle.io/cgroup";
const WORKLOAD: &str = "binnacle.io/workload";

/// Which container: what its labels say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pod_uid: String,
    pub(crate) pod_name: String,
    pub(crate) namespace: String,
    pub(crate) container: String,
    pub(crate) attempt: u32,
    pub(crate) spec_hash: String,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) cgroup: String,
    /// What the pod belongs to, such as its Deployment's name; empty if nobody controls it.
    pub(crate) workload: String,
}

impl Identity {
    /// The same attempt has the same id, whoever computes it.
    pub(crate) fn id(&self) -> String {
        let text = format!("{}/{}/{}", self.pod_uid, self.container, self.attempt);
        hex::encode(Sha256::digest(text))
    }

    pub(super) fn labels(&self) -> HashMap<String, String> {
        [
            (POD_UID, &self.pod_uid),
            (POD_NAME, &self.pod_name),
            (POD_NAMESPACE, &self.namespace),
            (CONTAINER_NAME, &self.container),
            (ATTEMPT, &self.attempt.to_string()),
            (SPEC_HASH, &self.spec_hash),
            (IMAGE_ID, &self.image_id),
            (CGROUP, &self.cgroup),
            (WORKLOAD, &self.workload),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.clone()))
        .collect()
    }

    pub(super) fn from_record(c: &Container) -> Option<Self> {
        let get = |k: &str| c.labels.get(k).cloned();
        Some(Identity {
            pod_uid: get(POD_UID)?,
            pod_name: get(POD_NAME)?,
            namespace: get(POD_NAMESPACE)?,
            container: get(CONTAINER_NAME)?,
            attempt: get(ATTEMPT)?.parse().ok()?,
            spec_hash: get(SPEC_HASH)?,
            image: c.image.clone(),
            image_id: get(IMAGE_ID)?,
            cgroup: get(CGROUP)?,
            workload: get(WORKLOAD).unwrap_or_default(),
        })
    }
}
