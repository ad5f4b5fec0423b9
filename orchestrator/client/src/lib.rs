//! kube::Client over an in-process service or TLS.
