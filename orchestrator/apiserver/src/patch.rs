//! Patches, and the shape objects must have: strict and lenient field validation.

use apimachinery::schema::schemas;
use apimachinery::strategic;
use serde_json::Value;

use crate::apply;
use crate::body::{self, twice::Twice};
use crate::custom;
use crate::dispatch::Context;
use crate::error::{ApiError, Result};
use crate::kinds::Served;
use crate::object;
use crate::options::FieldValidation;
use crate::read;
use crate::registry::{Part, WriteContext};
use crate::server::ApiServer;

pub(crate) const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";
/// Upstream's bound on the operations of a JSON patch.
const MAX_OPERATIONS: usize = 10_000;

/// An object that was worked out → in its storage version, of the right kind and shape.
pub(crate) fn conform(
    served: &Served,
    o: Value,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value> {
    conform_noting(served, (o, Twice::default()), validation, warnings)
}

/// As [`conform`], for an object as a client wrote it.
pub(crate) fn conform_noting(
    served: &Served,
    (mut o, twice): (Value, Twice),
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value> {
    if let Some(held) = &served.custom {
        return custom::conform(served, held, (o, twice), validation, warnings);
    }
    let kind = served.kind.kind;
    let version = served.api_version();
    let (given_version, given_kind) =
        (object::text(&o, "apiVersion").unwrap_or(&version), object::text(&o, "kind").unwrap_or(kind));
    if given_version != version || given_kind != kind {
        return Err(ApiError::bad_request(format!(
            "{given_kind} in version \"{}\" cannot be handled as a {kind}: converting ({given_version}, {given_kind}) to ({version}, {kind}): unknown conversion",
            given_version.rsplit('/').next().unwrap_or_default(),
        )));
    }
    let refuse = |why: String| {
        ApiError::bad_request(format!(
            "{kind} in version \"{}\" cannot be handled as a {kind}: {why}",
            served.version
        ))
    };
    let schemas = schemas();
    if let Some(ty) = schemas.kind(served.group, served.version, kind) {
        let unknown = schemas.conform(&ty, &mut o).map_err(refuse)?;
        let words = twice.told(unknown);
        match validation {
            FieldValidation::Strict if !words.is_empty() => {
                return Err(refuse(format!("strict decoding error: {}", words.join(", "))));
            }
            FieldValidation::Warn => warnings.extend(words),
            _ => {}
        }
    }
    object::head(&mut o, kind, version);
    Ok(custom::conversion::as_registered(served, o))
}

/// A JSON or merge patch on something that has no schema here.
pub(crate) fn untyped(target: &Value, media: &str, patch: &[u8]) -> Result<Value> {
    let mut out = target.clone();
    match media {
        JSON_PATCH => json_patch(&mut out, patch)?,
        _ => strategic::merge_patch(&mut out, &body::decode(patch, "application/json")?),
    }
    Ok(out)
}

fn json_patch(target: &mut Value, patch: &[u8]) -> Result<()> {
    let patch: json_patch::Patch = serde_json::from_slice(patch)
        .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
    if patch.0.len() > MAX_OPERATIONS {
        let message = format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            patch.0.len()
        );
        return Err(ApiError::new(413, "RequestEntityTooLarge", message));
    }
    json_patch::patch(target, &patch).map_err(|e| {
        ApiError::new(
            422,
            "Invalid",
            format!("the server rejected our request due to an error in our request: {e}"),
        )
    })
}

/// Answers a PATCH: status and the object in its storage version.
pub(crate) async fn respond(
    server: &ApiServer,
    ctx: &mut Context,
    served: Served,
    part: Part,
    write: WriteContext,
    bytes: &[u8],
) -> Result<(u16, Value)> {
    let media = body::media_type(&ctx.headers).to_owned();
    let (ns, name) = (ctx.info.namespace.clone(), ctx.info.name.clone());
    if media == APPLY {
        return apply::respond(server, ctx, served, part, write, bytes).await;
    }
    let parsed = match media.as_str() {
        JSON_PATCH => Value::Null,
        STRATEGIC if served.custom.is_some() => {
            return Err(body::unknown_format(&[JSON_PATCH, MERGE_PATCH, APPLY]));
        }
        MERGE_PATCH | STRATEGIC => serde_json::from_slice(bytes)
            .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?,
        _ => return Err(body::unknown_format(&[JSON_PATCH, MERGE_PATCH, STRATEGIC, APPLY])),
    };
    let mut warnings = Vec::new();
    let validation = write.options.field_validation;
    let mut change = |old: &Value| -> Result<Value> {
        let old = read::render_value(&served, old.clone());
        let new = match media.as_str() {
            JSON_PATCH => {
                let mut new = old;
                json_patch(&mut new, bytes)?;
                new
            }
            MERGE_PATCH => {
                let mut new = old;
                strategic::merge_patch(&mut new, &parsed);
                new
            }
            _ => {
                let schemas = schemas();
                let ty = schemas
                    .kind(served.group, served.version, served.kind.kind)
                    .ok_or_else(|| ApiError::internal("a kind has no schema"))?;
                strategic::merge(schemas, &ty, &old, &parsed).map_err(ApiError::bad_request)?
            }
        };
        warnings.clear();
        conform(&served, new, validation, &mut warnings)
    };
    let o = server.update(&served, &ns, &name, &write, part, &mut change).await?;
    ctx.warnings.append(&mut warnings);
    Ok((200, o))
}
