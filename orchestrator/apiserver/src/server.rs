//! The server as a whole: what it is made of and how it is opened.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use apimachinery::user::UserInfo;
use axum::Router;
use serde_json::{Value, json};
use signal::Timestamp;
use signal::time::SharedClock;
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::admission::attributes::Trail;
use crate::admission::config::AdmissionConfig;
use crate::aggregator::{self, Aggregator};
use crate::audit::Audit;
use crate::authn::expired;
use crate::authn::oidc::{Oidc, OidcConfig};
use crate::authn::review::{Reviewer, TokenWebhook};
use crate::cache::Cache;
use crate::error::{ApiError, Error};
use crate::fairness::{Fairness, dangling};
use crate::history::EventArchive;
use crate::kinds::{self, Kind, Served};
use crate::pki::Pki;
use crate::policies::Policies;
use crate::policies::rego::RegoPolicies;
use crate::policies::typecheck;
use crate::proxy::archive::LogArchive;
use crate::rbac::Rbac;
use crate::registry::{Part, WriteContext};
use crate::token::Tokens;
use crate::webhook::client::Peers;
use crate::webhook::config::Hooks;
use crate::{addresses, bootstrap, certificates, custom, dispatch, expire, object, quota};

/// One check behind `/readyz`.
pub type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What is worth knowing of a server that is ready all the same, a line each.
pub type Remarks = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// An API that another room serves under this server's roof.
#[derive(Clone)]
pub struct LocalApi {
    pub group: String,
    pub version: String,
    /// The `resources` of its discovery document (APIResource objects).
    pub resources: Vec<Value>,
    /// Gets requests with their whole path.
    pub router: Router,
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: Ipv4Addr,
    prefix: u8,
}

