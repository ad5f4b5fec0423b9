//! What holds for objects of every kind: writes, lists, watches, deletion.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use apimachinery::user::UserInfo;

use crate::{cluster, from, status};

#[tokio::test]
async fn objects_live_and_die() {
    let c = cluster().await;
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    let map: ConfigMap = from(json!({"metadata": {"name": "a"}, "data": {"k": "v"}}));
    let made = maps.create(&PostParams::default(), &map).await.expect("created");
    assert!(made.uid().is_some() && made.resource_version().is_some() && made.creation_timestamp().is_some());
    let (code, reason, message) = status(maps.create(&PostParams::default(), &map).await.expect_err("twice"));
    assert_eq!((code, &*reason, &*message), (409, "AlreadyExists", "configmaps \"a\" already exists"));

    let patch = json!({"data": {"k": "w", "l": "x"}});
    let patched = maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched");
    assert_ne!(patched.resource_version(), made.resource_version());
    let again = maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched again");
    assert_eq!(
        again.resource_version(),
        patched.resource_version(),
        "a write that changes nothing is no change"
    );

    let mut stale = made.clone();
    stale.data = Some(BTreeMap::new());
    let (code, _, message) =
        status(maps.replace("a", &PostParams::default(), &stale).await.expect_err("stale"));
    assert_eq!(code, 409);
    assert!(
        message.contains("the object has been modified; please apply your changes to the latest version")
    );

    maps.delete("a", &DeleteParams::default()).await.expect("deleted");
    let (code, _, message) = status(maps.get("a").await.expect_err("gone"));
    assert_eq!((code, &*message), (404, "configmaps \"a\" not found"));

    let mut generated: ConfigMap = from(json!({"metadata": {"generateName": "x-"}}));
    generated = maps.create(&PostParams::default(), &generated).await.expect("generated");
    assert!(generated.name_any().starts_with("x-") && generated.name_any().len() == 7);
}

#[tokio::test]
async fn lists_are_cut_on_one_snapshot() {
    let c = cluster().await;
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    for i in 0..7 {
        let m: ConfigMap =
            from(json!({"metadata": {"name": format!("m{i}"), "labels": {"odd": format!("{}", i % 2)}}}));
        maps.create(&PostParams::default(), &m).await.expect("created");
    }
    let first = maps.list(&ListParams::default().limit(3)).await.expect("a page");
    assert_eq!(first.metadata.remaining_item_count, Some(4));
    maps.delete("m5", &DeleteParams::default()).await.expect("deleted");
    let token = first.metadata.continue_.clone().expect("more");
    let second = maps.list(&ListParams::default().limit(10).continue_token(&token)).await.expect("the rest");
    let names: Vec<String> = second.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["m3", "m4", "m5", "m6"], "the second page is of the first one's revision");
    let odd = maps.list(&ListParams::default().labels("odd=1")).await.expect("a list");
    assert_eq!(odd.items.len(), 2);
    let named = maps.list(&ListParams::default().fields("metadata.name=m0")).await.expect("a list");
    assert_eq!(named.items.len(), 1);
    let e = status(maps.list(&ListParams::default().fields("spec.x=1")).await.expect_err("no such field"));
    assert_eq!(e, (400, "BadRequest".to_owned(), "field label not supported: spec.x".to_owned()));
}

#[tokio::test]
async fn watches_see_objects_enter_and_leave_their_selection() {
    let c = cluster().await;
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    let start = maps
        .list(&ListParams::default())
        .await
        .expect("a list")
        .metadata
        .resource_version
        .expect("a revision");
    let params = WatchParams::default().labels("in=yes");
    let mut events = maps.watch(&params, &start).await.expect("a watch").boxed();
    let map: ConfigMap = from(json!({"metadata": {"name": "a"}}));
    maps.create(&PostParams::default(), &map).await.expect("created");
    for label in ["yes", "still", "yes"] {
        let p = json!({"metadata": {"labels": {"in": label}}});
        maps.patch("a", &PatchParams::default(), &Patch::Merge(&p)).await.expect("labelled");
    }
    maps.delete("a", &DeleteParams::default()).await.expect("deleted");
    let mut seen = Vec::new();
    while seen.len() < 4 {
        match events.try_next().await.expect("events").expect("no end") {
            WatchEvent::Added(_) => seen.push("added"),
            WatchEvent::Modified(_) => seen.push("modified"),
            WatchEvent::Deleted(_) => seen.push("deleted"),
            _ => {}
        }
    }
    assert_eq!(seen, ["added", "deleted", "added", "deleted"]);
}

