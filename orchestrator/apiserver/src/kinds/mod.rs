//! The kinds this server knows: one row each, with its defaulting, validation and table.
//!
//! To add a kind, write its file with a `KIND` row and name it in [`ALL`].

pub(crate) mod apiextensions;
pub(crate) mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
pub(crate) mod certificate;
pub(crate) mod check;
mod configmap;
mod coordination;
mod csi;
pub(crate) mod differ;
mod endpoints;
mod event;
mod flowcontrol;
pub(crate) mod ipaddress;
mod namespace;
mod networking;
mod node;
pub(crate) mod pod;
mod pod_parts;
mod pod_validation;
mod podtemplate;
pub(crate) mod policies;
mod policy;
mod quota;
mod rbac;
pub(crate) mod rego;
mod resource;
mod resources;
mod runtimeclass;
mod scheduling;
mod secret;
pub(crate) mod service;
mod serviceaccount;
mod sets;
mod status;
pub(crate) mod storage;
mod volume;
mod webhook;
mod workload;

use std::sync::LazyLock;

use serde_json::Value;
use signal::Timestamp;

use crate::custom::Held;
use crate::validation::Errors;

/// A table's column.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    /// `string`, `integer`, `date`
    pub(crate) kind: &'static str,
    pub(crate) format: &'static str,
    /// 0: always; 1: only `-o wide`
    pub(crate) priority: u8,
}

pub(crate) const fn column(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 0 }
}

pub(crate) const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 1 }
}

pub(crate) const NAME: Column = Column { name: "Name", kind: "string", format: "name", priority: 0 };
pub(crate) const AGE: Column = column("Age");

/// Another group or version a kind is served under, with the way there and back.
pub(crate) struct Alias {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) from_storage: fn(&mut Value),
    pub(crate) to_storage: fn(&mut Value),
    /// What an object must be that is created this way, in its storage version.
    pub(crate) validate_create: fn(&Value, &mut Errors),
    /// New, old.
    pub(crate) validate_update: fn(&Value, &Value, &mut Errors),
}

/// What most ways to a kind leave out.
const WAY: Alias = Alias {
    group: "",
    version: "v1",
    from_storage: nothing,
    to_storage: nothing,
    validate_create: valid,
    validate_update: valid_update,
};

/// A kind as it is stored.
pub(crate) struct Kind {
    /// Made by a CustomResourceDefinition: what else there is of it stands in [`Served::custom`].
    pub(crate) custom: bool,
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    /// The plural, as in paths and keys.
    pub(crate) resource: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) short: &'static [&'static str],
    pub(crate) categories: &'static [&'static str],
    pub(crate) namespaced: bool,
    /// What clients are told that use it; empty is nothing.
    pub(crate) deprecated: &'static str,
    /// `metadata.generation` counts changes of everything outside metadata and status.
    pub(crate) generation: bool,
    pub(crate) status: bool,
    /// A status update may change labels and annotations too.
    pub(crate) status_metadata: bool,
    pub(crate) scale: bool,
    pub(crate) aliases: &'static [Alias],
    pub(crate) name_rule: fn(&str) -> Result<(), apimachinery::name::Faults>,
    pub(crate) default: fn(&mut Value),
    pub(crate) prepare_create: fn(&mut Value),
    /// New, old.
    pub(crate) prepare_update: fn(&mut Value, &Value),
    pub(crate) validate: fn(&Value, &mut Errors),
    /// What only a new object must be.
    pub(crate) validate_create: fn(&Value, &mut Errors),
    /// New, old.
    pub(crate) validate_update: fn(&Value, &Value, &mut Errors),
    /// New, old: what a status must be that is written by itself.
    pub(crate) validate_status: fn(&Value, &Value, &mut Errors),
    /// Fields a field selector may name, beside name and namespace: dotted paths.
    pub(crate) fields: &'static [&'static str],
    pub(crate) columns: &'static [Column],
    pub(crate) row: fn(&Value, Timestamp) -> Vec<Value>,
}

impl Kind {
    /// The resource's name where it is one of ours; others may have the same in their groups.
    pub(crate) fn builtin(&self) -> &'static str {
        if self.custom { "" } else { self.resource }
    }
}

fn nothing(_: &mut Value) {}
fn nothing_update(_: &mut Value, _: &Value) {}
fn valid(_: &Value, _: &mut Errors) {}
fn valid_update(_: &Value, _: &Value, _: &mut Errors) {}

fn plain_row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![crate::object::name(o).into(), crate::table::age(o, now)]
}

/// What a row leaves out.
pub(crate) const BASE: Kind = Kind {
    custom: false,
    group: "",
    version: "v1",
    resource: "",
    singular: "",
    kind: "",
    short: &[],
    categories: &[],
    namespaced: true,
    deprecated: "",
    generation: false,
    status: false,
    status_metadata: false,
    scale: false,
    aliases: &[],
    name_rule: apimachinery::name::dns_subdomain,
    default: nothing,
    prepare_create: nothing,
    prepare_update: nothing_update,
    validate: valid,
    validate_create: valid,
    validate_update: valid_update,
    validate_status: valid_update,
    fields: &[],
    columns: &[NAME, AGE],
    row: plain_row,
};

