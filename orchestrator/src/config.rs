//! Configuration: flags over `BINNACLE_*` environment over YAML file over defaults. An unknown key is an error
//! that names the nearest known one.

mod cluster_store;
mod values;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use collector::forward::ForwardConfig;
use collector::process::{LogsConfig, TracesConfig};
use collector::scrape::config::{Global, Pool, ScrapeConfig, pools};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::assemble::directory::Receivers;
use crate::cli::Addr;

pub(crate) use cluster_store::ClusterStore;
use cluster_store::EtcdFiles;
use values::{
    admission, claims, duration, mirrors, networks, retention, rules_interval, token_webhook, words,
};

pub(crate) const DATA_DIR: &str = "/var/lib/binnacle";

/// Every setting, as flag, environment variable and key of the file.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct ConfigArgs {
    /// Configuration file (YAML; see `binnacle config print-defaults`)
    #[arg(long, env = "BINNACLE_CONFIG")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
    /// Where the cluster keeps its state
    #[arg(long, env = "BINNACLE_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Kubernetes API (TLS)
    #[arg(long, env = "BINNACLE_API_ADDR")]
    pub(crate) api_addr: Option<Addr>,
    /// UI and query APIs
    #[arg(long, env = "BINNACLE_HTTP_ADDR")]
    pub(crate) http_addr: Option<Addr>,
    /// OTLP over gRPC
    #[arg(long, env = "BINNACLE_OTLP_GRPC_ADDR")]
    pub(crate) otlp_grpc_addr: Option<Addr>,
    /// OTLP over HTTP
    #[arg(long, env = "BINNACLE_OTLP_HTTP_ADDR")]
    pub(crate) otlp_http_addr: Option<Addr>,
    /// What becomes of OTLP metric names: UnderscoreEscapingWithSuffixes, UnderscoreEscapingWithoutSuffixes,
    /// NoUTF8EscapingWithSuffixes or NoTranslation, as in Prometheus
    #[arg(long, env = "BINNACLE_OTLP_TRANSLATION_STRATEGY")]
    pub(crate) otlp_translation_strategy: Option<String>,
    /// Elasticsearch's `_bulk`, without credentials; it is at /elastic of `--http-addr`, with them, in any case
    #[arg(long, env = "BINNACLE_ELASTICSEARCH_ADDR")]
    pub(crate) elasticsearch_addr: Option<Addr>,
    /// Zipkin's spans, without credentials; they are taken at /zipkin of `--http-addr`, with them, in any case
    #[arg(long, env = "BINNACLE_ZIPKIN_ADDR")]
    pub(crate) zipkin_addr: Option<Addr>,
    /// Fluent's forward protocol (TCP, and UDP for heartbeats)
    #[arg(long, env = "BINNACLE_FLUENT_ADDR")]
    pub(crate) fluent_addr: Option<Addr>,
    /// Syslog over TCP
    #[arg(long, env = "BINNACLE_SYSLOG_TCP_ADDR")]
    pub(crate) syslog_tcp_addr: Option<Addr>,
    /// Syslog over UDP
    #[arg(long, env = "BINNACLE_SYSLOG_UDP_ADDR")]
    pub(crate) syslog_udp_addr: Option<Addr>,
    /// Networks whose senders are taken although they are no pods, such as 192.168.0.0/16,fd00::/8
    #[arg(long, env = "BINNACLE_TRUSTED_SENDERS")]
    pub(crate) trusted_senders: Option<String>,
    /// The node's own API (TLS); the default is the node's address, port 10250
    #[arg(long, env = "BINNACLE_KUBELET_ADDR")]
    pub(crate) kubelet_addr: Option<Addr>,
    /// If nothing answers there a private containerd is started under the data directory
    #[arg(long, env = "BINNACLE_CONTAINERD_SOCKET")]
    pub(crate) containerd_socket: Option<PathBuf>,
    /// Where images are looked for first, such as docker.io=https://mirror.example,quay.io=http://127.0.0.1:5000; * is
    /// every registry
    #[arg(long, env = "BINNACLE_REGISTRY_MIRRORS")]
    pub(crate) registry_mirrors: Option<String>,
    /// Where pods' addresses come from
    #[arg(long, env = "BINNACLE_POD_CIDR")]
    pub(crate) pod_cidr: Option<String>,
    /// Where services' addresses come from
    #[arg(long, env = "BINNACLE_SERVICE_CIDR")]
    pub(crate) service_cidr: Option<String>,
    #[arg(long, env = "BINNACLE_CLUSTER_DOMAIN")]
    pub(crate) cluster_domain: Option<String>,
    /// Name of this node; the default is the host's name
    #[arg(long, env = "BINNACLE_NODE_NAME")]
    pub(crate) node_name: Option<String>,
    /// The pod network's bridge interface
    #[arg(long, env = "BINNACLE_BRIDGE")]
    pub(crate) bridge: Option<String>,
    /// The cgroup above all pods'
    #[arg(long, env = "BINNACLE_CGROUP_ROOT")]
    pub(crate) cgroup_root: Option<String>,
    /// Cluster store: embedded, or etcd://HOST:PORT[,HOST:PORT…] for several servers on one etcd
    #[arg(long, env = "BINNACLE_STORE")]
    pub(crate) store: Option<String>,
    /// Who signed etcd's certificate (PEM); with it etcd is spoken to over TLS
    #[arg(long, env = "BINNACLE_ETCD_CAFILE")]
    pub(crate) etcd_cafile: Option<PathBuf>,
    /// Our certificate for etcd (PEM)
    #[arg(long, env = "BINNACLE_ETCD_CERTFILE")]
    pub(crate) etcd_certfile: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, env = "BINNACLE_ETCD_KEYFILE")]
    pub(crate) etcd_keyfile: Option<PathBuf>,
    /// Keys that Secrets are encrypted with at rest: 64 hexadecimal digits a line, the first encrypts, all decrypt
    #[arg(long, env = "BINNACLE_ENCRYPTION_KEY_FILE")]
    pub(crate) encryption_key_file: Option<PathBuf>,
    /// How long, or how large: 15d, 20GiB
    #[arg(long, env = "BINNACLE_METRICS_RETENTION")]
    pub(crate) metrics_retention: Option<String>,
    /// When samples are acknowledged: "batch", after an fsync, or such as 1s, after a write that is synced so much later
    #[arg(long, env = "BINNACLE_METRICS_SYNC")]
    pub(crate) metrics_sync: Option<String>,
    /// How far behind its series' newest sample one may come
    #[arg(long, env = "BINNACLE_METRICS_OUT_OF_ORDER")]
    pub(crate) metrics_out_of_order: Option<String>,
    /// Live series that a namespace may have; 0 is any number
    #[arg(long, env = "BINNACLE_METRICS_NAMESPACE_SERIES")]
    pub(crate) metrics_namespace_series: Option<u64>,
    /// Series that a namespace may open in a second, with a burst of half a minute; 0 is any number
    #[arg(long, env = "BINNACLE_METRICS_NAMESPACE_NEW_SERIES")]
    pub(crate) metrics_namespace_new_series: Option<u64>,
    /// Samples that a namespace may send in a second, with a burst of half a minute; 0 is any number
    #[arg(long, env = "BINNACLE_METRICS_NAMESPACE_SAMPLES")]
    pub(crate) metrics_namespace_samples: Option<u64>,
    #[arg(long, env = "BINNACLE_LOGS_RETENTION")]
    pub(crate) logs_retention: Option<String>,
    #[arg(long, env = "BINNACLE_TRACES_RETENTION")]
    pub(crate) traces_retention: Option<String>,
    /// Serve /api/v1/admin/tsdb: deleting series and taking snapshots
    #[arg(long, env = "BINNACLE_ENABLE_ADMIN_API", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) enable_admin_api: Option<bool>,
    /// Admission plugins that are on beside the usual ones, with commas between
    #[arg(long, env = "BINNACLE_ENABLE_ADMISSION_PLUGINS")]
    pub(crate) enable_admission_plugins: Option<String>,
    /// Admission plugins that are off although they usually are on, with commas between
    #[arg(long, env = "BINNACLE_DISABLE_ADMISSION_PLUGINS")]
    pub(crate) disable_admission_plugins: Option<String>,
    /// How admission plugins are set: an AdmissionConfiguration of apiserver.config.k8s.io/v1
    #[arg(long, env = "BINNACLE_ADMISSION_CONTROL_CONFIG_FILE")]
    pub(crate) admission_control_config_file: Option<PathBuf>,
    /// An OpenID provider whose id tokens are taken: https://…, as in the tokens' `iss`
    #[arg(long, env = "BINNACLE_OIDC_ISSUER_URL")]
    pub(crate) oidc_issuer_url: Option<String>,
    /// For whom such tokens must be (`aud`), with commas between
    #[arg(long, env = "BINNACLE_OIDC_CLIENT_ID")]
    pub(crate) oidc_client_id: Option<String>,
    /// The claim that is the user's name
    #[arg(long, env = "BINNACLE_OIDC_USERNAME_CLAIM")]
    pub(crate) oidc_username_claim: Option<String>,
    /// Before each such name; the default is the issuer's URL and #, unless the claim is email; "-" is none
    #[arg(long, env = "BINNACLE_OIDC_USERNAME_PREFIX")]
    pub(crate) oidc_username_prefix: Option<String>,
    /// The claim that holds the user's groups
    #[arg(long, env = "BINNACLE_OIDC_GROUPS_CLAIM")]
    pub(crate) oidc_groups_claim: Option<String>,
    /// Before each such group
    #[arg(long, env = "BINNACLE_OIDC_GROUPS_PREFIX")]
    pub(crate) oidc_groups_prefix: Option<String>,
    /// What the provider's certificate is checked with (PEM); the default are the machine's roots
    #[arg(long, env = "BINNACLE_OIDC_CA_FILE")]
    pub(crate) oidc_ca_file: Option<PathBuf>,
    /// Claims that must be there: NAME=VALUE, with commas between
    #[arg(long, env = "BINNACLE_OIDC_REQUIRED_CLAIM")]
    pub(crate) oidc_required_claim: Option<String>,
    /// Signature algorithms that are taken, with commas between
    #[arg(long, env = "BINNACLE_OIDC_SIGNING_ALGS")]
    pub(crate) oidc_signing_algs: Option<String>,
    /// A kubeconfig that says who is asked about tokens nobody else knows, by TokenReview
    #[arg(long, env = "BINNACLE_AUTHENTICATION_TOKEN_WEBHOOK_CONFIG_FILE")]
    pub(crate) authentication_token_webhook_config_file: Option<PathBuf>,
    /// How long its answers count
    #[arg(long, env = "BINNACLE_AUTHENTICATION_TOKEN_WEBHOOK_CACHE_TTL")]
    pub(crate) authentication_token_webhook_cache_ttl: Option<String>,
    /// What of the API's requests is audited: a Policy of audit.k8s.io/v1; the default is every write, as metadata
    #[arg(long, env = "BINNACLE_AUDIT_POLICY_FILE")]
    pub(crate) audit_policy_file: Option<PathBuf>,
    /// Recording and alerting rules (*.yaml, *.yml); the default is `rules` in the data directory
    #[arg(long, env = "BINNACLE_RULES_DIR")]
    pub(crate) rules_dir: Option<PathBuf>,
    /// How often rule groups that name no interval are evaluated
    #[arg(long, env = "BINNACLE_RULES_INTERVAL")]
    pub(crate) rules_interval: Option<String>,
    /// How people reach this server: links in alerts begin with it; the default is the address of `--http-addr`
    #[arg(long, env = "BINNACLE_EXTERNAL_URL")]
    pub(crate) external_url: Option<String>,
    #[arg(skip)]
    pub(crate) external_labels: Option<BTreeMap<String, String>>,
    #[arg(skip)]
    pub(crate) alerting: Option<Alerting>,
    /// What becomes of lines before they are stored.
    #[arg(skip)]
    pub(crate) logs: Option<LogsConfig>,
    /// What becomes of spans before they are stored.
    #[arg(skip)]
    pub(crate) traces: Option<TracesConfig>,
    /// To whom everything that is stored goes on.
    #[arg(skip)]
    pub(crate) forward: Option<Vec<ForwardConfig>>,
    /// What goes to stderr: a level, or target=level pairs
    #[arg(long, env = "BINNACLE_LOG")]
    pub(crate) log: Option<String>,
}

