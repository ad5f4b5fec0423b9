//! PodSecurity: namespaces say by label which of the Pod Security Standards their pods must keep
//! (pod-security-admission: admission/admission.go, api/helpers.go).

mod checks;

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde_json::Value;

use self::checks::{Finding, evaluate};
use super::attributes::{Attributes, Operation};
use super::metrics::{pod_exempt, pod_judged};
use crate::error::{ApiError, Result};
use crate::kinds::{self, Served};
use crate::object;
use crate::server::ApiServer;
use crate::validation::Errors;

const PREFIX: &str = "pod-security.kubernetes.io";
/// Pods that are looked at when a namespace's level changes.
const MAX_PODS: usize = 3000;

/// How much a pod may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(s: &str) -> Option<Level> {
        match s {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

/// A level of a version: the minor of `v1.N`, `None` is `latest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelVersion {
    pub level: Level,
    pub version: Option<u32>,
}

impl LevelVersion {
    fn version_text(self) -> String {
        self.version.map_or_else(|| "latest".to_owned(), |v| format!("v1.{v}"))
    }
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level.text(), self.version_text())
    }
}

/// What becomes of pods that break a level: they are refused, noted in the audit log, told to their maker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

/// What holds where a namespace says nothing, and for whom nothing holds
/// (pod-security.admission.config.k8s.io/v1 PodSecurityConfiguration).
#[derive(Clone, Debug, Default)]
pub struct PodSecurity {
    pub defaults: Policy,
    pub usernames: Vec<String>,
    pub namespaces: Vec<String>,
    pub runtime_classes: Vec<String>,
}

impl PodSecurity {
    /// Reads a PodSecurityConfiguration.
    pub fn parse(v: &Value) -> std::result::Result<PodSecurity, String> {
        let mut labels = BTreeMap::new();
        for (k, v) in v["defaults"].as_object().into_iter().flatten() {
            labels.insert(format!("{PREFIX}/{k}"), v.as_str().unwrap_or_default().to_owned());
        }
        let mut wrong = Errors::default();
        let defaults = Policy::default().with(|k| labels.get(k).map(String::as_str), &mut wrong);
        if !wrong.is_empty() {
            return Err(format!("PodSecurityConfiguration: {wrong}"));
        }
        let list = |k: &str| {
            let all = object::list(v, &format!("exemptions.{k}")).iter();
            all.filter_map(|s| s.as_str().map(str::to_owned)).collect()
        };
        Ok(PodSecurity {
            defaults,
            usernames: list("usernames"),
            namespaces: list("namespaces"),
            runtime_classes: list("runtimeClasses"),
        })
    }
}

fn parse_version(s: &str) -> Option<Option<u32>> {
    if s == "latest" {
        return Some(None);
    }
    let n = s.strip_prefix("v1.")?;
    let digits = !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && (n == "0" || !n.starts_with('0'));
    if digits { n.parse().ok().map(Some) } else { None }
}

impl Policy {
    /// With what labels say. What cannot be read enforces the strictest and neither audits nor warns.
    fn with<'a>(self, label: impl Fn(&str) -> Option<&'a str>, wrong: &mut Errors) -> Policy {
        let mut p = self;
        let mut enforced = false;
        for (mode, of) in [("enforce", &mut p.enforce), ("audit", &mut p.audit), ("warn", &mut p.warn)] {
            let key = format!("{PREFIX}/{mode}");
            if let Some(given) = label(&key) {
                match Level::parse(given) {
                    Some(level) => {
                        of.level = level;
                        enforced |= mode == "enforce";
                    }
                    None => {
                        of.level = if mode == "enforce" { Level::Restricted } else { Level::Privileged };
                        let detail = "must be one of privileged, baseline, restricted";
                        wrong.invalid(format!("metadata.labels[{key}]"), given, detail);
                    }
                }
            }
            let key = format!("{PREFIX}/{mode}-version");
            if let Some(given) = label(&key) {
                of.version = parse_version(given).unwrap_or_else(|| {
                    let detail = "must be \"latest\" or \"v1.x\"";
                    wrong.invalid(format!("metadata.labels[{key}]"), given, detail);
                    None
                });
            }
        }
        // Who enforces more than is warned of is warned, too.
        if enforced && label(&format!("{PREFIX}/warn")).is_none() && p.enforce.level > p.warn.level {
            p.warn.level = p.enforce.level;
            if label(&format!("{PREFIX}/warn-version")).is_none() {
                p.warn.version = p.enforce.version;
            }
        }
        p
    }
}

