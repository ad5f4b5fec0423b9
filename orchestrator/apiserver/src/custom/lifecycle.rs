//! The life of a definition: its names are accepted, it is established; when it is deleted, its objects go first
//! (apiextensions-apiserver: pkg/controller/{status,establish,finalizer}).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::condition;
use crate::cache::Object;
use crate::error::Result;
use crate::kinds::apiextensions::CLEANUP;
use crate::kinds::{self, Served};
use crate::object;
use crate::registry::{DeleteOptions, Part, WriteContext};
use crate::server::ApiServer;

/// Between two looks at what is still there of a kind that goes.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const FAILED: Duration = Duration::from_secs(1);

fn definitions() -> Served {
    kinds::by_resource("apiextensions.k8s.io", "customresourcedefinitions").expect("definitions are a kind")
}

/// Follows all definitions until the server stops.
pub(crate) async fn run(server: Arc<ApiServer>) {
    let index = definitions().index;
    let mut published = server.cache.subscribe();
    let mut seen = 0;
    loop {
        let again = match look(&server).await {
            Ok(false) => None,
            Ok(true) => Some(LOOK_AGAIN),
            Err(e) => {
                tracing::warn!(error = %e.message, "a custom resource definition could not be brought along");
                Some(FAILED)
            }
        };
        let wait = async {
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        let moved = async {
            loop {
                let at = server.cache.changed(index);
                if at > seen {
                    return Some(at);
                }
                published.changed().await.ok()?;
            }
        };
        tokio::select! {
            () = server.stop.cancelled() => return,
            () = wait => {}
            moved = moved => match moved {
                Some(at) => seen = at,
                None => return,
            },
        }
    }
}

/// Brings every definition a step on. Whether some of them wait for their objects to go.
async fn look(server: &ApiServer) -> Result<bool> {
    let all: Vec<Value> =
        server.cache.list(definitions().index, None).objects.iter().map(|o| Object::value(o)).collect();
    let mut waiting = false;
    for o in &all {
        let status = judge(o, &all, &object::rfc3339(server.now()));
        if status != o["status"] {
            write(server, object::name(o), Part::Status, &|new| new["status"] = status.clone()).await?;
        }
        let held = object::list(o, "metadata.finalizers").iter().any(|f| f == CLEANUP);
        if object::is_deleting(o) && held {
            waiting |= !clean(server, o).await?;
        }
    }
    Ok(waiting)
}

async fn write(
    server: &ApiServer,
    name: &str,
    part: Part,
    change: &(dyn Fn(&mut Value) + Sync),
) -> Result<()> {
    let mut ctx = WriteContext::default();
    "binnacle".clone_into(&mut ctx.options.field_manager);
    let mut apply = |old: &Value| {
        let mut new = old.clone();
        change(&mut new);
        Ok(new)
    };
    match server.update(&definitions(), "", name, &ctx, part, &mut apply).await {
        Err(e) if e.code != 404 => Err(e),
        _ => Ok(()),
    }
}

fn text<'a>(names: &'a Value, key: &str) -> &'a str {
    names[key].as_str().unwrap_or_default()
}

/// The status a definition should have beside all others.
fn judge(o: &Value, all: &[Value], now: &str) -> Value {
    let mut status = o["status"].clone();
    let wanted = &o["spec"]["names"];
    let mut taken: HashSet<&str> = HashSet::new();
    let mut taken_kinds: HashSet<&str> = HashSet::new();
    let others =
        all.iter().filter(|x| x["spec"]["group"] == o["spec"]["group"] && object::name(x) != object::name(o));
    for other in others {
        let names = &other["status"]["acceptedNames"];
        taken.extend([text(names, "plural"), text(names, "singular")]);
        taken.extend(object::list(names, "shortNames").iter().filter_map(Value::as_str));
        taken_kinds.extend([text(names, "kind"), text(names, "listKind")]);
    }
    let mut accepted = status["acceptedNames"].clone();
    let mut refused: Option<(&str, String)> = None;
    for (key, reason, among) in [
        ("plural", "PluralConflict", &taken),
        ("singular", "SingularConflict", &taken),
        ("kind", "KindConflict", &taken_kinds),
        ("listKind", "ListKindConflict", &taken_kinds),
    ] {
        let name = text(wanted, key);
        if !name.is_empty() && among.contains(name) {
            refused = Some((reason, format!("{name:?} is already in use")));
        } else if !name.is_empty() {
            accepted[key] = name.into();
        }
    }
    let short: Vec<&str> = object::list(wanted, "shortNames").iter().filter_map(Value::as_str).collect();
    match short.iter().find(|s| taken.contains(**s)) {
        Some(s) => refused = Some(("ShortNamesConflict", format!("{s:?} is already in use"))),
        None if short.is_empty() => drop(object::remove(&mut accepted, "shortNames")),
        None => accepted["shortNames"] = short.into(),
    }
    match wanted.get("categories") {
        Some(c) => accepted["categories"] = c.clone(),
        None => drop(object::remove(&mut accepted, "categories")),
    }
    status["acceptedNames"] = accepted;
    let good = refused.is_none();
    let (reason, message) = refused.unwrap_or(("NoConflicts", "no conflicts found".to_owned()));
    set(&mut status, "NamesAccepted", good, reason, &message, now);
    if good {
        if condition(o, "Established").is_none_or(|c| c["status"] != "True") {
            set(
                &mut status,
                "Established",
                true,
                "InitialNamesAccepted",
                "the initial names have been accepted",
                now,
            );
        }
    } else if condition(o, "Established").is_none() {
        set(&mut status, "Established", false, "NotAccepted", "not all names are accepted", now);
    }
    if object::is_deleting(o) {
        set(
            &mut status,
            "Terminating",
            true,
            "InstanceDeletionInProgress",
            "CustomResource deletion is in progress",
            now,
        );
    }
    status
}

