//! Certificates that are asked for over the API: who may approve and sign them, and those we approve and sign
//! ourselves (kubernetes: pkg/controller/certificates, plugin/pkg/admission/certificates).

use std::sync::Arc;
use std::time::Duration;

use apimachinery::user::{MASTERS, UserInfo};
use serde_json::{Value, json};

use crate::admission::attributes::{Attributes, Operation};
use crate::error::{ApiError, Result};
use crate::kinds::certificate::{FINAL, has_condition, pem, usages};
use crate::kinds::{self, Kind, Served};
use crate::object;
use crate::pki::request::{self, Asked};
use crate::registry::{Part, WriteContext};
use crate::server::{Access, ApiServer};

const GROUP: &str = "certificates.k8s.io";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// As long as certificates live that name no time.
const LIFE_S: i64 = 365 * 86_400;
/// Requests are forgotten after that long: decided ones, undecided ones.
const DECIDED_KEPT_S: i64 = 3600;
const PENDING_KEPT_S: i64 = 24 * 3600;
const SWEEP: Duration = Duration::from_secs(600);

pub(crate) fn is_request(kind: &Kind) -> bool {
    kind.group == GROUP && kind.resource == "certificatesigningrequests"
}

fn requests() -> Served {
    kinds::by_resource(GROUP, "certificatesigningrequests").expect("signing requests are a kind")
}