/// Who is told of alerts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Alerting {
    /// `http://HOST:PORT` of each Alertmanager, with a path if it stands below one.
    #[serde(default)]
    pub(crate) alertmanagers: Vec<String>,
}

/// The part of the file that has no flags: what is scraped, in Prometheus' own words.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ScrapeSection {
    global: Global,
    #[serde(alias = "scrape-configs")]
    scrape_configs: Vec<ScrapeConfig>,
}

/// Keys of [`ScrapeSection`].
const SCRAPE_KEYS: [&str; 2] = ["global", "scrape-configs"];

/// How long data is kept: a time, or a size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Retention {
    Age(Duration),
    Bytes(u64),
}

impl Retention {
    /// Age and size for an engine; the one not given is as good as none.
    pub(crate) fn split(self) -> (Duration, Option<u64>) {
        match self {
            Retention::Age(d) => (d, None),
            Retention::Bytes(b) => (Duration::from_secs(10 * 365 * 86_400), Some(b)),
        }
    }
}

/// The settings in force.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) api_addr: Addr,
    pub(crate) http_addr: Addr,
    pub(crate) otlp_grpc_addr: Addr,
    pub(crate) otlp_http_addr: Addr,
    pub(crate) otlp_translation_strategy: collector::otlp::Translation,
    /// Where receivers listen that are off unless told.
    pub(crate) receivers: Receivers,
    pub(crate) trusted_senders: Vec<IpNet>,
    pub(crate) registry_mirrors: Vec<kubelet::images::Mirror>,
    pub(crate) kubelet_addr: Addr,
    pub(crate) containerd_socket: PathBuf,
    pub(crate) pod_cidr: network::Cidr,
    pub(crate) service_cidr: network::Cidr,
    pub(crate) cluster_domain: String,
    pub(crate) node_name: String,
    pub(crate) node_ip: Ipv4Addr,
    pub(crate) bridge: String,
    pub(crate) cgroup_root: String,
    pub(crate) store: ClusterStore,
    pub(crate) metrics_retention: Retention,
    /// `None`: every batch.
    pub(crate) metrics_sync: Option<Duration>,
    pub(crate) metrics_out_of_order: Duration,
    pub(crate) metrics_limits: tsdb::Limits,
    pub(crate) logs_retention: Retention,
    pub(crate) traces_retention: Retention,
    pub(crate) enable_admin_api: bool,
    pub(crate) admission: apiserver::AdmissionConfig,
    pub(crate) audit_policy: Arc<apiserver::AuditPolicy>,
    pub(crate) oidc: Option<apiserver::OidcConfig>,
    pub(crate) token_webhook: Option<apiserver::TokenWebhook>,
    pub(crate) rules_dir: PathBuf,
    pub(crate) rules_interval: Duration,
    pub(crate) external_url: Option<String>,
    pub(crate) external_labels: signal::Labels,
    pub(crate) alertmanagers: Vec<String>,
    pub(crate) logs: LogsConfig,
    pub(crate) traces: TracesConfig,
    pub(crate) forward: Vec<ForwardConfig>,
    pub(crate) log: String,
    /// What is scraped beside what annotations say.
    pub(crate) scrape: Arc<Vec<Pool>>,
}

