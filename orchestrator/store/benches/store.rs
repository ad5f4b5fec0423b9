//! Creates per second (alone and grouped) and how long an event takes to reach a watcher.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use store::{Config, Store};

fn bench(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = Arc::new(Store::open(Config::new(dir.path())).expect("a store"));
    let n = AtomicU64::new(0);
    let value = vec![b'x'; 1024];
    let key = || format!("/registry/pods/default/{:012}", n.fetch_add(1, Ordering::Relaxed));
    c.bench_function("create_one", |b| {
        b.to_async(&runtime).iter(|| async { store.create(key(), value.clone()).await.expect("created") });
    });
    let mut group = c.benchmark_group("create_grouped");
    group.throughput(Throughput::Elements(100));
    group.bench_function("100", |b| {
        b.to_async(&runtime).iter(|| async {
            let writes: Vec<_> = (0..100)
                .map(|_| {
                    let (store, key, value) = (store.clone(), key(), value.clone());
                    async move { store.create(key, value).await.expect("created") }
                })
                .collect();
            let mut set = tokio::task::JoinSet::new();
            writes.into_iter().for_each(|w| {
                set.spawn(w);
            });
            set.join_all().await
        });
    });
    group.finish();
    c.bench_function("write_to_watch", |b| {
        b.to_async(&runtime).iter(|| async {
            let mut watch = store.watch("/registry/", store.revision());
            let (written, seen) = tokio::join!(store.create(key(), value.clone()), watch.next());
            assert_eq!(written.expect("created"), seen.expect("event").last().expect("one").revision);
        });
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
