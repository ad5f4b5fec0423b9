//! Pods to containers.
