//! The backend on etcd, for several servers on one memory.
//!
//! Keys and revisions are etcd's own, and one write is one transaction on one key. One task follows every key of
//! the etcd (not only ours: so each revision there is reaches us, and a read may wait for any of them) and
//! publishes to the same hub the embedded store has. Reads are linearizable: etcd asks its quorum.

mod compactor;
mod follow;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, GetOptions, Identity, KvClient,
    TlsOptions, Txn, TxnOp, TxnOpResponse,
};
use tokio::task::JoinHandle;

use crate::watch::{Hub, Source, Watch};
use crate::{Error, KeyValue, Range, RangeResult, Stats};

/// Objects asked for at once: etcd builds an answer in memory, and so do we.
const PAGE: usize = 500;
/// The biggest answer taken: a page of objects of etcd's own limit of 1.5 MiB.
const MAX_ANSWER: usize = (PAGE * 3) << 19;
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Upstream's bound on a request to etcd.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Where etcd is and how it is spoken to.
#[derive(Clone)]
pub struct EtcdConfig {
    /// As `http://10.0.0.1:2379`, or `https://…` with [`EtcdConfig::tls`].
    pub endpoints: Vec<String>,
    pub tls: Option<EtcdTls>,
    /// History older than this is forgotten, by one of the servers at a time.
    pub keep_age: Duration,
    /// How many recent events are kept in memory for watchers.
    pub ring_events: usize,
}

/// Certificates for etcd, PEM.
#[derive(Clone)]
pub struct EtcdTls {
    pub ca: Vec<u8>,
    /// Our certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl EtcdConfig {
    pub fn new(endpoints: Vec<String>) -> Self {
        EtcdConfig { endpoints, tls: None, keep_age: Duration::from_secs(300), ring_events: 1024 }
    }
}

/// What readers, watches and the follower share.
pub(crate) struct Shared {
    client: Client,
    pub(crate) hub: Hub,
    writes: AtomicU64,
    failed: AtomicU64,
    compacted: AtomicU64,
}

impl Shared {
    fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.compacted.load(Ordering::Acquire)
    }

    fn forgot(&self, revision: u64) {
        self.compacted.fetch_max(revision, Ordering::AcqRel);
    }
}

