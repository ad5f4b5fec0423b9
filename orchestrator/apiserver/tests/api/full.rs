//! A full disk: writes are refused with what is the matter, reads go on, and what is freed is used without a restart.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use store::Store;

use crate::{cluster_with, from, status};

/// A small file system of its own, for as long as it is held.
struct Small(tempfile::TempDir);

impl Small {
    /// `None` where nobody may mount.
    fn mount() -> Option<Small> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|o| o.status.success()).then(|| Small(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: the store may still hold its file.
        let ended = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(ended.is_ok_and(|s| s.success()), "{} stays mounted", self.path().display());
    }
}

fn map(name: &str, bytes: usize) -> ConfigMap {
    from(json!({"metadata": {"name": name}, "data": {"k": "x".repeat(bytes)}}))
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let Some(disk) = Small::mount() else {
        eprintln!("skipped: a file system to fill needs root to mount it");
        return;
    };
    let store = Store::open(store::Config::new(disk.path().join("store"))).expect("a store");
    let c = cluster_with(|config| config.store = Arc::new(store)).await;
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    let post = PostParams::default();
    let mut kept = vec!["kept".to_owned()];
    maps.create(&post, &map("kept", 10)).await.expect("there is room");

    let filling = disk.path().join("filling");
    let mut file = File::create(&filling).expect("a file");
    let full = loop {
        if let Err(e) = file.write_all(&[0; 4096]) {
            break e;
        }
    };
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    // The store's file has some room of its own.
    let refused = loop {
        let name = format!("m{}", kept.len());
        match maps.create(&post, &map(&name, 200_000)).await {
            Ok(_) => kept.push(name),
            Err(e) => break status(e),
        }
    };
    assert_eq!((refused.0, refused.1.as_str()), (503, "ServiceUnavailable"));
    assert!(refused.2.contains("No space left on device"), "{}", refused.2);
    maps.get("kept").await.expect("reads go on");

    std::fs::remove_file(&filling).expect("removed");
    drop(file);
    maps.create(&post, &map("after", 10)).await.expect("there is room again");
    kept.push("after".to_owned());
    let all = maps.list(&ListParams::default()).await.expect("a list");
    let names: Vec<_> = all.items.into_iter().filter_map(|m| m.metadata.name).collect();
    kept.sort();
    assert_eq!(names, kept, "what was acknowledged is there, and nothing else");
}