/// Every key with its default, for `config print-defaults`.
pub(crate) fn defaults() -> ConfigArgs {
    let some = |s: &str| Some(s.to_owned());
    let addr = |port| Some(Addr::from(([127, 0, 0, 1], port)));
    ConfigArgs {
        config: None,
        data_dir: Some(DATA_DIR.into()),
        api_addr: addr(6443),
        http_addr: addr(7070),
        otlp_grpc_addr: addr(4317),
        otlp_http_addr: addr(4318),
        otlp_translation_strategy: some("UnderscoreEscapingWithSuffixes"),
        elasticsearch_addr: None,
        zipkin_addr: None,
        fluent_addr: None,
        syslog_tcp_addr: None,
        syslog_udp_addr: None,
        trusted_senders: some(""),
        kubelet_addr: None,
        containerd_socket: Some("/run/containerd/containerd.sock".into()),
        registry_mirrors: some(""),
        pod_cidr: some("10.42.0.0/16"),
        service_cidr: some("10.43.0.0/16"),
        cluster_domain: some("cluster.local"),
        node_name: None,
        bridge: some("bnl0"),
        cgroup_root: some("kubepods"),
        store: some("embedded"),
        etcd_cafile: None,
        etcd_certfile: None,
        etcd_keyfile: None,
        encryption_key_file: None,
        metrics_retention: some("15d"),
        metrics_sync: some("1s"),
        metrics_out_of_order: some("30m"),
        metrics_namespace_series: Some(0),
        metrics_namespace_new_series: Some(0),
        metrics_namespace_samples: Some(0),
        logs_retention: some("7d"),
        traces_retention: some("3d"),
        enable_admin_api: Some(false),
        enable_admission_plugins: some(""),
        disable_admission_plugins: some(""),
        admission_control_config_file: None,
        audit_policy_file: None,
        oidc_issuer_url: None,
        oidc_client_id: None,
        oidc_username_claim: some("sub"),
        oidc_username_prefix: None,
        oidc_groups_claim: None,
        oidc_groups_prefix: some(""),
        oidc_ca_file: None,
        oidc_required_claim: some(""),
        oidc_signing_algs: some("RS256"),
        authentication_token_webhook_config_file: None,
        authentication_token_webhook_cache_ttl: some("2m"),
        rules_dir: None,
        rules_interval: some("1m"),
        external_url: None,
        external_labels: None,
        alerting: None,
        logs: Some(LogsConfig::default()),
        traces: Some(TracesConfig::default()),
        forward: Some(Vec::new()),
        log: some("warn,binnacle=info,kubelet=info,network=info"),
    }
}

