//! Scrape configurations in Prometheus' own words, and the targets they come to (Prometheus: config/config.go,
//! scrape/target.go). Who reads the files is elsewhere.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use signal::relabel::{Action, Parts, Rule, relabel};
use signal::{
    Credentials, Labels, LabelsBuilder, ScrapeHttp, ScrapeLimits, ScrapeOptions, ScrapeProtocol,
    ScrapeTarget, ScrapeTls, Secret,
};

/// What holds for all configurations that say nothing else. Times as in `1m30s`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Global {
    /// One minute if not given.
    #[serde(deserialize_with = "some_duration")]
    pub scrape_interval: Option<Duration>,
    /// Ten seconds if not given, or the interval if that is shorter.
    #[serde(deserialize_with = "some_duration")]
    pub scrape_timeout: Option<Duration>,
    #[serde(deserialize_with = "protocols")]
    pub scrape_protocols: Option<Vec<ScrapeProtocol>>,
    pub extra_scrape_metrics: bool,
    #[serde(deserialize_with = "some_size")]
    pub body_size_limit: Option<usize>,
    pub sample_limit: usize,
    pub target_limit: usize,
    pub label_limit: usize,
    pub label_name_length_limit: usize,
    pub label_value_length_limit: usize,
    /// For rules: how often groups that name no interval are evaluated.
    #[serde(deserialize_with = "some_duration")]
    pub evaluation_interval: Option<Duration>,
    /// For alerts and whoever else is told of series.
    pub external_labels: Option<BTreeMap<String, String>>,
}

/// One scrape configuration: a job.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScrapeConfig {
    pub job_name: String,
    #[serde(deserialize_with = "some_duration")]
    pub scrape_interval: Option<Duration>,
    #[serde(deserialize_with = "some_duration")]
    pub scrape_timeout: Option<Duration>,
    pub metrics_path: String,
    /// `http` or `https`.
    pub scheme: String,
    pub params: BTreeMap<String, Vec<String>>,
    pub honor_labels: bool,
    pub honor_timestamps: bool,
    pub track_timestamps_staleness: bool,
    #[serde(deserialize_with = "protocols")]
    pub scrape_protocols: Option<Vec<ScrapeProtocol>>,
    #[serde(deserialize_with = "protocol")]
    pub fallback_scrape_protocol: Option<ScrapeProtocol>,
    pub extra_scrape_metrics: Option<bool>,
    pub enable_compression: bool,
    pub follow_redirects: bool,
    pub basic_auth: Option<BasicAuth>,
    pub authorization: Option<Authorization>,
    pub bearer_token: Option<String>,
    pub bearer_token_file: Option<PathBuf>,
    pub tls_config: TlsConfig,
    pub static_configs: Vec<StaticConfig>,
    pub file_sd_configs: Vec<FileSdConfig>,
    pub relabel_configs: Vec<RelabelConfig>,
    pub metric_relabel_configs: Vec<RelabelConfig>,
    /// As in `10MB`; 0 is none.
    #[serde(deserialize_with = "some_size")]
    pub body_size_limit: Option<usize>,
    pub sample_limit: Option<usize>,
    pub target_limit: Option<usize>,
    pub label_limit: Option<usize>,
    pub label_name_length_limit: Option<usize>,
    pub label_value_length_limit: Option<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StaticConfig {
    pub targets: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

/// Files with lists of [`StaticConfig`], as JSON or YAML.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSdConfig {
    /// The last part may have stars in it.
    pub files: Vec<PathBuf>,
    /// Taken, and without effect: changes are seen within seconds.
    #[serde(default, deserialize_with = "some_duration")]
    pub refresh_interval: Option<Duration>,
}

#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    pub username: String,
    pub password: Option<String>,
    pub password_file: Option<PathBuf>,
}

#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorization {
    #[serde(rename = "type", default = "bearer")]
    pub kind: String,
    pub credentials: Option<String>,
    pub credentials_file: Option<PathBuf>,
}

impl std::fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secret>")
    }
}

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secret>")
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub server_name: Option<String>,
    pub insecure_skip_verify: bool,
}

/// A rule, checked as it is read.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawRule")]
pub struct RelabelConfig(Rule);

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawRule {
    action: String,
    source_labels: Vec<String>,
    separator: String,
    regex: String,
    target_label: String,
    replacement: String,
    modulus: u64,
}

impl Default for RawRule {
    fn default() -> Self {
        let p = Parts::default();
        RawRule {
            action: "replace".to_owned(),
            source_labels: p.source_labels,
            separator: p.separator,
            regex: p.regex,
            target_label: p.target_label,
            replacement: p.replacement,
            modulus: p.modulus,
        }
    }
}

