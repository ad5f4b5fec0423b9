//! What the repository promises about itself: which crate may use which, and why.
//!
//! The table is design section 3, "Dependency direction"; [`layers`] is compared with `cargo metadata` in a test.

/// A crate of ours and those of ours it may use.
pub struct Room {
    pub name: &'static str,
    pub uses: &'static [&'static str],
    pub why: &'static str,
}

const fn room(name: &'static str, uses: &'static [&'static str], why: &'static str) -> Room {
    Room { name, uses, why }
}

const FLOOR_1: &[&str] = &["signal", "telemetry", "wal"];

/// Every crate of the house, lowest floor first.
pub fn layers() -> Vec<Room> {
    let control = &["signal", "telemetry", "apimachinery", "client"];
    vec![
        room("signal", &[], "the vocabulary needs nobody"),
        room("telemetry", &["signal"], "measures the process in the vocabulary's words"),
        room("wal", &["signal", "telemetry"], "bytes and clocks only"),
        room("collector", FLOOR_1, "knows nothing of Kubernetes nor of the engines: it writes to a Sink"),
        room("apimachinery", &[], "object rules without I/O"),
        room("expression", &["apimachinery"], "a language over values; who asks brings them"),
        room("store", &["signal", "telemetry"], "bytes and revisions, no objects"),
        room("client", &["signal", "telemetry", "apimachinery"], "the only way to the cluster"),
        room("tsdb", FLOOR_1, "knows neither collector nor query nor log-index"),
        room("exchange", &["signal"], "other systems' formats; the TSDB's own is none of them"),
        room("log-index", FLOOR_1, "knows neither collector nor query nor tsdb"),
        room("promql", &["signal", "telemetry"], "reads a SeriesSource, so it never needs the TSDB"),
        room("template", &[], "Go's template language; each room brings its own functions"),
        room(
            "rules",
            &["signal", "telemetry", "promql", "template"],
            "reads by PromQL and writes to a Sink, so it needs neither the TSDB nor the log index",
        ),
        room(
            "logql",
            &["signal", "telemetry", "log-index", "promql", "template"],
            "evaluates over the log index; what stands around a range is PromQL",
        ),
        room(
            "sql",
            &["signal", "telemetry", "tsdb", "log-index", "promql", "logql"],
            "the only door to DataFusion",
        ),
        room(
            "query",
            &["signal", "telemetry", "tsdb", "exchange", "log-index", "promql", "logql", "sql", "rules"],
            "HTTP in front of the engines",
        ),
        room(
            "apiserver",
            &["signal", "telemetry", "apimachinery", "expression", "store", "client"],
            "objects over the store",
        ),
        room("scheduler", control, "reaches the cluster through client only"),
        room("controllers", control, "reach the cluster through client only"),
        room("network", control, "reaches the cluster through client only"),
        room("discovery", control, "fills the collector's registries through signal"),
        room(
            "kubelet",
            &["signal", "telemetry", "apimachinery", "client", "network"],
            "a pod needs a network",
        ),
        room("autoscaler", &["signal", "telemetry", "apimachinery", "client", "promql"], "decides by PromQL"),
        room("dashboards", &[], "serves files"),
        room(
            "orchestrator",
            &[
                "signal",
                "telemetry",
                "wal",
                "collector",
                "apimachinery",
                "store",
                "client",
                "tsdb",
                "exchange",
                "log-index",
                "promql",
                "logql",
                "sql",
                "rules",
                "query",
                "apiserver",
                "scheduler",
                "controllers",
                "network",
                "discovery",
                "kubelet",
                "autoscaler",
                "dashboards",
            ],
            "assembly: the only room that knows all others",
        ),
        room("shop", &[], "an example is a program of its own"),
        room("tests", &["signal"], "drives the binary from outside"),
        room(
            "sim",
            &["apimachinery", "scheduler", "controllers", "autoscaler", "signal"],
            "drives the pure planners",
        ),
        room(
            "fuzz",
            &["signal", "wal", "collector", "tsdb", "exchange", "log-index", "promql", "logql", "query"],
            "throws bytes at whatever reads bytes of others",
        ),
        room("tidy", &[], "looks at the repository, not into it"),
    ]
}

/// A heavy crate and the rooms that may name it.
pub struct Door {
    pub dependency: &'static str,
    pub rooms: &'static [&'static str],
}

/// Heavy dependencies have one door (invariant 5).
pub fn doors() -> Vec<Door> {
    let door = |dependency, rooms| Door { dependency, rooms };
    vec![
        door("datafusion", &["sql"]),
        door("redb", &["store"]),
        door("etcd-client", &["store"]),
        door("containerd-client", &["kubelet"]),
        door("tonic", &["collector", "kubelet"]),
        door("opentelemetry-proto", &["collector"]),
        door("arrow", &["tsdb", "exchange", "log-index", "sql"]),
        door("parquet", &["exchange", "log-index", "sql"]),
        door("anyhow", &["orchestrator", "tests"]),
        door("hickory-server", &["network"]),
        door("cel", &["expression"]),
        door("regorus", &["apiserver"]),
        door("clap", &["orchestrator"]),
    ]
}