/// Reads a file; unknown keys are errors.
pub(crate) fn read_file(path: &Path) -> Result<(ConfigArgs, Vec<Pool>)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let value: serde_json::Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", path.display()))?;
    let known = serde_json::to_value(defaults())?;
    let known: Vec<&str> =
        known.as_object().into_iter().flat_map(|o| o.keys()).map(String::as_str).chain(SCRAPE_KEYS).collect();
    let mut keys: serde_json::Map<String, serde_json::Value> = match value {
        serde_json::Value::Null => return Ok(Default::default()),
        // Prometheus' keys have underscores: both are understood.
        serde_json::Value::Object(o) => o.into_iter().map(|(k, v)| (k.replace('_', "-"), v)).collect(),
        _ => bail!("{}: the file must be a map of keys to values", path.display()),
    };
    for key in keys.keys() {
        if !known.contains(&key.as_str()) {
            let nearest = known.iter().min_by_key(|k| strsim::levenshtein(k, key));
            let hint = nearest.map(|k| format!("; did you mean {k:?}?")).unwrap_or_default();
            bail!("{}: unknown key {key:?}{hint}", path.display());
        }
    }
    keys.retain(|key, _| !SCRAPE_KEYS.contains(&key.as_str()));
    let mut args: ConfigArgs = serde_json::from_value(keys.into())
        .with_context(|| format!("{} has a wrong value", path.display()))?;
    // Read from the text again, so that an error says where it is.
    let section: ScrapeSection = serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
    // What Prometheus has below `global` has keys of its own here.
    let once = |twice: bool, name: &str, key: &str| {
        ensure!(!twice, "{}: global.{name} and {key} say the same: keep one", path.display());
        anyhow::Ok(())
    };
    if let Some(labels) = section.global.external_labels.clone() {
        once(args.external_labels.is_some(), "external_labels", "external-labels")?;
        args.external_labels = Some(labels);
    }
    if let Some(interval) = section.global.evaluation_interval {
        once(args.rules_interval.is_some(), "evaluation_interval", "rules-interval")?;
        args.rules_interval = Some(format!("{}ms", interval.as_millis()));
    }
    let pools = pools(&section.global, section.scrape_configs)
        .map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
    Ok((args, pools))
}