impl TryFrom<RawRule> for RelabelConfig {
    type Error = String;

    fn try_from(r: RawRule) -> Result<Self, String> {
        let action =
            Action::from_word(&r.action).ok_or_else(|| format!("unknown relabel action {:?}", r.action))?;
        let parts = Parts {
            action,
            source_labels: r.source_labels,
            separator: r.separator,
            regex: r.regex,
            target_label: r.target_label,
            replacement: r.replacement,
            modulus: r.modulus,
        };
        Rule::new(parts).map(RelabelConfig).map_err(|e| e.to_string())
    }
}

impl Default for ScrapeConfig {
    fn default() -> Self {
        ScrapeConfig {
            job_name: String::new(),
            scrape_interval: None,
            scrape_timeout: None,
            metrics_path: "/metrics".to_owned(),
            scheme: "http".to_owned(),
            params: BTreeMap::new(),
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            scrape_protocols: None,
            fallback_scrape_protocol: None,
            extra_scrape_metrics: None,
            enable_compression: true,
            follow_redirects: true,
            basic_auth: None,
            authorization: None,
            bearer_token: None,
            bearer_token_file: None,
            tls_config: TlsConfig::default(),
            static_configs: Vec::new(),
            file_sd_configs: Vec::new(),
            relabel_configs: Vec::new(),
            metric_relabel_configs: Vec::new(),
            body_size_limit: None,
            sample_limit: None,
            target_limit: None,
            label_limit: None,
            label_name_length_limit: None,
            label_value_length_limit: None,
        }
    }
}

fn bearer() -> String {
    "Bearer".to_owned()
}

/// `1m30s`, as Prometheus writes times.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("not a valid duration string: {text:?}; write it as in 1m30s");
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() && rest != "0" {
        let end = rest.find(|c: char| !c.is_ascii_digit()).filter(|e| *e > 0).ok_or_else(wrong)?;
        let n: u64 = rest[..end].parse().map_err(|_| wrong())?;
        let after = &rest[end..];
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let millis = match &after[..unit_end] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            "y" => 31_536_000_000,
            _ => return Err(wrong()),
        };
        total += Duration::from_millis(n.checked_mul(millis).ok_or_else(wrong)?);
        rest = &after[unit_end..];
    }
    Ok(total)
}

fn some_duration<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(d)?;
    parse_duration(&text).map(Some).map_err(de::Error::custom)
}

/// `10MB` is 10 × 1024² bytes, as in Prometheus.
fn some_size<'de, D: Deserializer<'de>>(d: D) -> Result<Option<usize>, D::Error> {
    let text = String::deserialize(d)?;
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit {
        "" | "B" => 0,
        "KB" | "KiB" => 10,
        "MB" | "MiB" => 20,
        "GB" | "GiB" => 30,
        _ => return Err(de::Error::custom(format!("not a size: {text:?}; write it as in 10MB"))),
    };
    let n: usize = number
        .parse()
        .map_err(|_| de::Error::custom(format!("not a size: {text:?}; write it as in 10MB")))?;
    Ok(Some(n << shift))
}

fn protocol_of(word: &str) -> Result<ScrapeProtocol, String> {
    Ok(match word {
        "PrometheusProto" => ScrapeProtocol::Protobuf,
        "OpenMetricsText1.0.0" => ScrapeProtocol::OpenMetrics1,
        "OpenMetricsText0.0.1" => ScrapeProtocol::OpenMetrics0,
        "PrometheusText0.0.4" | "PrometheusText1.0.0" => ScrapeProtocol::Text,
        other => {
            return Err(format!(
                "unknown scrape protocol {other:?}: use PrometheusProto, OpenMetricsText1.0.0, OpenMetricsText0.0.1 or PrometheusText0.0.4"
            ));
        }
    })
}

fn protocol<'de, D: Deserializer<'de>>(d: D) -> Result<Option<ScrapeProtocol>, D::Error> {
    protocol_of(&String::deserialize(d)?).map(Some).map_err(de::Error::custom)
}

fn protocols<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<ScrapeProtocol>>, D::Error> {
    let words = Vec::<String>::deserialize(d)?;
    words.iter().map(|w| protocol_of(w)).collect::<Result<_, _>>().map(Some).map_err(de::Error::custom)
}

