//! What a claim and a volume need next. Pure (kubernetes: pkg/controller/volume/persistentvolume/pv_controller.go).

use std::sync::Arc;

use apimachinery::volume::{self as rules, BOUND_BY_CONTROLLER, PROVISIONED_BY};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

/// What is said of an object in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) warning: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

fn normal(reason: &'static str, message: impl Into<String>) -> Note {
    Note { warning: false, reason, message: message.into() }
}

fn warning(reason: &'static str, message: impl Into<String>) -> Note {
    Note { warning: true, reason, message: message.into() }
}

#[derive(Debug)]
pub(super) enum ForClaim {
    /// Both shall know each other.
    Bind(Arc<PersistentVolume>),
    /// A volume is to be made, as the class says.
    Make,
    Wait(Option<Note>),
    Lost(Note),
}

/// Why a volume that a claim names will not do.
fn mismatch(v: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let (Some(has), Some(wants)) = (&v.spec, &claim.spec) else { return None };
    let mode = |m: &Option<String>| m.clone().unwrap_or_else(|| "Filesystem".to_owned());
    if rules::capacity(v) < rules::requested(claim) {
        return Some("requested PV is too small");
    }
    if has.storage_class_name.as_deref().unwrap_or_default() != rules::class_of(claim) {
        return Some("storageClassName does not match");
    }
    if mode(&has.volume_mode) != mode(&wants.volume_mode) {
        return Some("incompatible volumeMode");
    }
    let modes = has.access_modes.as_deref().unwrap_or_default();
    let fits = wants.access_modes.iter().flatten().all(|m| modes.contains(m));
    (!fits).then_some("incompatible accessMode")
}