/// `reason (detail), reason (detail)`
fn describe(findings: &[Finding]) -> String {
    let words = findings.iter().map(|(reason, detail)| format!("{reason} ({detail})"));
    words.collect::<Vec<_>>().join(", ")
}

/// Metadata and spec of the pods that a workload makes.
fn template<'a>(served: &Served, o: &'a Value) -> Option<(&'a Value, &'a Value)> {
    let of = |path: &str| {
        let t = object::get(o, path)?;
        Some((t.get("metadata").unwrap_or(&Value::Null), object::get(t, "spec")?))
    };
    match (served.kind.group, served.kind.resource) {
        ("", "replicationcontrollers")
        | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => of("spec.template"),
        ("", "podtemplates") => of("template"),
        ("batch", "cronjobs") => of("spec.jobTemplate.spec.template"),
        _ => None,
    }
}

/// Whether an update of a pod changes what the standards look at: images, and ephemeral containers that are new.
fn is_significant(new: &Value, old: &Value) -> bool {
    for list in ["spec.containers", "spec.initContainers"] {
        let (n, o) = (object::list(new, list), object::list(old, list));
        if n.len() != o.len() || n.iter().zip(o).any(|(n, o)| n["image"] != o["image"]) {
            return true;
        }
    }
    let before = object::list(old, "spec.ephemeralContainers");
    object::list(new, "spec.ephemeralContainers")
        .iter()
        .any(|n| before.iter().find(|o| o["name"] == n["name"]).is_none_or(|o| o["image"] != n["image"]))
}

