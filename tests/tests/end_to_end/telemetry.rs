//! What the shop does arrives as metrics, logs and traces, and one query joins them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Cluster, repository, required};

use crate::{SOON, pod_of};

/// A pod tells of itself; nobody else knows of this series.
pub(crate) fn pod_pushes_a_gauge(c: &mut Cluster, pod: &str) -> Result<()> {
    let push = r#"wget -qO- --header "Content-Type: application/json" --post-data "{\"resourceMetrics\":[{\"scopeMetrics\":[{\"metrics\":[{\"name\":\"pushed\",\"gauge\":{\"dataPoints\":[{\"timeUnixNano\":\"$(date +%s)000000000\",\"asDouble\":7}]}}]}]}]}" $OTEL_EXPORTER_OTLP_ENDPOINT/v1/metrics"#;
    c.kubectl(&["exec", "-n", "shop", pod, "--", "sh", "-c", push])?;
    let own = format!("pushed{{namespace=\"shop\",pod=\"{pod}\"}}");
    c.wait("the pushed sample", SOON, |c| Ok((c.promql(&own)? == [7.0]).then_some(())))
}

/// The pod that pushed is gone by now: its series ended with it, long before one that is not heard of any more would.
fn the_gone_are_silent(c: &mut Cluster) -> Result<()> {
    c.wait("the series of a pod that is gone to be closed", SOON, |c| {
        Ok(c.promql("pushed{namespace=\"shop\"}")?.is_empty().then_some(()))
    })?;
    let kept = c.promql("count_over_time(pushed{namespace=\"shop\"}[1h])")?;
    ensure!(kept == [1.0], "what it said is lost: {kept:?}");
    Ok(())
}

pub(crate) fn telemetry_arrives(c: &mut Cluster) -> Result<()> {
    let web = pod_of(c, "web")?;
    c.wait("container CPU samples", SOON, |c| {
        let v = c.promql(&format!("rate(container_cpu_usage_seconds_total{{namespace=\"shop\",pod=\"{web}\",container=\"web\"}}[10s])"))?;
        Ok((v.len() == 1).then_some(()))
    })?;
    c.wait("scraped samples of the shop", SOON, |c| {
        let v = c.promql("sum by (workload) (http_requests_total{namespace=\"shop\"})")?;
        Ok((v.len() == 3).then_some(()))
    })?;
    c.wait("state metrics", SOON, |c| {
        Ok((c.promql("kube_deployment_spec_replicas{namespace=\"shop\"}")?.len() == 4).then_some(()))
    })?;
    let out = c.kubectl(&[
        "exec",
        "-n",
        "shop",
        &web,
        "--",
        "wget",
        "-qO-",
        "http://web:8080/needle-in-the-haystack",
    ])?;
    ensure!(out.starts_with("web:"), "{out}");
    let trace = c.wait("the needle in the log index", SOON, |c| {
        let found =
            c.query("logql", "{namespace=\"shop\",workload=\"web\"} |= \"needle-in-the-haystack\"", &[])?;
        let line = found["data"]["result"][0]["values"][0][1].as_str().map(str::to_owned);
        let Some(line) = line else { return Ok(None) };
        let line: Value = serde_json::from_str(&line)?;
        Ok(line["trace_id"].as_str().map(str::to_owned))
    })?;
    c.wait("the request's trace over three services", SOON, |c| {
        let by_id = c.query("logql", &format!("{{namespace=\"shop\"}} | trace_id=\"{trace}\""), &[])?;
        let workloads = by_id["data"]["result"].as_array().map_or(0, Vec::len);
        let found = c.query("traceql", "{ resource.service.name = \"stock\" }", &[])?;
        let seen = found["traces"].as_array().into_iter().flatten().any(|t| t["traceID"] == trace.as_str());
        Ok((workloads == 3 && seen).then_some(()))
    })?;
    let followed = c.binnacle(&["logs", "deploy/web", "-n", "shop", "needle"])?;
    ensure!(followed.contains("needle-in-the-haystack"), "{followed}");
    let raw = c.binnacle(&[
        "logs",
        "deploy/web",
        "-n",
        "shop",
        "needle",
        "--level",
        "info",
        "-o",
        "{{.pod}} {{.service}}",
    ])?;
    ensure!(raw.lines().any(|l| l == format!("{web} web")), "{raw}");
    let graver = c.binnacle(&["logs", "deploy/web", "-n", "shop", "needle", "--level", "error"])?;
    ensure!(graver.is_empty(), "an information is shown as an error: {graver}");
    let around =
        c.binnacle(&["logs", "deploy/web", "-n", "shop", "needle", "--context", "2", "-o", "raw"])?;
    ensure!(around.lines().count() > 1 && around.contains("needle-in-the-haystack"), "{around}");
    // One query over objects, logs and metrics.
    let sql = "select o.name, count(distinct l.body) as lines, max(m.value) as requests from objects o \
               join logs l on l.namespace = o.namespace and l.pod = o.name \
               join metrics m on m.namespace = o.namespace and m.pod = o.name \
               where o.kind = 'Pod' and l.namespace = 'shop' and m.namespace = 'shop' \
               and m.name = 'http_requests_total' group by o.name order by o.name";
    let joined = c.query("sql", sql, &[])?;
    let rows = joined["rows"].as_array().map_or(0, Vec::len);
    ensure!(rows >= 3, "the join gives {rows} rows: {joined}");
    the_gone_are_silent(c)?;
    the_past_is_known(c).context("events and object history")?;
    gone_pods(c).context("the log of a deleted pod")?;
    tail(c)
}

