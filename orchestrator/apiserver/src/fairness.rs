//! Priority and fairness: whose request waits and whose is refused when there are more than can be served
//! (KEP-1040; apiserver: pkg/util/flowcontrol).
//!
//! A request's FlowSchema is the first by precedence that matches its user and what is asked; that names the level,
//! and by user or namespace the flow. Both are objects, compiled once per change of them. Who is refused gets 429.

pub(crate) mod bootstrap;
pub(crate) mod dangling;
mod queues;
mod schema;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::user::UserInfo;
use axum::response::Response;
use http::{HeaderValue, header};
use parking_lot::Mutex;
use serde_json::Value;
use signal::time::Clock;

use crate::cache::Cache;
use crate::metrics::flow;
use crate::request::RequestInfo;
use crate::{body, kinds, object};
use queues::{Admission, Level, Limits, Seat};
use schema::Schema;

/// Requests served at once by all levels: upstream's --max-requests-inflight and --max-mutating-requests-inflight.
const SEATS: u64 = 600;
/// Upstream: a quarter of the request timeout.
const WAIT: Duration = Duration::from_secs(15);
/// A list takes a seat for so many objects, and so many seats at most.
const LIST_STEP: usize = 100;
const LIST_SEATS: usize = 10;

/// The level of what no schema matches.
const CATCH_ALL: &str = "catch-all";

pub(crate) const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// What a request is to the levels.
struct Class {
    schema: Arc<Schema>,
    flow: u64,
}

#[derive(Default)]
struct Compiled {
    schemas: Vec<Arc<Schema>>,
    /// For what none matches.
    rest: Arc<Schema>,
}

pub(crate) struct Fairness {
    cache: Arc<Cache>,
    /// Numbers of flow schemas and priority levels.
    kinds: [usize; 2],
    /// With the revisions of the last changes it was compiled from.
    compiled: Mutex<([u64; 2], Arc<Compiled>)>,
    levels: Mutex<HashMap<String, Arc<Level>>>,
}

/// A request that may go on, until this is dropped.
pub(crate) struct Ticket {
    class: Class,
    /// Held, not used.
    _seat: Option<Seat>,
}

impl Fairness {
    pub(crate) fn new(cache: Arc<Cache>) -> Fairness {
        let number =
            |resource| kinds::by_resource(GROUP, resource).expect("flowcontrol's kinds are known").index;
        Fairness {
            cache,
            kinds: [number("flowschemas"), number("prioritylevelconfigurations")],
            compiled: Mutex::default(),
            levels: Mutex::default(),
        }
    }

    /// Waits for a seat. The refusal is ready to be sent.
    pub(crate) async fn enter(
        &self,
        clock: &dyn Clock,
        user: &UserInfo,
        info: &RequestInfo,
    ) -> Result<Ticket, Response> {
        let class = self.classify(user, info);
        let level = self.levels.lock().get(&class.schema.level).cloned();
        // Upstream does not hold what lasts; and a level that is not there yet limits nobody.
        let (Some(level), false) = (level, lasts(info)) else { return Ok(Ticket { class, _seat: None }) };
        let refused = |class: &Class, why| {
            flow::refused(&class.schema.level, &class.schema.name, why);
            let mut r = body::text(429, "Too many requests, please try again later.\n");
            r.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            Mark(class.schema.clone()).on(&mut r);
            r
        };
        let seat = match level.enter(class.flow, self.width(info)) {
            Admission::Seated(seat) => seat,
            Admission::Refused(why) => return Err(refused(&class, why)),
            Admission::Waits(seat) => {
                let began = clock.monotonic();
                let waited = tokio::time::timeout(WAIT, seat).await;
                let took = clock.monotonic().saturating_duration_since(began);
                flow::waited(&class.schema.level, &class.schema.name, matches!(waited, Ok(Ok(_))), took);
                match waited {
                    Ok(Ok(seat)) => {
                        class.schema.count();
                        return Ok(Ticket { class, _seat: Some(seat) });
                    }
                    Ok(Err(_)) => return Err(refused(&class, "cancelled")),
                    Err(_) => return Err(refused(&class, "time-out")),
                }
            }
        };
        class.schema.count();
        class.schema.at_once();
        Ok(Ticket { class, _seat: Some(seat) })
    }

    /// Seats a request takes: a list as many as it is long.
    fn width(&self, info: &RequestInfo) -> u32 {
        if info.verb != "list" {
            return 1;
        }
        let kind = kinds::find(&info.group, &info.version, &info.resource);
        let objects = kind.map_or(0, |k| self.cache.count(k.index));
        objects.div_ceil(LIST_STEP).clamp(1, LIST_SEATS) as u32
    }

