//! Kinds made by CustomResourceDefinitions, as clients of any language meet them.

use std::time::Duration;

use apimachinery::user::UserInfo;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{Cluster, cluster};

/// A client that sends what it is told and takes what comes.
pub(crate) struct Raw(axum::Router);

impl Raw {
    pub(crate) fn of(c: &Cluster) -> Raw {
        Raw(c.server.in_process(UserInfo::new("admin", &["system:masters"])))
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        media: &str,
        body: &str,
    ) -> (StatusCode, Value) {
        let (status, _, body) = self.full(method, path, &[("content-type", media)], body).await;
        (status, body)
    }

    pub(crate) async fn full(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (StatusCode, http::HeaderMap, Value) {
        let mut req = Request::builder().method(method).uri(path).header("user-agent", "test/1");
        for (k, v) in headers {
            req = req.header(*k, *v);
        }
        let req = req.body(axum::body::Body::from(body.to_owned())).expect("a request");
        let answer = self.0.clone().oneshot(req).await.expect("an answer");
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, headers, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send(Method::GET, path, "application/json", "").await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, "application/json", &body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::DELETE, path, "application/json", "").await
    }

    /// Creates a definition and waits until it is established.
    pub(crate) async fn define(&self, definition: &Value) {
        let (status, body) = self.post(DEFINITIONS, definition).await;
        assert_eq!(status, 201, "{body}");
        let path = format!("{DEFINITIONS}/{}", definition["metadata"]["name"].as_str().expect("a name"));
        self.until(&path, |o| {
            o["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Established" && c["status"] == "True")
        })
        .await;
    }