impl Config {
    pub(crate) fn load(args: ConfigArgs) -> Result<Config> {
        let (file, scrape) = match &args.config {
            Some(path) => read_file(path)?,
            None => Default::default(),
        };
        let d = defaults();
        macro_rules! pick {
            ($field:ident) => {
                args.$field.or(file.$field).or(d.$field)
            };
        }
        macro_rules! must {
            ($field:ident) => {
                pick!($field).context(concat!("no value for ", stringify!($field)))?
            };
        }
        let kubelet_addr = pick!(kubelet_addr);
        // The API server finds the node's own API on the node's address: they must be the same.
        let node_ip = match kubelet_addr.map(|a| a.ip()) {
            Some(IpAddr::V4(ip)) if !ip.is_unspecified() => ip,
            _ => primary_address(),
        };
        let cidr = |s: String, flag: &str| {
            s.parse::<network::Cidr>()
                .map_err(|e| anyhow::anyhow!("{flag} {s}: {e}; use the form 10.42.0.0/16"))
        };
        let node_name = match pick!(node_name) {
            Some(n) => n,
            None => hostname()?,
        };
        let data_dir: PathBuf = must!(data_dir);
        let data_dir =
            std::path::absolute(&data_dir).with_context(|| format!("--data-dir {}", data_dir.display()))?;
        let alertmanagers = pick!(alerting).unwrap_or_default().alertmanagers;
        if let Some(url) = alertmanagers.iter().find(|u| !u.starts_with("http://")) {
            bail!("alerting: alertmanagers: {url:?}: give addresses of the form http://HOST:PORT");
        }
        Ok(Config {
            rules_dir: pick!(rules_dir).unwrap_or_else(|| data_dir.join("rules")),
            rules_interval: rules_interval(&must!(rules_interval))?,
            external_url: pick!(external_url).map(|u| u.trim_end_matches('/').to_owned()),
            external_labels: signal::Labels::from_pairs(pick!(external_labels).unwrap_or_default()),
            alertmanagers,
            logs: must!(logs),
            traces: must!(traces),
            forward: must!(forward),
            data_dir,
            api_addr: must!(api_addr),
            http_addr: must!(http_addr),
            otlp_grpc_addr: must!(otlp_grpc_addr),
            otlp_http_addr: must!(otlp_http_addr),
            otlp_translation_strategy: must!(otlp_translation_strategy)
                .parse()
                .context("--otlp-translation-strategy")?,
            receivers: Receivers {
                elasticsearch: pick!(elasticsearch_addr),
                zipkin: pick!(zipkin_addr),
                fluent: pick!(fluent_addr),
                syslog_tcp: pick!(syslog_tcp_addr),
                syslog_udp: pick!(syslog_udp_addr),
            },
            trusted_senders: networks(&must!(trusted_senders))?,
            kubelet_addr: kubelet_addr.unwrap_or_else(|| Addr::from((node_ip, 10250))),
            containerd_socket: must!(containerd_socket),
            registry_mirrors: mirrors(&must!(registry_mirrors))?,
            pod_cidr: cidr(must!(pod_cidr), "--pod-cidr")?,
            service_cidr: cidr(must!(service_cidr), "--service-cidr")?,
            cluster_domain: must!(cluster_domain),
            node_name,
            node_ip,
            bridge: must!(bridge),
            cgroup_root: must!(cgroup_root),
            store: ClusterStore::new(
                must!(store),
                &EtcdFiles {
                    ca: pick!(etcd_cafile).as_deref(),
                    cert: pick!(etcd_certfile).as_deref(),
                    key: pick!(etcd_keyfile).as_deref(),
                },
                pick!(encryption_key_file).as_deref(),
            )?,
            metrics_retention: retention(&must!(metrics_retention), "--metrics-retention")?,
            metrics_sync: match must!(metrics_sync).as_str() {
                "batch" => None,
                period => Some(duration(period, "--metrics-sync").context("or give \"batch\"")?),
            },
            metrics_out_of_order: duration(&must!(metrics_out_of_order), "--metrics-out-of-order")?,
            metrics_limits: tsdb::Limits {
                series: must!(metrics_namespace_series),
                new_series_per_second: must!(metrics_namespace_new_series),
                samples_per_second: must!(metrics_namespace_samples),
            },
            logs_retention: retention(&must!(logs_retention), "--logs-retention")?,
            traces_retention: retention(&must!(traces_retention), "--traces-retention")?,
            enable_admin_api: must!(enable_admin_api),
            audit_policy: Arc::new(crate::assemble::audit::policy(pick!(audit_policy_file).as_deref())?),
            oidc: match pick!(oidc_issuer_url) {
                None => None,
                Some(issuer_url) => Some(apiserver::OidcConfig {
                    issuer_url,
                    client_ids: words(&pick!(oidc_client_id).unwrap_or_default()),
                    username_claim: must!(oidc_username_claim),
                    username_prefix: pick!(oidc_username_prefix),
                    groups_claim: pick!(oidc_groups_claim),
                    groups_prefix: must!(oidc_groups_prefix),
                    required_claims: claims(&must!(oidc_required_claim))?,
                    ca_pem: match pick!(oidc_ca_file) {
                        None => String::new(),
                        Some(path) => std::fs::read_to_string(&path)
                            .with_context(|| format!("--oidc-ca-file {}", path.display()))?,
                    },
                    signing_algs: words(&must!(oidc_signing_algs)),
                }),
            },
            token_webhook: match pick!(authentication_token_webhook_config_file) {
                None => None,
                Some(path) => Some(token_webhook(&path, &must!(authentication_token_webhook_cache_ttl))?),
            },
            admission: admission(
                &must!(enable_admission_plugins),
                &must!(disable_admission_plugins),
                pick!(admission_control_config_file).as_deref(),
            )?,
            log: must!(log),
            scrape: Arc::new(scrape),
        })
    }

