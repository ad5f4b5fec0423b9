//! Which admission plugins are on, and how they are set, in upstream's words: names as `--enable-admission-plugins`
//! takes them, and AdmissionConfiguration files (apiserver.config.k8s.io/v1).

use std::collections::BTreeSet;

use serde_json::Value;

use super::podsecurity::PodSecurity;
use crate::object;

/// Every plugin, and whether it is on unless told otherwise.
const PLUGINS: [(&str, bool); 23] = [
    ("AlwaysPullImages", false),
    ("CertificateApproval", true),
    ("CertificateSigning", true),
    ("CertificateSubjectRestriction", true),
    ("DefaultIngressClass", true),
    ("DefaultStorageClass", true),
    ("DefaultTolerationSeconds", true),
    ("DenyServiceExternalIPs", false),
    ("ExtendedResourceToleration", false),
    ("LimitRanger", true),
    ("MutatingAdmissionPolicy", true),
    ("MutatingAdmissionWebhook", true),
    ("NamespaceLifecycle", true),
    ("NodeRestriction", true),
    ("OwnerReferencesPermissionEnforcement", false),
    ("PersistentVolumeClaimResize", true),
    ("PodSecurity", true),
    ("Priority", true),
    ("ResourceQuota", true),
    ("RuntimeClass", true),
    ("ServiceAccount", true),
    ("ValidatingAdmissionPolicy", true),
    ("ValidatingAdmissionWebhook", true),
];

/// What cannot be switched: objects would not be what the rest of the house takes them for.
const ALWAYS: [&str; 4] = ["DefaultTolerationSeconds", "NamespaceLifecycle", "ServiceAccount", "Priority"];

/// How admission is set.
#[derive(Clone, Debug)]
pub struct AdmissionConfig {
    on: BTreeSet<&'static str>,
    pub pod_security: PodSecurity,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        let on = PLUGINS.iter().filter(|(_, on)| *on).map(|(n, _)| *n).collect();
        AdmissionConfig { on, pod_security: PodSecurity::default() }
    }
}

impl AdmissionConfig {
    pub(crate) fn is_on(&self, plugin: &str) -> bool {
        self.on.contains(plugin)
    }

    /// Switches plugins on or off by name.
    pub fn switch<'a>(&mut self, names: impl IntoIterator<Item = &'a str>, on: bool) -> Result<(), String> {
        for name in names.into_iter().map(str::trim).filter(|n| !n.is_empty()) {
            let Some((known, _)) = PLUGINS.iter().find(|(n, _)| *n == name) else {
                let all: Vec<&str> = PLUGINS.iter().map(|(n, _)| *n).collect();
                return Err(format!("admission plugin {name:?} is unknown; there are {}", all.join(", ")));
            };
            if on {
                self.on.insert(known);
            } else if ALWAYS.contains(known) {
                return Err(format!("admission plugin {name:?} cannot be switched off"));
            } else {
                self.on.remove(known);
            }
        }
        Ok(())
    }

    /// Takes what an AdmissionConfiguration says of plugins that can be set; `read` gives the file of a `path`.
    pub fn apply(
        &mut self,
        configuration: &Value,
        read: impl Fn(&str) -> Result<Value, String>,
    ) -> Result<(), String> {
        if object::text(configuration, "kind") != Some("AdmissionConfiguration") {
            return Err("the file holds no AdmissionConfiguration (apiserver.config.k8s.io/v1)".to_owned());
        }
        for plugin in object::list(configuration, "plugins") {
            let name = plugin["name"].as_str().unwrap_or_default();
            let own = match (object::get(plugin, "configuration"), object::text(plugin, "path")) {
                (Some(c), _) => c.clone(),
                (None, Some(path)) => read(path)?,
                (None, None) => continue,
            };
            match name {
                "PodSecurity" => self.pod_security = PodSecurity::parse(&own)?,
                _ => return Err(format!("admission plugin {name:?} takes no configuration here")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plugins_are_switched_by_name() {
        let mut c = AdmissionConfig::default();
        assert!(c.is_on("PodSecurity") && !c.is_on("DenyServiceExternalIPs"));
        c.switch(["DenyServiceExternalIPs"], true).expect("known");
        c.switch(["PodSecurity"], false).expect("known");
        assert!(!c.is_on("PodSecurity") && c.is_on("DenyServiceExternalIPs"));
        assert!(
            c.switch(["Nothing"], true)
                .expect_err("unknown")
                .starts_with("admission plugin \"Nothing\" is unknown")
        );
        assert!(c.switch(["ServiceAccount"], false).is_err());
    }

    #[test]
    fn files_as_upstreams() {
        let mut c = AdmissionConfig::default();
        let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": [
            {"name": "PodSecurity", "configuration": {"defaults": {"enforce": "baseline", "enforce-version": "v1.30"},
                "exemptions": {"namespaces": ["kube-system"]}}}]});
        c.apply(&file, |_| unreachable!("no path is given")).expect("good");
        assert_eq!(c.pod_security.defaults.enforce.to_string(), "baseline:v1.30");
        assert_eq!(c.pod_security.namespaces, ["kube-system"]);
        let wrong = json!({"kind": "AdmissionConfiguration", "plugins": [{"name": "PodSecurity", "configuration": {"defaults": {"enforce": "x"}}}]});
        let e = c.apply(&wrong, |_| unreachable!("no path is given")).expect_err("no such level");
        assert!(e.contains("must be one of privileged, baseline, restricted"), "{e}");
    }
}
