//! Leader election by a Lease, as client-go does it: several servers stand ready, one works.
//!
//! The holder renews every [`RETRY`]; who sees a lease unchanged for its whole duration takes it. Time is measured by
//! one's own clock since one saw the lease change, so clocks that differ do no harm; every write is conditional on the
//! resourceVersion, so two can never both have it written (client-go: tools/leaderelection/leaderelection.go).

use std::future::Future;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff;
use kube::api::PostParams;
use kube::{Api, Client};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{family::Family, gauge::Gauge};
use signal::time::SharedClock;
use tokio_util::sync::CancellationToken;

/// Upstream's defaults.
const LEASE: Duration = Duration::from_secs(15);
const RENEW_WITHIN: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// One office that one of several processes holds.
pub struct Election {
    pub client: Client,
    /// In `kube-system`.
    pub lease: String,
    /// Who we are; no other process may say the same.
    pub identity: String,
    pub clock: SharedClock,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeaseLabel {
    name: String,
}

/// Leases are named by this program: there are few.
static LEADS: LazyLock<Family<LeaseLabel, Gauge>> = LazyLock::new(|| {
    let leads = Family::default();
    telemetry::metrics::register(|r| {
        r.register("leader_election_master_status", "1 while this process leads", Family::clone(&leads));
    });
    leads
});

/// What was seen of the lease, and when it last changed.
#[derive(Default)]
struct Seen {
    version: String,
    at: Option<Instant>,
}

impl Election {
    /// Stands for election until `stop`; in office runs `work`, whose token ends with the office or with `stop`.
    pub async fn run<F>(self, stop: CancellationToken, work: impl Fn(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut seen = Seen::default();
        while !stop.is_cancelled() {
            if self.take(&mut seen).await {
                tracing::info!(lease = self.lease, identity = self.identity, "leading");
                let leads = LEADS.get_or_create_owned(&LeaseLabel { name: self.lease.clone() });
                leads.set(1);
                let term = stop.child_token();
                let working = telemetry::task::spawn("leading", work(term.clone()));
                self.hold(&mut seen, &stop).await;
                leads.set(0);
                term.cancel();
                if let Err(e) = working.await {
                    tracing::error!(lease = self.lease, error = %e, "what the leader did ended badly");
                }
                if stop.is_cancelled() {
                    self.release().await;
                } else {
                    tracing::warn!(lease = self.lease, "no longer leading");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Renews until that fails for too long or somebody else has the lease.
    async fn hold(&self, seen: &mut Seen, stop: &CancellationToken) {
        let mut renewed = self.clock.monotonic();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
            let left = RENEW_WITHIN.saturating_sub(self.clock.monotonic().saturating_duration_since(renewed));
            match tokio::time::timeout(left, self.take(seen)).await {
                Ok(true) => renewed = self.clock.monotonic(),
                _ if self.clock.monotonic().saturating_duration_since(renewed) >= RENEW_WITHIN => return,
                _ => {}
            }
        }
    }

    /// Takes or renews the lease, if it is ours, free or has run out.
    async fn take(&self, seen: &mut Seen) -> bool {
        match self.try_take(seen).await {
            Ok(ours) => ours,
            // Somebody was quicker.
            Err(kube::Error::Api(e)) if e.code == 409 => false,
            Err(e) => {
                tracing::warn!(lease = self.lease, error = %e, "the lease could not be read or written");
                false
            }
        }
    }

    async fn try_take(&self, seen: &mut Seen) -> Result<bool, kube::Error> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-system");
        let now = MicroTime(
            jiff::Timestamp::from_nanosecond(i128::from(self.clock.now().nanos())).unwrap_or_default(),
        );
        let mut spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(LEASE.as_secs() as i32),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(0),
            ..LeaseSpec::default()
        };
        let Some(mut lease) = leases.get_opt(&self.lease).await? else {
            let metadata = ObjectMeta { name: Some(self.lease.clone()), ..ObjectMeta::default() };
            leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await?;
            return Ok(true);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if version != seen.version {
            *seen = Seen { version, at: Some(self.clock.monotonic()) };
        }
        let old = lease.spec.take().unwrap_or_default();
        let holder = old.holder_identity.unwrap_or_default();
        let lasts = Duration::from_secs(u64::try_from(old.lease_duration_seconds.unwrap_or(0)).unwrap_or(0));
        let stale = seen.at.is_none_or(|at| self.clock.monotonic().saturating_duration_since(at) >= lasts);
        let ours = holder == self.identity;
        if !ours && !holder.is_empty() && !stale {
            return Ok(false);
        }
        spec.lease_transitions = old.lease_transitions;
        if ours {
            spec.acquire_time = old.acquire_time;
        } else {
            spec.lease_transitions = Some(old.lease_transitions.unwrap_or(0) + 1);
        }
        lease.spec = Some(spec);
        leases.replace(&self.lease, &PostParams::default(), &lease).await?;
        Ok(true)
    }

    /// Gives the lease back, so that the next one need not wait for it to run out.
    async fn release(&self) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-system");
        let given = async {
            let Some(mut lease) = leases.get_opt(&self.lease).await? else { return Ok(()) };
            let ours = lease.spec.as_ref().and_then(|s| s.holder_identity.as_ref()) == Some(&self.identity);
            if let Some(spec) = lease.spec.as_mut().filter(|_| ours) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                leases.replace(&self.lease, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        if let Err(e) = given.await {
            tracing::info!(lease = self.lease, error = %e, "the lease was not given back, it will run out");
        }
    }
}
