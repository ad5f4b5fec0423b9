//! What stands in volumes that come from the API: config maps, secrets, the downward API, tokens.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, ServiceAccount, ServiceAccountTokenProjection, Volume,
};
use kube::api::PostParams;
use kube::{Api, Client};

use super::Files;
use crate::Error;
use crate::environment::{Facts, Sources};

/// How long a token is asked for if the pod does not say: refreshed after four fifths of it.
pub(crate) const TOKEN_SECONDS: i64 = 3607;

/// The files of a volume; `None` for a volume that is no such one.
pub(crate) async fn files(client: &Client, facts: &Facts<'_>, v: &Volume) -> Result<Option<Files>, Error> {
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
                let token = token(client, facts, namespace, t).await?;
                // Owner only, unless a group is to read it.
                out.insert(t.path.clone(), (token.into_bytes(), token_mode(facts)));
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

fn token_mode(facts: &Facts<'_>) -> u32 {
    let spec = facts.pod.spec.as_ref();
    let context = spec.and_then(|s| s.security_context.as_ref());
    let as_root = context.and_then(|c| c.run_as_user).unwrap_or(0) == 0
        && spec.is_none_or(|s| {
            s.containers
                .iter()
                .all(|c| c.security_context.as_ref().and_then(|c| c.run_as_user).unwrap_or(0) == 0)
        });
    if as_root { 0o644 } else { 0o644 | 0o040 }
}

/// All keys, or those that `items` choose.
fn choose(
    out: &mut Files,
    data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    default: u32,
    optional: bool,
    what: &str,
) -> Result<(), Error> {
    match items {
        None | Some([]) => out.extend(data.into_iter().map(|(k, v)| (k, (v, default)))),
        Some(items) => {
            for i in items {
                match data.get(&i.key) {
                    Some(v) => {
                        let mode = i.mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(default);
                        out.insert(i.path.clone(), (v.clone(), mode));
                    }
                    None if optional => {}
                    None => {
                        return Err(Error::Config(format!("{what} references non-existent key: {}", i.key)));
                    }
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
    choose(out, data, items, mode, optional, "configmap")
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
    choose(out, data, items, mode, optional, "secret")
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
        out.insert(i.path.clone(), (value.into_bytes(), mode));
    }
    Ok(())
}

/// A fresh token of the pod's service account, bound to the pod.
async fn token(
    client: &Client,
    facts: &Facts<'_>,
    namespace: &str,
    t: &ServiceAccountTokenProjection,
) -> Result<String, Error> {
    use k8s_openapi::api::authentication::v1::BoundObjectReference;
    let account = facts.pod.spec.as_ref().and_then(|s| s.service_account_name.clone());
    let account = account.filter(|a| !a.is_empty()).unwrap_or_else(|| "default".to_owned());
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: t.audience.clone().into_iter().filter(|a| !a.is_empty()).collect(),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: facts.pod.metadata.name.clone(),
                uid: facts.pod.metadata.uid.clone(),
            }),
            expiration_seconds: t.expiration_seconds.or(Some(TOKEN_SECONDS)),
        },
        ..TokenRequest::default()
    };
    let api = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let answer = api.create_token_request(&account, &PostParams::default(), &request).await?;
    answer
        .status
        .map(|s| s.token)
        .ok_or_else(|| Error::Config(format!("no token was issued for service account {account}")))
}