    fn classify(&self, user: &UserInfo, info: &RequestInfo) -> Class {
        let compiled = self.compiled();
        let matching = compiled.schemas.iter().find(|s| s.matches(user, info));
        let schema = matching.unwrap_or(&compiled.rest).clone();
        let mut hash = DefaultHasher::new();
        schema.name.hash(&mut hash);
        schema.distinguish(user, info).hash(&mut hash);
        Class { schema, flow: hash.finish() }
    }

    fn compiled(&self) -> Arc<Compiled> {
        let now = self.kinds.map(|k| self.cache.changed(k));
        let mut held = self.compiled.lock();
        if held.0 == now && now != [0, 0] {
            return held.1.clone();
        }
        let objects = |i: usize| self.cache.list(self.kinds[i], None).objects;
        let levels: Vec<Value> = objects(1).iter().map(|o| o.value()).collect();
        let uid = |name: &str| {
            let level = levels.iter().find(|l| object::name(l) == name);
            level.and_then(|l| object::text(l, "metadata.uid")).unwrap_or_default().to_owned()
        };
        let mut schemas: Vec<Schema> = objects(0).iter().map(|o| Schema::parse(&o.value())).collect();
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        for s in &mut schemas {
            s.level_uid = uid(&s.level);
        }
        let rest = Schema::named(CATCH_ALL, uid(CATCH_ALL));
        let compiled =
            Arc::new(Compiled { schemas: schemas.into_iter().map(Arc::new).collect(), rest: Arc::new(rest) });
        self.set_levels(&levels);
        *held = (now, compiled.clone());
        compiled
    }

    fn set_levels(&self, configured: &[Value]) {
        let shares: u64 = configured.iter().map(shares).sum();
        let mut levels = self.levels.lock();
        levels.retain(|name, _| configured.iter().any(|l| object::name(l) == name));
        for l in configured {
            let level = levels.entry(object::name(l).to_owned()).or_default();
            let limits = limits(l, shares);
            flow::limit(object::name(l), limits.seats);
            level.set(limits);
        }
    }

    /// Name, seats taken and requests waiting of each level, for metrics.
    pub(crate) fn loads(&self) -> Vec<(String, u32, usize)> {
        let levels = self.levels.lock();
        levels.iter().map(|(name, l)| (name.clone(), l.load())).map(|(n, (s, w))| (n, s, w)).collect()
    }
}

/// Names on an answer who decided about its request.
#[derive(Debug)]
pub(crate) struct Mark(Arc<Schema>);

impl Mark {
    pub(crate) fn on(&self, r: &mut Response) {
        let uids = [
            ("x-kubernetes-pf-flowschema-uid", &self.0.uid),
            ("x-kubernetes-pf-prioritylevel-uid", &self.0.level_uid),
        ];
        for (name, uid) in uids {
            if let Ok(v) = HeaderValue::from_str(uid) {
                r.headers_mut().insert(name, v);
            }
        }
    }
}

impl Ticket {
    /// Of the flow schema and the priority level.
    pub(crate) fn names(&self) -> (&str, &str) {
        (&self.class.schema.name, &self.class.schema.level)
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark(self.class.schema.clone())
    }
}

/// What lasts as long as its client likes (watches hold a seat while they begin).
fn lasts(info: &RequestInfo) -> bool {
    matches!(info.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
        || info.verb == "proxy"
}

fn shares(level: &Value) -> u64 {
    let part = if object::text(level, "spec.type") == Some("Exempt") { "exempt" } else { "limited" };
    let default = if part == "exempt" { 0 } else { 30 };
    let given = object::int(level, &format!("spec.{part}.nominalConcurrencyShares"));
    u64::try_from(given.unwrap_or(default)).unwrap_or(0)
}

fn limits(level: &Value, all_shares: u64) -> Limits {
    let exempt = object::text(level, "spec.type") == Some("Exempt");
    let seats = (SEATS * shares(level)).div_ceil(all_shares.max(1)) as u32;
    let of = |name: &str, default: i64| {
        let given = object::int(level, &format!("spec.limited.limitResponse.queuing.{name}"));
        usize::try_from(given.unwrap_or(default)).unwrap_or(0)
    };
    if object::text(level, "spec.limited.limitResponse.type") == Some("Queue") {
        let (queues, hand, length) = (of("queues", 64), of("handSize", 8), of("queueLengthLimit", 50));
        return Limits { exempt, seats, queues, hand, length };
    }
    Limits { exempt, seats, ..Limits::default() }
}