    /// The settings in force, by flag: what people ask for when something is not as they thought.
    pub(crate) fn told(&self) -> BTreeMap<String, String> {
        let kept = |r: Retention| match r {
            Retention::Age(d) => format!("{}s", d.as_secs()),
            Retention::Bytes(b) => format!("{b}B"),
        };
        let all = [
            ("data-dir", self.data_dir.display().to_string()),
            ("api-addr", self.api_addr.to_string()),
            ("http-addr", self.http_addr.to_string()),
            ("otlp-grpc-addr", self.otlp_grpc_addr.to_string()),
            ("otlp-http-addr", self.otlp_http_addr.to_string()),
            ("kubelet-addr", self.kubelet_addr.to_string()),
            ("containerd-socket", self.containerd_socket.display().to_string()),
            ("pod-cidr", self.pod_cidr.to_string()),
            ("service-cidr", self.service_cidr.to_string()),
            ("cluster-domain", self.cluster_domain.clone()),
            ("node-name", self.node_name.clone()),
            ("bridge", self.bridge.clone()),
            ("cgroup-root", self.cgroup_root.clone()),
            ("store", self.store.to_string()),
            ("metrics-retention", kept(self.metrics_retention)),
            ("logs-retention", kept(self.logs_retention)),
            ("traces-retention", kept(self.traces_retention)),
            ("rules-dir", self.rules_dir.display().to_string()),
            ("rules-interval", format!("{}s", self.rules_interval.as_secs_f64())),
            ("external-url", self.external_url.clone().unwrap_or_default()),
            ("log", self.log.clone()),
        ];
        all.into_iter().map(|(n, v)| (n.to_owned(), v)).collect()
    }

