//! The command line: every command, its flags and an example of each.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Config, ConfigArgs};

/// Runs containers the way Kubernetes does, and knows everything about them the way a monitoring stack does.
#[derive(Parser)]
#[command(name = "binnacle", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start a one-machine cluster in the foreground: control plane, node, telemetry, UI
    #[command(
        after_help = "Example:\n  sudo binnacle up\n  sudo binnacle up --data-dir /srv/binnacle --http-addr 127.0.0.1:8080"
    )]
    Up(ConfigArgs),
    /// Start control plane, telemetry and UI without a node; needs neither root nor containerd
    #[command(
        after_help = "Example:\n  binnacle server --data-dir ./data --api-addr 127.0.0.1:0 --http-addr 127.0.0.1:0"
    )]
    Server(ConfigArgs),
    /// Stop all pods and take the pod network down
    #[command(
        after_help = "Example:\n  sudo binnacle down            # data stays\n  sudo binnacle down --purge    # nothing stays"
    )]
    Down(DownArgs),
    /// Print the administrator's kubeconfig
    #[command(
        after_help = "Example:\n  sudo binnacle kubeconfig > ~/.kube/binnacle && export KUBECONFIG=~/.kube/binnacle"
    )]
    Kubeconfig(DataDir),
    /// Print a link that logs a browser in, good once and for ten minutes
    #[command(after_help = "Example:\n  xdg-open \"$(sudo binnacle open)\"")]
    Open(DataDir),
    /// Credentials
    Token(TokenArgs),
    /// Ask a question: PromQL, LogQL, TraceQL or SQL
    #[command(
        after_help = "Examples:\n  binnacle query promql 'sum by (pod) (rate(container_cpu_usage_seconds_total[1m]))'\n  binnacle query logql '{namespace=\"shop\"} |= \"error\"'\n  binnacle query promql up --start -10m --end now --step 30s"
    )]
    Query(QueryArgs),
    /// Show the logs of a workload, merged over its pods
    #[command(
        after_help = "Examples:\n  binnacle logs -f deploy/web -n shop\n  binnacle logs pod/web-abc -n shop timeout\n  binnacle logs deploy/web -n shop --level warn --since 2h --context 3\n  binnacle logs -l app=web -n shop 'timeout OR status:>=500 -health'\n  binnacle logs deploy/web -n shop -o '{{.pod}} {{.msg}}'"
    )]
    Logs(LogsArgs),
    /// Say why: why an HPA scaled, why a pod is pending or slow to start, what became of a request to the API
    #[command(
        after_help = "Examples:\n  binnacle explain hpa web -n shop\n  binnacle explain pod web-abc -n shop\n  binnacle explain request 6f1c2e1a-…   # the Audit-Id of an answer: kubectl -v=8 shows it"
    )]
    Explain(ExplainArgs),
    /// Check this machine and say how to repair what is missing
    Doctor(ConfigArgs),
    /// Configuration file help
    Config(ConfigCommand),
    /// Images of the local container runtime
    Image(ImageArgs),
    /// Bring samples of other systems in, however old they are
    #[command(
        after_help = "Examples:\n  binnacle import metrics history.om                # OpenMetrics, with timestamps\n  binnacle import metrics /var/lib/prometheus/data  # Prometheus' blocks\n\nA Prometheus that runs holds its last hours in memory: take a snapshot of it, or stop it."
    )]
    Import(ImportArgs),
    /// Write samples to a file that other tools read
    #[command(
        after_help = "Example:\n  binnacle export metrics --match '{namespace=\"shop\"}' --start -1d --out shop.parquet\n  duckdb -c \"select name, count(*) from 'shop.parquet' group by name\""
    )]
    Export(ExportArgs),
    /// Save the cluster's objects and keys in one file while it runs
    #[command(
        after_help = "Example:\n  sudo binnacle backup /srv/backups/monday.binnacle\n\nSecrets are in it as they lie in the store: encrypted where --encryption-key-file was given. Metrics, logs and traces are not in it."
    )]
    Backup(BackupArgs),
    /// Make a data directory of a backup; start it afterwards
    #[command(
        after_help = "Example:\n  sudo binnacle restore /srv/backups/monday.binnacle --data-dir /var/lib/binnacle"
    )]
    Restore(RestoreArgs),
    /// Run test scripts: PromQL in Prometheus' promqltest language, LogQL and TraceQL in ones like it, rule unit tests in
    /// promtool's format
    #[command(
        after_help = "Examples:\n  binnacle test promql aggregators.test operators.test\n  binnacle test logql filters.logqltest\n  binnacle test rules tests.yaml"
    )]
    Test(TestArgs),
    /// Check files before they are used
    #[command(after_help = "Example:\n  binnacle check rules alerts.yaml")]
    Check(CheckArgs),
    /// Show alerts: which fire, which wait, which have ended lately
    #[command(
        after_help = "Examples:\n  binnacle alerts\n  binnacle alerts --state firing -o json\n  binnacle alerts --resolved"
    )]
    Alerts(AlertsArgs),
}

