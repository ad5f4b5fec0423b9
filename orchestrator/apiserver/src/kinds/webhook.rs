//! MutatingWebhookConfiguration, ValidatingWebhookConfiguration: who else is asked about writes
//! (kubernetes: pkg/apis/admissionregistration/{v1/defaults.go,validation/validation.go}).

pub(super) mod rules;

use serde_json::{Value, json};
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column};
use crate::{object, table};

pub(crate) static MUTATING: Kind = Kind {
    resource: "mutatingwebhookconfigurations",
    singular: "mutatingwebhookconfiguration",
    kind: "MutatingWebhookConfiguration",
    default: |o| {
        default(o);
        for hook in object::list_mut(o, "webhooks") {
            object::default_text(hook, "reinvocationPolicy", "Never");
        }
    },
    validate: rules::configuration,
    ..CONFIGURATION
};

pub(crate) static VALIDATING: Kind = Kind {
    resource: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    kind: "ValidatingWebhookConfiguration",
    default,
    validate: rules::configuration,
    ..CONFIGURATION
};

const CONFIGURATION: Kind = Kind {
    group: "admissionregistration.k8s.io",
    categories: &["api-extensions"],
    namespaced: false,
    generation: true,
    columns: &[NAME, column("Webhooks"), AGE],
    row,
    ..BASE
};

fn default(o: &mut Value) {
    for hook in object::list_mut(o, "webhooks") {
        object::default_text(hook, "failurePolicy", "Fail");
        object::default_text(hook, "matchPolicy", "Equivalent");
        object::default(hook, "namespaceSelector", json!({}));
        object::default(hook, "objectSelector", json!({}));
        object::default(hook, "timeoutSeconds", 10);
        for rule in object::list_mut(hook, "rules") {
            object::default_text(rule, "scope", "*");
        }
        if let Some(service) = hook.get_mut("clientConfig").and_then(|c| c.get_mut("service")) {
            object::default(service, "port", 443);
        }
    }
}

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![object::name(o).into(), object::list(o, "webhooks").len().into(), table::age(o, now)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::Errors;

    fn check(change: impl FnOnce(&mut Value), expect: &str) {
        let mut o = json!({"metadata": {"name": "x"}, "webhooks": [{
            "name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://localhost/x"},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
        }]});
        change(&mut o["webhooks"][0]);
        default(&mut o);
        let mut errors = Errors::default();
        rules::configuration(&o, &mut errors);
        assert_eq!(if errors.is_empty() { String::new() } else { errors.to_string() }, expect);
    }

    #[test]
    fn upstreams_words() {
        check(|_| {}, "");
        check(
            |h| h["name"] = "a.b".into(),
            "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
        );
        check(
            |h| drop(object::remove(h, "sideEffects")),
            "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
        );
        check(
            |h| h["clientConfig"] = json!({}),
            "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
        );
        check(
            |h| h["clientConfig"]["url"] = "http://localhost".into(),
            "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
        );
        check(
            |h| h["timeoutSeconds"] = 31.into(),
            "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
        );
        check(
            |h| h["admissionReviewVersions"] = json!(["v2"]),
            "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
        );
        check(
            |h| h["rules"][0]["operations"] = json!(["GET"]),
            "webhooks[0].rules[0].operations[0]: Unsupported value: \"GET\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
        );
        check(
            |h| h["failurePolicy"] = "Maybe".into(),
            "webhooks[0].failurePolicy: Unsupported value: \"Maybe\": supported values: \"Fail\", \"Ignore\"",
        );
    }
}