#[tokio::test]
async fn finalizers_and_namespaces_hold_deletion() {
    let c = cluster().await;
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    let map: ConfigMap = from(json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}}));
    maps.create(&PostParams::default(), &map).await.expect("created");
    maps.delete("a", &DeleteParams::default()).await.expect("marked");
    assert!(maps.get("a").await.expect("held").metadata.deletion_timestamp.is_some());
    let p = json!({"metadata": {"finalizers": null}});
    maps.patch("a", &PatchParams::default(), &Patch::Merge(&p)).await.expect("released");
    assert_eq!(status(maps.get("a").await.expect_err("gone")).0, 404);

    let spaces: Api<Namespace> = Api::all(c.client());
    let ns: Namespace = from(json!({"metadata": {"name": "dev"}}));
    spaces.create(&PostParams::default(), &ns).await.expect("created");
    spaces.delete("dev", &DeleteParams::default()).await.expect("marked");
    let held = spaces.get("dev").await.expect("held by its own finalizer");
    assert_eq!(held.status.and_then(|s| s.phase).as_deref(), Some("Terminating"));
    let inside: Api<ConfigMap> = Api::namespaced(c.client(), "dev");
    let e = status(
        inside
            .create(&PostParams::default(), &from(json!({"metadata": {"name": "x"}})))
            .await
            .expect_err("terminating"),
    );
    assert_eq!(e.0, 403);
    assert!(e.2.contains("because it is being terminated"), "{}", e.2);
    let nowhere: Api<ConfigMap> = Api::namespaced(c.client(), "nowhere");
    let e = status(
        nowhere
            .create(&PostParams::default(), &from(json!({"metadata": {"name": "x"}})))
            .await
            .expect_err("no namespace"),
    );
    assert_eq!((e.0, e.2.as_str()), (404, "namespaces \"nowhere\" not found"));
}

#[tokio::test]
async fn base64_with_line_breaks_is_kept_without() {
    let c = cluster().await;
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(c.client(), "default");
    let text = "QUJD\nREVG\r\nR0g=\n";
    let router = c.server.in_process(UserInfo::new("admin", &["system:masters"]));
    let body =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pem"}, "data": {"k": text}});
    let req = http::Request::post("/api/v1/namespaces/default/secrets")
        .header("content-type", "application/json")
        .body(axum::body::Body::from(body.to_string()))
        .expect("a request");
    let answer = tower::ServiceExt::oneshot(router, req).await.expect("an answer");
    assert_eq!(answer.status(), 201);
    let kept = secrets.get("pem").await.expect("the secret").data.expect("data");
    assert_eq!(kept["k"].0, b"ABCDEFGH");
}

/// As controllers do: some creations are under way, and behind the first something else is written in between.
#[tokio::test]
async fn a_namespace_with_a_quota_takes_writes_while_others_wait_to_be_polled() {
    let c = cluster().await;
    let quotas: Api<k8s_openapi::api::core::v1::ResourceQuota> = Api::default_namespaced(c.client());
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"count/configmaps": "100"}}});
    quotas.create(&PostParams::default(), &from(quota)).await.expect("a quota");
    let maps: Api<ConfigMap> = Api::default_namespaced(c.client());
    let make = |name: String| {
        let maps = maps.clone();
        async move {
            let map = from(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}));
            maps.create(&PostParams::default(), &map).await.expect("a map")
        }
    };
    let all = async {
        let mut writes = futures::stream::iter(0..8).map(|i| make(format!("m-{i}"))).buffer_unordered(8);
        while let Some(made) = writes.next().await {
            make(format!("beside-{}", made.metadata.name.expect("a name"))).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), all).await.expect("no write waits for ever");
}