#[derive(Args, Clone)]
pub(crate) struct DataDir {
    /// Where the cluster keeps its state
    #[arg(long, env = "BINNACLE_DATA_DIR", default_value = crate::config::DATA_DIR)]
    pub(crate) data_dir: PathBuf,
}

#[derive(Args)]
pub(crate) struct DownArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Also remove the data directory: objects, metrics, logs, traces and keys
    #[arg(long)]
    pub(crate) purge: bool,
}

#[derive(Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) what: TokenCommand,
}

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Print the administrator's bearer token
    Create(DataDir),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    Promql,
    Logql,
    Traceql,
    Sql,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    #[default]
    Table,
    Json,
    Yaml,
}

#[derive(Args)]
pub(crate) struct QueryArgs {
    pub(crate) language: Language,
    /// The expression
    pub(crate) expr: String,
    /// When to evaluate: now, -5m, RFC 3339 or Unix seconds
    #[arg(long, default_value = "now", conflicts_with = "start", allow_hyphen_values = true)]
    pub(crate) time: String,
    /// Start of a range
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) start: Option<String>,
    /// End of a range
    #[arg(long, default_value = "now", allow_hyphen_values = true)]
    pub(crate) end: String,
    /// Distance between two points of a range
    #[arg(long, default_value = "15s")]
    pub(crate) step: String,
    /// Most log lines or traces
    #[arg(long, default_value_t = 100)]
    pub(crate) limit: usize,
    #[arg(short, long, default_value = "table")]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Args)]
pub(crate) struct LogsArgs {
    /// deploy/NAME, sts/NAME, ds/NAME, job/NAME, cronjob/NAME, rs/NAME, pod/NAME, or a regular expression over pod
    /// names
    #[arg(required_unless_present = "selector")]
    pub(crate) target: Option<String>,
    /// Only lines that fit: words, "phrases", -not, OR, field:value, status:>=500, dur:[1 TO 5], time*out
    #[arg(allow_hyphen_values = true)]
    pub(crate) search: Option<String>,
    /// Pods by their labels, instead of TARGET: app=web,tier!=cache
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Pods of every namespace
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Only this container
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Go on as lines arrive
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How far back to begin: 5m, 2h
    #[arg(long, default_value = "1h")]
    pub(crate) since: String,
    /// Only lines up to then: now, -5m, RFC 3339
    #[arg(long, default_value = "now", allow_hyphen_values = true)]
    pub(crate) until: String,
    /// Only lines of this level or a graver one
    #[arg(long, value_enum)]
    pub(crate) level: Option<Level>,
    /// Also so many lines of the same container before and after each
    #[arg(long, default_value_t = 0, conflicts_with = "follow")]
    pub(crate) context: usize,
    /// Most lines from the past
    #[arg(long, default_value_t = 500)]
    pub(crate) tail: usize,
    /// Leave out lines that hold this text; may be given several times
    #[arg(long)]
    pub(crate) exclude: Vec<String>,
    /// The run of each container before its last restart
    #[arg(long, conflicts_with_all = ["follow", "context", "cursor"])]
    pub(crate) previous: bool,
    /// Go on where an earlier run stopped: what it printed at its end
    #[arg(long)]
    pub(crate) cursor: Option<String>,
    /// Also print the LogQL that is asked
    #[arg(long)]
    pub(crate) show_query: bool,
    /// How a line is printed: pretty, raw (the line alone, as it is), json (an object with time and labels), or a
    /// template such as '{{.pod}} {{.line}}' with any label
    #[arg(short, long, default_value = "pretty")]
    pub(crate) output: String,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

/// The graver the later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Explained {
    Hpa,
    Pod,
    /// By the audit id of its answer
    Request,
}