/// A configuration that is sound, ready to make targets.
#[derive(Clone, Debug)]
pub struct Pool {
    pub config: ScrapeConfig,
    options: Arc<ScrapeOptions>,
    interval: Duration,
    timeout: Duration,
    target_limit: usize,
    relabel: Vec<Rule>,
}

/// What a job's lists of targets come to.
#[derive(Debug, Default)]
pub struct Found {
    /// By a key that stays the same as long as the target does.
    pub targets: BTreeMap<String, ScrapeTarget>,
    /// Labels of those that relabelling dropped.
    pub dropped: Vec<Labels>,
    /// Why a target could not be made.
    pub wrong: Vec<String>,
}

/// All configurations of a file; errors name the job.
pub fn pools(global: &Global, configs: Vec<ScrapeConfig>) -> Result<Vec<Pool>, String> {
    let mut out: Vec<Pool> = Vec::new();
    for c in configs {
        if out.iter().any(|p| p.config.job_name == c.job_name) {
            return Err(format!("found multiple scrape configs with job name {:?}", c.job_name));
        }
        let job = c.job_name.clone();
        out.push(Pool::new(global, c).map_err(|e| format!("scrape config {job:?}: {e}"))?);
    }
    Ok(out)
}

fn one_of(text: Option<String>, file: Option<PathBuf>, what: &str) -> Result<Secret, String> {
    match (text, file) {
        (Some(text), None) => Ok(Secret::Text(text)),
        (None, Some(file)) => Ok(Secret::File(file)),
        (None, None) => Ok(Secret::Text(String::new())),
        (Some(_), Some(_)) => Err(format!("at most one of {what} and {what}_file must be configured")),
    }
}

impl Pool {
    fn new(g: &Global, c: ScrapeConfig) -> Result<Pool, String> {
        if c.job_name.is_empty() {
            return Err("job_name is empty".to_owned());
        }
        if c.scheme != "http" && c.scheme != "https" {
            return Err(format!("scheme {:?}: use http or https", c.scheme));
        }
        let interval = c.scrape_interval.or(g.scrape_interval).unwrap_or(Duration::from_secs(60));
        let timeout = match c.scrape_timeout {
            Some(t) if t > interval => return Err("scrape timeout greater than scrape interval".to_owned()),
            Some(t) => t,
            None => g.scrape_timeout.unwrap_or(Duration::from_secs(10)).min(interval),
        };
        if interval.is_zero() || timeout.is_zero() {
            return Err("scrape interval and timeout must be longer than nothing".to_owned());
        }
        let bearer_secret = c.bearer_token.is_some() || c.bearer_token_file.is_some();
        let said = [c.basic_auth.is_some(), c.authorization.is_some(), bearer_secret];
        if said.iter().filter(|s| **s).count() > 1 {
            return Err(
                "at most one of basic_auth, authorization, bearer_token and bearer_token_file must be configured".to_owned(),
            );
        }
        let credentials = if let Some(b) = c.basic_auth.clone() {
            let password = one_of(b.password, b.password_file, "password")?;
            Some(Credentials::Basic { user: b.username, password })
        } else if let Some(a) = c.authorization.clone() {
            let credentials = one_of(a.credentials, a.credentials_file, "credentials")?;
            Some(Credentials::Authorization { scheme: a.kind, credentials })
        } else if bearer_secret {
            let credentials = one_of(c.bearer_token.clone(), c.bearer_token_file.clone(), "bearer_token")?;
            Some(Credentials::Authorization { scheme: bearer(), credentials })
        } else {
            None
        };
        let d = ScrapeOptions::default();
        let t = c.tls_config.clone();
        if t.cert_file.is_some() != t.key_file.is_some() {
            return Err("tls_config: cert_file and key_file belong together".to_owned());
        }
        let options = ScrapeOptions {
            pool: c.job_name.clone(),
            honor_labels: c.honor_labels,
            honor_timestamps: c.honor_timestamps,
            track_timestamps_staleness: c.track_timestamps_staleness,
            metric_relabel: c.metric_relabel_configs.iter().map(|r| r.0.clone()).collect(),
            limits: ScrapeLimits {
                samples: c.sample_limit.unwrap_or(g.sample_limit),
                labels: c.label_limit.unwrap_or(g.label_limit),
                label_name: c.label_name_length_limit.unwrap_or(g.label_name_length_limit),
                label_value: c.label_value_length_limit.unwrap_or(g.label_value_length_limit),
                // A target without bounds would take all memory (invariant 7): larger ones are allowed by name.
                body: c.body_size_limit.or(g.body_size_limit).unwrap_or(d.limits.body),
            },
            protocols: c.scrape_protocols.clone().or(g.scrape_protocols.clone()).unwrap_or(d.protocols),
            fallback: c.fallback_scrape_protocol,
            extra_metrics: c.extra_scrape_metrics.unwrap_or(g.extra_scrape_metrics),
            http: ScrapeHttp {
                gzip: c.enable_compression,
                redirects: c.follow_redirects,
                credentials,
                tls: ScrapeTls {
                    ca_file: t.ca_file,
                    cert_file: t.cert_file,
                    key_file: t.key_file,
                    server_name: t.server_name,
                    insecure_skip_verify: t.insecure_skip_verify,
                },
            },
        };
        let relabel = c.relabel_configs.iter().map(|r| r.0.clone()).collect();
        let target_limit = c.target_limit.unwrap_or(g.target_limit);
        Ok(Pool { config: c, options: Arc::new(options), interval, timeout, target_limit, relabel })
    }