/// Whoever creates a request is its requester; nobody asks in another's name.
pub(crate) fn stamp_requester(kind: &Kind, user: Option<&UserInfo>, o: &mut Value) {
    let (Some(user), true) = (user, is_request(kind)) else { return };
    let spec = object::child(o, "spec");
    for key in ["username", "uid", "groups", "extra"] {
        drop(object::remove(spec, key));
    }
    spec["username"] = user.name.as_str().into();
    spec["groups"] = json!(user.groups);
    if !user.uid.is_empty() {
        spec["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        spec["extra"] = json!(user.extra);
    }
}

/// A status update leaves the decision alone; conditions that are new get their times.
pub(crate) fn settle(part: Part, new: &mut Value, old: &Value, now: &str) {
    let decisions = |o: &Value, keep: bool| -> Vec<Value> {
        let all = object::list(o, "status.conditions").iter();
        all.filter(|c| matches!(c["type"].as_str(), Some("Approved" | "Denied")) == keep).cloned().collect()
    };
    let mut conditions = match part {
        Part::Status => [decisions(old, true), decisions(new, false)].concat(),
        Part::Approval => object::list(new, "status.conditions").to_vec(),
        _ => return,
    };
    for c in &mut conditions {
        let before = object::list(old, "status.conditions").iter().find(|o| o["type"] == c["type"]);
        object::default(c, "lastUpdateTime", now);
        let since = before.filter(|b| b["status"] == c["status"]).map(|b| b["lastTransitionTime"].clone());
        object::default(c, "lastTransitionTime", since.unwrap_or_else(|| now.into()));
    }
    let status = object::child(new, "status");
    if conditions.is_empty() {
        drop(object::remove(status, "conditions"));
    } else {
        status["conditions"] = conditions.into();
    }
}

impl ApiServer {
    /// Whether someone may approve or sign for a signer, by its name or for all of its domain.
    fn may_for_signer(&self, user: &UserInfo, verb: &str, signer: &str) -> bool {
        let domain = signer.split('/').next().unwrap_or_default();
        [signer.to_owned(), format!("{domain}/*")].into_iter().any(|name| {
            let access = Access {
                verb: verb.to_owned(),
                group: GROUP.to_owned(),
                resource: "signers".to_owned(),
                name,
                ..Access::default()
            };
            self.decide(user, &access, None).allowed
        })
    }

    /// CertificateSubjectRestriction, CertificateApproval, CertificateSigning.
    pub(crate) fn judge_certificate(&self, a: &Attributes<'_>, o: &Value) -> Result<()> {
        let on = |plugin: &str| self.config.admission.is_on(plugin);
        let Some(user) = a.user.filter(|_| is_request(a.served.kind)) else { return Ok(()) };
        let refuse = |why: String| Err(ApiError::forbidden(a.served, object::name(o), &why));
        let of = a.old.unwrap_or(o);
        let signer = object::text(of, "spec.signerName").unwrap_or_default();
        match (a.operation, a.subresource) {
            (Operation::Create, "") if on("CertificateSubjectRestriction") && signer == CLIENT => {
                let asked = request::read(&pem(o)).unwrap_or_default();
                if asked.organizations.iter().any(|g| g == MASTERS) {
                    return refuse(format!("use of {CLIENT} signer with {MASTERS} group is not allowed"));
                }
            }
            (Operation::Update, "approval")
                if on("CertificateApproval") && !self.may_for_signer(user, "approve", signer) =>
            {
                return refuse(format!("user not permitted to approve requests with signerName {signer:?}"));
            }
            (Operation::Update, "status") if on("CertificateSigning") => {
                let changed =
                    |path: &str| a.old.and_then(|old| object::get(old, path)) != object::get(o, path);
                if (changed("status.certificate") || changed("status.conditions"))
                    && !self.may_for_signer(user, "sign", signer)
                {
                    return refuse(format!("user not permitted to sign requests with signerName {signer:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Decides and signs what is ours to decide and sign.
    async fn serve_requests(&self) {
        let served = requests();
        for o in self.cache.list(served.index, None).objects {
            let o = o.value();
            if object::is_deleting(&o)
                || object::text(&o, "status.certificate").is_some_and(|c| !c.is_empty())
            {
                continue;
            }
            let decided = FINAL.iter().any(|k| has_condition(&o, k));
            let answer = if !decided {
                self.approve(&served, &o).await
            } else if has_condition(&o, "Approved") && !has_condition(&o, "Failed") {
                self.issue(&served, &o).await
            } else {
                Ok(())
            };
            match answer {
                Err(e) if !matches!(e.code, 404 | 409) => {
                    tracing::warn!(request = object::name(&o), error = %e.message, "a signing request could not be served");
                }
                _ => {}
            }
        }
    }

    /// Kubelets get their client certificates without a person, if roles say so.
    async fn approve(&self, served: &Served, o: &Value) -> Result<()> {
        if object::text(o, "spec.signerName") != Some(KUBELET_CLIENT) {
            return Ok(());
        }
        let Ok(asked) = request::read(&pem(o)) else { return Ok(()) };
        if kubelet_client(&asked, &usages(o)).is_err() {
            return Ok(());
        }
        let strings = |path: &str| -> Vec<String> {
            object::list(o, path).iter().filter_map(|s| s.as_str().map(str::to_owned)).collect()
        };
        let user = UserInfo {
            name: object::text(o, "spec.username").unwrap_or_default().to_owned(),
            uid: object::text(o, "spec.uid").unwrap_or_default().to_owned(),
            groups: strings("spec.groups"),
            ..UserInfo::default()
        };
        let own = user.name == asked.common_name;
        let tries = [
            (
                own,
                "selfnodeclient",
                "Auto approving self kubelet client certificate after SubjectAccessReview.",
            ),
            (true, "nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
        ];
        for (applies, subresource, message) in tries {
            let access = Access {
                verb: "create".to_owned(),
                group: GROUP.to_owned(),
                resource: "certificatesigningrequests".to_owned(),
                subresource: subresource.to_owned(),
                ..Access::default()
            };
            if applies && self.decide(&user, &access, None).allowed {
                let condition = json!({"type": "Approved", "status": "True", "reason": "AutoApproved", "message": message});
                return self.add(served, o, Part::Approval, Some(condition), None).await;
            }
        }
        Ok(())
    }

    async fn issue(&self, served: &Served, o: &Value) -> Result<()> {
        let usages = usages(o);
        let Ok(asked) = request::read(&pem(o)) else { return Ok(()) };
        let valid = match object::text(o, "spec.signerName") {
            Some(CLIENT) => api_client(&usages),
            Some(KUBELET_CLIENT) => kubelet_client(&asked, &usages),
            Some(KUBELET_SERVING) => kubelet_serving(&asked, &usages),
            // Somebody else's.
            _ => return Ok(()),
        };
        if let Err(why) = valid {
            let failed = json!({"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": why});
            return self.add(served, o, Part::Status, Some(failed), None).await;
        }
        let life = object::int(o, "spec.expirationSeconds").unwrap_or(LIFE_S).clamp(600, LIFE_S);
        let now = self.now().millis() / 1000;
        let signed = self.pki().sign_request(&pem(o), &usages, now, life).map_err(ApiError::internal)?;
        self.add(served, o, Part::Status, None, Some(signed)).await
    }

    async fn add(
        &self,
        served: &Served,
        o: &Value,
        part: Part,
        condition: Option<Value>,
        certificate: Option<String>,
    ) -> Result<()> {
        use base64::Engine as _;
        let mut write = WriteContext::default();
        "binnacle".clone_into(&mut write.options.field_manager);
        let uid = o["metadata"]["uid"].clone();
        let mut change = |old: &Value| {
            if old["metadata"]["uid"] != uid {
                return Err(ApiError::conflict(
                    served,
                    object::name(old),
                    "another request has its name now",
                ));
            }
            let mut new = old.clone();
            let status = object::child(&mut new, "status");
            if let Some(c) = &condition {
                let mut all = object::list(status, "conditions").to_vec();
                all.push(c.clone());
                status["conditions"] = all.into();
            }
            if let Some(c) = &certificate {
                status["certificate"] = base64::engine::general_purpose::STANDARD.encode(c).into();
            }
            Ok(new)
        };
        self.update(served, "", object::name(o), &write, part, &mut change).await.map(drop)
    }

    /// Forgets requests that nobody will look at again.
    async fn sweep_requests(&self) {
        let served = requests();
        let now = self.now().millis() / 1000;
        for o in self.cache.list(served.index, None).objects {
            let o = o.value();
            let at = |t: Option<&str>| t.and_then(object::parse_time).map_or(now, |t| t.millis() / 1000);
            let made = at(object::text(&o, "metadata.creationTimestamp"));
            let conditions = object::list(&o, "status.conditions");
            let decided = conditions
                .iter()
                .filter(|c| FINAL.iter().any(|k| c["type"] == *k))
                .map(|c| at(c["lastUpdateTime"].as_str()))
                .max();
            let old = match decided {
                Some(t) => now - t > DECIDED_KEPT_S,
                None => now - made > PENDING_KEPT_S,
            };
            if !old {
                continue;
            }
            let options = crate::registry::DeleteOptions::default();
            match self.delete(&served, "", object::name(&o), &options, &WriteContext::default()).await {
                Err(e) if e.code != 404 => {
                    tracing::warn!(error = %e.message, "an old signing request could not be deleted");
                }
                _ => {}
            }
        }
    }
}

fn api_client(usages: &[String]) -> std::result::Result<(), String> {
    let allowed = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = usages.iter().find(|u| !allowed.contains(&u.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if !usages.iter().any(|u| u == "client auth") {
        return Err("missing required usage for client certificate: client auth".to_owned());
    }
    Ok(())
}

/// Usages are these, with or without what only RSA keys need.
fn has_usages(usages: &[String], last: &str) -> std::result::Result<(), String> {
    let required = ["digital signature", "key encipherment", last];
    let known = usages.iter().all(|u| required.contains(&u.as_str()));
    let needed = [required[0], last].iter().all(|r| usages.iter().any(|u| u == r));
    if known && needed {
        return Ok(());
    }
    let mut names = required;
    names.sort_unstable();
    Err(format!("usages did not match [{}]", names.join(" ")))
}

fn node_subject(asked: &Asked) -> std::result::Result<(), String> {
    if asked.organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes".to_owned());
    }
    if !asked.common_name.starts_with("system:node:") {
        return Err("subject common name does not begin with system:node:".to_owned());
    }
    Ok(())
}

fn kubelet_client(asked: &Asked, usages: &[String]) -> std::result::Result<(), String> {
    node_subject(asked)?;
    for (n, what) in
        [(asked.dns_names, "DNS"), (asked.emails, "Email"), (asked.addresses, "IP"), (asked.uris, "URI")]
    {
        if n > 0 {
            return Err(format!("{what} subjectAltNames are not allowed"));
        }
    }
    has_usages(usages, "client auth")
}

fn kubelet_serving(asked: &Asked, usages: &[String]) -> std::result::Result<(), String> {
    node_subject(asked)?;
    if asked.dns_names + asked.addresses == 0 {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    for (n, what) in [(asked.emails, "Email"), (asked.uris, "URI")] {
        if n > 0 {
            return Err(format!("{what} subjectAltNames are not allowed"));
        }
    }
    has_usages(usages, "server auth")
}

/// Follows the requests.
pub(crate) async fn run(server: Arc<ApiServer>) {
    let index = requests().index;
    let mut published = server.cache.subscribe();
    let (mut seen, mut served) = (0, 0);
    loop {
        let sweep = tokio::select! {
            () = server.stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => true,
            moved = published.wait_for(|r| *r > seen) => match moved {
                Ok(r) => {
                    seen = *r;
                    false
                }
                Err(_) => return,
            },
        };
        if sweep && !server.cache.is_empty(index) {
            server.sweep_requests().await;
        }
        let changed = server.cache.changed(index);
        if changed != served && !server.cache.is_empty(index) {
            served = changed;
            server.serve_requests().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_signers_demand() {
        let usages = |u: &[&str]| u.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let client = usages(&["digital signature", "client auth"]);
        assert_eq!(api_client(&client), Ok(()));
        assert_eq!(
            api_client(&usages(&["client auth", "server auth"])),
            Err("invalid usage for client certificate: server auth".to_owned())
        );
        assert_eq!(
            api_client(&usages(&["digital signature"])),
            Err("missing required usage for client certificate: client auth".to_owned())
        );
        let node = Asked {
            common_name: "system:node:a".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            ..Asked::default()
        };
        assert_eq!(kubelet_client(&node, &client), Ok(()));
        let masters =
            Asked { organizations: vec!["system:nodes".to_owned(), MASTERS.to_owned()], ..node.clone() };
        assert_eq!(
            kubelet_client(&masters, &client),
            Err("subject organization is not system:nodes".to_owned())
        );
        let named = Asked { dns_names: 1, ..node.clone() };
        assert_eq!(kubelet_client(&named, &client), Err("DNS subjectAltNames are not allowed".to_owned()));
        let serving = usages(&["digital signature", "key encipherment", "server auth"]);
        assert_eq!(kubelet_serving(&named, &serving), Ok(()));
        assert_eq!(kubelet_serving(&node, &serving), Err("DNS or IP subjectAltName is required".to_owned()));
        assert_eq!(
            kubelet_serving(&named, &client),
            Err("usages did not match [digital signature key encipherment server auth]".to_owned())
        );
    }
}
