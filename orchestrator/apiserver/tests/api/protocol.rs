//! What curl sees: options and bodies that are wrong in upstream's words, and answers as they were asked for.

use apimachinery::user::UserInfo;
use axum::body::Body;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::{Cluster, cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Answer {
    code: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    fn refused(&self) -> (u16, String) {
        (self.code, self.json()["message"].as_str().unwrap_or_default().to_owned())
    }
}

/// `headers` as `name: value`.
async fn ask(c: &Cluster, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers.iter().filter_map(|h| h.split_once(": ")) {
        request = request.header(name, value);
    }
    let router = c.server.in_process(UserInfo::new("admin", &["system:masters"]));
    let request = request.body(Body::from(body.to_owned())).expect("a request");
    let answer = router.oneshot(request).await.expect("an answer");
    let (parts, body) = answer.into_parts();
    let bytes = body.collect().await.expect("its body").to_bytes();
    let text = String::from_utf8(bytes.to_vec()).expect("text");
    Answer { code: parts.status.as_u16(), headers: parts.headers, text }
}

#[tokio::test]
async fn options_are_checked() {
    let c = cluster().await;
    let made = ask(&c, "POST", MAPS, &[], r#"{"metadata": {"name": "a"}}"#).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let one = format!("{MAPS}/a");
    let check = async |method: &str, path: String, body: &str, expect: (u16, &str)| {
        let merge = "content-type: application/merge-patch+json";
        let headers: &[&str] = if method == "PATCH" { &[merge] } else { &[] };
        let (code, message) = ask(&c, method, &path, headers, body).await.refused();
        assert_eq!((code, &*message), expect, "{method} {path}");
    };
    check(
        "GET",
        format!("{MAPS}?resourceVersionMatch=Exact"),
        "",
        (422, r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"#),
    )
    .await;
    check("GET", format!("{MAPS}?limit=x"), "", (400, r#"strconv.ParseInt: parsing "x": invalid syntax"#))
        .await;
    check(
        "PATCH",
        format!("{one}?force=true"),
        "{}",
        (422, r#"PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch"#),
    )
    .await;
    check(
        "POST",
        format!("{MAPS}?dryRun=Some"),
        r#"{"metadata": {"name": "b"}}"#,
        (422, r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: []string{"Some"}: supported values: "All""#),
    )
    .await;
    check(
        "DELETE",
        one.clone(),
        r#"{"propagationPolicy": "Orphan", "orphanDependents": true}"#,
        (422, r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set"#),
    )
    .await;
    let revision =
        made.json()["metadata"]["resourceVersion"].as_str().map(str::to_owned).expect("a revision");
    let known = ask(&c, "GET", &format!("{one}?resourceVersion={revision}"), &[], "").await;
    assert_eq!(known.json()["metadata"]["resourceVersion"], *revision);
    assert_eq!(
        ask(&c, "DELETE", &one, &[], r#"{"kind": "DeleteOptions", "apiVersion": "v1"}"#).await.code,
        200
    );
}

#[tokio::test]
async fn bodies_are_read_as_go_reads_them() {
    let c = cluster().await;
    let check = async |body: &str, expect: &str| {
        let (code, message) = ask(&c, "POST", MAPS, &[], body).await.refused();
        assert_eq!((code, &*message), (400, expect), "{body}");
    };
    check(
        r#"{"metadata": {"name": "a"}, "data": {"k": 1}}"#,
        r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string"#,
    )
    .await;
    check(
        r#"{"metadata": {"name": "a", "creationTimestamp": "now"}}"#,
        r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006""#,
    )
    .await;
    check("", "couldn't get version/kind; json parse error: unexpected end of JSON input").await;
    let twice = r#"{"metadata": {"name": "a"}, "x": 1, "data": {"k": "1", "k": "2"}, "data2": {}}"#;
    let strict = ask(&c, "POST", &format!("{MAPS}?fieldValidation=Strict"), &[], twice).await;
    assert_eq!(
        strict.refused(),
        (400, r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "x", duplicate field "data.k", unknown field "data2""#.to_owned())
    );
    let warned = ask(&c, "POST", MAPS, &[], twice).await;
    let warnings: Vec<&str> =
        warned.headers.get_all("warning").iter().filter_map(|w| w.to_str().ok()).collect();
    assert_eq!(
        warnings,
        [
            r#"299 - "unknown field \"x\"""#,
            r#"299 - "duplicate field \"data.k\"""#,
            r#"299 - "unknown field \"data2\"""#
        ]
    );
    assert_eq!(warned.json()["data"]["k"], "2", "the last one counts");
    let yaml = ["content-type: application/yaml"];
    let yamled = ask(&c, "POST", MAPS, &yaml, "metadata: {name: yaml}\ndata:\n  k: '1'\n  k: '2'\n").await;
    assert_eq!((yamled.code, &yamled.json()["data"]["k"]), (201, &"2".into()), "{}", yamled.text);
    assert!(yamled.header("warning").contains("k"), "{}", yamled.header("warning"));
}

#[tokio::test]
async fn answers_are_written_as_asked() {
    let c = cluster().await;
    let made = ask(&c, "POST", MAPS, &[], r#"{"metadata": {"name": "a"}, "data": {"k": "true"}}"#).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let one = format!("{MAPS}/a");
    let yaml = ask(&c, "GET", &one, &["accept: application/yaml"], "").await;
    assert_eq!(yaml.header("content-type"), "application/yaml");
    assert!(
        yaml.text.starts_with(
            "apiVersion: v1\ndata:\n  k: \"true\"\nkind: ConfigMap\nmetadata:\n  creationTimestamp: \""
        ),
        "{}",
        yaml.text
    );
    for (path, headers) in [(format!("{one}?pretty=true"), [""]), (one.clone(), ["user-agent: curl/8.5.0"])] {
        let pretty = ask(&c, "GET", &path, &headers, "").await;
        assert!(pretty.text.starts_with("{\n  \"kind\": \"ConfigMap\",\n"), "{}", pretty.text);
        assert_eq!(pretty.json()["data"]["k"], "true");
    }
    let plain = ask(&c, "GET", &one, &["user-agent: kubectl/v1.35"], "").await;
    assert!(!plain.text.contains('\n'), "{}", plain.text);
    let missing = ask(&c, "GET", &format!("{MAPS}/none"), &["user-agent: curl/8.5.0"], "").await;
    assert!(missing.text.starts_with("{\n  \"kind\": \"Status\",\n"), "{}", missing.text);
    let watch = ask(&c, "GET", &format!("{MAPS}?watch=true"), &["accept: application/yaml"], "").await;
    assert_eq!(watch.code, 406, "{}", watch.text);
    let listed = ask(&c, "GET", MAPS, &["accept: application/yaml", "accept-encoding: gzip"], "").await;
    assert!(listed.text.starts_with("apiVersion: v1\nitems:\n- apiVersion: v1\n"), "{}", listed.text);
}

#[tokio::test]
async fn health_has_upstreams_names() {
    let c = cluster().await;
    let check = async |path: &str, code: u16, expect: &str| {
        let a = ask(&c, "GET", path, &[], "").await;
        assert_eq!((a.code, &*a.text), (code, expect), "{path}");
    };
    check("/livez", 200, "ok").await;
    check("/livez/etcd", 200, "ok").await;
    check("/livez?verbose", 200, "[+]ping ok\n[+]etcd ok\nlivez check passed\n").await;
    check("/healthz?verbose", 200, "[+]ping ok\n[+]etcd ok\nhealthz check passed\n").await;
    let ready = "[+]ping ok\n[+]etcd excluded: ok\n[+]etcd-readiness ok\n[+]informer-sync ok\n[+]shutdown ok\n\
        warn: some health checks cannot be excluded: no matches for \"x\"\nreadyz check passed\n";
    check("/readyz?verbose&exclude=x&exclude=etcd", 200, ready).await;
    let none = ask(&c, "GET", "/readyz/none", &[], "").await;
    assert_eq!(none.code, 404, "{}", none.text);
    c.stop.cancel();
    let stopping = ask(&c, "GET", "/readyz", &[], "").await;
    assert_eq!(stopping.code, 500);
    assert!(stopping.text.contains("[-]shutdown failed: the server is stopping\n"), "{}", stopping.text);
}

#[tokio::test]
async fn metrics_have_prometheus_own_format_unless_another_is_asked_for() {
    let c = cluster().await;
    let text = ask(&c, "GET", "/metrics", &[], "").await;
    assert_eq!(text.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert!(text.text.contains("\n# TYPE apiserver_request_total counter\n"), "{}", text.text);
    let open =
        ask(&c, "GET", "/metrics", &["accept: application/openmetrics-text;version=1.0.0,*/*;q=0.5"], "")
            .await;
    assert_eq!(open.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.text.ends_with("# EOF\n"));
}
