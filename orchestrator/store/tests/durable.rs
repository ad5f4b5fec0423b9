//! The store against a model, and against kill -9.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use bytes::Bytes;
use proptest::prelude::*;
use store::{Config, Error, Range, Store};

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

fn key(k: u8) -> String {
    format!("/registry/{}/{k}", if k.is_multiple_of(2) { "a" } else { "b" })
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = || Config { ring_events: 4, ..Config::new(dir.path()) };
    let mut store = Store::open(config()).expect("a store");
    let mut state = State::new();
    // The state after each revision, and the key each revision wrote.
    let mut history: Vec<State> = vec![State::new()];
    let mut changes: Vec<(String, Option<Vec<u8>>)> = Vec::new();
    let mut compacted = 0;
    for (i, step) in steps.into_iter().enumerate() {
        let value = format!("v{i}").into_bytes();
        let now = history.len() as u64 - 1;
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
                let at = now * u64::from(share) / 255;
                store.compact(at).await.expect("compacted");
                compacted = compacted.max(at);
                None
            }
            Step::Reopen => {
                drop(store);
                store = Store::open(config()).expect("the store again");
                None
            }
        };
        if let Some((key, value, revision)) = result {
            assert_eq!(revision.expect("written"), now + 1);
            history.push(state.clone());
            changes.push((key, value));
        }
    }
    let now = history.len() as u64 - 1;
    assert_eq!(store.revision(), now);
    for at in 0..=now {
        for prefix in ["/registry/", "/registry/a/"] {
            let range = Range { prefix: Bytes::from(prefix), revision: Some(at), limit: 2, after: None };
            check_range(&store, range, &history[at as usize], at < compacted && at != now).await;
        }
        check_watch(&store, at, &changes, at < compacted).await;
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

async fn check_watch(store: &Store, after: u64, changes: &[(String, Option<Vec<u8>>)], gone: bool) {
    let mut watch = store.watch("/registry/", after);
    let mut next = after;
    while next < changes.len() as u64 {
        let events = match watch.next().await {
            // Memory may still hold what the disk forgot.
            Err(Error::Compacted { .. }) if gone => return,
            e => e.expect("events"),
        };
        for e in events {
            next += 1;
            assert_eq!(e.revision, next);
            let (key, value) = &changes[next as usize - 1];
            assert_eq!((e.key.as_ref(), e.value.as_deref()), (key.as_bytes(), value.as_deref()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn behaves_as_the_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(steps));
    }
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
