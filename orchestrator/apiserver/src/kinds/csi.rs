//! What storage drivers say of themselves and are asked for: CSIDriver, CSINode, CSIStorageCapacity, VolumeAttachment,
//! VolumeAttributesClass (kubernetes: pkg/apis/storage). Kept for them; nothing here attaches a volume.

use serde_json::{Value, json};
use signal::Timestamp;

use super::check::At;
use super::storage::parameter_sizes;
use super::{AGE, BASE, Kind, NAME, column, pod_parts};
use crate::validation::Errors;
use crate::{object, table};

const GROUP: &str = "storage.k8s.io";
/// Bytes of the name a driver has for a node.
const NODE_ID_MAX: usize = 192;

pub(crate) static DRIVER: Kind = Kind {
    group: GROUP,
    resource: "csidrivers",
    singular: "csidriver",
    kind: "CSIDriver",
    namespaced: false,
    validate_create: |o, errors| {
        pod_parts::driver_name(&At::root(o).of("metadata.name").renamed("name"), errors)
    },
    default: |o| {
        let spec = object::child(o, "spec");
        object::default(spec, "attachRequired", true);
        for off in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            object::default(spec, off, false);
        }
        object::default_text(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        object::default(spec, "volumeLifecycleModes", json!(["Persistent"]));
    },
    validate: |o, errors| {
        const POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];
        if let Some(p) = object::text(o, "spec.fsGroupPolicy").filter(|p| !POLICIES.contains(p)) {
            errors.not_supported("spec.fsGroupPolicy", p, &POLICIES);
        }
        for (i, m) in object::list(o, "spec.volumeLifecycleModes").iter().enumerate() {
            let mode = m.as_str().unwrap_or_default();
            if !matches!(mode, "Ephemeral" | "Persistent") {
                errors.not_supported(
                    format!("spec.volumeLifecycleModes[{i}]"),
                    mode,
                    &["Ephemeral", "Persistent"],
                );
            }
        }
    },
    validate_update: |new, old, errors| {
        for field in ["attachRequired", "volumeLifecycleModes"] {
            errors.immutable(format!("spec.{field}"), new["spec"].get(field), old["spec"].get(field));
        }
    },
    columns: &[
        NAME,
        column("AttachRequired"),
        column("PodInfoOnMount"),
        column("StorageCapacity"),
        column("TokenRequests"),
        column("RequiresRepublish"),
        column("Modes"),
        AGE,
    ],
    row: driver_row,
    ..BASE
};

pub(crate) static NODE: Kind = Kind {
    group: GROUP,
    resource: "csinodes",
    singular: "csinode",
    kind: "CSINode",
    namespaced: false,
    validate: |o, errors| {
        let mut seen: Vec<&str> = Vec::new();
        for (i, d) in object::list(o, "spec.drivers").iter().enumerate() {
            let at = At::new(d, format!("spec.drivers[{i}]"));
            pod_parts::driver_name(&at.of("name"), errors);
            let id = at.of("nodeID");
            id.required(errors);
            if id.str().len() > NODE_ID_MAX {
                errors.too_long(id.path.as_str(), NODE_ID_MAX as u64);
            }
            at.of("allocatable.count").not_negative(errors);
            let mut keys: Vec<&str> = Vec::new();
            for key in at.each("topologyKeys") {
                key.must_be_name(apimachinery::name::qualified_name, errors);
                if keys.contains(&key.str()) {
                    errors.duplicate(at.of("topologyKeys").path, key.str());
                }
                keys.push(key.str());
            }
            let name = object::text(d, "name").unwrap_or_default();
            if seen.contains(&name) {
                errors.duplicate(format!("spec.drivers[{i}].name"), name);
            }
            seen.push(name);
        }
    },
    columns: &[NAME, column("Drivers"), AGE],
    row: |o, now| {
        vec![object::name(o).into(), object::list(o, "spec.drivers").len().into(), table::age(o, now)]
    },
    ..BASE
};

pub(crate) static CAPACITY: Kind = Kind {
    group: GROUP,
    resource: "csistoragecapacities",
    singular: "csistoragecapacity",
    kind: "CSIStorageCapacity",
    validate: |o, errors| {
        let o = At::root(o);
        o.of("storageClassName").must_be_name(apimachinery::name::dns_subdomain, errors);
        o.of("nodeTopology").selector(errors);
        for size in ["capacity", "maximumVolumeSize"].map(|f| o.of(f)).into_iter().filter(At::given) {
            size.quantity_not_negative(errors);
        }
    },
    validate_update: |new, old, errors| {
        for field in ["nodeTopology", "storageClassName"] {
            errors.immutable(field, new.get(field), old.get(field));
        }
    },
    columns: &[NAME, column("StorageClassName"), column("Capacity")],
    row: |o, _| {
        let capacity = o.get("capacity").cloned().unwrap_or_else(|| "".into());
        vec![object::name(o).into(), o["storageClassName"].clone(), capacity]
    },
    ..BASE
};