/// What happened to objects: as log records, as SQL, and as they were before.
fn the_past_is_known(c: &mut Cluster) -> Result<()> {
    let rows = |c: &Cluster, sql: &str| -> Result<Vec<Value>> {
        Ok(c.query("sql", sql, &[])?["rows"].as_array().cloned().unwrap_or_default())
    };
    c.wait("the scheduler's words as log records", SOON, |c| {
        let found = c.query("logql", "{record=\"event\",namespace=\"shop\"} | reason=\"Scheduled\"", &[])?;
        Ok((!found["data"]["result"].as_array().is_none_or(Vec::is_empty)).then_some(()))
    })?;
    let events =
        rows(c, "select object_name, source from events where namespace = 'shop' and reason = 'Scheduled'")?;
    ensure!(events.len() >= 3, "few events: {events:?}");
    let history = "select op, json_get(object, 'status.phase') from object_history \
        where kind = 'Pod' and namespace = 'shop' and name like 'web-%' order by time, revision";
    let life = rows(c, history)?;
    ensure!(life.first().is_some_and(|r| r[0] == "ADDED"), "{life:?}");
    ensure!(life.iter().any(|r| r[1] == "Pending") && life.iter().any(|r| r[1] == "Running"), "{life:?}");
    // Before the shop there was nothing of it; a moment ago there was what is there now.
    let then = "select count(*) from objects_at('1h') where kind = 'Deployment' and namespace = 'shop'";
    ensure!(rows(c, then)? == [serde_json::json!([0])], "the shop was there before it came");
    let lately = rows(
        c,
        "select name from objects_at('1s') where kind = 'Deployment' and namespace = 'shop' order by 1",
    )?;
    ensure!(
        lately
            == rows(
                c,
                "select name from objects where kind = 'Deployment' and namespace = 'shop' order by 1"
            )?,
        "{lately:?}"
    );
    // The worked example of docs/sql.md, on a pod that fails.
    let dies = "echo first; sleep 1; echo last words; sleep 2; exit 3";
    let image =
        ["--image", "binnacle.io/shop:latest", "--image-pull-policy", "IfNotPresent", "--restart", "Never"];
    let run: Vec<&str> = ["run", "doomed", "-n", "shop"]
        .into_iter()
        .chain(image)
        .chain(["--command", "--", "sh", "-c", dies])
        .collect();
    c.kubectl(&run)?;
    let docs = std::fs::read_to_string(repository().join("docs/sql.md"))?;
    let example =
        docs.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).context("no example")?;
    c.wait("the example to tell of the pod that failed", SOON, |c| {
        let found = rows(c, example)?;
        let own: Vec<&Value> = found.iter().filter(|r| r[1] == "doomed").collect();
        let words: Vec<&str> = own.iter().filter_map(|r| r[6].as_str()).collect();
        let told =
            own.iter().all(|r| r[3] == "Error" && r[4] == "3" && r[5].as_f64().is_some_and(|mib| mib > 0.0));
        Ok((told && words == ["first", "last words"]).then_some(()))
    })?;
    c.kubectl(&["delete", "pod", "doomed", "-n", "shop"])?;
    let secrets = rows(
        c,
        "select count(*) from object_history where kind = 'Secret' and json_get(object, 'data') is not null",
    )?;
    ensure!(secrets == [serde_json::json!([0])], "a Secret's data is in the history: {secrets:?}");
    Ok(())
}

