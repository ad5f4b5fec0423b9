//! ServiceAccount: every namespace has the account `default` and the cluster's CA in `kube-root-ca.crt`.

use client::{Key, Reconcile, WorkQueue};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Error};

const ROOT_CA: &str = "kube-root-ca.crt";

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("serviceaccount");
    let namespaces = context.informers.of::<Namespace>();
    let accounts = context.informers.of::<ServiceAccount>();
    let q = queue.clone();
    namespaces.on_change(move |c| q.add(Key::of(&**c.object())));
    let q = queue.clone();
    accounts.on_change(move |c| {
        if c.new.is_none() && c.object().name_any() == "default" {
            q.add(Key::new("", c.object().namespace().unwrap_or_default()));
        }
    });
    namespaces.synced().await;
    accounts.synced().await;
    queue.run(2, stop, move |key| reconcile(context.clone(), key)).await;
}

async fn reconcile(context: Context, key: Key) -> Result<Reconcile, Error> {
    let Some(ns) = context.informers.of::<Namespace>().get(&key) else { return Ok(Reconcile::Done) };
    if ns.metadata.deletion_timestamp.is_some() {
        return Ok(Reconcile::Done);
    }
    if context.informers.of::<ServiceAccount>().get(&Key::new(&key.name, "default")).is_none() {
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}}))?;
        let api = Api::namespaced(context.client(), &key.name);
        match api.create(&PostParams::default(), &account).await {
            Ok(_) => {}
            Err(e) if client::error::is_already_exists(&e) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let api: Api<ConfigMap> = Api::namespaced(context.client(), &key.name);
    let wanted = &context.config.root_ca;
    match api.get_opt(ROOT_CA).await? {
        Some(there) if there.data.as_ref().and_then(|d| d.get("ca.crt")) == Some(wanted) => {}
        Some(_) => {
            let patch = json!({"data": {"ca.crt": wanted}});
            api.patch(ROOT_CA, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        None => {
            let map: ConfigMap = serde_json::from_value(json!({
                "metadata": {"name": ROOT_CA, "annotations": {"kubernetes.io/description":
                    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                     guaranteed across distributions of Kubernetes clusters."}},
                "data": {"ca.crt": wanted}
            }))?;
            match api.create(&PostParams::default(), &map).await {
                Ok(_) => {}
                Err(e) if client::error::is_already_exists(&e) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(Reconcile::Done)
}
