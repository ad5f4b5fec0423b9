//! PodTemplate: a pod's description under a name. Nothing here runs it.

use serde_json::Value;

use super::check::At;
use super::{BASE, Kind, NAME, apps, column, workload};
use crate::{object, table};

pub(crate) static KIND: Kind = Kind {
    resource: "podtemplates",
    singular: "podtemplate",
    kind: "PodTemplate",
    generation: true,
    default: apps::default_template,
    validate: |o, errors| workload::template(&At::root(o).of("template"), errors),
    columns: &[NAME, column("Containers"), column("Images"), column("Pod Labels")],
    row: |o, _| row(o),
    ..BASE
};

fn row(o: &Value) -> Vec<Value> {
    let (names, images) = table::containers(object::get(o, "template.spec"));
    let labels = table::pairs(object::get(o, "template.metadata.labels"));
    vec![object::name(o).into(), names, images, labels]
}
