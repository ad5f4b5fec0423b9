//! The store against a model, and against kill -9.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use proptest::prelude::*;
use store::{Config, Error, EtcdConfig, Range, Store};

#[derive(Clone, Debug)]
enum Step {
    Create(u8),
    Update(u8, bool),
    Delete(u8, bool),
    Compact(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..6).prop_map(Step::Create),
        4 => (0u8..6, any::<bool>()).prop_map(|(k, right)| Step::Update(k, right)),
        2 => (0u8..6, any::<bool>()).prop_map(|(k, right)| Step::Delete(k, right)),
        1 => any::<u8>().prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..40)
}

type State = BTreeMap<String, (Vec<u8>, u64)>;

/// Where a store comes from, and what distinguishes this case's part of it.
enum Home {
    Disk(tempfile::TempDir),
    /// An etcd that other cases use, too: keys of our own, revisions from where it stands.
    Etcd {
        url: String,
        case: u64,
    },
}

impl Home {
    async fn open(&self) -> Store {
        match self {
            Home::Disk(dir) => {
                Store::open(Config { ring_events: 4, ..Config::new(dir.path()) }).expect("a store")
            }
            Home::Etcd { url, .. } => {
                let config = EtcdConfig { ring_events: 4, ..EtcdConfig::new(vec![url.clone()]) };
                Store::open_etcd(config).await.expect("etcd answers")
            }
        }
    }

    fn root(&self) -> String {
        match self {
            Home::Disk(_) => "/registry/".to_owned(),
            Home::Etcd { case, .. } => format!("/registry-{case}/"),
        }
    }

    fn key(&self, k: u8) -> String {
        format!("{}{}/{k}", self.root(), if k.is_multiple_of(2) { "a" } else { "b" })
    }
}

async fn run(home: Home, steps: Vec<Step>) {
    let key = |k| home.key(k);
    let mut store = home.open().await;
    let base = store.latest().await.expect("a revision");
    let mut state = State::new();
    // The state after each revision, and the key each revision wrote.
    let mut history: Vec<State> = vec![State::new()];
    let mut changes: Vec<(String, Option<Vec<u8>>)> = Vec::new();
    let mut compacted = 0;
    for (i, step) in steps.into_iter().enumerate() {
        let value = format!("v{i}").into_bytes();
        let now = base + history.len() as u64 - 1;
        let result = match step {
            Step::Create(k) => {
                let r = store.create(key(k), value.clone()).await;
                match (&r, state.contains_key(&key(k))) {
                    (Ok(_), false) => {
                        state.insert(key(k), (value.clone(), now + 1));
                        Some((key(k), Some(value), r))
                    }
                    (Err(Error::Exists { .. }), true) => None,
                    other => panic!("create: {other:?}"),
                }
            }
            Step::Update(k, right) => {
                let at = state.get(&key(k)).map_or(now + 7, |s| s.1);
                let r = store.update(key(k), value.clone(), if right { at } else { at + 1 }).await;
                match (&r, state.contains_key(&key(k)), right) {
                    (Ok(_), true, true) => {
                        state.insert(key(k), (value.clone(), now + 1));
                        Some((key(k), Some(value), r))
                    }
                    (Err(Error::NotFound), false, _) | (Err(Error::Conflict { .. }), true, false) => None,
                    other => panic!("update: {other:?}"),
                }
            }
            Step::Delete(k, compare) => {
                let expected = compare.then(|| state.get(&key(k)).map_or(1, |s| s.1));
                let r = store.delete(key(k), expected).await;
                match (&r, state.remove(&key(k))) {
                    (Ok(_), Some(_)) => Some((key(k), None, r)),
                    (Err(Error::NotFound), None) => None,
                    other => panic!("delete: {other:?}"),
                }
            }
            Step::Compact(share) => {
                let at = base + (now - base) * u64::from(share) / 255;
                store.compact(at).await.expect("compacted");
                compacted = compacted.max(at);
                None
            }
            Step::Reopen => {
                drop(store);
                store = home.open().await;
                None
            }
        };
        if let Some((key, value, revision)) = result {
            assert_eq!(revision.expect("written"), now + 1);
            history.push(state.clone());
            changes.push((key, value));
        }
    }
    let now = base + history.len() as u64 - 1;
    assert_eq!(store.latest().await.expect("a revision"), now);
    for (at, state) in (base..=now).zip(&history) {
        for part in ["", "a/"] {
            let prefix = Bytes::from(format!("{}{part}", home.root()));
            let range = Range { prefix, revision: Some(at), limit: 2, after: None };
            check_range(&store, range, state, at < compacted && at != now).await;
        }
        let later = &changes[(at - base) as usize..];
        check_watch(&store, &home.root(), at, later, at < compacted).await;
    }
}

