//! Expressions of policies, compiled over what a request brings
//! (apiserver: pkg/admission/plugin/cel/compile.go).

use expression::{Program, Type, library_type};
use serde_json::Value;

use crate::object;
use crate::validation::Errors;

/// A named or numbered expression.
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) program: Result<Program, String>,
}

/// The variables of an expression that stands behind some others; objects may be anything.
pub(crate) fn environment(variables: &[Named], params: bool) -> Vec<(&'static str, Type)> {
    environment_of(variables, &Type::Dyn, params.then_some(&Type::Dyn))
}

/// The same for objects and parameters of known types.
pub(crate) fn environment_of(
    variables: &[Named],
    object: &Type,
    params: Option<&Type>,
) -> Vec<(&'static str, Type)> {
    let text = || Type::String(Some(253));
    let kind = |what: &str| {
        Type::object(
            format!("kubernetes.{what}"),
            ["group", "version", if what.ends_with("Kind") { "kind" } else { "resource" }]
                .map(|k| (k.to_owned(), text())),
        )
    };
    let request = Type::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind("GroupVersionKind")),
            ("resource", kind("GroupVersionResource")),
            ("subResource", text()),
            ("requestKind", kind("GroupVersionKind")),
            ("requestResource", kind("GroupVersionResource")),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            (
                "userInfo",
                Type::object(
                    "kubernetes.UserInfo",
                    [
                        ("username".to_owned(), text()),
                        ("uid".to_owned(), text()),
                        ("groups".to_owned(), Type::list(text())),
                        ("extra".to_owned(), Type::map(text(), Type::list(text()))),
                    ],
                ),
            ),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ]
        .map(|(k, t)| (k.to_owned(), t)),
    );
    let declared = variables.iter().map(|v| {
        let ty = v.program.as_ref().map_or(Type::Dyn, |p| p.output().clone());
        (v.name.clone(), ty)
    });
    let authorizer = |w: &str| library_type(w).expect("the authorizer is a library");
    let mut all = vec![
        ("object", object.clone()),
        ("oldObject", object.clone()),
        ("request", request),
        ("namespaceObject", Type::Dyn),
        ("authorizer", authorizer("authorizer")),
        ("variables", Type::object("kubernetes.variables", declared)),
    ];
    if let Some(params) = params {
        all.push(("params", params.clone()));
    }
    all
}

/// The expressions of a list, in order.
pub(crate) fn list(all: &[Value], key: &str, environment: &[(&str, Type)]) -> Vec<Named> {
    all.iter()
        .map(|v| {
            let source = object::text(v, key).unwrap_or_default().to_owned();
            Named {
                name: object::text(v, "name").unwrap_or_default().to_owned(),
                program: expression::compile(&source, environment),
                source,
            }
        })
        .collect()
}

/// A policy's variables; each sees those before it.
pub(crate) fn variables(o: &Value, params: bool) -> Vec<Named> {
    let mut all: Vec<Named> = Vec::new();
    for v in object::list(o, "spec.variables") {
        let environment = environment(&all, params);
        all.extend(list(std::slice::from_ref(v), "expression", &environment));
    }
    all
}

fn judge(
    all: &[Named],
    at: &str,
    field: &str,
    wanted: Option<fn(&Program) -> bool>,
    words: &str,
    errors: &mut Errors,
) {
    for (i, n) in all.iter().enumerate() {
        let missing = format!("{field} is not specified");
        judge_one(n, format!("{at}[{i}].{field}"), &missing, wanted, words, errors);
    }
}

/// `missing` is said where there is no expression.
fn judge_one(
    n: &Named,
    path: String,
    missing: &str,
    wanted: Option<fn(&Program) -> bool>,
    words: &str,
    errors: &mut Errors,
) {
    match &n.program {
        _ if n.source.trim().is_empty() => errors.required(path, missing),
        Err(e) => errors.invalid(path, n.source.as_str(), &format!("compilation failed: {e}")),
        Ok(p) if wanted.is_some_and(|w| !w(p)) => errors.invalid(path, n.source.as_str(), words),
        Ok(_) => {}
    }
}

