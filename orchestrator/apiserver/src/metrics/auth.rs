//! Who came, how sure we are, and whether they may, under upstream's names (apiserver: pkg/endpoints/filters/metrics.go,
//! pkg/authentication/request/x509/x509.go).

use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UserLabels {
    username: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    r#type: &'static str,
    decision: &'static str,
}

/// A verdict, how often it was reached, and how long that took.
struct Judged {
    times: Counter,
    took: Histogram,
}

struct Metrics {
    /// Failed, and not.
    authentications: [Judged; 2],
    /// Denied, and allowed.
    authorizations: [Judged; 2],
    users: [Counter; 3],
    /// Of nodes and of roles, denied and allowed.
    decisions: [[Counter; 2]; 2],
    certificates: Histogram,
    handshakes: Counter,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    type Times = Family<ResultLabels, Counter>;
    type Took = Family<ResultLabels, Histogram>;
    let took = || {
        Took::new_with_constructor(|| {
            Histogram::new([0.001, 0.004, 0.016, 0.064, 0.256, 1.024, 4.096, 16.384])
        })
    };
    let (authentications, authenticating) = (Times::default(), took());
    let (authorizations, authorizing) = (Times::default(), took());
    let judged = |times: &Times, took: &Took, words: [&'static str; 2]| {
        words.map(|result| {
            let l = ResultLabels { result };
            Judged { times: times.get_or_create_owned(&l), took: took.get_or_create_owned(&l) }
        })
    };
    let users = Family::<UserLabels, Counter>::default();
    let decisions = Family::<DecisionLabels, Counter>::default();
    let m = Metrics {
        authentications: judged(&authentications, &authenticating, ["failure", "success"]),
        authorizations: judged(&authorizations, &authorizing, ["denied", "allowed"]),
        users: ["admin", "email_id", "other"]
            .map(|username| users.get_or_create_owned(&UserLabels { username })),
        decisions: ["Node", "RBAC"].map(|r#type| {
            ["denied", "allowed"]
                .map(|decision| decisions.get_or_create_owned(&DecisionLabels { r#type, decision }))
        }),
        certificates: Histogram::new([
            0.0,
            1800.0,
            3600.0,
            7200.0,
            21600.0,
            43200.0,
            86400.0,
            172_800.0,
            345_600.0,
            604_800.0,
            2_592_000.0,
            7_776_000.0,
            15_552_000.0,
            31_104_000.0,
        ]),
        handshakes: Counter::default(),
    };
    telemetry::metrics::register(|r| {
        r.register("authentication_attempts", "Requests with or without a known user", authentications);
        r.register(
            "authentication_duration_seconds",
            "How long it took to know the user of a request",
            authenticating,
        );
        r.register("authenticated_user_requests", "Requests by the kind of their users' names", users);
        r.register("authorization_attempts", "Requests allowed and refused", authorizations);
        r.register(
            "authorization_duration_seconds",
            "How long it took to allow or refuse a request",
            authorizing,
        );
        r.register(
            "apiserver_authorization_decisions",
            "What authorizers decided, those asked about included",
            decisions,
        );
        r.register(
            "apiserver_client_certificate_expiration_seconds",
            "How long the certificates of requests were still good",
            m.certificates.clone(),
        );
        r.register("apiserver_tls_handshake_errors", "TLS handshakes that failed", m.handshakes.clone());
    });
    m
});

/// A request's user is known, or is not.
pub(crate) fn authenticated(user: Option<&str>, took: Duration) {
    let judged = &METRICS.authentications[usize::from(user.is_some())];
    judged.times.inc();
    judged.took.observe(took.as_secs_f64());
    let Some(user) = user else { return };
    // No client's name makes a series.
    let [admin, mail, other] = &METRICS.users;
    match user {
        "admin" => admin.inc(),
        u if u.contains('@') => mail.inc(),
        _ => other.inc(),
    };
}

pub(crate) fn authorized(allowed: bool, took: Duration) {
    let judged = &METRICS.authorizations[usize::from(allowed)];
    judged.times.inc();
    judged.took.observe(took.as_secs_f64());
}

/// The authorizer of nodes, or that of roles, decided.
pub(crate) fn decided(node: bool, allowed: bool) {
    METRICS.decisions[usize::from(!node)][usize::from(allowed)].inc();
}

/// A request came with a certificate that is good for so long.
pub(crate) fn certificate(left: f64) {
    METRICS.certificates.observe(left);
}

pub(crate) fn handshake_failed() {
    METRICS.handshakes.inc();
}
