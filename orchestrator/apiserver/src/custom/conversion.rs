//! From one version of a custom kind to another: by name, or by a webhook
//! (apiextensions-apiserver: pkg/apiserver/conversion).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Custom, Held, shape};
use crate::cache::Object;
use crate::error::{ApiError, Result};
use crate::kinds::{self, Served};
use crate::object;
use crate::server::ApiServer;
use crate::webhook::client::Peer;

const REVIEW: &str = "apiextensions.k8s.io/v1";
/// Upstream's bound for a conversion.
const WITHIN: Duration = Duration::from_secs(30);

impl Held {
    /// An object that differs only by the name of its version, in this one.
    pub(crate) fn renamed(&self, mut o: Value) -> Value {
        let wanted = self.api_version();
        if object::text(&o, "apiVersion") != Some(&wanted) {
            o["apiVersion"] = wanted.into();
            self.shape(&mut o);
        }
        o
    }

    fn shape(&self, o: &mut Value) {
        shape::prune(&self.schema, o);
        shape::default(&self.schema, o);
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

/// A kind in another of its versions, served or not.
pub(crate) fn named(served: &Served, api_version: &str) -> Option<Served> {
    if served.api_version() == api_version {
        return Some(served.clone());
    }
    match &served.custom {
        None => kinds::served().find(|s| s.index == served.index && s.api_version() == api_version),
        Some(held) => {
            let (group, version) = api_version.split_once('/')?;
            let number = held.custom.version(version).filter(|_| group == served.group)?;
            Some(held.custom.clone().serve(number))
        }
    }
}

/// An object in the version of a request as the registry has it: those of our own kinds in the stored version.
pub(crate) fn as_registered(served: &Served, mut o: Value) -> Value {
    if let Some(alias) = served.alias {
        (alias.to_storage)(&mut o);
        let k = served.kind;
        o["apiVersion"] =
            if k.group.is_empty() { k.version.into() } else { format!("{}/{}", k.group, k.version).into() };
    }
    o
}

impl ApiServer {
    /// A stored object in the version of a request.
    pub(crate) async fn to_served(&self, served: &Served, o: Value) -> Result<Value> {
        let Some(held) = &served.custom else { return Ok(o) };
        let mut all = self.in_version(held, vec![o]).await?;
        Ok(all.pop().expect("as many come back as went"))
    }

    /// An object in the version of a request, in the one that is stored.
    pub(crate) async fn to_storage(&self, served: &Served, o: Value) -> Result<Value> {
        match &served.custom {
            Some(held) if !held.custom.is_stored_as(served) => {
                let mut all = self.in_version(&held.storage_version(), vec![o]).await?;
                Ok(all.pop().expect("as many come back as went"))
            }
            _ => Ok(o),
        }
    }

    /// Objects of the cache in the version of a request.
    pub(crate) async fn all_served(
        &self,
        served: &Served,
        all: Vec<Arc<Object>>,
    ) -> Result<Vec<Arc<Object>>> {
        let Some(held) = served.custom.as_ref().filter(|held| held.custom.webhook.is_some()) else {
            return Ok(all);
        };
        let values = all.iter().map(|o| o.value()).collect();
        let made = self.in_version(held, values).await?;
        let pairs = all.iter().zip(&made);
        Ok(pairs.map(|(o, v)| Arc::new(Object::from_value(served.kind, &o.key, o.revision, v))).collect())
    }

    async fn in_version(&self, held: &Held, mut all: Vec<Value>) -> Result<Vec<Value>> {
        let Some(webhook) = &held.custom.webhook else {
            return Ok(all.into_iter().map(|o| held.renamed(o)).collect());
        };
        let wanted = held.api_version();
        let other: Vec<usize> =
            (0..all.len()).filter(|i| object::text(&all[*i], "apiVersion") != Some(&wanted)).collect();
        if other.is_empty() {
            return Ok(all);
        }
        let given: Vec<Value> = other.iter().map(|i| all[*i].clone()).collect();
        let from = object::text(&given[0], "apiVersion").unwrap_or_default().to_owned();
        let failed = |why: String| {
            let what = format!("{from}, Kind={}", held.kind.kind);
            ApiError::new(500, "InternalError", format!("conversion webhook for {what} failed: {why}"))
        };
        let uid = uuid::Uuid::new_v4().to_string();
        let question = json!({"kind": "ConversionReview", "apiVersion": REVIEW,
            "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": given}});
        let peer = Peer::from_client_config(webhook).map_err(failed)?;
        let answer = self.peers.post(&peer, &question, WITHIN).await.map_err(|e| failed(e.to_string()))?;
        let made = judge(&answer, &uid, &given, &wanted).map_err(failed)?;
        for (i, mut o) in other.into_iter().zip(made) {
            held.shape(&mut o);
            all[i] = o;
        }
        Ok(all)
    }
}

/// The objects of an answer, if they are those that were asked for.
fn judge(
    answer: &Value,
    uid: &str,
    given: &[Value],
    wanted: &str,
) -> std::result::Result<Vec<Value>, String> {
    let text = |p: &str| object::text(answer, p).unwrap_or_default();
    if (text("kind"), text("apiVersion")) != ("ConversionReview", REVIEW) {
        return Err(format!(
            "expected webhook response of {REVIEW}, Kind=ConversionReview, got {}, Kind={}",
            text("apiVersion"),
            text("kind")
        ));
    }
    let response = object::get(answer, "response").ok_or("no response provided")?;
    if text("response.uid") != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", text("response.uid")));
    }
    match text("response.result.status") {
        "Success" => {}
        "Failure" => {
            let message = text("response.result.message");
            return Err(if message.is_empty() { "unknown error".to_owned() } else { message.to_owned() });
        }
        "" => return Err("response.result.status is required".to_owned()),
        other => return Err(format!("response.result.status of '{other}' is invalid")),
    }
    let made = object::list(response, "convertedObjects");
    if made.len() != given.len() {
        return Err(format!("webhook returned {} objects, expected {}", made.len(), given.len()));
    }
    let mut out = Vec::with_capacity(made.len());
    for (i, (new, old)) in made.iter().zip(given).enumerate() {
        if object::text(new, "apiVersion") != Some(wanted) || new["kind"] != old["kind"] {
            return Err(format!(
                "webhook returned invalid converted object at index {i}: invalid groupVersion (expected {wanted}, received {})",
                object::text(new, "apiVersion").unwrap_or_default()
            ));
        }
        for key in ["name", "namespace", "uid"] {
            if new["metadata"][key] != old["metadata"][key] {
                return Err(format!(
                    "invalid metadata of object at index {i}: metadata.{key} must not be changed"
                ));
            }
        }
        let mut o = new.clone();
        o["metadata"] = old["metadata"].clone();
        for key in ["labels", "annotations"] {
            object::copy(object::metadata(&mut o), &new["metadata"], key);
        }
        out.push(o);
    }
    Ok(out)
}
