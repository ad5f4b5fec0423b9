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

/// How often an object may change under an apply.
const RETRIES: usize = 16;

/// Answers an apply: status and the object in its storage version.
pub(crate) async fn respond(
    server: &ApiServer,
    ctx: &mut Context,
    served: Served,
    part: Part,
    mut write: WriteContext,
    bytes: &[u8],
) -> Result<(u16, Value)> {
    write.apply = true;
    let (ns, name) = (ctx.info.namespace.clone(), ctx.info.name.clone());
    let (mut applied, twice) = body::decode_noting(bytes, patch::APPLY)?;
    if object::get(&applied, "metadata.managedFields").is_some() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    object::metadata(&mut applied).insert("name".to_owned(), name.clone().into());
    let validation = write.options.field_validation;
    let applied = match &served.custom {
        Some(held) => custom::decode(&served, held, (applied, twice), validation, &mut ctx.warnings)?,
        None => patch::conform_noting(&served, (applied, twice), validation, &mut ctx.warnings)?,
    };
    // An object that is not there yet is created, unless someone else is faster; one that changes meanwhile is merged
    // anew.
    for _ in 0..RETRIES {
        let old = match server.get(&served, &ns, &name).await {
            Ok(o) => Some(server.to_served(&served, o.value()).await?),
            Err(e) if e.code == 404 && part == Part::Main => None,
            Err(e) => return Err(e),
        };
        let Some(old) = old else {
            let mut new = applied.clone();
            managed::on_create_by_apply(server, &served, &mut new, &write.options, server.now()).await?;
            custom::default(&served, &mut new);
            match server.create(&served, &ns, new, &write).await {
                Ok(o) => return Ok((201, o)),
                Err(e) if e.reason == "AlreadyExists" => continue,
                Err(e) => return Err(e),
            }
        };
        let (options, subresource) = (&write.options, &ctx.info.subresource);
        let mut new =
            managed::apply(server, &served, &old, &applied, options, subresource, server.now()).await?;
        custom::default(&served, &mut new);
        let mut overtaken = false;
        let mut change = |now: &Value| {
            overtaken = now["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"];
            if overtaken { Err(ApiError::modified(&served, &name)) } else { Ok(new.clone()) }
        };
        match server.update(&served, &ns, &name, &write, part, &mut change).await {
            Err(_) if overtaken => {}
            done => return Ok((200, done?)),
        }
    }
    Err(ApiError::modified(&served, &name))
}
