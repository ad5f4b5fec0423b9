//! What may be done with the ephemeral containers of a running pod: new ones may come, no more
//! (kubernetes: pkg/apis/core/validation ValidatePodEphemeralContainersUpdate and validateEphemeralContainers).

use serde_json::Value;

use crate::object;
use crate::validation::Errors;

const LIST: &str = "spec.ephemeralContainers";
/// What a container that comes late cannot have.
const FORBIDDEN: [&str; 6] =
    ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources"];

fn named<'a>(list: &'a [Value], name: &str) -> Option<&'a Value> {
    list.iter().find(|c| c["name"] == name)
}

pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    let (now, before) = (object::list(new, LIST), object::list(old, LIST));
    let of =
        |list: &str| object::list(new, &format!("spec.{list}")).iter().filter_map(|c| c["name"].as_str());
    let others: Vec<&str> = of("containers").chain(of("initContainers")).collect();
    for (i, c) in now.iter().enumerate() {
        let at = format!("{LIST}[{i}]");
        let name = object::text(c, "name").unwrap_or_default();
        if name.is_empty() {
            errors.required(format!("{at}.name"), "");
        } else if others.contains(&name) || now.iter().take(i).any(|o| o["name"] == name) {
            errors.duplicate(format!("{at}.name"), name);
        }
        if object::text(c, "image").is_none_or(str::is_empty) {
            errors.required(format!("{at}.image"), "");
        }
        for field in FORBIDDEN {
            let is_set = object::get(c, field).is_some_and(|v| *v != serde_json::json!({}));
            if is_set {
                errors.forbidden(format!("{at}.{field}"), "cannot be set for an Ephemeral Container");
            }
        }
        let target = object::text(c, "targetContainerName").unwrap_or_default();
        if !target.is_empty() && !others.contains(&target) {
            errors.not_found(format!("{at}.targetContainerName"), target);
        }
    }
    for c in before {
        let name = object::text(c, "name").unwrap_or_default();
        match named(now, name) {
            None => errors
                .forbidden(LIST, &format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(same) if same != c => {
                errors
                    .forbidden(LIST, &format!("existing ephemeral containers {name:?} may not be changed\n"));
            }
            Some(_) => {}
        }
    }
}
