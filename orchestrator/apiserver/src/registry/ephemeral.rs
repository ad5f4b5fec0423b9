//! What may be done with the ephemeral containers of a running pod: new ones may come, no more; what they must be stands
//! with the other containers (kubernetes: pkg/apis/core/validation ValidatePodEphemeralContainersUpdate).

use serde_json::Value;

use crate::kinds::differ;
use crate::object;
use crate::validation::Errors;

const LIST: &str = "spec.ephemeralContainers";

pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    if object::get(old, "metadata.annotations")
        .is_some_and(|a| a.get("kubernetes.io/config.mirror").is_some())
    {
        return errors.forbidden("", "static pods do not support ephemeral containers");
    }
    let now = object::list(new, LIST);
    for before in object::list(old, LIST) {
        let name = object::text(before, "name").unwrap_or_default();
        let change = match now.iter().find(|c| c["name"] == name) {
            None => "removed\n".to_owned(),
            Some(same) if same != before => {
                format!("changed\n{}", differ::text("core.EphemeralContainer", before, same))
            }
            Some(_) => continue,
        };
        errors.forbidden(LIST, &format!("existing ephemeral containers {name:?} may not be {change}"));
    }
}