impl Cidr {
    /// The n-th address.
    pub fn nth(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).wrapping_add(n))
    }

    pub fn contains(self, ip: Ipv4Addr) -> bool {
        u32::from(ip).wrapping_sub(u32::from(self.base)) < self.size()
    }

    /// How many addresses there are.
    pub fn size(self) -> u32 {
        1u32.checked_shl(u32::from(32 - self.prefix)).unwrap_or(u32::MAX)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("{s:?} is no IPv4 network such as 10.43.0.0/16");
        let (ip, prefix) = s.split_once('/').ok_or_else(bad)?;
        let (ip, prefix): (Ipv4Addr, u8) =
            (ip.parse().map_err(|_| bad())?, prefix.parse().map_err(|_| bad())?);
        if !(1..=30).contains(&prefix) {
            return Err(bad());
        }
        let mask = u32::MAX << (32 - prefix);
        Ok(Cidr { base: Ipv4Addr::from(u32::from(ip) & mask), prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// What the server is told.
pub struct Config {
    pub store: Arc<Store>,
    pub pki: Arc<Pki>,
    pub service_cidr: Cidr,
    pub node_ports: RangeInclusive<u16>,
    pub cluster_domain: String,
    /// The address in the endpoints of the `kubernetes` service; the port is that of the listener.
    pub advertise_address: IpAddr,
    /// A bearer token with all rights; empty is none.
    pub admin_token: String,
    pub clock: SharedClock,
    pub readiness: Vec<(String, Check)>,
    pub remarks: Remarks,
    pub local_apis: Vec<LocalApi>,
    /// What is audited, and where to.
    pub audit: Option<Audit>,
    /// An OpenID provider whose tokens are taken.
    pub oidc: Option<OidcConfig>,
    /// Who is asked about tokens that nobody else knows.
    pub token_webhook: Option<TokenWebhook>,
    /// Which admission plugins are on, and how they are set.
    pub admission: AdmissionConfig,
    /// Where lists of events find those that are older than the store keeps them.
    pub past_events: Option<EventArchive>,
    /// Where logs are found that no node has any more.
    pub past_logs: Option<LogArchive>,
    /// Ends watches and the cache.
    pub stop: CancellationToken,
}

impl Config {
    /// With the defaults of design: 10.43.0.0/16, 30000–32767, `cluster.local`.
    pub fn new(store: Arc<Store>, pki: Arc<Pki>) -> Self {
        Config {
            store,
            pki,
            service_cidr: Cidr { base: Ipv4Addr::new(10, 43, 0, 0), prefix: 16 },
            node_ports: 30000..=32767,
            cluster_domain: "cluster.local".to_owned(),
            advertise_address: IpAddr::from([127, 0, 0, 1]),
            admin_token: String::new(),
            clock: signal::time::system_clock(),
            readiness: Vec::new(),
            remarks: Arc::new(Vec::new),
            local_apis: Vec::new(),
            audit: None,
            oidc: None,
            token_webhook: None,
            admission: AdmissionConfig::default(),
            past_events: None,
            past_logs: None,
            stop: CancellationToken::new(),
        }
    }
}

/// What a question to the authorizer is about.
#[derive(Clone, Debug, Default)]
pub struct Access {
    pub verb: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

/// The API server.
pub struct ApiServer {
    pub(crate) config: Config,
    pub(crate) store: Arc<Store>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) policies: Policies,
    pub(crate) rego: RegoPolicies,
    pub(crate) rbac: Rbac,
    pub(crate) fairness: Fairness,
    pub(crate) tokens: Tokens,
    pub(crate) oidc: Option<Oidc>,
    pub(crate) reviewer: Option<Reviewer>,
    pub(crate) hooks: Hooks,
    /// Connections to webhooks and other servers that others run.
    pub(crate) peers: Peers,
    pub(crate) aggregator: Aggregator,
    pub(crate) allocating: Arc<tokio::sync::Mutex<()>>,
    /// Held from the check of a quota until what it allows is written.
    pub(crate) counting: Arc<tokio::sync::Mutex<()>>,
    pub(crate) openapi_v2: crate::openapi::v2::Cached,
    pub(crate) stop: CancellationToken,
}

impl ApiServer {
    /// Loads the cache and makes what every cluster has: namespaces, roles, the `kubernetes` service.
    pub async fn open(config: Config) -> Result<Arc<ApiServer>, Error> {
        crate::metrics::built(crate::nonresource::BUILD);
        let store = config.store.clone();
        let stop = config.stop.clone();
        let cache = Cache::open(store.clone(), stop.clone()).await?;
        let tokens = Tokens::new(&config.pki, &config.cluster_domain)?;
        let oidc = config.oidc.clone().map(|c| Oidc::new(c, config.clock.clone()));
        let server = Arc::new(ApiServer {
            oidc: oidc.transpose().map_err(Error::Config)?,
            reviewer: config.token_webhook.clone().map(Reviewer::new),
            policies: Policies::new(cache.clone()),
            rego: RegoPolicies::new(cache.clone()),
            rbac: Rbac::new(cache.clone()),
            fairness: Fairness::new(cache.clone()),
            hooks: Hooks::new(cache.clone()),
            peers: Peers::new(cache.clone()),
            aggregator: Aggregator::new(cache.clone(), config.pki.front_proxy.clone()),
            config,
            store,
            cache,
            tokens,
            allocating: Arc::default(),
            counting: Arc::default(),
            openapi_v2: Default::default(),
            stop,
        });
        server.policies.belong_to(&server);
        bootstrap::run(&server).await?;
        telemetry::task::spawn("apiserver-event-ttl", expire::run(server.clone()));
        telemetry::task::spawn("apiserver-service-addresses", addresses::run(server.clone()));
        telemetry::task::spawn("apiserver-quota", quota::run(server.clone()));
        telemetry::task::spawn("apiserver-crd", custom::lifecycle::run(server.clone()));
        telemetry::task::spawn("apiserver-api-rows", aggregator::register::run(server.clone()));
        telemetry::task::spawn("apiserver-api-probe", aggregator::probe::run(server.clone()));
        telemetry::task::spawn("apiserver-bootstrap-tokens", expired::run(server.clone()));
        telemetry::task::spawn("apiserver-flow-schemas", dangling::run(server.clone()));
        telemetry::task::spawn("apiserver-policy-types", typecheck::run(server.clone()));
        telemetry::task::spawn("apiserver-certificates", certificates::run(server.clone()));
        Ok(server)
    }

    /// The whole API under one identity, without a socket: for `kube::Client::new(router, "default")`.
    pub fn in_process(self: &Arc<Self>, user: UserInfo) -> Router {
        dispatch::router(self.clone())
            .layer(axum::Extension(user))
            .layer(axum::middleware::from_fn(dispatch::on_its_own))
    }

    /// Who shows this bearer token, for other doors of the same house.
    pub async fn authenticate_token(&self, token: &str) -> Option<UserInfo> {
        self.bearer(token).await
    }

    /// Whether a user may do this, for other doors of the same house.
    pub fn authorize(&self, user: &UserInfo, access: &Access) -> bool {
        self.decide(user, access, None).allowed
    }

    /// What `/readyz` says beside its checks.
    pub fn remarks(&self) -> Vec<String> {
        (self.config.remarks)()
    }

    /// Begins a backup of all objects as they are now, with these files.
    pub async fn backup(&self, files: Vec<(String, bytes::Bytes)>) -> Result<store::Backup, store::Error> {
        store::Backup::begin(self.store.clone(), files).await
    }

    /// Whether other servers serve the same objects: then what acts on them must be elected.
    pub fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    pub fn pki(&self) -> &Arc<Pki> {
        &self.config.pki
    }

    /// A kind by its path, ours or a custom one.
    pub(crate) fn find_kind(&self, group: &str, version: &str, resource: &str) -> Option<Served> {
        kinds::find(group, version, resource).or_else(|| self.cache.customs.find(group, version, resource))
    }

    /// Every kind in every group-version, custom ones behind ours.
    pub(crate) fn served(&self) -> Vec<Served> {
        kinds::served().chain(self.cache.customs.served()).collect()
    }

    /// Every kind once, with its number.
    pub(crate) fn stored_kinds(&self) -> Vec<(usize, &'static Kind)> {
        let mut customs = self.cache.customs.all();
        // New ones stand behind: who goes through them by number misses none.
        customs.sort_by_key(|c| c.index);
        let customs = customs.iter().map(|c| (c.index, c.storage().kind));
        kinds::ALL.iter().copied().enumerate().chain(customs).collect()
    }

    /// The part of a request's road of this name ends now.
    pub(crate) fn left(&self, trail: &Trail, part: &'static str) {
        trail.stations.left(part, self.config.clock.monotonic());
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    /// Creates an object, or brings an existing one in line.
    pub(crate) async fn put(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        o: Value,
    ) -> Result<(), Error> {
        let served = kinds::by_resource(group, resource).expect("bootstrap names only known kinds");
        let name = object::name(&o).to_owned();
        let failed = |e: ApiError| Error::Bootstrap {
            what: format!("{resource} {namespace}/{name}"),
            message: e.message,
        };
        let mut ctx = WriteContext::default();
        ctx.options.field_manager = "binnacle".to_owned();
        let key = crate::cache::object_key(served.kind, namespace, &name);
        self.cache.fresh().await.map_err(failed)?;
        if self.cache.get(served.index, &key).is_none() {
            match self.create(&served, namespace, o.clone(), &ctx).await {
                // Another server on the same store was quicker.
                Err(e) if e.code == 409 => self.cache.fresh().await.map_err(failed)?,
                created => return created.map(drop).map_err(failed),
            }
        }
        let mut change = |old: &Value| {
            let mut new = old.clone();
            for (k, v) in o.as_object().into_iter().flatten() {
                match k.as_str() {
                    "metadata" | "status" | "apiVersion" | "kind" => {}
                    // A Service's address was given out before.
                    "spec" if resource == "services" => {}
                    _ => new[k] = v.clone(),
                }
            }
            Ok(new)
        };
        self.update(&served, namespace, &name, &ctx, Part::Main, &mut change).await.map_err(failed)?;
        Ok(())
    }

    /// Tells the cluster where this server is reached.
    pub(crate) async fn publish_endpoint(&self, port: u16) -> Result<(), Error> {
        let address = self.config.advertise_address;
        let endpoints = json!({
            "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": [{"ip": address.to_string()}],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
        });
        self.put("", "endpoints", "default", endpoints).await?;
        let slice = json!({
            "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        });
        self.put("discovery.k8s.io", "endpointslices", "default", slice).await
    }
}
