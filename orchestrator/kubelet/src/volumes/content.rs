//! What stands in volumes that come from the API: config maps, secrets, the downward API, tokens.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume};
use kube::Client;

use super::token::Tokens;
use super::{File, Files};
use crate::Error;
use crate::environment::{Facts, Sources};

/// The files of a volume; `None` for a volume that is no such one.
pub(crate) async fn files(
    client: &Client,
    facts: &Facts<'_>,
    tokens: &Tokens,
    v: &Volume,
) -> Result<Option<Files>, Error> {
    let namespace = facts.pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut sources = Sources::new(client, namespace);
    let mut out = Files::new();
    if let Some(c) = &v.config_map {
        let mode = mode(c.default_mode);
        add_config_map(&mut out, &mut sources, &c.name, c.items.as_deref(), c.optional, mode).await?;
    } else if let Some(s) = &v.secret {
        let (mode, name) = (mode(s.default_mode), s.secret_name.as_deref().unwrap_or_default());
        add_secret(&mut out, &mut sources, name, s.items.as_deref(), s.optional, mode).await?;
    } else if let Some(d) = &v.downward_api {
        add_downward(&mut out, facts, d.items.as_deref(), mode(d.default_mode))?;
    } else if let Some(p) = &v.projected {
        let mode = mode(p.default_mode);
        for source in p.sources.iter().flatten() {
            if let Some(c) = &source.config_map {
                add_config_map(&mut out, &mut sources, &c.name, c.items.as_deref(), c.optional, mode).await?;
            }
            if let Some(s) = &source.secret {
                add_secret(&mut out, &mut sources, &s.name, s.items.as_deref(), s.optional, mode).await?;
            }
            if let Some(d) = &source.downward_api {
                add_downward(&mut out, facts, d.items.as_deref(), mode)?;
            }
            if let Some(t) = &source.service_account_token {
                let bytes = tokens.get(client, facts.pod, t).await?.into_bytes();
                out.insert(t.path.clone(), token_file(facts.pod, bytes, mode));
            }
        }
    } else {
        return Ok(None);
    }
    Ok(Some(out))
}

fn mode(m: Option<i32>) -> u32 {
    m.and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644)
}

/// A token is for its user only, if all containers are the same one, or for the pod's group, if it has one.
fn token_file(pod: &Pod, bytes: Vec<u8>, mode: u32) -> File {
    let spec = pod.spec.as_ref();
    let context = spec.and_then(|s| s.security_context.as_ref());
    let of_pod = context.and_then(|c| c.run_as_user);
    let containers =
        spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let mut users = containers.map(|c| c.security_context.as_ref().and_then(|c| c.run_as_user).or(of_pod));
    let first = users.next().flatten();
    let owner = first.filter(|_| users.all(|u| u == first)).and_then(|u| u32::try_from(u).ok());
    let own = owner.is_some() || context.is_some_and(|c| c.fs_group.is_some());
    File { bytes, mode: if own { 0o600 } else { mode }, owner }
}

/// All keys, or those that `items` choose.
fn choose(
    out: &mut Files,
    data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    default: u32,
    optional: bool,
    missing: &str,
) -> Result<(), Error> {
    match items {
        None | Some([]) => out.extend(data.into_iter().map(|(k, v)| (k, File::plain(v, default)))),
        Some(items) => {
            for i in items {
                match data.get(&i.key) {
                    Some(v) => {
                        let mode = i.mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(default);
                        out.insert(i.path.clone(), File::plain(v.clone(), mode));
                    }
                    None if optional => {}
                    None => return Err(Error::Config(format!("{missing}: {}", i.key))),
                }
            }
        }
    }
    Ok(())
}

async fn add_config_map(
    out: &mut Files,
    sources: &mut Sources<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
) -> Result<(), Error> {
    let optional = optional == Some(true);
    let Some(m) = sources.config_map(name, optional).await? else { return Ok(()) };
    let mut data: BTreeMap<String, Vec<u8>> =
        m.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes())).collect();
    data.extend(m.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())));
    choose(out, data, items, mode, optional, "configmap references non-existent config key")
}

async fn add_secret(
    out: &mut Files,
    sources: &mut Sources<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
) -> Result<(), Error> {
    let optional = optional == Some(true);
    let Some(s) = sources.secret(name, optional).await? else { return Ok(()) };
    let data = s.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect();
    choose(out, data, items, mode, optional, "references non-existent secret key")
}

fn add_downward(
    out: &mut Files,
    facts: &Facts<'_>,
    items: Option<&[DownwardAPIVolumeFile]>,
    default: u32,
) -> Result<(), Error> {
    for i in items.unwrap_or_default() {
        let value = if let Some(f) = &i.field_ref {
            facts.field(&f.field_path)
        } else if let Some(r) = &i.resource_field_ref {
            let container = r.container_name.as_deref().and_then(|n| facts.container(n));
            container.and_then(|c| facts.resource(c, &r.resource, r.divisor.as_ref().map(|q| q.0.as_str())))
        } else {
            None
        };
        let value =
            value.ok_or_else(|| Error::Config(format!("downward API: {} cannot be resolved", i.path)))?;
        let mode = i.mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(default);
        out.insert(i.path.clone(), File::plain(value.into_bytes(), mode));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_token_is_for_those_who_run() {
        let check = |pod: serde_json::Value, mode, owner| {
            let pod: Pod = serde_json::from_value(json!({"spec": pod})).expect("pod");
            let f = token_file(&pod, Vec::new(), 0o644);
            assert_eq!((f.mode, f.owner), (mode, owner), "{pod:?}");
        };
        let user = |n| json!({"name": "c", "securityContext": {"runAsUser": n}});
        check(json!({"containers": [{"name": "c"}]}), 0o644, None);
        check(json!({"containers": [user(7)]}), 0o600, Some(7));
        check(json!({"containers": [user(7), user(8)]}), 0o644, None);
        check(json!({"containers": [{"name": "c"}], "securityContext": {"runAsUser": 9}}), 0o600, Some(9));
        check(json!({"containers": [{"name": "c"}], "securityContext": {"fsGroup": 9}}), 0o600, None);
    }
}