impl ApiServer {
    pub(super) fn check_pod_security(&self, a: &Attributes<'_>, o: &Value) -> Result<()> {
        if !matches!(a.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        match (a.served.kind.group, a.served.kind.resource, a.subresource) {
            ("", "namespaces", "") => self.check_namespace_level(a, o),
            // Everything else that may change a pod is looked at.
            ("", "pods", "status" | "binding" | "eviction") => Ok(()),
            ("", "pods", _) => {
                if a.old.is_some_and(|old| !is_significant(o, old)) {
                    return Ok(());
                }
                self.judge_pod(a, object::name(o), &o["metadata"], &o["spec"], true)
            }
            (_, _, "") => match template(a.served, o) {
                Some((metadata, spec)) => self.judge_pod(a, object::name(o), metadata, spec, false),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn judge_pod(
        &self,
        a: &Attributes<'_>,
        name: &str,
        metadata: &Value,
        spec: &Value,
        enforce: bool,
    ) -> Result<()> {
        let config = &self.config.admission.pod_security;
        let note = |key: &str, v: &str| a.trail.annotate(format!("{PREFIX}/{key}"), v);
        if config.namespaces.iter().any(|n| n == a.namespace) {
            note("exempt", "namespace");
            pod_exempt(a);
            return Ok(());
        }
        if a.user.is_some_and(|u| config.usernames.contains(&u.name)) {
            note("exempt", "user");
            pod_exempt(a);
            return Ok(());
        }
        let spaces = kinds::by_resource("", "namespaces").expect("namespaces are a kind");
        let Some(ns) = self.cache.get(spaces.index, a.namespace) else {
            let why = format!("failed to lookup namespace {:?}", a.namespace);
            return if enforce { Err(ApiError::internal(why)) } else { Ok(()) };
        };
        let mut wrong = Errors::default();
        let policy = config.defaults.with(|k| ns.label(k), &mut wrong);
        let highest = policy.audit.level.max(policy.warn.level);
        if highest == Level::Privileged && (!enforce || policy.enforce.level == Level::Privileged) {
            if enforce {
                note("enforce-policy", &policy.enforce.to_string());
            }
            return Ok(());
        }
        if object::text(spec, "runtimeClassName")
            .is_some_and(|r| config.runtime_classes.iter().any(|x| x == r))
        {
            note("exempt", "runtimeClass");
            pod_exempt(a);
            return Ok(());
        }
        if !wrong.is_empty() {
            note("error", &format!("Failed to parse policy: {wrong}"));
        }
        let judge = |mode: &'static str, lv: LevelVersion| {
            let found = evaluate(lv.level, lv.version, metadata, spec);
            pod_judged(a, mode, lv.level.text(), lv.version_text(), found.is_empty());
            found
        };
        let refused = if enforce { judge("enforce", policy.enforce) } else { Vec::new() };
        if enforce {
            note("enforce-policy", &policy.enforce.to_string());
        }
        let noted = judge("audit", policy.audit);
        if !noted.is_empty() {
            let text = format!("would violate PodSecurity \"{}\": {}", policy.audit, describe(&noted));
            note("audit-violations", &text);
        }
        if !refused.is_empty() {
            let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, describe(&refused));
            return Err(ApiError::forbidden(a.served, name, &why));
        }
        let told = judge("warn", policy.warn);
        if !told.is_empty() {
            a.trail.warn(format!("would violate PodSecurity \"{}\": {}", policy.warn, describe(&told)));
        }
        Ok(())
    }

    /// A namespace's labels must be readable; whoever tightens them is told which pods would not pass.
    fn check_namespace_level(&self, a: &Attributes<'_>, o: &Value) -> Result<()> {
        let config = &self.config.admission.pod_security;
        let policy = |o: &Value| {
            let labels = object::get(o, "metadata.labels");
            let mut wrong = Errors::default();
            let p =
                config.defaults.with(|k| labels.and_then(|l| l.get(k)).and_then(Value::as_str), &mut wrong);
            (p, wrong)
        };
        let name = object::name(o);
        let (new, wrong) = policy(o);
        let (old, old_wrong) = match a.old {
            None if wrong.is_empty() => return Ok(()),
            None => return Err(ApiError::invalid(a.served, name, &wrong)),
            Some(old) => policy(old),
        };
        if !wrong.is_empty() && wrong.to_string() != old_wrong.to_string() {
            return Err(ApiError::invalid(a.served, name, &wrong));
        }
        let relaxed = new.enforce.version == old.enforce.version && new.enforce.level <= old.enforce.level;
        if new.enforce.level == Level::Privileged || relaxed || config.namespaces.iter().any(|n| n == name) {
            return Ok(());
        }
        for warning in self.pods_against(name, new.enforce) {
            a.trail.warn(warning);
        }
        Ok(())
    }

    /// What the pods of a namespace would be refused for.
    fn pods_against(&self, namespace: &str, level: LevelVersion) -> Vec<String> {
        let pods = kinds::by_resource("", "pods").expect("pods are a kind");
        let exempt = &self.config.admission.pod_security.runtime_classes;
        let (mut first, mut more, mut owners) = (Vec::new(), Vec::new(), HashSet::new());
        for pod in self.cache.list(pods.index, Some(namespace)).objects {
            let pod = pod.value();
            if object::text(&pod, "spec.runtimeClassName").is_some_and(|r| exempt.iter().any(|x| x == r)) {
                continue;
            }
            let owner =
                object::list(&pod, "metadata.ownerReferences").iter().find(|r| r["controller"] == true);
            let owner = owner.and_then(|r| r["uid"].as_str()).map(str::to_owned);
            // One pod of a controller speaks for the others, as long as there are too many.
            let again = owner.is_some_and(|uid| !owners.insert(uid));
            if again { more.push(pod) } else { first.push(pod) }
        }
        let total = first.len() + more.len();
        let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pod in first.iter().chain(&more).take(MAX_PODS) {
            let found = evaluate(level.level, level.version, &pod["metadata"], &pod["spec"]);
            if !found.is_empty() {
                let reason = found.iter().map(|(r, _)| r.as_str()).collect::<Vec<_>>().join(", ");
                by_reason.entry(reason).or_default().push(object::name(pod).to_owned());
            }
        }
        let mut warnings = Vec::new();
        if total > MAX_PODS {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {MAX_PODS} of {total} existing pods"
            ));
        }
        if !by_reason.is_empty() {
            warnings.push(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{level}\""
            ));
        }
        let mut lines: Vec<String> = by_reason
            .into_iter()
            .map(|(reason, mut names)| {
                names.sort();
                match names.len() {
                    1 => format!("{}: {reason}", names[0]),
                    2 => format!("{} (and 1 other pod): {reason}", names[0]),
                    n => format!("{} (and {} other pods): {reason}", names[0], n - 1),
                }
            })
            .collect();
        lines.sort();
        warnings.extend(lines);
        warnings
    }
}
