//! From one version of a custom kind to another
//! (apiextensions-apiserver: pkg/apiserver/conversion).

use serde_json::Value;

use super::{Custom, Held, shape};
use crate::error::Result;
use crate::kinds::Served;
use crate::object;
use crate::server::ApiServer;

impl Held {
    /// An object that differs only by the name of its version, in this one.
    pub(crate) fn renamed(&self, mut o: Value) -> Value {
        let wanted = self.api_version();
        if object::text(&o, "apiVersion") != Some(&wanted) {
            o["apiVersion"] = wanted.into();
            shape::prune(&self.schema, &mut o);
            shape::default(&self.schema, &mut o);
        }
        o
    }

    fn api_version(&self) -> String {
        format!("{}/{}", self.kind.group, self.kind.version)
    }
}

impl Custom {
    /// Whether objects lie in the cache as they are served in this version.
    pub(crate) fn is_stored_as(&self, served: &Served) -> bool {
        self.storage().kind.version == served.version
    }
}

impl ApiServer {
    /// A stored object in the version of a request.
    pub(crate) async fn to_served(&self, served: &Served, o: Value) -> Result<Value> {
        match &served.custom {
            Some(held) => Ok(held.renamed(o)),
            None => Ok(o),
        }
    }

    /// An object in the version of a request, in the one that is stored.
    pub(crate) async fn to_storage(&self, served: &Served, o: Value) -> Result<Value> {
        match &served.custom {
            Some(held) if !held.custom.is_stored_as(served) => Ok(held.storage_version().renamed(o)),
            _ => Ok(o),
        }
    }
}
