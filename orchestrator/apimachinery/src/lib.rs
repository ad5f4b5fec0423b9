//! Kubernetes object rules without I/O.