    /// The same as a configuration file.
    pub(crate) fn yaml(&self) -> String {
        let mut all: serde_json::Map<String, serde_json::Value> =
            self.told().into_iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| (n, v.into())).collect();
        all.insert("external-labels".to_owned(), serde_json::json!(self.external_labels));
        all.insert("logs".to_owned(), serde_json::json!(self.logs));
        all.insert("traces".to_owned(), serde_json::json!(self.traces));
        all.insert("alerting".to_owned(), serde_json::json!({"alertmanagers": self.alertmanagers}));
        serde_saphyr::to_string(&all).unwrap_or_default()
    }

    /// The pod network of this node.
    pub(crate) fn network(&self) -> network::Config {
        let mut n = network::Config::new(self.data_dir.clone(), self.node_name.clone(), self.node_ip);
        n.bridge.clone_from(&self.bridge);
        // One table per bridge, so that two clusters on one machine never touch each other's.
        n.table =
            if self.bridge == "bnl0" { "binnacle".to_owned() } else { format!("binnacle_{}", self.bridge) };
        n.pod_cidr = self.pod_cidr;
        n.service_cidr = self.service_cidr;
        n.dns_ip = self.service_cidr.host(10).unwrap_or(n.dns_ip);
        n.cluster_domain.clone_from(&self.cluster_domain);
        n
    }

    /// containerd's namespace of this cluster: the default directory's is `binnacle`.
    pub(crate) fn containerd_namespace(&self) -> String {
        if self.bridge == "bnl0" { "binnacle".to_owned() } else { format!("binnacle-{}", self.bridge) }
    }
}

/// A YAML file as a value.
pub(crate) fn yaml_file(path: &Path) -> Result<serde_json::Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", path.display()))
}

/// The address this machine would use towards the world; loopback if it has no route there. Nothing is sent.
fn primary_address() -> Ipv4Addr {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|s| {
        // TEST-NET-1 (RFC 5737): only the route is looked up.
        s.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        s.local_addr()
    });
    match probe.map(|a| a.ip()) {
        Ok(IpAddr::V4(ip)) if !ip.is_unspecified() => ip,
        _ => Ipv4Addr::LOCALHOST,
    }
}

