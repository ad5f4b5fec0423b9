//! Whose logs: a workload, a pod, a label selector, or a regular expression over pod names.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::quoted;
use crate::cli::LogsArgs;
use crate::commands::remote::Remote;

/// The stream selector. A workload's has its pods to come as well.
pub(super) async fn selector(remote: &Remote, a: &LogsArgs) -> Result<String> {
    let mut all = if a.all_namespaces {
        vec![r#"namespace=~".+""#.to_owned()]
    } else {
        vec![format!("namespace={}", quoted(&a.namespace))]
    };
    if let Some(container) = &a.container {
        all.push(format!("container={}", quoted(container)));
    }
    match (&a.selector, &a.target) {
        (Some(labels), _) => all.push(labelled(remote, a, labels).await?),
        (None, Some(target)) => all.push(named(target)?),
        (None, None) => {
            bail!("name a workload, a pod or a regular expression over pods, or give -l SELECTOR")
        }
    }
    Ok(format!("{{{}}}", all.join(",")))
}

fn named(target: &str) -> Result<String> {
    let Some((kind, name)) = target.split_once('/') else {
        return Ok(format!("pod=~{}", quoted(&format!(".*(?:{target}).*"))));
    };
    Ok(match kind.split('.').next().unwrap_or(kind) {
        "deploy"
        | "deployment"
        | "deployments"
        | "sts"
        | "statefulset"
        | "statefulsets"
        | "ds"
        | "daemonset"
        | "daemonsets"
        | "job"
        | "jobs"
        | "rc"
        | "replicationcontroller"
        | "replicationcontrollers" => {
            format!("workload={}", quoted(name))
        }
        // A cron job's workloads are its jobs.
        "cj" | "cronjob" | "cronjobs" => format!("workload=~{}", quoted(&format!("{name}-[0-9]+"))),
        "rs" | "replicaset" | "replicasets" => format!("pod=~{}", quoted(&format!("{name}-[a-z0-9]+"))),
        "po" | "pod" | "pods" => format!("pod={}", quoted(name)),
        kind => bail!("{kind:?} is no kind with logs: deploy, sts, ds, job, cronjob, rs or pod"),
    })
}

/// Pods whose labels match now, and those to come of the same workloads.
async fn labelled(remote: &Remote, a: &LogsArgs, labels: &str) -> Result<String> {
    let pods = pods(remote, a, &[("labelSelector", labels)]).await?;
    let mut names: Vec<&str> = pods.iter().filter_map(|p| p["metadata"]["name"].as_str()).collect();
    if names.is_empty() {
        bail!("no pod of namespace {} has labels that match {labels:?}", a.namespace);
    }
    // What a pod's name ends with is made up: another pod of the same owner has another end.
    let owners: Vec<String> =
        pods.iter().filter_map(|p| p["metadata"]["generateName"].as_str()).map(owner).collect();
    names.sort_unstable();
    let mut all: Vec<String> =
        names.into_iter().map(str::to_owned).chain(owners.into_iter().map(|o| format!("{o}-.+"))).collect();
    all.sort();
    all.dedup();
    Ok(format!("pod=~{}", quoted(&all.join("|"))))
}

/// Of `web-5d4f8-` the deployment's name: pods of its next revision belong to it, too.
fn owner(generated: &str) -> String {
    let bare = generated.trim_end_matches('-');
    match bare.rsplit_once('-') {
        Some((name, hash)) if hash.len() >= 5 && hash.bytes().any(|b| b.is_ascii_digit()) => name.to_owned(),
        _ => bare.to_owned(),
    }
}

pub(super) async fn pods(remote: &Remote, a: &LogsArgs, params: &[(&str, &str)]) -> Result<Vec<Value>> {
    let path = if a.all_namespaces {
        "/k8s/api/v1/pods".to_owned()
    } else {
        format!("/k8s/api/v1/namespaces/{}/pods", a.namespace)
    };
    let answer = remote.get(&path, params).await?;
    Ok(answer["items"].as_array().context("the API's list of pods has no items")?.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_the_streams_they_mean() {
        for (target, expect) in [
            ("deploy/web", r#"workload="web""#),
            ("deployment.apps/web", r#"workload="web""#),
            ("sts/db", r#"workload="db""#),
            ("cronjob/nightly", r#"workload=~"nightly-[0-9]+""#),
            ("rs/web-5d4f8", r#"pod=~"web-5d4f8-[a-z0-9]+""#),
            ("pod/web-1", r#"pod="web-1""#),
            ("web|db", r#"pod=~".*(?:web|db).*""#),
        ] {
            assert_eq!(named(target).expect(target), expect);
        }
        assert!(named("service/web").is_err());
        assert_eq!(owner("web-5d4f8c9b7-"), "web");
        assert_eq!(owner("db-"), "db");
    }
}
