//! What goes wrong on a node.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("containerd: {what}: {}", source.message())]
    Containerd { what: String, source: Box<tonic::Status> },
    #[error("containerd does not answer on {socket}: {why}; start it, or install containerd")]
    NoContainerd { socket: String, why: String },
    #[error("containerd {version} is too old; install 1.6 or newer")]
    OldContainerd { version: String },
    /// Something of the machine; the text says what to do.
    #[error("{0}")]
    Missing(String),
    #[error(transparent)]
    Network(#[from] network::Error),
    #[error(transparent)]
    Api(Box<kube::Error>),
    #[error("image {image}: {why}")]
    Image { image: String, why: String },
    /// A step of a pull; the text is a part of the container's message.
    #[error("{0}")]
    Pull(String),
    /// The pod asks for something that cannot be given; the text is its container's message.
    #[error("{0}")]
    Config(String),
    #[error("tls: {0}")]
    Tls(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    pub(crate) fn containerd(what: impl Into<String>) -> impl FnOnce(tonic::Status) -> Error {
        let what = what.into();
        move |source| Error::Containerd { what, source: Box::new(source) }
    }

    /// True if the same call may succeed later.
    pub fn retryable(&self) -> bool {
        !matches!(self, Error::Tls(_) | Error::OldContainerd { .. } | Error::Missing(_))
    }
}

impl From<kube::Error> for Error {
    fn from(e: kube::Error) -> Self {
        Error::Api(Box::new(e))
    }
}

/// Turns containerd's "not found" into `None`.
pub(crate) fn found<T>(r: Result<T, tonic::Status>) -> Result<Option<T>, tonic::Status> {
    match r {
        Ok(v) => Ok(Some(v)),
        Err(e) if e.code() == tonic::Code::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
