//! The kinds that several components watch, compiled here once.
//!
//! Decoding and watching a kind is much generic code. At our optimisation level a crate uses what a crate below it
//! has compiled already; without this each component would compile all of it again.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::storage::v1::StorageClass;

use crate::Informers;

/// Names each kind for the compiler's sake. Nobody calls it: an informer starts when it is first asked for.
pub fn watched_by_several(informers: &Informers) {
    informers.of::<ConfigMap>();
    informers.of::<Deployment>();
    informers.of::<EndpointSlice>();
    informers.of::<HorizontalPodAutoscaler>();
    informers.of::<Namespace>();
    informers.of::<Node>();
    informers.of::<PersistentVolume>();
    informers.of::<PersistentVolumeClaim>();
    informers.of::<Pod>();
    informers.of::<ReplicaSet>();
    informers.of::<Secret>();
    informers.of::<Service>();
    informers.of::<ServiceAccount>();
    informers.of::<StorageClass>();
}