pub(crate) static ATTACHMENT: Kind = Kind {
    group: GROUP,
    resource: "volumeattachments",
    singular: "volumeattachment",
    kind: "VolumeAttachment",
    namespaced: false,
    status: true,
    prepare_create: |o| o["status"] = json!({"attached": false}),
    validate: validate_attachment,
    validate_status: |new, _, errors| attachment_status(new, errors),
    validate_update: |new, old, errors| errors.immutable("spec", new.get("spec"), old.get("spec")),
    columns: &[NAME, column("Attacher"), column("PV"), column("Node"), column("Attached"), AGE],
    row: |o, now| {
        let text = |path: &str| Value::from(object::text(o, path).unwrap_or_default());
        vec![
            object::name(o).into(),
            text("spec.attacher"),
            text("spec.source.persistentVolumeName"),
            text("spec.nodeName"),
            object::flag(o, "status.attached").to_string().into(),
            table::age(o, now),
        ]
    },
    ..BASE
};

pub(crate) static ATTRIBUTES_CLASS: Kind = Kind {
    group: GROUP,
    resource: "volumeattributesclasses",
    singular: "volumeattributesclass",
    kind: "VolumeAttributesClass",
    short: &["vac"],
    namespaced: false,
    validate: |o, errors| {
        pod_parts::driver_name(&At::root(o).of("driverName"), errors);
        parameter_sizes(&At::root(o).of("parameters"), errors);
        if object::get(o, "parameters").and_then(Value::as_object).is_none_or(serde_json::Map::is_empty) {
            errors.required("parameters", "must contain at least one key/value pair");
        }
    },
    validate_update: |new, old, errors| {
        if new.get("driverName") != old.get("driverName") {
            errors.forbidden("driverName", "updates to driverName are forbidden.");
        }
        if new.get("parameters") != old.get("parameters") {
            errors.forbidden("parameters", "updates to parameters are forbidden.");
        }
    },
    columns: &[NAME, column("DriverName"), AGE],
    row: |o, now| vec![object::name(o).into(), o["driverName"].clone(), table::age(o, now)],
    ..BASE
};

fn validate_attachment(o: &Value, errors: &mut Errors) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let spec = At::root(o).of("spec");
    pod_parts::driver_name(&spec.of("attacher"), errors);
    spec.of("nodeName").must_be_name(apimachinery::name::dns_subdomain, errors);
    let (source, inline, named) =
        (spec.of("source"), spec.of("source.inlineVolumeSpec"), spec.of("source.persistentVolumeName"));
    match (named.given(), inline.given()) {
        (false, false) => errors.required(source.path, ONE),
        (true, true) => errors.forbidden(source.path, ONE),
        (true, false) => {
            if named.str().is_empty() {
                errors.required(named.path, "must specify non empty persistentVolumeName");
            }
        }
        (false, true) => {
            for field in ["claimRef", "capacity"].map(|f| inline.of(f)).iter().filter(|f| f.given()) {
                field.forbidden("may not be specified in the context of inline volumes", errors);
            }
            let csi = inline.of("csi");
            if !csi.given() {
                errors.required(csi.path, "has to be specified in the context of inline volumes");
            }
            if inline.len("accessModes") == 0 {
                errors.required(inline.of("accessModes").path, "");
            }
        }
    }
    attachment_status(o, errors);
}

/// What an attacher says of its work.
fn attachment_status(o: &Value, errors: &mut Errors) {
    /// Bytes of a message.
    const MESSAGE_MAX: usize = 1024;
    /// Bytes of all that an attacher keeps.
    const METADATA_MAX: usize = 256 << 10;
    let status = At::root(o).of("status");
    let mut size = 0;
    for (k, v) in status.of("attachmentMetadata").v.as_object().into_iter().flatten() {
        let at = status.of("attachmentMetadata");
        if let Err(why) = apimachinery::name::qualified_name(&k.to_lowercase()) {
            errors.invalid(at.path, k.as_str(), &why);
        }
        size += k.len() + v.as_str().map_or(0, str::len);
    }
    if size > METADATA_MAX {
        errors.too_long(status.of("attachmentMetadata").path, METADATA_MAX as u64);
    }
    for field in ["attachError", "detachError"] {
        let message = status.of(field).of("message");
        if message.str().len() > MESSAGE_MAX {
            errors.too_long(message.path, MESSAGE_MAX as u64);
        }
    }
}

fn driver_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let flag = |path: &str| Value::from(object::flag(o, path).to_string());
    let join = |path: &str, of: fn(&Value) -> Option<&str>| {
        object::list(o, path).iter().filter_map(of).collect::<Vec<_>>().join(",")
    };
    let audiences = join("spec.tokenRequests", |t| t["audience"].as_str());
    vec![
        object::name(o).into(),
        flag("spec.attachRequired"),
        flag("spec.podInfoOnMount"),
        flag("spec.storageCapacity"),
        if audiences.is_empty() { "<unset>".into() } else { audiences.into() },
        flag("spec.requiresRepublish"),
        join("spec.volumeLifecycleModes", Value::as_str).into(),
        table::age(o, now),
    ]
}
