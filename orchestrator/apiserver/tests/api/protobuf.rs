//! Answers in protobuf, read by types that somebody else generated from upstream's files (k8s-pb).

use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use k8s_pb::api::core::v1::{Pod, PodList};
use k8s_pb::apimachinery::pkg::apis::meta::v1::{PartialObjectMetadataList, Status, WatchEvent};
use k8s_pb::apimachinery::pkg::runtime::Unknown;
use prost::Message;
use serde_json::json;
use tower::ServiceExt;

use super::*;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Type, version and kind, and the message itself.
fn open(body: &[u8]) -> (String, Vec<u8>) {
    let envelope = body.strip_prefix(b"k8s\0").expect("upstream's four bytes");
    let unknown = Unknown::decode(envelope).expect("an envelope");
    let meta = unknown.type_meta.as_ref().expect("a type");
    (format!("{} {}", meta.api_version(), meta.kind()), unknown.raw().to_vec())
}

async fn send(c: &Cluster, req: Request<Body>) -> (StatusCode, String, Body) {
    let router = c.server.in_process(UserInfo::new("admin", &["system:masters"]));
    let answer = router.oneshot(req).await.expect("an answer");
    let kind = answer.headers()[header::CONTENT_TYPE].to_str().expect("text").to_owned();
    (answer.status(), kind, answer.into_body())
}

async fn get(c: &Cluster, path: &str, accept: &str) -> (StatusCode, String, Vec<u8>) {
    let req = Request::get(path).header(header::ACCEPT, accept).header(header::ACCEPT_ENCODING, "gzip");
    let (status, kind, body) = send(c, req.body(Body::empty()).expect("a request")).await;
    (status, kind, body.collect().await.expect("a body").to_bytes().to_vec())
}

#[tokio::test]
async fn answers_are_protobuf_for_those_who_ask() {
    let c = cluster().await;
    c.account().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "y"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "500m"}}}]}});
    let pods = "/api/v1/namespaces/default/pods";
    let req =
        Request::post(pods).header(header::ACCEPT, PROTOBUF).header(header::CONTENT_TYPE, "application/json");
    let (status, kind, body) = send(&c, req.body(Body::from(pod.to_string())).expect("a request")).await;
    assert_eq!((status, kind.as_str()), (StatusCode::CREATED, PROTOBUF));
    let (named, raw) = open(&body.collect().await.expect("a body").to_bytes());
    let made = Pod::decode(&*raw).expect("a pod");
    assert_eq!((named.as_str(), made.metadata.as_ref().map(|m| m.name())), ("v1 Pod", Some("a")));

    let (_, kind, body) =
        get(&c, &format!("{pods}/a"), "application/vnd.kubernetes.protobuf,application/json").await;
    assert_eq!(kind, PROTOBUF);
    let read = Pod::decode(&*open(&body).1).expect("a pod");
    assert_eq!(read, made);
    let spec = read.spec.expect("a spec");
    assert_eq!(spec.restart_policy(), "Always");
    let limits = &spec.containers[0].resources.as_ref().expect("resources").limits;
    assert_eq!(limits["cpu"].string(), "500m");
    assert_eq!(read.status.expect("a status").phase(), "Pending");

    let (_, _, body) = get(&c, &format!("{pods}?limit=1"), PROTOBUF).await;
    let (named, raw) = open(&body);
    let list = PodList::decode(&*raw).expect("a list");
    assert_eq!((named.as_str(), list.items.len()), ("v1 PodList", 1));
    let revision = list.metadata.expect("metadata").resource_version().to_owned();
    assert!(revision.parse::<u64>().is_ok_and(|r| r > 0), "{revision}");

    let partial = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let (_, _, body) = get(&c, pods, &partial).await;
    let (named, raw) = open(&body);
    let list = PartialObjectMetadataList::decode(&*raw).expect("a list");
    assert_eq!(named, "meta.k8s.io/v1 PartialObjectMetadataList");
    assert_eq!(list.items[0].metadata.as_ref().expect("metadata").labels["x"], "y");

    let (status, _, body) = get(&c, &format!("{pods}/none"), PROTOBUF).await;
    let refusal = Status::decode(&*open(&body).1).expect("a status");
    assert_eq!((status, refusal.code(), refusal.reason()), (StatusCode::NOT_FOUND, 404, "NotFound"));
    assert_eq!(refusal.details.expect("details").name(), "none");

    // A table is no message: whoever takes JSON as well gets that.
    let (_, kind, _) =
        get(&c, pods, &format!("{PROTOBUF};as=Table;v=v1;g=meta.k8s.io, application/json")).await;
    assert_eq!(kind, "application/json");
}

#[tokio::test]
async fn a_watch_is_frames_of_events() {
    let c = cluster().await;
    let path = "/api/v1/namespaces?watch=true&timeoutSeconds=1&allowWatchBookmarks=true";
    let (status, kind, body) = get(&c, path, PROTOBUF).await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "application/vnd.kubernetes.protobuf;stream=watch"));
    let (mut rest, mut events) = (&body[..], Vec::new());
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let (frame, more) = more.split_at(u32::from_be_bytes(*length) as usize);
        let event = WatchEvent::decode(frame).expect("an event");
        let object = event.object.as_ref().expect("an object");
        events.push(format!("{} {}", event.r#type(), open(object.raw()).0));
        rest = more;
    }
    assert!(events.iter().filter(|e| *e == "ADDED v1 Namespace").count() >= 3, "{events:?}");
    assert_eq!(events.last().map(String::as_str), Some("BOOKMARK v1 Namespace"));
}

#[tokio::test]
async fn definitions_of_custom_resources_are_messages_too() {
    use k8s_pb::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let c = cluster().await;
    crate::crd::Raw::of(&c).define(&crate::crd::crontabs()).await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com";
    let (_, kind, body) = get(&c, path, PROTOBUF).await;
    assert_eq!(kind, PROTOBUF);
    let definition = CustomResourceDefinition::decode(&*open(&body).1).expect("a definition");
    let spec = definition.spec.expect("a spec");
    assert_eq!((spec.group(), spec.names.as_ref().expect("names").kind()), ("stable.example.com", "CronTab"));
    let schema =
        spec.versions[0].schema.as_ref().expect("a schema").open_apiv3_schema.as_ref().expect("OpenAPI");
    assert!(schema.properties.contains_key("spec"));
    // It is written in that form as well.
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut o = crate::crd::crontabs();
    o["metadata"]["name"] = "tabs.stable.example.com".into();
    o["spec"]["names"] = json!({"plural": "tabs", "singular": "tab", "kind": "Tab", "listKind": "TabList"});
    let bytes = apimachinery::protobuf::encode(&o).expect("it has a message");
    let req = Request::post(path).header(header::ACCEPT, PROTOBUF).header(header::CONTENT_TYPE, PROTOBUF);
    let (status, _, body) = send(&c, req.body(Body::from(bytes)).expect("a request")).await;
    assert_eq!(status, StatusCode::CREATED);
    let made = CustomResourceDefinition::decode(&*open(&body.collect().await.expect("a body").to_bytes()).1);
    assert_eq!(made.expect("a definition").metadata.expect("metadata").name(), "tabs.stable.example.com");
}
