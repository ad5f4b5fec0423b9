//! Owner references: who controls an object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

/// The reference that marks the controller, if there is one.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_deref()?.iter().find(|o| o.controller == Some(true))
}

/// True if `owner` controls the object.
pub(crate) fn is_controlled_by<K: Resource>(meta: &ObjectMeta, owner: &K) -> bool {
    controller_of(meta).is_some_and(|o| Some(&o.uid) == owner.meta().uid.as_ref())
}

/// A controller reference to `owner`. Deleting the owner in the foreground waits for the object.
pub(crate) fn controller_ref<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
