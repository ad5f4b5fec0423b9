//! Backups of a store at work, restored; damaged ones refused. Secrets encrypted, rotated, and not found on disk.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use store::{Backup, Config, Error, Keys, Range, RestoreError, Store, restore};

async fn backup(store: &Arc<Store>, files: &[(&str, &str)]) -> Vec<u8> {
    let files = files.iter().map(|(n, b)| ((*n).to_owned(), Bytes::from((*b).to_owned()))).collect();
    let mut backup = Backup::begin(store.clone(), files).await.expect("a backup");
    let mut out = Vec::new();
    while let Some(piece) = backup.next().await.expect("a piece") {
        out.extend_from_slice(&piece);
        // Goes on meanwhile: none of it may be in the backup.
        store.create(format!("/registry/later/{}", out.len()), "x").await.expect("created");
    }
    out
}

async fn everything(store: &Store) -> Vec<store::KeyValue> {
    store.range(Range::default()).await.expect("a range").items
}

#[tokio::test]
async fn a_backup_of_a_store_at_work_restores() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Arc::new(Store::open(Config::new(dir.path().join("a"))).expect("a store"));
    for i in 0..1200 {
        store.create(format!("/registry/pods/{i:04}"), format!("v{i}")).await.expect("created");
    }
    let at = store.create("/registry/x", "1").await.expect("created");
    let at = store.update("/registry/x", "2", at).await.expect("updated");
    store.delete("/registry/pods/0007", None).await.expect("deleted");
    let then = everything(&store).await;
    let bytes = backup(&store, &[("pki/ca.crt", "PEM")]).await;

    let to = dir.path().join("b");
    let mut told = Vec::new();
    let restored = restore(&to, bytes.as_slice(), |n| told.push(n)).expect("restored");
    assert_eq!((restored.revision, restored.objects), (1203, 1200));
    assert_eq!(restored.files, [("pki/ca.crt".to_owned(), Bytes::from("PEM"))]);
    assert_eq!(told, [500, 1000]);
    let again = Store::open(Config::new(&to)).expect("the restored store");
    assert_eq!(everything(&again).await, then);
    assert_eq!(again.revision(), 1203);
    // Revisions go on, history is not there.
    assert_eq!(again.update("/registry/x", "3", at).await.expect("updated"), 1204);
    assert!(matches!(again.watch("", 5).next().await, Err(Error::Compacted { .. })));
    assert_eq!(again.watch("", 1203).next().await.expect("an event").len(), 1);
    again.compact(1204).await.expect("compacted");
    assert_eq!(everything(&again).await.len(), 1200);
    drop(again);
    assert!(matches!(restore(&to, bytes.as_slice(), |_| ()), Err(RestoreError::Exists(_))));
}

#[tokio::test]
async fn a_damaged_backup_restores_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Arc::new(Store::open(Config::new(dir.path().join("a"))).expect("a store"));
    for i in 0..3 {
        store.create(format!("/registry/{i}"), "value").await.expect("created");
    }
    let good = backup(&store, &[]).await;
    let to = dir.path().join("b");
    let refused = |bytes: &[u8]| {
        let refused = restore(&to, bytes, |_| ()).expect_err("damaged");
        assert!(
            std::fs::metadata(&to).is_err() && std::fs::metadata(to.with_extension("restoring")).is_err()
        );
        refused
    };
    for cut in [0, 10, 20, 28, 60, good.len() / 2, good.len() - 1] {
        assert!(matches!(refused(&good[..cut]), RestoreError::Damaged(_)), "cut at {cut}");
    }
    for at in (28..good.len()).step_by(3) {
        let mut bad = good.clone();
        bad[at] ^= 4;
        refused(&bad);
    }
    assert!(matches!(refused(b"PK\x03\x04 this is another kind of file"), RestoreError::NoBackup));
    let mut newer = good.clone();
    newer[16] = 9;
    assert!(matches!(refused(&newer), RestoreError::Version { found: 9, .. }));
    restore(&to, good.as_slice(), |_| ()).expect("the good one");
}

fn keys(digits: &[&str]) -> Keys {
    let lines: Vec<String> = digits.iter().map(|d| d.repeat(64)).collect();
    Keys::parse(&lines.join("\n")).expect("keys")
}

/// Whether any file below holds these bytes.
fn on_disk(dir: &Path, text: &str) -> bool {
    let files = std::fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry").path());
    files.into_iter().any(|path| {
        if path.is_dir() {
            return on_disk(&path, text);
        }
        let bytes = std::fs::read(&path).expect("a file");
        bytes.windows(text.len()).any(|w| w == text.as_bytes())
    })
}

#[tokio::test]
async fn secrets_are_encrypted_and_keys_rotate() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let secrets = || vec![Bytes::from("/registry/secrets/")];
    let open = |digits: &[&str]| {
        let keys = (!digits.is_empty()).then(|| keys(digits));
        let path = dir.path().join("a");
        async move {
            let mut store = Store::open(Config::new(path)).expect("a store");
            store.protect(keys, secrets()).await.map(|n| (Arc::new(store), n))
        }
    };
    let key = "/registry/secrets/default/s";
    let (store, _) = open(&["a"]).await.expect("a key");
    let mut watch = store.watch("/registry/", 0);
    store.create(key, "{\"data\":\"hunter2\"}").await.expect("created");
    store.create("/registry/pods/p", "{\"plain\":1}").await.expect("created");
    assert_eq!(store.get(key).await.expect("read").expect("there").value, "{\"data\":\"hunter2\"}");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(watch.next().await.expect("events"));
    }
    assert_eq!(seen[0].value.as_deref(), Some(b"{\"data\":\"hunter2\"}".as_slice()));
    let saved = backup(&store, &[]).await;
    assert!(!saved.windows(7).any(|w| w == b"hunter2"));
    drop((store, watch));
    assert!(!on_disk(dir.path(), "hunter2") && on_disk(dir.path(), "plain"));

    for wrong in [&["b"][..], &[]] {
        let refused = open(wrong).await.err().expect("the key is missing").to_string();
        assert!(refused.contains(key) && refused.contains("--encryption-key-file"), "{refused}");
    }
    let (store, rewritten) = open(&["b", "a"]).await.expect("both keys");
    assert_eq!(rewritten, 1);
    drop(store);
    let (store, rewritten) = open(&["b"]).await.expect("the new key alone");
    assert_eq!(rewritten, 0);
    assert_eq!(store.get(key).await.expect("read").expect("there").value, "{\"data\":\"hunter2\"}");
}

#[tokio::test]
async fn what_was_open_is_encrypted_when_a_key_comes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut store = Store::open(Config::new(dir.path())).expect("a store");
    for i in 0..700 {
        store.create(format!("/registry/secrets/ns/{i}"), format!("secret {i}")).await.expect("created");
    }
    let done = store.protect(Some(keys(&["c"])), vec![Bytes::from("/registry/secrets/")]).await;
    assert_eq!(done.expect("encrypted"), 700);
    let stored = store.stored(Range::prefix("/registry/secrets/")).await.expect("a range");
    assert!(stored.items.iter().all(|kv| !kv.value.windows(6).any(|w| w == b"secret")));
    let open = store.range(Range::prefix("/registry/secrets/")).await.expect("a range");
    assert!(open.items.iter().all(|kv| kv.value.starts_with(b"secret ")));
    assert!(matches!(store.watch("", 5).next().await, Err(Error::Compacted { .. })));
}