pub(crate) struct Etcd {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Etcd {
    pub(crate) async fn open(config: EtcdConfig) -> Result<Self, Error> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_WITHIN)
            .with_timeout(ANSWER_WITHIN)
            .with_keep_alive(Duration::from_secs(30), Duration::from_secs(10))
            .with_keep_alive_while_idle(true);
        if let Some(tls) = &config.tls {
            let mut t = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
            if let Some((cert, key)) = &tls.identity {
                t = t.identity(Identity::from_pem(cert, key));
            }
            options = options.with_tls(t);
        }
        let client = Client::connect(&config.endpoints, Some(options)).await.map_err(failure)?;
        // The first answer says whether anybody is there; a watch's stream must have no deadline.
        let revision = latest(&mut client.kv_client()).await?;
        let hub = Hub::new(config.ring_events);
        hub.start(revision);
        let shared = Arc::new(Shared {
            client,
            hub,
            writes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            compacted: AtomicU64::new(0),
        });
        shared.forgot(follow::compacted(&shared).await?);
        let tasks = vec![
            telemetry::task::spawn("store-etcd-follow", follow::run(shared.clone(), revision)),
            telemetry::task::spawn("store-etcd-compact", compactor::run(shared.clone(), config.keep_age)),
        ];
        Ok(Etcd { shared, tasks })
    }

    pub(crate) fn revision(&self) -> u64 {
        self.shared.hub.revision()
    }

    /// The newest revision anybody has been told of, by whichever server.
    pub(crate) async fn latest(&self) -> Result<u64, Error> {
        latest(&mut self.shared.kv()).await
    }

    /// Of its database, as the member tells that answers.
    pub(crate) async fn size(&self) -> Result<u64, Error> {
        let answer = self.shared.client.maintenance_client().status().await.map_err(failure)?;
        Ok(unsigned(answer.db_size()))
    }

    /// `expected` 0: the key must not exist.
    pub(crate) async fn put(&self, key: Bytes, value: Bytes, expected: u64) -> Result<u64, Error> {
        let stands = match expected {
            0 => Compare::version(key.as_ref(), CompareOp::Equal, 0),
            e => Compare::mod_revision(key.as_ref(), CompareOp::Equal, signed(e)),
        };
        let write = TxnOp::put(key.as_ref(), value.as_ref(), None);
        self.write(key, stands, write, expected).await
    }

    pub(crate) async fn delete(&self, key: Bytes, expected: Option<u64>) -> Result<u64, Error> {
        let stands = match expected {
            None => Compare::version(key.as_ref(), CompareOp::Greater, 0),
            Some(e) => Compare::mod_revision(key.as_ref(), CompareOp::Equal, signed(e)),
        };
        let write = TxnOp::delete(key.as_ref(), None::<DeleteOptions>);
        self.write(key, stands, write, expected.unwrap_or(1).max(1)).await
    }

    async fn write(&self, key: Bytes, stands: Compare, write: TxnOp, expected: u64) -> Result<u64, Error> {
        let txn = Txn::new().when([stands]).and_then([write]).or_else([TxnOp::get(key.as_ref(), None)]);
        let answer = self.shared.kv().txn(txn).await.map_err(|e| {
            self.shared.failed.fetch_add(1, Ordering::Relaxed);
            failure(e)
        })?;
        if answer.succeeded() {
            self.shared.writes.fetch_add(1, Ordering::Relaxed);
            return Ok(answer.header().map_or(0, |h| unsigned(h.revision())));
        }
        let found = answer.op_responses().into_iter().find_map(|r| match r {
            TxnOpResponse::Get(g) => Some(g.kvs().first().map(|kv| unsigned(kv.mod_revision()))),
            _ => None,
        });
        Err(match (found.flatten(), expected) {
            (None, _) => Error::NotFound,
            (Some(mod_revision), 0) => Error::Exists { mod_revision },
            (Some(actual), expected) => Error::Conflict { expected, actual },
        })
    }

    pub(crate) async fn get(&self, key: Bytes) -> Result<Option<KeyValue>, Error> {
        let answer = self.shared.kv().get(key.as_ref(), None).await.map_err(failure)?;
        Ok(answer.kvs().first().map(key_value))
    }

    /// In pages, all of the first one's revision.
    pub(crate) async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        let end = end_of(&range.prefix);
        let mut from = match &range.after {
            Some(after) if after.as_ref() >= range.prefix.as_ref() => successor(after),
            _ => range.prefix.to_vec(),
        };
        // etcd has no empty key.
        if from.is_empty() {
            from.push(0);
        }
        let mut out =
            RangeResult { items: Vec::new(), more: false, revision: range.revision.unwrap_or_default() };
        loop {
            let room = if range.limit == 0 { PAGE } else { PAGE.min(range.limit - out.items.len()) };
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(room as i64)
                .with_revision(signed(out.revision));
            let answer = match self.shared.kv().get(from.clone(), Some(options)).await {
                Ok(answer) => answer,
                Err(e) => return Err(self.at_revision(failure(e), out.revision)),
            };
            if out.revision == 0 {
                out.revision = answer.header().map_or(0, |h| unsigned(h.revision()));
            }
            out.items.extend(answer.kvs().iter().map(key_value));
            out.more = answer.more();
            match out.items.last() {
                Some(last) if answer.more() && (range.limit == 0 || out.items.len() < range.limit) => {
                    from = successor(&last.key);
                }
                _ => return Ok(out),
            }
        }
    }

    /// etcd's words for a revision that is not there, with the numbers we know.
    fn at_revision(&self, e: Error, requested: u64) -> Error {
        match e {
            Error::Compacted { compacted, .. } => {
                Error::Compacted { requested, compacted: compacted.max(self.shared.compacted()) }
            }
            Error::Future { .. } => Error::Future { requested, current: self.revision() },
            e => e,
        }
    }

    pub(crate) fn watch(&self, prefix: Bytes, after: u64) -> Watch {
        Watch::new(Source::Etcd(self.shared.clone()), prefix, after)
    }

    pub(crate) async fn compact(&self, revision: u64) -> Result<(), Error> {
        match compact(&self.shared, revision).await {
            Err(e @ Error::Future { .. }) => Err(self.at_revision(e, revision)),
            done => done,
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let s = &self.shared;
        let writes = s.writes.load(Ordering::Relaxed);
        Stats {
            writes,
            commits: writes,
            failed_commits: s.failed.load(Ordering::Relaxed),
            commit_nanos: 0,
            revision: s.hub.revision(),
            compacted: s.compacted(),
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.hub.close();
    }
}

/// Changes after a revision, for a watch that fell behind memory.
pub(crate) async fn history(shared: &Shared, after: u64) -> Result<Vec<crate::Event>, Error> {
    follow::once(shared, after).await
}

async fn latest(kv: &mut KvClient) -> Result<u64, Error> {
    let options = GetOptions::new().with_count_only();
    let answer = kv.get(follow::NOBODY.to_vec(), Some(options)).await.map_err(failure)?;
    answer
        .header()
        .map(|h| unsigned(h.revision()))
        .ok_or_else(|| Error::Unavailable("etcd answered without a revision".to_owned()))
}

/// Forgets history; what is forgotten already is no error.
async fn compact(shared: &Shared, revision: u64) -> Result<(), Error> {
    match shared.kv().compact(signed(revision), None).await.map_err(failure) {
        Ok(_) | Err(Error::Compacted { .. }) => {
            shared.forgot(revision);
            Ok(())
        }
        Err(e) => Err(e),
    }
}

fn key_value(kv: &etcd_client::KeyValue) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(kv.key()),
        value: Bytes::copy_from_slice(kv.value()),
        create_revision: unsigned(kv.create_revision()),
        mod_revision: unsigned(kv.mod_revision()),
        version: unsigned(kv.version()),
    }
}

/// The first key behind all that begin with `prefix`; `\0` is etcd's word for the end of all keys.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

/// etcd's failures in the store's words.
fn failure(e: etcd_client::Error) -> Error {
    match e {
        etcd_client::Error::GRpcStatus(s) if s.message().contains("revision has been compacted") => {
            Error::Compacted { requested: 0, compacted: 0 }
        }
        etcd_client::Error::GRpcStatus(s) if s.message().contains("future revision") => {
            Error::Future { requested: 0, current: 0 }
        }
        etcd_client::Error::GRpcStatus(s) => Error::Unavailable(format!("etcd: {}", s.message())),
        e => Error::Unavailable(format!("etcd: {e}")),
    }
}