#[derive(Args)]
pub(crate) struct ExplainArgs {
    pub(crate) what: Explained,
    pub(crate) name: String,
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// As of this time: now, -5m, RFC 3339
    #[arg(long, default_value = "now", allow_hyphen_values = true)]
    pub(crate) at: String,
    #[arg(short, long, default_value = "table")]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Args)]
pub(crate) struct ConfigCommand {
    #[command(subcommand)]
    pub(crate) what: ConfigWhat,
}

#[derive(Subcommand)]
pub(crate) enum ConfigWhat {
    /// Print every key with its default, as YAML
    PrintDefaults,
    /// Check a configuration file
    Check { file: PathBuf },
}

#[derive(Args)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    pub(crate) what: ImageWhat,
}

#[derive(Subcommand)]
pub(crate) enum ImageWhat {
    /// Import images from an OCI or Docker archive
    Import {
        archive: PathBuf,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List images
    List {
        #[command(flatten)]
        config: ConfigArgs,
    },
}

#[derive(Args)]
pub(crate) struct ImportArgs {
    #[command(subcommand)]
    pub(crate) what: ImportWhat,
}

#[derive(Subcommand)]
pub(crate) enum ImportWhat {
    /// Samples from OpenMetrics files and Prometheus block directories, into the running server
    Metrics {
        /// A text file whose samples have timestamps, a block, or a directory of blocks
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        data: DataDir,
    },
}

#[derive(Args)]
pub(crate) struct BackupArgs {
    /// The file to make
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// A file that `binnacle backup` made
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Args)]
pub(crate) struct ExportArgs {
    #[command(subcommand)]
    pub(crate) what: ExportWhat,
}

#[derive(Subcommand)]
pub(crate) enum ExportWhat {
    /// Float samples as Parquet: columns name, one for each label, ts, value; sorted by series and time
    Metrics {
        /// Which series, as in PromQL
        #[arg(long = "match", default_value = "{__name__!=\"\"}")]
        matches: String,
        /// now, -5m, RFC 3339 or Unix seconds
        #[arg(long, default_value = "-1h", allow_hyphen_values = true)]
        start: String,
        #[arg(long, default_value = "now", allow_hyphen_values = true)]
        end: String,
        /// The file to write
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        data: DataDir,
    },
}

#[derive(Args)]
pub(crate) struct TestArgs {
    #[command(subcommand)]
    pub(crate) what: TestWhat,
}

#[derive(Subcommand)]
pub(crate) enum TestWhat {
    /// Scripts in Prometheus' promqltest language
    Promql {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Scripts for LogQL: streams to load, queries, and what they give
    Logql {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Scripts for TraceQL: traces to load, queries, and what they give
    Traceql {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Unit tests of rules in promtool's format
    Rules {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    #[command(subcommand)]
    pub(crate) what: CheckWhat,
}

#[derive(Subcommand)]
pub(crate) enum CheckWhat {
    /// Recording and alerting rules
    Rules {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Whether expositions are OpenMetrics 1.0 to the letter
    Exposition {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Args)]
pub(crate) struct AlertsArgs {
    /// Only alerts in this state
    #[arg(long, value_enum)]
    pub(crate) state: Option<AlertStateArg>,
    /// Also alerts that have ended in the last quarter of an hour
    #[arg(long)]
    pub(crate) resolved: bool,
    #[arg(short, long, default_value = "table")]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AlertStateArg {
    Pending,
    Firing,
    Inactive,
}

impl ConfigArgs {
    /// Flags over environment over file over defaults.
    pub(crate) fn load(self) -> anyhow::Result<Config> {
        Config::load(self)
    }
}

/// Port 0 picks a free port.
pub(crate) type Addr = SocketAddr;