pub(crate) fn hostname() -> Result<String> {
    let name = nix::unistd::gethostname().context("read the host's name")?;
    let name = name.to_string_lossy().to_ascii_lowercase();
    Ok(if name.is_empty() { "localhost".to_owned() } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_a_time_or_a_size() {
        let check = |s: &str, expect: Retention| assert_eq!(retention(s, "--x").expect(s), expect);
        check("15d", Retention::Age(Duration::from_secs(15 * 86_400)));
        check("1.5h", Retention::Age(Duration::from_secs(5400)));
        check("20GiB", Retention::Bytes(20 << 30));
        assert!(retention("soon", "--x").is_err());
        assert!(retention("15", "--x").is_err());
    }

    #[test]
    fn trusted_senders_are_networks_or_addresses() {
        let shown = |text: &str| networks(text).map(|n| n.iter().map(IpNet::to_string).collect::<Vec<_>>());
        assert_eq!(shown("").expect("none"), Vec::<String>::new());
        assert_eq!(shown("10.0.0.0/8, ::1").expect("two"), ["10.0.0.0/8", "::1/128"]);
        assert!(shown("all").is_err());
    }

    #[test]
    fn samples_are_synced_as_told() {
        let sync = |s: &str| {
            let args = ConfigArgs { metrics_sync: Some(s.to_owned()), ..ConfigArgs::default() };
            Config::load(args).map(|c| c.metrics_sync)
        };
        assert_eq!(sync("batch").expect("a policy"), None);
        assert_eq!(sync("200ms").expect("a policy"), Some(Duration::from_millis(200)));
        assert!(sync("often").is_err());
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c.yaml");
        std::fs::write(&path, "http-adr: 127.0.0.1:1\n").expect("written");
        let e = read_file(&path).expect_err("unknown key").to_string();
        assert!(e.contains("did you mean \"http-addr\"?"), "{e}");
        std::fs::write(&path, "http-addr: 127.0.0.1:1\nlogs-retention: 2d\n").expect("written");
        let c = Config::load(ConfigArgs { config: Some(path), ..ConfigArgs::default() })
            .expect("a configuration");
        assert_eq!((c.http_addr.port(), c.api_addr.port()), (1, 6443));
    }

    #[test]
    fn rules_and_alertmanagers_stand_in_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c.yaml");
        let load = |text: &str| {
            std::fs::write(&path, text).expect("written");
            Config::load(ConfigArgs { config: Some(path.clone()), ..ConfigArgs::default() })
        };
        let c = load(
            "data-dir: /d\nrules-interval: 15s\nexternal_labels: {cluster: c1}\nalerting: {alertmanagers: [http://a:9093/x]}\n",
        );
        let c = c.expect("a configuration");
        assert_eq!((c.rules_dir, c.rules_interval), ("/d/rules".into(), Duration::from_secs(15)));
        assert_eq!(c.external_labels.get("cluster"), Some("c1"));
        assert_eq!(c.alertmanagers, ["http://a:9093/x"]);
        let c = load("global: {evaluation_interval: 10s, external_labels: {cluster: c2}}")
            .expect("a configuration");
        assert_eq!(
            (c.rules_interval, c.external_labels.get("cluster")),
            (Duration::from_secs(10), Some("c2"))
        );
        let twice = "rules-interval: 15s\nglobal: {evaluation_interval: 10s}";
        assert!(load(twice).expect_err("twice").to_string().contains("keep one"));
        assert!(load("alerting: {alertmanagers: [a:9093]}").is_err());
        assert!(load("alerting: {alertmanager: []}").is_err());
        assert!(load("rules-interval: 0s").is_err());
    }

    #[test]
    fn processors_stand_in_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c.yaml");
        let load = |text: &str| {
            std::fs::write(&path, text).expect("written");
            Config::load(ConfigArgs { config: Some(path.clone()), ..ConfigArgs::default() })
        };
        let c = load(
            "logs: {defaults: {redact: [jwt]}, namespaces: {shop: {drop: ['GET /healthz'], lines-per-second: 5}}}\n\
             traces: {span-metrics: false, tail-sampling: {keep-percent: 5}}\n",
        );
        let c = c.expect("a configuration");
        assert_eq!(c.logs.namespaces["shop"].lines_per_second, Some(5));
        assert!(!c.traces.span_metrics && c.traces.service_graph);
        assert_eq!(c.traces.tail_sampling.map(|t| (t.keep_percent, t.errors)), Some((5.0, true)));
        assert!(load("logs: {default: {}}").is_err());
        assert!(load("traces: {span-metric: true}").is_err());
    }

    #[test]
    fn the_scrape_section_is_prometheus_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c.yaml");
        let check = |text: &str, expect: Result<usize, &str>| {
            std::fs::write(&path, text).expect("written");
            match (read_file(&path), expect) {
                (Ok((_, pools)), Ok(n)) => assert_eq!(pools.len(), n, "{text}"),
                (Err(e), Err(what)) => assert!(format!("{e:#}").contains(what), "{text}: {e:#}"),
                (got, _) => panic!("{text}: {:?}", got.map(|(_, p)| p.len())),
            }
        };
        let job = "scrape_configs:\n- job_name: a\n  static_configs:\n  - targets: ['x:1']\n";
        check(&format!("http-addr: 127.0.0.1:1\nglobal: {{scrape_interval: 5s}}\n{job}"), Ok(1));
        check(&format!("{job}  scrape_intervall: 5s\n"), Err("line 5"));
        check(&format!("{job}  scrape_timeout: 5y\n"), Err("scrape config \"a\""));
        check("scrape_config: []\n", Err("did you mean \"scrape-configs\"?"));
    }
}
