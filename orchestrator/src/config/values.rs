//! What a setting's text means, and what to write instead if it means nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;

use super::{Retention, yaml_file};

pub(super) fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

/// `a=b,c=d`
pub(super) fn claims(text: &str) -> Result<BTreeMap<String, String>> {
    let pair = |w: String| {
        let (k, v) =
            w.split_once('=').with_context(|| format!("--oidc-required-claim {w:?}: use NAME=VALUE"))?;
        anyhow::Ok((k.to_owned(), v.to_owned()))
    };
    words(text).into_iter().map(pair).collect()
}

/// A file beside another, unless its path is whole.
fn beside(of: &Path, name: &str) -> PathBuf {
    of.parent().unwrap_or(Path::new("")).join(name)
}

pub(super) fn token_webhook(path: &Path, ttl: &str) -> Result<apiserver::TokenWebhook> {
    let ttl = duration(ttl, "--authentication-token-webhook-cache-ttl")?;
    let read = |name: &str| {
        let file = beside(path, name);
        std::fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))
    };
    apiserver::TokenWebhook::from_kubeconfig(&yaml_file(path)?, ttl, read)
        .map_err(|e| anyhow::anyhow!("--authentication-token-webhook-config-file {}: {e}", path.display()))
}

pub(super) fn admission(
    enable: &str,
    disable: &str,
    file: Option<&Path>,
) -> Result<apiserver::AdmissionConfig> {
    let mut all = apiserver::AdmissionConfig::default();
    let bad = |flag: &str| {
        let flag = flag.to_owned();
        move |e: String| anyhow::anyhow!("{flag}: {e}")
    };
    all.switch(enable.split(','), true).map_err(bad("--enable-admission-plugins"))?;
    all.switch(disable.split(','), false).map_err(bad("--disable-admission-plugins"))?;
    if let Some(path) = file {
        // Paths in the file are relative to it, as upstream's.
        let read = |name: &str| yaml_file(&beside(path, name)).map_err(|e| format!("{e:#}"));
        all.apply(&yaml_file(path)?, read).map_err(bad("--admission-control-config-file"))?;
    }
    Ok(all)
}

pub(super) fn networks(text: &str) -> Result<Vec<IpNet>> {
    let one = |t: &str| {
        let net = t.parse::<IpNet>().or_else(|e| t.parse::<IpAddr>().map(IpNet::from).map_err(|_| e));
        net.with_context(|| format!("--trusted-senders {t:?}: give networks such as 192.168.0.0/16"))
    };
    text.split([',', ' ']).filter(|t| !t.is_empty()).map(one).collect()
}

pub(super) fn mirrors(text: &str) -> Result<Vec<kubelet::images::Mirror>> {
    let one = |t: &str| t.parse().map_err(|e| anyhow::anyhow!("--registry-mirrors {e}"));
    text.split([',', ' ']).filter(|t| !t.is_empty()).map(one).collect()
}

pub(super) fn rules_interval(text: &str) -> Result<Duration> {
    let ms = promql::parse_duration(text).and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0);
    ms.map(Duration::from_millis)
        .with_context(|| format!("--rules-interval {text:?}: give a time such as 30s or 1m"))
}

pub(super) fn retention(text: &str, flag: &str) -> Result<Retention> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let bad = || format!("{flag} {text:?}: give a time such as 15d or 12h, or a size such as 20GiB");
    let n: f64 = number.parse().with_context(bad)?;
    let seconds = |s: f64| Duration::try_from_secs_f64(n * s).map(Retention::Age).with_context(bad);
    let bytes = |b: f64| Ok(Retention::Bytes((n * b) as u64));
    match unit {
        "ms" => seconds(0.001),
        "s" => seconds(1.0),
        "m" => seconds(60.0),
        "h" => seconds(3600.0),
        "d" => seconds(86_400.0),
        "w" => seconds(604_800.0),
        "MB" => bytes(1e6),
        "GB" => bytes(1e9),
        "MiB" => bytes(1_048_576.0),
        "GiB" => bytes(1_073_741_824.0),
        _ => bail!(bad()),
    }
}

pub(super) fn duration(text: &str, flag: &str) -> Result<Duration> {
    match retention(text, flag) {
        Ok(Retention::Age(d)) => Ok(d),
        _ => bail!("{flag} {text:?}: give a time such as 500ms, 1s or 30m"),
    }
}
