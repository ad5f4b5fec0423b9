//! The half that is killed: eight writers and two watchers on one store, each step said on stdout before and after it.
//!
//! Lines: `S revision` the store is open; `F key value|-` what it held then; `I id ask key …` begun; `R id answer`;
//! `W watcher revision key value|-` a change seen; `B watcher revision` all up to it has been given.

#![expect(clippy::print_stdout, reason = "what it says is what the parent reads")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use store::{Config, Error, Range, Store};
use tokio::task::JoinSet;

pub(crate) const DIR: &str = "BINNACLE_FAULTS_DIR";
pub(crate) const SEED: &str = "BINNACLE_FAULTS_SEED";
/// Up to where the watchers have seen everything in the lives before.
pub(crate) const SEEN: &str = "BINNACLE_FAULTS_SEEN";

const WRITERS: u64 = 8;
const KEYS: u64 = 6;

fn key(n: u64) -> String {
    format!("/registry/k{n}")
}

fn text(value: &[u8]) -> String {
    String::from_utf8(value.to_vec()).expect("values are text")
}

fn number(name: &str) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[test]
fn child_works_until_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    runtime.expect("a runtime").block_on(work(dir));
}

async fn work(dir: String) {
    let config = Config { keep_revisions: 100_000, ring_events: 64, ..Config::new(dir) };
    let store = Arc::new(Store::open(config).expect("the store opens after any kill"));
    let (seed, seen) = (number(SEED), number(SEEN));
    println!("S {}", store.revision());
    for item in store.range(Range::prefix("/registry/")).await.expect("a range").items {
        println!("F {} {}", text(&item.key), text(&item.value));
    }
    println!("F end -");
    let ids = Arc::new(AtomicU64::new(0));
    let mut all = JoinSet::new();
    for watcher in 0..2 {
        all.spawn(watch(store.clone(), watcher, seen));
    }
    for writer in 0..WRITERS {
        all.spawn(write(store.clone(), ids.clone(), StdRng::seed_from_u64(seed * WRITERS + writer), seed));
    }
    all.join_all().await;
}

async fn watch(store: Arc<Store>, watcher: u64, seen: u64) {
    let mut watch = store.watch("/registry/", seen);
    loop {
        let events = watch.next().await.expect("nothing is forgotten in this test");
        for e in events {
            let value = e.value.as_deref().map_or_else(|| "-".to_owned(), text);
            println!("W {watcher} {} {} {value}", e.revision, text(&e.key));
        }
        println!("B {watcher} {}", watch.revision());
    }
}

async fn write(store: Arc<Store>, ids: Arc<AtomicU64>, mut rng: StdRng, seed: u64) {
    loop {
        let key = key(rng.random_range(0..KEYS));
        let id = ids.fetch_add(1, Ordering::Relaxed);
        println!("I {id} read {key}");
        let found = store.get(key.clone()).await.expect("a read");
        println!("R {id} saw {}", found.as_ref().map_or_else(|| "-".to_owned(), |kv| text(&kv.value)));
        let (id, new) = (ids.fetch_add(1, Ordering::Relaxed), ids.fetch_add(1, Ordering::Relaxed));
        let new = format!("v{seed}.{new}");
        let result = match found {
            None => {
                println!("I {id} create {key} {new}");
                store.create(key, new).await
            }
            Some(kv) if rng.random_bool(0.2) => {
                println!("I {id} delete {key} {}", text(&kv.value));
                store.delete(key, Some(kv.mod_revision)).await
            }
            Some(kv) => {
                println!("I {id} swap {key} {} {new}", text(&kv.value));
                store.update(key, new, kv.mod_revision).await
            }
        };
        match result {
            Ok(revision) => println!("R {id} done {revision}"),
            Err(Error::Exists { .. } | Error::Conflict { .. } | Error::NotFound) => {
                println!("R {id} refused")
            }
            Err(e) => panic!("{e}"),
        }
    }
}