    /// Waits until an object is as wished.
    pub(crate) async fn until(&self, path: &str, wish: impl Fn(&Value) -> bool) {
        let wait = async {
            while !wish(&self.send(Method::GET, path, "application/json", "").await.1) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time");
    }
}

pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CRONTABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

pub(crate) fn crontabs() -> Value {
    serde_json::from_str(include_str!("crd/crontabs.json")).expect("a definition")
}

fn crontab(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custom_resource_is_as_any_other() {
    let c = cluster().await;
    let r = Raw::of(&c);
    r.define(&crontabs()).await;
    let definition = r.get(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await;
    assert_eq!(definition["status"]["acceptedNames"]["listKind"], "CronTabList");
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
    // Pruned, with defaults and a warning for what went.
    let mut written = crontab("a", json!({"cronSpec": "* * * * */5", "bogus": 1, "free": {"x": 1}}));
    written["status"] = json!({"replicas": 5});
    let (status, headers, made) =
        r.full(Method::POST, CRONTABS, &[("content-type", "application/json")], &written.to_string()).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(headers["warning"], "299 - \"unknown field \\\"spec.bogus\\\"\"");
    assert_eq!(
        made["spec"],
        json!({"cronSpec": "* * * * */5", "free": {"x": 1}, "image": "busybox", "replicas": 1})
    );
    assert_eq!((&made["metadata"]["generation"], made.get("status")), (&json!(1), None));
    let (status, refused) = r.post(&format!("{CRONTABS}?fieldValidation=Strict"), &written).await;
    assert_eq!(
        (status.as_u16(), refused["message"].as_str()),
        (
            400,
            Some(
                "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: unknown field \"spec.bogus\""
            )
        )
    );
    // Judged by its schema.
    let (status, refused) = r.post(CRONTABS, &crontab("b", json!({"cronSpec": "x", "replicas": 11}))).await;
    assert_eq!(status, 422);
    assert_eq!(
        refused["message"],
        "CronTab.stable.example.com \"b\" is invalid: [spec.cronSpec: Invalid value: \"x\": spec.cronSpec in body should match '^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$', spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10]"
    );
    let (_, refused) = r.post(CRONTABS, &crontab("b", json!({}))).await;
    assert_eq!(
        refused["message"],
        "CronTab.stable.example.com \"b\" is invalid: spec.cronSpec: Required value"
    );
    // Patches.
    let one = format!("{CRONTABS}/a");
    let (status, patched) = r
        .send(
            Method::PATCH,
            &one,
            "application/merge-patch+json",
            r#"{"spec":{"replicas":3},"status":{"replicas":9}}"#,
        )
        .await;
    assert_eq!(
        (status.as_u16(), &patched["metadata"]["generation"], patched.get("status")),
        (200, &json!(2), None)
    );
    let (status, _) = r.send(Method::PATCH, &one, "application/strategic-merge-patch+json", "{}").await;
    assert_eq!(status, 415);
    // Subresources.
    let (status, patched) = r
        .send(
            Method::PATCH,
            &format!("{one}/status"),
            "application/merge-patch+json",
            r#"{"spec":{"replicas":7},"status":{"replicas":2,"labelSelector":"a=b"}}"#,
        )
        .await;
    assert_eq!(
        (status.as_u16(), &patched["metadata"]["generation"], &patched["spec"]["replicas"]),
        (200, &json!(2), &json!(3))
    );
    let scale = r.get(&format!("{one}/scale")).await;
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (&json!({"replicas": 3}), &json!({"replicas": 2, "selector": "a=b"}))
    );
    let (status, _) = r
        .send(
            Method::PATCH,
            &format!("{one}/scale"),
            "application/merge-patch+json",
            r#"{"spec":{"replicas":5}}"#,
        )
        .await;
    assert_eq!((status.as_u16(), &r.get(&one).await["spec"]["replicas"]), (200, &json!(5)));
    // Selected by a field.
    assert_eq!(
        r.get(&format!("{CRONTABS}?fieldSelector=spec.image%3Dbusybox")).await["items"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(
        r.get(&format!("{CRONTABS}?fieldSelector=spec.image%3Dx")).await["items"].as_array().map(Vec::len),
        Some(0)
    );
    let (_, refused) = r
        .send(Method::GET, &format!("{CRONTABS}?fieldSelector=spec.cronSpec%3Dx"), "application/json", "")
        .await;
    assert_eq!(refused["message"], "field label not supported: spec.cronSpec");
    // As a table.
    let (_, _, table) = r
        .full(Method::GET, CRONTABS, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "")
        .await;
    let names: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["name"].as_str())
        .collect();
    assert_eq!(names, ["Name", "Spec", "Replicas", "Age"]);
    assert_eq!(
        table["rows"][0]["cells"].as_array().map(|c| c[..3].to_vec()),
        Some(vec![json!("a"), json!("* * * * */5"), json!(5)])
    );
    // Its lists have their own kind, and it is discovered and described at once.
    assert_eq!(r.get(CRONTABS).await["kind"], "CronTabList");
    let resources = r.get("/apis/stable.example.com/v1").await;
    let names: Vec<&str> =
        resources["resources"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["crontabs", "crontabs/status", "crontabs/scale"]);
    assert_eq!(resources["resources"][0]["shortNames"], json!(["ct"]));
    let openapi = r.get("/openapi/v3/apis/stable.example.com/v1").await;
    let schema = &openapi["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(schema["properties"]["spec"]["properties"]["cronSpec"]["description"], "When to run");
    assert!(openapi["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"].is_object());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applied_by_its_schema() {
    let c = cluster().await;
    let r = Raw::of(&c);
    r.define(&crontabs()).await;
    let apply = async |manager: &str, force: bool, spec: Value| {
        let path = format!("{CRONTABS}/a?fieldManager={manager}&force={force}");
        r.send(Method::PATCH, &path, "application/apply-patch+yaml", &crontab("a", spec).to_string()).await
    };
    let (status, _) =
        apply("one", false, json!({"cronSpec": "* * * * *", "ports": [{"port": 1, "name": "a"}]})).await;
    assert_eq!(status, 201);
    let (status, o) = apply("two", false, json!({"cronSpec": "* * * * *", "ports": [{"port": 2}]})).await;
    assert_eq!(
        (status.as_u16(), &o["spec"]["ports"]),
        (200, &json!([{"port": 1, "name": "a"}, {"port": 2}]))
    );
    let (status, refused) = apply("two", false, json!({"cronSpec": "1 * * * *"})).await;
    assert_eq!(
        (status.as_u16(), refused["message"].as_str()),
        (409, Some("Apply failed with 1 conflict: conflict with \"one\": .spec.cronSpec"))
    );
    let (status, o) = apply("two", true, json!({"cronSpec": "1 * * * *"})).await;
    assert_eq!((status.as_u16(), &o["spec"]["ports"]), (200, &json!([{"port": 1, "name": "a"}])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_goes_after_its_objects() {
    let c = cluster().await;
    let r = Raw::of(&c);
    r.define(&crontabs()).await;
    let mut held = crontab("a", json!({"cronSpec": "* * * * *"}));
    held["metadata"]["finalizers"] = json!(["example.com/held"]);
    assert_eq!(r.post(CRONTABS, &held).await.0, 201);
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let (status, gone) = r.send(Method::DELETE, &path, "application/json", "").await;
    assert_eq!((status.as_u16(), gone["metadata"]["deletionTimestamp"].is_string()), (200, true));
    r.until(&format!("{CRONTABS}/a"), |o| o["metadata"]["deletionTimestamp"].is_string()).await;
    let (status, refused) = r.post(CRONTABS, &crontab("b", json!({"cronSpec": "* * * * *"}))).await;
    assert_eq!(
        (status.as_u16(), refused["message"].as_str()),
        (405, Some("create not allowed while custom resource definition is terminating"))
    );
    let (status, _) = r
        .send(
            Method::PATCH,
            &format!("{CRONTABS}/a"),
            "application/merge-patch+json",
            r#"{"metadata":{"finalizers":null}}"#,
        )
        .await;
    assert_eq!(status, 200);
    r.until(&path, |o| o["code"] == 404).await;
    let (status, _) = r.send(Method::GET, CRONTABS, "application/json", "").await;
    assert_eq!(status, 404);
    // And again, empty.
    r.define(&crontabs()).await;
    assert_eq!(r.get(CRONTABS).await["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_differ_by_name() {
    let c = cluster().await;
    let r = Raw::of(&c);
    let mut d = crontabs();
    let mut second = d["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    second["deprecated"] = true.into();
    second["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["extra"] =
        json!({"type": "string", "default": "e"});
    d["spec"]["versions"].as_array_mut().expect("versions").push(second);
    r.define(&d).await;
    assert_eq!(r.post(CRONTABS, &crontab("a", json!({"cronSpec": "* * * * *"}))).await.0, 201);
    let (_, headers, second) = r.full(Method::GET, &CRONTABS.replace("/v1/", "/v2/"), &[], "").await;
    assert_eq!(second["items"][0]["apiVersion"], "stable.example.com/v2");
    assert_eq!(second["items"][0]["spec"]["extra"], "e");
    assert_eq!(
        headers.get("warning").map(|w| w.as_bytes()),
        Some(&b"299 - \"stable.example.com/v2 CronTab is deprecated\""[..])
    );
    assert_eq!(r.get(&format!("{CRONTABS}/a")).await["spec"].get("extra"), None);
    let (status, patched) = r
        .send(
            Method::PATCH,
            &format!("{CRONTABS}/a").replace("/v1/", "/v2/"),
            "application/merge-patch+json",
            r#"{"spec":{"replicas":2}}"#,
        )
        .await;
    assert_eq!((status.as_u16(), &patched["apiVersion"]), (200, &json!("stable.example.com/v2")));
    assert_eq!(r.get(&format!("{CRONTABS}/a")).await["spec"]["replicas"], 2);
    // The newest first, and v1 before v2 only where it is asked for.
    let group = r.get("/apis/stable.example.com").await;
    assert_eq!(group["preferredVersion"]["version"], "v2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_that_are_none() {
    let c = cluster().await;
    let r = Raw::of(&c);
    let check = async |change: &dyn Fn(&mut Value), expect: &str| {
        let mut d = crontabs();
        d["spec"]["versions"][0]["selectableFields"] = json!([]);
        change(&mut d);
        let (status, body) = r.post(DEFINITIONS, &d).await;
        assert_eq!(status, 422, "{body}");
        let name = d["metadata"]["name"].as_str().expect("a name");
        let head = format!("CustomResourceDefinition.apiextensions.k8s.io \"{name}\" is invalid: ");
        assert_eq!(body["message"].as_str().and_then(|m| m.strip_prefix(&head)), Some(expect), "{body}");
    };
    fn schema(d: &mut Value) -> &mut Value {
        &mut d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    }
    check(
        &|d| d["metadata"]["name"] = "x.y".into(),
        "metadata.name: Invalid value: \"x.y\": must be spec.names.plural+\".\"+spec.group",
    )
    .await;
    check(
        &|d| d["spec"]["scope"] = "World".into(),
        "spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\"",
    )
    .await;
    check(&|d| schema(d)["properties"]["spec"]["properties"]["image"]["type"] = "text".into(),
        "spec.validation.openAPIV3Schema.properties[spec].properties[image].type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"").await;
    check(&|d| drop(schema(d)["properties"]["spec"]["properties"]["image"].as_object_mut().map(|o| o.remove("type"))),
        "spec.validation.openAPIV3Schema.properties[spec].properties[image].type: Required value: must not be empty for specified object fields").await;
    check(&|d| schema(d)["properties"]["spec"]["properties"]["image"]["default"] = 5.into(),
        "spec.validation.openAPIV3Schema.properties[spec].properties[image].default: Invalid value: \"integer\":  in body must be of type string: \"integer\"").await;
    check(&|d| d["spec"]["versions"][0]["additionalPrinterColumns"][0]["type"] = "text".into(),
        "spec.additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string").await;
    check(&|d| schema(d)["properties"]["spec"]["oneOf"] = json!([{"properties": {"nope": {"minimum": 1}}}]),
        "spec.validation.openAPIV3Schema.properties[spec].properties[nope]: Required value: because it is defined in a value validation").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_of_the_schema_hold() {
    let c = cluster().await;
    let r = Raw::of(&c);
    let mut d = crontabs();
    let spec = &mut d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["x-kubernetes-validations"] = json!([
        {"rule": "self.image != 'bad'", "messageExpression": "'no image ' + self.image"},
        {"rule": "self.cronSpec == oldSelf.cronSpec", "message": "cronSpec is fixed", "fieldPath": ".cronSpec", "reason": "FieldValueForbidden"},
    ]);
    let mut wrong = d.clone();
    wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] =
        json!([{"rule": "self.nope == 1"}]);
    let (status, refused) = r.post(DEFINITIONS, &wrong).await;
    let said = refused["message"].as_str().unwrap_or_default();
    assert_eq!(status, 422);
    let at =
        "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value: {";
    assert!(
        said.contains(at) && said.contains("compilation failed: ERROR: <input>:1:5: undefined field 'nope'"),
        "{said}"
    );
    r.define(&d).await;
    let (_, refused) =
        r.post(CRONTABS, &crontab("a", json!({"cronSpec": "* * * * *", "image": "bad"}))).await;
    assert_eq!(
        refused["message"],
        "CronTab.stable.example.com \"a\" is invalid: spec: Invalid value: no image bad"
    );
    assert_eq!(r.post(CRONTABS, &crontab("a", json!({"cronSpec": "* * * * *"}))).await.0, 201);
    let change = r#"{"spec":{"cronSpec":"1 * * * *"}}"#;
    let (_, refused) =
        r.send(Method::PATCH, &format!("{CRONTABS}/a"), "application/merge-patch+json", change).await;
    assert_eq!(
        refused["message"],
        "CronTab.stable.example.com \"a\" is invalid: spec.cronSpec: Forbidden: cronSpec is fixed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_converts() {
    let c = cluster().await;
    let r = Raw::of(&c);
    let convert = |axum::Json(review): axum::Json<Value>| async move {
        let wanted = review["request"]["desiredAPIVersion"].clone();
        let objects = review["request"]["objects"].as_array().cloned().unwrap_or_default();
        let made: Vec<Value> = objects
            .into_iter()
            .map(|mut o| {
                // v1 has cronSpec, v2 has schedule.
                let (from, to) = if wanted == "stable.example.com/v2" {
                    ("cronSpec", "schedule")
                } else {
                    ("schedule", "cronSpec")
                };
                o["apiVersion"] = wanted.clone();
                let value = o["spec"].as_object_mut().and_then(|s| s.shift_remove(from)).unwrap_or_default();
                o["spec"][to] = value;
                o
            })
            .collect();
        let response = json!({"uid": review["request"]["uid"], "result": {"status": "Success"}, "convertedObjects": made});
        axum::Json(
            json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response}),
        )
    };
    let router = axum::Router::new().route("/convert", axum::routing::post(convert));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    crate::https::serve(&c, &["localhost"], listener, router);
    let ca = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, c.server.pki().ca_pem());
    let mut d = crontabs();
    let mut second = d["spec"]["versions"][0].clone();
    (second["name"], second["storage"]) = ("v2".into(), false.into());
    let spec = &mut second["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["required"] = json!(["schedule"]);
    spec["properties"]["schedule"] =
        spec["properties"].as_object_mut().and_then(|p| p.shift_remove("cronSpec")).expect("a field");
    second["additionalPrinterColumns"] =
        json!([{"name": "Schedule", "type": "string", "jsonPath": ".spec.schedule"}]);
    d["spec"]["versions"].as_array_mut().expect("versions").push(second);
    d["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": {"url": format!("https://localhost:{port}/convert"), "caBundle": ca}}});
    r.define(&d).await;
    assert_eq!(r.post(CRONTABS, &crontab("a", json!({"cronSpec": "* * * * *"}))).await.0, 201);
    let two = CRONTABS.replace("/v1/", "/v2/");
    assert_eq!(r.get(&format!("{two}/a")).await["spec"]["schedule"], "* * * * *");
    assert_eq!(r.get(&two).await["items"][0]["spec"]["schedule"], "* * * * *");
    let change = r#"{"spec":{"schedule":"1 * * * *"}}"#;
    let (status, o) =
        r.send(Method::PATCH, &format!("{two}/a"), "application/merge-patch+json", change).await;
    assert_eq!(
        (status.as_u16(), &o["spec"]["schedule"], &o["metadata"]["generation"]),
        (200, &json!("1 * * * *"), &json!(2)),
        "{o}"
    );
    assert_eq!(r.get(&format!("{CRONTABS}/a")).await["spec"]["cronSpec"], "1 * * * *");
    let mut made = crontab("b", json!({"schedule": "2 * * * *"}));
    made["apiVersion"] = "stable.example.com/v2".into();
    assert_eq!(r.post(&two, &made).await.0, 201);
    assert_eq!(r.get(&format!("{CRONTABS}/b")).await["spec"]["cronSpec"], "2 * * * *");
    // Whoever wrote in one version owns its fields, and is asked in its words about writes in another.
    let apply = |spec: Value, more: &str| {
        let (o, path) = (crontab("a", spec).to_string(), format!("{CRONTABS}/a?fieldManager=x{more}"));
        async {
            let (path, o) = (path, o);
            r.send(Method::PATCH, &path, "application/apply-patch+yaml", &o).await
        }
    };
    let (status, refused) = apply(json!({"cronSpec": "3 * * * *"}), "").await;
    assert_eq!(status, 409, "{refused}");
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"test\" using stable.example.com/v2: .spec.schedule"
    );
    let (status, o) = apply(json!({"cronSpec": "3 * * * *"}), "&force=true").await;
    assert_eq!(status, 200, "{o}");
    let managers: Vec<_> = o["metadata"]["managedFields"].as_array().into_iter().flatten().collect();
    assert_eq!(managers[0]["fieldsV1"], json!({"f:spec": {"f:cronSpec": {}}}), "{o}");
    assert!(managers.iter().skip(1).all(|m| m["fieldsV1"].pointer("/f:spec/f:schedule").is_none()), "{o}");
    assert_eq!(r.get(&format!("{two}/a")).await["spec"]["schedule"], "3 * * * *");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_as_operators_write_them() {
    let c = cluster().await;
    let r = Raw::of(&c);
    r.define(&serde_json::from_str(include_str!("crd/monitors.json")).expect("a definition")).await;
    let path = "/apis/monitoring.example.com/v1/namespaces/default/monitors";
    let monitor = |spec: Value| json!({"apiVersion": "monitoring.example.com/v1", "kind": "Monitor", "metadata": {"name": "a"}, "spec": spec});
    let good = json!({
        "selector": {"matchLabels": {"app": "x"}}, "storage": "10Gi", "attach": null, "scrapeProtocols": ["PrometheusProto"],
        "endpoints": [{"port": "web", "targetPort": 8080, "interval": "1m30s", "params": {"a": ["b"]},
            "relabelings": [{"sourceLabels": ["a"]}], "bearerTokenSecret": {"key": "k"}}],
        "containers": [{"name": "c", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}, "ports": [{"containerPort": 80}]}],
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "t", "bogus": 1}, "spec": {"anything": true}},
    });
    let (status, made) = r.post(path, &monitor(good.clone())).await;
    assert_eq!(status, 201, "{made}");
    let spec = &made["spec"];
    assert_eq!(spec["endpoints"][0]["relabelings"][0]["action"], "replace");
    assert_eq!(spec["endpoints"][0]["bearerTokenSecret"]["name"], "");
    assert_eq!(spec["containers"][0]["ports"][0]["protocol"], "TCP");
    assert_eq!(
        spec["template"],
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "t"}, "spec": {"anything": true}})
    );
    assert_eq!(spec["attach"], Value::Null);
    let refused = async |change: &dyn Fn(&mut Value), expect: &str| {
        let mut spec = good.clone();
        change(&mut spec);
        let mut o = monitor(spec);
        o["metadata"]["name"] = "b".into();
        let (_, body) = r.post(path, &o).await;
        let head = "Monitor.monitoring.example.com \"b\" is invalid: ";
        assert_eq!(body["message"].as_str().and_then(|m| m.strip_prefix(head)), Some(expect), "{body}");
    };
    refused(&|s| s["sampleLimit"] = (-1).into(), "spec: Invalid value: sampleLimit must not be negative")
        .await;
    refused(&|s| s["storage"] = "much".into(), "spec.storage: Invalid value: \"much\": spec.storage in body should match '^(\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))))?$'").await;
    refused(
        &|s| s["scrapeProtocols"] = json!(["PrometheusProto", "PrometheusProto"]),
        "spec.scrapeProtocols[1]: Duplicate value: \"PrometheusProto\"",
    )
    .await;
    refused(
        &|s| s["endpoints"][0]["scheme"] = "ftp".into(),
        "spec.endpoints[0].scheme: Unsupported value: \"ftp\": supported values: \"http\", \"https\"",
    )
    .await;
    refused(&|s| s["endpoints"][0]["targetPort"] = true.into(),
        "[spec.endpoints[0].targetPort: Invalid value: \"boolean\": spec.endpoints[0].targetPort in body must be of type integer,string: \"boolean\", <nil>: Invalid value: \"\": \"spec.endpoints[0].targetPort\" must validate at least one schema (anyOf), spec.endpoints[0].targetPort: Invalid value: \"boolean\": spec.endpoints[0].targetPort in body must be of type integer: \"boolean\"]").await;
    let condition = json!({"status": {"conditions": [{"type": "Available", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let (status, _) = r
        .send(
            Method::PATCH,
            &format!("{path}/a/status"),
            "application/merge-patch+json",
            &condition.to_string(),
        )
        .await;
    assert_eq!(status, 200);
    let (_, _, table) =
        r.full(Method::GET, path, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "").await;
    assert_eq!(table["rows"][0]["cells"], json!(["a", "True"]));
}
