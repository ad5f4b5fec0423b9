//! A row for every group-version that is served here, as `kubectl get apiservices` lists them; and what other servers
//! must know to believe what we say of a caller
//! (kubernetes: staging/src/k8s.io/kube-aggregator/pkg/controllers/autoregister, pkg/controlplane/controller/clusterauthenticationtrust).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{priority, services};
use crate::discovery::VIRTUAL;
use crate::error::{Error, Result};
use crate::kinds::apiregistration::GROUP;
use crate::kinds::{self};
use crate::object;
use crate::registry::{DeleteOptions, Part, WriteContext};
use crate::server::ApiServer;

const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const RBAC: &str = "rbac.authorization.k8s.io";
const READER: &str = "extension-apiserver-authentication-reader";
const AFTER_A_FAILURE: Duration = Duration::from_secs(1);

/// Follows the custom kinds until the server stops.
pub(crate) async fn run(server: Arc<ApiServer>) {
    let mut published = server.cache.subscribe();
    let mut told = false;
    loop {
        let seen = server.cache.customs.epoch();
        let step = async {
            if !told {
                trust(&server).await.map_err(|e| e.to_string())?;
                once(&server).await.map_err(|e| e.message)?;
            }
            customs(&server).await.map_err(|e| e.message)
        };
        let again = match step.await {
            Ok(()) => {
                told = true;
                None
            }
            Err(e) => {
                tracing::warn!(error = %e, "the rows of the served APIs could not be written");
                Some(AFTER_A_FAILURE)
            }
        };
        let moved = async {
            while server.cache.customs.epoch() == seen {
                if published.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = server.stop.cancelled() => return,
            () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
            () = moved => {}
        }
    }
}

fn row(group: &str, version: &str, managed: &str) -> Value {
    let (group_priority, version_priority) = priority(group, version);
    let mut spec = json!({"groupPriorityMinimum": group_priority, "version": version, "versionPriority": version_priority});
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({"metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: managed}}, "spec": spec})
}

/// What is built in gets its row when the server starts; what somebody made of it stays.
async fn once(server: &ApiServer) -> Result<()> {
    let mut all: BTreeSet<(String, String)> = BTreeSet::new();
    let own = kinds::served().map(|s| (s.group, s.version));
    for (group, version) in own.chain(VIRTUAL.iter().map(|v| (v.group, v.version))) {
        all.insert((group.to_owned(), version.to_owned()));
    }
    all.extend(server.config.local_apis.iter().map(|l| (l.group.clone(), l.version.clone())));
    all.retain(|(group, _)| group != GROUP);
    server.cache.fresh().await?;
    // Together, so that they share the store's syncs.
    let made = all.iter().map(|(group, version)| async move {
        match server.cache.get(services().index, &format!("{version}.{group}")) {
            Some(_) => Ok(()),
            None => create(server, row(group, version, "onstart")).await,
        }
    });
    futures::future::try_join_all(made).await.map(drop)
}

async fn create(server: &ApiServer, o: Value) -> Result<()> {
    match server.create(&services(), "", o, &ours()).await {
        Err(e) if e.code != 409 => Err(e),
        _ => Ok(()),
    }
}

fn ours() -> WriteContext {
    let mut ctx = WriteContext::default();
    "binnacle".clone_into(&mut ctx.options.field_manager);
    ctx
}

/// What definitions make comes and goes with them; a row that somebody else made is theirs.
async fn customs(server: &ApiServer) -> Result<()> {
    server.cache.fresh().await?;
    let wanted: BTreeMap<String, Value> = server
        .cache
        .customs
        .served()
        .iter()
        .map(|s| (format!("{}.{}", s.version, s.group), row(s.group, s.version, "true")))
        .collect();
    let all = server.cache.list(services().index, None).objects;
    for (name, o) in &wanted {
        match all.iter().find(|x| x.name() == name) {
            None => create(server, o.clone()).await?,
            Some(there) if there.label(MANAGED) == Some("true") && there.value()["spec"] != o["spec"] => {
                let mut change = |old: &Value| {
                    let mut new = old.clone();
                    new["spec"] = o["spec"].clone();
                    Ok(new)
                };
                server.update(&services(), "", name, &ours(), Part::Main, &mut change).await?;
            }
            Some(_) => {}
        }
    }
    for gone in all.iter().filter(|x| x.label(MANAGED) == Some("true") && !wanted.contains_key(x.name())) {
        let options = DeleteOptions::default();
        match server.delete(&services(), "", gone.name(), &options, &ours()).await {
            Err(e) if e.code != 404 => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Which certificates and headers say who a caller is, and who may read that.
async fn trust(server: &ApiServer) -> std::result::Result<(), Error> {
    let pki = &server.config.pki;
    let list = |words: &[&str]| json!(words).to_string();
    let map = json!({
        "metadata": {"name": "extension-apiserver-authentication"},
        "data": {
            "client-ca-file": pki.ca_pem(),
            "requestheader-allowed-names": list(&[crate::pki::FRONT_PROXY]),
            "requestheader-client-ca-file": pki.front_proxy_ca_pem(),
            "requestheader-extra-headers-prefix": list(&["X-Remote-Extra-"]),
            "requestheader-group-headers": list(&["X-Remote-Group"]),
            "requestheader-uid-headers": list(&["X-Remote-Uid"]),
            "requestheader-username-headers": list(&["X-Remote-User"]),
        },
    });
    let labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    let annotations = json!({"rbac.authorization.kubernetes.io/autoupdate": "true"});
    let role = json!({
        "metadata": {"name": READER, "labels": labels, "annotations": annotations},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"],
            "resourceNames": [object::name(&map)]}],
    });
    let subject = |name: &str| json!({"kind": "User", "apiGroup": RBAC, "name": name});
    let binding = json!({
        "metadata": {"name": format!("system::{READER}"), "labels": labels, "annotations": annotations},
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": READER},
        "subjects": [subject("system:kube-controller-manager"), subject("system:kube-scheduler")],
    });
    server.put("", "configmaps", "kube-system", map).await?;
    server.put(RBAC, "roles", "kube-system", role).await?;
    server.put(RBAC, "rolebindings", "kube-system", binding).await
}