/// A pod that is deleted answers `kubectl logs` as before, and is seen by no other command.
fn gone_pods(c: &mut Cluster) -> Result<()> {
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gone", "namespace": "shop"},
        "spec": {"restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 0, "containers": [{"name": "c",
            "image": "binnacle.io/shop:latest", "imagePullPolicy": "Never", "command": ["sh", "-c",
            "if test -f /v/again; then echo second; sleep 1; echo over >&2; sleep 1000; else touch /v/again; echo first; exit 1; fi"],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "emptyDir": {}}]}
    });
    let file = c.dir.join("gone.json");
    std::fs::write(&file, pod.to_string())?;
    c.kubectl(&["apply", "-f", &file.display().to_string()])?;
    let logs = |c: &Cluster, more: &[&str]| {
        let mut args = vec!["logs", "-n", "shop", "gone"];
        args.extend(more);
        c.kubectl(&args)
    };
    c.wait("the second life's lines", SOON, |c| Ok((logs(c, &[])? == "second\nover\n").then_some(())))?;
    c.wait("all of them in the index", SOON, |c| {
        let found = c.query("logql", "{namespace=\"shop\",pod=\"gone\"} |= \"over\"", &[])?;
        Ok(found["data"]["result"][0].is_object().then_some(()))
    })?;
    c.kubectl(&["delete", "pod", "gone", "-n", "shop", "--wait", "--timeout=60s"])?;
    ensure!(logs(c, &[])? == "second\nover\n", "the log of a deleted pod is {:?}", logs(c, &[])?);
    ensure!(logs(c, &["--previous"])? == "first\n", "its previous log");
    ensure!(logs(c, &["--tail=1", "-c", "c"])? == "over\n", "its last line");
    let absent = c.kubectl_fails(&["get", "pod", "gone", "-n", "shop"])?;
    ensure!(absent.contains("NotFound"), "{absent}");
    let never = c.kubectl_fails(&["logs", "-n", "shop", "never-was"])?;
    ensure!(never.contains("NotFound"), "{never}");
    Ok(())
}

/// `binnacle logs -f` shows a line that is written after it began.
fn tail(c: &mut Cluster) -> Result<()> {
    let web = pod_of(c, "web")?;
    let bin = required("BINNACLE_BIN")?;
    let mut child = std::process::Command::new(bin)
        .args(["logs", "-f", "deploy/web", "-n", "shop", "tail-me", "--data-dir"])
        .arg(c.data_dir())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("no stdout")?;
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        if BufReader::new(stdout).read_line(&mut line).is_ok() {
            drop(sender.send(line));
        }
    });
    // The tail may not be open yet at the first request: later ones are seen all the same.
    let seen = c.wait("a followed line", SOON, |c| {
        c.kubectl(&["exec", "-n", "shop", &web, "--", "wget", "-qO-", "http://web:8080/tail-me"])?;
        Ok(receiver.recv_timeout(Duration::from_secs(1)).ok())
    });
    child.kill()?;
    child.wait()?;
    ensure!(seen?.contains("tail-me"), "another line was followed");
    Ok(())
}