    /// The targets of these groups, relabelled. A group from a file has that file's path.
    pub fn targets(&self, groups: &[(Option<String>, StaticConfig)]) -> Found {
        let mut found = Found::default();
        for (file, group) in groups {
            for address in &group.targets {
                let discovered = self.discovered(file.as_deref(), group, address);
                match self.target(&discovered) {
                    Ok(Some(t)) => {
                        let key = format!("job/{}/{} {}", self.config.job_name, t.url, t.labels);
                        found.targets.insert(key, t);
                    }
                    Ok(None) => found.dropped.push(discovered),
                    Err(why) => found.wrong.push(format!("{address}: {why}")),
                }
            }
        }
        let n = found.targets.len();
        if self.target_limit > 0 && n > self.target_limit {
            let limit = self.target_limit;
            for t in found.targets.values_mut() {
                t.fault = Some(format!("target_limit exceeded (number of targets: {n}, limit: {limit})"));
            }
        }
        found
    }

    fn discovered(&self, file: Option<&str>, group: &StaticConfig, address: &str) -> Labels {
        let c = &self.config;
        let mut b = LabelsBuilder::default();
        b.set("job", &c.job_name)
            .set("__scheme__", &c.scheme)
            .set("__metrics_path__", &c.metrics_path)
            .set("__scrape_interval__", &humane(self.interval))
            .set("__scrape_timeout__", &humane(self.timeout));
        for (name, values) in &c.params {
            if let Some(first) = values.first() {
                b.set(&format!("__param_{name}"), first);
            }
        }
        b.set("__meta_filepath", file.unwrap_or(""));
        for (name, value) in &group.labels {
            b.set(name, value);
        }
        b.set("__address__", address).build()
    }

    fn target(&self, discovered: &Labels) -> Result<Option<ScrapeTarget>, String> {
        let mut b = discovered.builder();
        if !relabel(&self.relabel, &mut b) {
            return Ok(None);
        }
        let get = |name: &str| b.get(name).unwrap_or("").to_owned();
        let address = get("__address__");
        if address.is_empty() {
            return Err("no address".to_owned());
        }
        if address.contains('/') {
            return Err(format!("{address:?} is not a valid hostname"));
        }
        let interval = parse_duration(&get("__scrape_interval__"))?;
        let timeout = parse_duration(&get("__scrape_timeout__"))?;
        if interval.is_zero() || timeout.is_zero() || timeout > interval {
            return Err("scrape timeout greater than scrape interval, or nothing".to_owned());
        }
        let mut url = format!("{}://{address}{}", get("__scheme__"), get("__metrics_path__"));
        let mut params = self.config.params.clone();
        for (name, value) in b.pairs().filter_map(|(n, v)| Some((n.strip_prefix("__param_")?, v))) {
            let values = params.entry(name.to_owned()).or_default();
            match values.first_mut() {
                Some(first) => value.clone_into(first),
                None => values.push(value.to_owned()),
            }
        }
        let pairs = params.iter().flat_map(|(n, vs)| vs.iter().map(move |v| (n, v)));
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        if !query.is_empty() {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&query);
        }
        if b.get("instance").is_none() {
            b.set("instance", &address);
        }
        b.retain(|name| !name.starts_with("__"));
        Ok(Some(ScrapeTarget {
            url,
            labels: b.build(),
            discovered: discovered.clone(),
            interval,
            timeout,
            options: self.options.clone(),
            fault: None,
        }))
    }
}

/// `1m30s`.
fn humane(d: Duration) -> String {
    let mut millis = d.as_millis();
    let mut out = String::new();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if millis >= size {
            out.push_str(&format!("{}{unit}", millis / size));
            millis %= size;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}