/// Judges match conditions, of policies and of webhooks.
pub(crate) fn check_conditions(conditions: &[Value], at: &str, params: bool, errors: &mut Errors) {
    const MAX: usize = 64;
    if conditions.len() > MAX {
        errors.too_many(at, conditions.len() as u64, MAX as u64);
    }
    let all = list(conditions, "expression", &environment(&[], params));
    for (i, c) in all.iter().enumerate() {
        let at = format!("{at}[{i}]");
        let boolean = "must evaluate to bool";
        judge_one(c, format!("{at}.expression"), "", Some(Program::is_bool), boolean, errors);
        let path = format!("{at}.name");
        if c.name.is_empty() {
            errors.required(path, "");
            continue;
        }
        if let Err(e) = apimachinery::name::qualified_name(&c.name) {
            errors.invalid(path.as_str(), c.name.as_str(), &e);
        }
        if all[..i].iter().any(|b| b.name == c.name) {
            errors.duplicate(path, c.name.as_str());
        }
    }
}

fn is_identifier(name: &str) -> bool {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let goes_on = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    begins && goes_on && !RESERVED.contains(&name)
}

fn check_common(o: &Value, errors: &mut Errors) -> Vec<(&'static str, Type)> {
    let params = object::get(o, "spec.paramKind").is_some();
    check_conditions(object::list(o, "spec.matchConditions"), "spec.matchConditions", params, errors);
    let declared = variables(o, params);
    for (i, v) in declared.iter().enumerate() {
        let path = format!("spec.variables[{i}].name");
        if v.name.trim().is_empty() {
            errors.required(path, "name is not specified");
        } else if !is_identifier(&v.name) {
            errors.invalid(path, v.name.as_str(), "name is not a valid CEL identifier");
        }
    }
    judge(&declared, "spec.variables", "expression", None, "", errors);
    environment(&declared, params)
}

pub(crate) fn check_validating(o: &Value, errors: &mut Errors) {
    let known = check_common(o, errors);
    let validations = object::list(o, "spec.validations");
    let all = list(validations, "expression", &known);
    judge(&all, "spec.validations", "expression", Some(Program::is_bool), "must evaluate to bool", errors);
    for (i, v) in validations.iter().enumerate() {
        let at = format!("spec.validations[{i}].messageExpression");
        let message = object::text(v, "messageExpression").filter(|m| !m.trim().is_empty());
        match message.map(|m| (m, expression::compile(m, &known))) {
            Some((m, Err(e))) => errors.invalid(at, m, &format!("compilation failed: {e}")),
            Some((m, Ok(p))) if !p.is_string() => errors.invalid(at, m, "must evaluate to string"),
            _ => {}
        }
    }
    let audits = list(object::list(o, "spec.auditAnnotations"), "valueExpression", &known);
    let text = |p: &Program| p.is_string() || matches!(p.output(), Type::Null);
    judge(
        &audits,
        "spec.auditAnnotations",
        "valueExpression",
        Some(text),
        "must evaluate to string or null",
        errors,
    );
}

pub(crate) fn check_mutating(o: &Value, errors: &mut Errors) {
    let known = check_common(o, errors);
    for (i, m) in object::list(o, "spec.mutations").iter().enumerate() {
        let key = match object::text(m, "patchType") {
            Some("ApplyConfiguration") => "applyConfiguration",
            Some("JSONPatch") => "jsonPatch",
            other => {
                errors.not_supported(
                    format!("spec.mutations[{i}].patchType"),
                    other.unwrap_or_default(),
                    &["ApplyConfiguration", "JSONPatch"],
                );
                continue;
            }
        };
        let all = list(std::slice::from_ref(&m[key]), "expression", &known);
        for n in &all {
            let path = format!("spec.mutations[{i}].{key}.expression");
            match &n.program {
                _ if n.source.trim().is_empty() => errors.required(path, ""),
                Err(e) => errors.invalid(path, n.source.as_str(), &format!("compilation failed: {e}")),
                Ok(_) => {}
            }
        }
    }
}
