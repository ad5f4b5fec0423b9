//! Server-side apply.

use serde_json::Value;

use crate::body;
use crate::custom;
use crate::dispatch::Context;
use crate::error::{ApiError, Result};
use crate::kinds::Served;
use crate::managed;
use crate::object;
use crate::patch;
use crate::registry::{Part, WriteContext};
use crate::server::ApiServer;

/// Answers an apply: status and the object in its storage version.
pub(crate) async fn respond(
    server: &ApiServer,
    ctx: &mut Context,
    served: Served,
    part: Part,
    mut write: WriteContext,
    bytes: &[u8],
) -> Result<(u16, Value)> {
    if ctx.query.get("fieldManager").is_none() {
        return Err(ApiError::new(
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    write.apply = true;
    let (ns, name) = (ctx.info.namespace.clone(), ctx.info.name.clone());
    let mut applied = body::decode(bytes, "application/apply-patch+yaml")?;
    if object::get(&applied, "metadata.managedFields").is_some() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    object::metadata(&mut applied).insert("name".to_owned(), name.clone().into());
    let validation = write.options.field_validation;
    let applied = match &served.custom {
        Some(held) => custom::decode(&served, held, applied, validation, &mut ctx.warnings)?,
        None => patch::conform(&served, applied, validation, &mut ctx.warnings)?,
    };
    // An object that is not there yet is created, unless someone else is faster.
    loop {
        let exists = match server.get(&served, &ns, &name).await {
            Ok(_) => true,
            Err(e) if e.code == 404 && part == Part::Main => false,
            Err(e) => return Err(e),
        };
        if exists {
            let mut change = |old: &Value| {
                let (options, subresource) = (&write.options, &ctx.info.subresource);
                let mut new = managed::apply(&served, old, &applied, options, subresource, server.now())?;
                custom::default(&served, &mut new);
                Ok(new)
            };
            let o = server.update(&served, &ns, &name, &write, part, &mut change).await?;
            return Ok((200, o));
        }
        let mut new = applied.clone();
        managed::on_create_by_apply(&served, &mut new, &write.options, server.now());
        custom::default(&served, &mut new);
        match server.create(&served, &ns, new, &write).await {
            Ok(o) => return Ok((201, o)),
            Err(e) if e.reason == "AlreadyExists" => {}
            Err(e) => return Err(e),
        }
    }
}