/// All kinds. The place in this list is a kind's number in the cache.
pub(crate) static ALL: [&Kind; 59] = [
    &namespace::KIND,
    &node::KIND,
    &pod::KIND,
    &service::KIND,
    &endpoints::ENDPOINTS,
    &endpoints::SLICE,
    &configmap::KIND,
    &secret::KIND,
    &serviceaccount::KIND,
    &event::KIND,
    &coordination::LEASE,
    &apps::DEPLOYMENT,
    &apps::REPLICASET,
    &autoscaling::HPA,
    &rbac::ROLE,
    &rbac::CLUSTER_ROLE,
    &rbac::ROLE_BINDING,
    &rbac::CLUSTER_ROLE_BINDING,
    &apps::CONTROLLER_REVISION,
    &apps::REPLICATION_CONTROLLER,
    &sets::STATEFUL_SET,
    &sets::DAEMON_SET,
    &batch::JOB,
    &batch::CRON_JOB,
    &storage::VOLUME,
    &storage::CLAIM,
    &storage::CLASS,
    &networking::INGRESS,
    &networking::INGRESS_CLASS,
    &networking::NETWORK_POLICY,
    &policy::PDB,
    &quota::QUOTA,
    &quota::LIMIT_RANGE,
    &scheduling::PRIORITY_CLASS,
    &webhook::MUTATING,
    &webhook::VALIDATING,
    &runtimeclass::KIND,
    &apiextensions::DEFINITION,
    &certificate::KIND,
    &policies::VALIDATING,
    &policies::VALIDATING_BINDING,
    &policies::MUTATING,
    &policies::MUTATING_BINDING,
    &resource::CLASS,
    &resource::CLAIM,
    &resource::TEMPLATE,
    &resource::SLICE,
    &csi::DRIVER,
    &csi::NODE,
    &csi::CAPACITY,
    &csi::ATTACHMENT,
    &csi::ATTRIBUTES_CLASS,
    &flowcontrol::FLOW_SCHEMA,
    &flowcontrol::PRIORITY_LEVEL,
    &apiregistration::API_SERVICE,
    &rego::POLICY,
    &podtemplate::KIND,
    &ipaddress::ADDRESS,
    &ipaddress::CIDR,
];

/// A kind under one of the group-versions it is served in.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) kind: &'static Kind,
    /// Its number in [`ALL`], or behind.
    pub(crate) index: usize,
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) alias: Option<&'static Alias>,
    /// What makes it a custom resource.
    pub(crate) custom: Option<Held>,
}

impl Served {
    /// The kind of its lists.
    pub(crate) fn list_kind(&self) -> String {
        match &self.custom {
            Some(held) => held.custom.list_kind.clone(),
            None => format!("{}List", self.kind.kind),
        }
    }

    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `deployments.apps`, as messages name a resource.
    pub(crate) fn qualified_resource(&self) -> String {
        if self.group.is_empty() {
            self.kind.resource.to_owned()
        } else {
            format!("{}.{}", self.kind.resource, self.group)
        }
    }
}

/// Every kind in every group-version, preferred ones first.
pub(crate) fn served() -> impl Iterator<Item = Served> {
    ALL.iter().enumerate().flat_map(|(index, kind)| {
        let own = Served { kind, index, group: kind.group, version: kind.version, alias: None, custom: None };
        std::iter::once(own).chain(kind.aliases.iter().map(move |a| Served {
            kind,
            index,
            group: a.group,
            version: a.version,
            alias: Some(a),
            custom: None,
        }))
    })
}

/// What stands under each resource's name, in the order of [`served`]: every request asks some times.
static BY_NAME: LazyLock<ahash::HashMap<&'static str, Vec<Served>>> = LazyLock::new(|| {
    let mut all: ahash::HashMap<&'static str, Vec<Served>> = ahash::HashMap::default();
    served().for_each(|s| all.entry(s.kind.resource).or_default().push(s));
    all
});

fn named(resource: &str) -> &'static [Served] {
    BY_NAME.get(resource).map_or(&[], Vec::as_slice)
}

pub(crate) fn find(group: &str, version: &str, resource: &str) -> Option<Served> {
    named(resource).iter().find(|s| s.group == group && s.version == version).cloned()
}

/// The kind in its storage version.
pub(crate) fn by_resource(group: &str, resource: &str) -> Option<Served> {
    named(resource).iter().find(|s| s.group == group).cloned()
}

/// The number of the kind whose objects lie under this name in the store.
pub(crate) fn stored_as(resource: &str) -> Option<usize> {
    named(resource).first().map(|s| s.index)
}