fn set(status: &mut Value, ty: &str, good: bool, reason: &str, message: &str, now: &str) {
    let word = if good { "True" } else { "False" };
    let mut all = object::list(status, "conditions").to_vec();
    let found = all.iter_mut().find(|c| c["type"] == ty);
    let since = match &found {
        Some(c) if c["status"] == word => c["lastTransitionTime"].clone(),
        _ => now.into(),
    };
    let c = json!({"type": ty, "status": word, "lastTransitionTime": since, "reason": reason, "message": message});
    match found {
        Some(old) => *old = c,
        None => all.push(c),
    }
    status["conditions"] = all.into();
}

/// Deletes the objects of a definition; once there are none, lets it go. Whether it is done.
async fn clean(server: &ApiServer, o: &Value) -> Result<bool> {
    let path = format!(
        "{}/{}",
        object::text(o, "spec.group").unwrap_or_default(),
        object::text(o, "spec.names.plural").unwrap_or_default()
    );
    server.cache.fresh().await?;
    if let Some(custom) = server.cache.customs.named(&path) {
        let served = custom.any_served();
        let left = server.cache.list(custom.index, None).objects;
        if !left.is_empty() {
            for one in left.iter().filter(|x| !x.is_deleting()) {
                let options = DeleteOptions::default();
                match server
                    .delete(
                        &served,
                        one.namespace().unwrap_or_default(),
                        one.name(),
                        &options,
                        &WriteContext::default(),
                    )
                    .await
                {
                    Err(e) if e.code != 404 => return Err(e),
                    _ => {}
                }
            }
            return Ok(false);
        }
    }
    let finalizers: Vec<Value> =
        object::list(o, "metadata.finalizers").iter().filter(|f| *f != CLEANUP).cloned().collect();
    write(server, object::name(o), Part::Main, &|new| {
        object::metadata(new).insert("finalizers".to_owned(), finalizers.clone().into());
    })
    .await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &[&str], accepted: bool) -> Value {
        let names = json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": short});
        let status = if accepted {
            json!({"acceptedNames": names})
        } else {
            json!({"acceptedNames": {"plural": "", "kind": ""}})
        };
        json!({"metadata": {"name": format!("{plural}.a.b")}, "spec": {"group": "a.b", "names": names}, "status": status})
    }

    #[test]
    fn names_are_given_once() {
        let first = definition("foos", "Foo", &["f"], true);
        let fresh = definition("bars", "Bar", &["b"], false);
        let good = judge(&fresh, &[first.clone(), fresh.clone()], "now");
        assert_eq!(good["acceptedNames"], fresh["spec"]["names"]);
        let words: Vec<(&str, &str)> =
            object::list(&good, "conditions").iter().map(|c| (text(c, "type"), text(c, "reason"))).collect();
        assert_eq!(words, [("NamesAccepted", "NoConflicts"), ("Established", "InitialNamesAccepted")]);
        let clash = definition("bars", "Foo", &["b"], false);
        let bad = judge(&clash, &[first, clash.clone()], "now");
        let c = &object::list(&bad, "conditions")[0];
        assert_eq!((text(c, "reason"), text(c, "status")), ("ListKindConflict", "False"));
    }
}
