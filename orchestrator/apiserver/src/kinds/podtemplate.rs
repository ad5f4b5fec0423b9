//! PodTemplate: a pod's description under a name. Nothing here runs it.

use serde_json::Value;

use super::{BASE, Kind, NAME, apps, column, pod_validation};
use crate::validation::Errors;
use crate::{object, table};

pub(crate) static KIND: Kind = Kind {
    resource: "podtemplates",
    singular: "podtemplate",
    kind: "PodTemplate",
    generation: true,
    default: apps::default_template,
    validate,
    columns: &[NAME, column("Containers"), column("Images"), column("Pod Labels")],
    row: |o, _| row(o),
    ..BASE
};

fn validate(o: &Value, errors: &mut Errors) {
    let template = &o["template"];
    crate::registry::validate_labels(&template["metadata"], "template.metadata", errors);
    pod_validation::validate_spec(&template["spec"], "template.spec", errors);
}

fn row(o: &Value) -> Vec<Value> {
    let (names, images) = table::containers(object::get(o, "template.spec"));
    let labels = table::pairs(object::get(o, "template.metadata.labels"));
    vec![object::name(o).into(), names, images, labels]
}
