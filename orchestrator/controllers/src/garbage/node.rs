//! What the collector reads of an object: who it is, who owns it, what holds it back.
//!
//! Every object there is passes here, each time it changes: who manages which field is the most of its metadata, and is
//! passed over unread.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use kube::api::ApiResource;
use serde::{Deserialize, Deserializer};

/// An object of any kind, of which only this part of the metadata is read.
#[derive(Clone, Debug)]
pub(super) struct Node {
    metadata: ObjectMeta,
}

#[derive(Deserialize)]
struct Whole {
    #[serde(default)]
    metadata: Part,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Part {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let Part { name, namespace, uid, resource_version, deletion_timestamp, finalizers, owner_references } =
            Whole::deserialize(d)?.metadata;
        Ok(Node {
            metadata: ObjectMeta {
                name,
                namespace,
                uid,
                resource_version,
                deletion_timestamp,
                finalizers,
                owner_references,
                ..ObjectMeta::default()
            },
        })
    }
}

impl Resource for Node {
    type DynamicType = ApiResource;
    type Scope = kube::core::DynamicResourceScope;

    fn kind(r: &ApiResource) -> Cow<'_, str> {
        r.kind.as_str().into()
    }

    fn group(r: &ApiResource) -> Cow<'_, str> {
        r.group.as_str().into()
    }

    fn version(r: &ApiResource) -> Cow<'_, str> {
        r.version.as_str().into()
    }

    fn plural(r: &ApiResource) -> Cow<'_, str> {
        r.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