/// `pod` names one that waits for the claim.
pub(super) fn claim(
    claim: &PersistentVolumeClaim,
    class: Option<&StorageClass>,
    volumes: &[Arc<PersistentVolume>],
    pod: Option<&str>,
) -> ForClaim {
    let name = rules::volume_name(claim);
    let named = volumes.iter().find(|v| v.metadata.name.as_deref() == Some(name));
    let reference = |v: &PersistentVolume| v.spec.as_ref().and_then(|s| s.claim_ref.clone());
    if rules::claim_annotation(claim, rules::BIND_COMPLETED).is_some() {
        let lost = |what: &str| {
            let message =
                format!("Bound claim has lost {what} PersistentVolume. Data on the volume is lost!");
            ForClaim::Lost(warning("ClaimLost", message))
        };
        return match named {
            _ if name.is_empty() => lost("reference to"),
            None => lost("its"),
            Some(v) if reference(v).is_none_or(|r| rules::is_for(&r, claim)) => ForClaim::Bind(v.clone()),
            Some(_) => {
                let message = "Two claims are bound to the same volume, this one is bound incorrectly";
                ForClaim::Lost(warning("ClaimMisbound", message))
            }
        };
    }
    if !name.is_empty() {
        let Some(v) = named else { return ForClaim::Wait(None) };
        return match reference(v) {
            None => match mismatch(v, claim) {
                Some(why) => {
                    let message = format!("Cannot bind to requested volume {name:?}: {why}");
                    ForClaim::Wait(Some(warning("VolumeMismatch", message)))
                }
                None => ForClaim::Bind(v.clone()),
            },
            Some(r) if rules::is_for(&r, claim) => ForClaim::Bind(v.clone()),
            Some(_) => {
                let message = format!("volume {name:?} already bound to a different claim.");
                ForClaim::Wait(Some(warning("FailedBinding", message)))
            }
        };
    }
    let waits = class.is_some_and(rules::waits_for_consumer)
        && rules::claim_annotation(claim, rules::SELECTED_NODE).is_none();
    if let Some(v) = rules::find(claim, volumes, None, waits, |_| false) {
        return ForClaim::Bind(v.clone());
    }
    if waits {
        return ForClaim::Wait(Some(match pod {
            Some(pod) => normal("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
            None => normal("WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
        }));
    }
    if !rules::class_of(claim).is_empty() {
        return ForClaim::Make;
    }
    let message = "no persistent volumes available for this claim and no storage class is set";
    ForClaim::Wait(Some(normal("FailedBinding", message)))
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ForVolume {
    Phase(&'static str),
    /// Its claim will bind it.
    Wait,
    /// It was chosen for a claim that has another now.
    LetGo,
    /// Its claim is gone: what becomes of the data.
    Keep,
    Delete,
    /// Another program deletes it.
    Leave,
    Fail(&'static str, String),
}

/// `claim` is the one that the volume names, if there is one of that name.
pub(super) fn volume(
    v: &PersistentVolume,
    claim: Option<&PersistentVolumeClaim>,
    provisioner: &str,
) -> ForVolume {
    let spec = v.spec.clone().unwrap_or_default();
    let Some(reference) = spec.claim_ref else { return ForVolume::Phase("Available") };
    if reference.uid.as_deref().is_none_or(str::is_empty) {
        return ForVolume::Phase("Available");
    }
    let made_by = rules::volume_annotation(v, PROVISIONED_BY);
    let policy = spec.persistent_volume_reclaim_policy.as_deref().unwrap_or("Retain");
    let name = v.metadata.name.as_deref().unwrap_or_default();
    let released = match claim.filter(|c| rules::is_for(&reference, c)) {
        Some(c) if rules::volume_name(c).is_empty() => return ForVolume::Wait,
        Some(c) if rules::volume_name(c) == name => return ForVolume::Phase("Bound"),
        Some(_) if made_by.is_some() && policy == "Delete" => true,
        Some(_) if rules::volume_annotation(v, BOUND_BY_CONTROLLER).is_some() => return ForVolume::LetGo,
        Some(_) => return ForVolume::Wait,
        None => true,
    };
    debug_assert!(released, "every other case has returned");
    match (policy, made_by) {
        ("Delete", Some(by)) if by == provisioner => ForVolume::Delete,
        ("Delete", Some(_)) => ForVolume::Leave,
        ("Delete", None) => ForVolume::Fail(
            "VolumeFailedDelete",
            match &spec.host_path {
                Some(h) => {
                    format!("host_path deleter only supports /tmp/.+ but received provided {}", h.path)
                }
                None => format!(
                    "error getting deleter volume plugin for volume {name:?}: no volume plugin matched"
                ),
            },
        ),
        ("Recycle", _) => {
            let why =
                format!("error getting recycler volume plugin for volume {name:?}: no volume plugin matched");
            ForVolume::Fail("VolumeFailedRecycle", why)
        }
        _ => ForVolume::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn a_claim(spec: Value, bound: bool) -> PersistentVolumeClaim {
        let annotations = if bound { json!({rules::BIND_COMPLETED: "yes"}) } else { json!({}) };
        let mut o = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u", "annotations": annotations},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        if let (Some(all), Some(spec)) = (o["spec"].as_object_mut(), spec.as_object()) {
            all.extend(spec.clone());
        }
        serde_json::from_value(o).expect("a claim")
    }

    fn a_volume(spec: Value) -> Arc<PersistentVolume> {
        let mut o = json!({"metadata": {"name": "v"}, "status": {"phase": "Available"},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}});
        if let (Some(all), Some(spec)) = (o["spec"].as_object_mut(), spec.as_object()) {
            all.extend(spec.clone());
        }
        Arc::new(serde_json::from_value(o).expect("a volume"))
    }

    #[test]
    fn claims_bind_wait_or_are_lost() {
        let late: StorageClass = serde_json::from_value(
            json!({"metadata": {"name": "late"}, "provisioner": "p", "volumeBindingMode": "WaitForFirstConsumer"}),
        )
        .expect("a class");
        let check = |c: PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>], expect: &str| {
            let class = (rules::class_of(&c) == "late").then_some(&late);
            let got = match claim(&c, class, volumes, None) {
                ForClaim::Bind(_) => "bind".to_owned(),
                ForClaim::Make => "make".to_owned(),
                ForClaim::Wait(note) => note.map_or("wait".to_owned(), |n| n.reason.to_owned()),
                ForClaim::Lost(note) => note.reason.to_owned(),
            };
            assert_eq!(got, expect);
        };
        let other = json!({"claimRef": {"namespace": "n", "name": "d", "uid": "w"}});
        let free = [a_volume(json!({}))];
        check(a_claim(json!({}), false), &free, "bind");
        check(a_claim(json!({}), false), &[], "FailedBinding");
        check(a_claim(json!({"storageClassName": "fast"}), false), &free, "make");
        check(a_claim(json!({"storageClassName": "late"}), false), &free, "WaitForFirstConsumer");
        check(a_claim(json!({"volumeName": "v"}), false), &free, "bind");
        check(a_claim(json!({"volumeName": "w"}), false), &free, "wait");
        check(a_claim(json!({"volumeName": "v"}), false), &[a_volume(other.clone())], "FailedBinding");
        check(a_claim(json!({"volumeName": "v", "storageClassName": "x"}), false), &free, "VolumeMismatch");
        check(a_claim(json!({"volumeName": "v"}), true), &free, "bind");
        check(a_claim(json!({"volumeName": "w"}), true), &free, "ClaimLost");
        check(a_claim(json!({"volumeName": "v"}), true), &[a_volume(other)], "ClaimMisbound");
    }

    #[test]
    fn volumes_end_as_their_policy_says() {
        let check = |spec: Value, claim: Option<PersistentVolumeClaim>, expect: ForVolume| {
            assert_eq!(volume(&a_volume(spec), claim.as_ref(), "us"), expect);
        };
        let mine = json!({"namespace": "n", "name": "c", "uid": "u"});
        check(json!({}), None, ForVolume::Phase("Available"));
        check(json!({"claimRef": {"namespace": "n", "name": "c"}}), None, ForVolume::Phase("Available"));
        check(json!({"claimRef": mine}), Some(a_claim(json!({}), false)), ForVolume::Wait);
        let bound = a_claim(json!({"volumeName": "v"}), true);
        check(json!({"claimRef": mine}), Some(bound), ForVolume::Phase("Bound"));
        check(json!({"claimRef": mine}), None, ForVolume::Keep);
        let gone = json!({"claimRef": mine, "persistentVolumeReclaimPolicy": "Delete"});
        check(
            gone,
            None,
            ForVolume::Fail(
                "VolumeFailedDelete",
                "host_path deleter only supports /tmp/.+ but received provided /x".to_owned(),
            ),
        );
    }
}