async fn check_range(store: &Store, mut range: Range, state: &State, gone: bool) {
    let prefix = String::from_utf8(range.prefix.to_vec()).expect("text");
    let mut got = Vec::new();
    loop {
        let r = match store.range(range.clone()).await {
            Err(Error::Compacted { .. }) if gone => return,
            r => r.expect("a range"),
        };
        assert!(!gone);
        got.extend(
            r.items.iter().map(|i| {
                (String::from_utf8(i.key.to_vec()).expect("text"), (i.value.to_vec(), i.mod_revision))
            }),
        );
        if !r.more {
            break;
        }
        range.after = r.items.last().map(|i| i.key.clone());
    }
    let expect: Vec<_> =
        state.iter().filter(|(k, _)| k.starts_with(&prefix)).map(|(k, v)| (k.clone(), v.clone())).collect();
    assert_eq!(got, expect);
}

async fn check_watch(
    store: &Store,
    root: &str,
    after: u64,
    changes: &[(String, Option<Vec<u8>>)],
    gone: bool,
) {
    let mut watch = store.watch(root.to_owned(), after);
    let mut seen = 0;
    while seen < changes.len() {
        let events = match watch.next().await {
            // Memory may still hold what the disk forgot.
            Err(Error::Compacted { .. }) if gone => return,
            e => e.expect("events"),
        };
        for e in events {
            let (key, value) = &changes[seen];
            seen += 1;
            assert_eq!(e.revision, after + seen as u64);
            assert_eq!((e.key.as_ref(), e.value.as_deref()), (key.as_bytes(), value.as_deref()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn behaves_as_the_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(Home::Disk(tempfile::tempdir().expect("a temporary directory")), steps));
    }
}

/// Debian's etcd on ports of its own.
struct Etcd {
    url: String,
    process: Child,
    _dir: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Etcd {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            format!("http://{}", listener.local_addr().expect("its address"))
        };
        let (url, peer) = (free(), free());
        let process = Command::new("etcd")
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"])
            .arg("--data-dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is missing: install Debian's etcd-server, as `make test` does");
        Etcd { url, process, _dir: dir }
    }

    async fn ready(&self) {
        for _ in 0..200 {
            match Store::open_etcd(EtcdConfig::new(vec![self.url.clone()])).await {
                Ok(_) => return,
                Err(e) => assert!(e.retryable(), "{e}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("etcd does not answer");
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.process.kill().expect("etcd ends");
        self.process.wait().expect("its end");
    }
}

#[test]
fn etcd_behaves_as_the_model() {
    let etcd = Etcd::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(etcd.ready());
    let mut cases = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 12,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let number = std::cell::Cell::new(0);
    let all = cases.run(&steps(), |steps| {
        number.set(number.get() + 1);
        runtime.block_on(run(Home::Etcd { url: etcd.url.clone(), case: number.get() }, steps));
        Ok(())
    });
    all.expect("each case is as the model");
}

/// What one server acknowledged, the other one's reads and watches see.
#[tokio::test(flavor = "multi_thread")]
async fn two_stores_on_one_etcd_see_each_other() {
    let etcd = Etcd::start();
    etcd.ready().await;
    let open = || Store::open_etcd(EtcdConfig::new(vec![etcd.url.clone()]));
    let (a, b) = (open().await.expect("one"), open().await.expect("another"));
    let mut watch = b.watch("/registry/", b.latest().await.expect("a revision"));
    for i in 0..50 {
        let revision = a.create(format!("/registry/{i:02}"), format!("{i}")).await.expect("created");
        assert!(b.latest().await.expect("a revision") >= revision);
        while watch.revision() < revision {
            watch.next().await.expect("events");
        }
        let conflict = b.update(format!("/registry/{i:02}"), "other", revision + 1).await;
        assert!(
            matches!(conflict, Err(Error::Conflict { actual, .. }) if actual == revision),
            "{conflict:?}"
        );
    }
    // More than a page.
    for i in 0..600 {
        a.create(format!("/many/{i:04}"), "x").await.expect("created");
    }
    let all = b.range(Range::prefix("/many/")).await.expect("a range");
    assert_eq!((all.items.len(), all.more), (600, false));
    let some = b.range(Range { limit: 550, ..Range::prefix("/many/") }).await.expect("a range");
    assert_eq!((some.items.len(), some.more), (550, true));
}

const CHILD: &str = "BINNACLE_STORE_TEST_DIR";

/// The child half of the kill test: writes for ever and prints what was acknowledged.
#[test]
fn child_writes_until_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = std::sync::Arc::new(Store::open(Config::new(dir)).expect("a store"));
        let mut writers = tokio::task::JoinSet::new();
        for w in 0..8 {
            let store = store.clone();
            writers.spawn(async move {
                for i in 0.. {
                    let key = format!("/registry/{w}/{i:09}");
                    let revision = store.create(key.clone(), format!("{w}-{i}")).await.expect("created");
                    println!("ACK {revision} {key} {w}-{i}");
                }
            });
        }
        writers.join_all().await;
    });
}

#[test]
fn everything_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut acknowledged: BTreeMap<u64, (String, String)> = BTreeMap::new();
    for round in 1..=3 {
        let sub = dir.path().join(format!("round-{round}"));
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["child_writes_until_killed", "--exact", "--nocapture"])
            .env(CHILD, &sub)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        acknowledged.clear();
        let mut lines = BufReader::new(child.stdout.take().expect("its stdout")).lines();
        let mut read = |n: usize, acknowledged: &mut BTreeMap<u64, (String, String)>| {
            let mut seen = 0;
            while seen < n {
                let Some(line) = lines.next() else { break };
                // Test harness words may stand before the mark; a torn last line is no acknowledgement.
                let Ok(line) = line else { break };
                let Some((_, ack)) = line.split_once("ACK ") else { continue };
                let words: Vec<_> = ack.split(' ').collect();
                let [revision, key, value] = words[..] else { continue };
                acknowledged
                    .insert(revision.parse().expect("a revision"), (key.to_owned(), value.to_owned()));
                seen += 1;
            }
        };
        read(round * 200, &mut acknowledged);
        child.kill().expect("killed");
        read(usize::MAX, &mut acknowledged);
        child.wait().expect("its end");
        let last_complete = acknowledged.len() - 1;
        assert!(last_complete >= 100, "too few writes to tell: {last_complete}");

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store = Store::open(Config::new(&sub)).expect("the store after the kill");
            for (revision, (key, value)) in acknowledged.iter().take(last_complete) {
                let kv = store.get(key.clone()).await.expect("a read").expect("acknowledged and there");
                assert_eq!((kv.mod_revision, kv.value.as_ref()), (*revision, value.as_bytes()));
            }
            let mut watch = store.watch("", 0);
            let mut next = 0;
            while next < store.revision() {
                for e in watch.next().await.expect("history") {
                    next += 1;
                    assert_eq!(e.revision, next, "each revision once and in order");
                }
            }
            assert_eq!(watch.revision(), store.revision());
        });
    }
}
