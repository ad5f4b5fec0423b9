//! The repository's rules, each with its reason in the message.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Package → (names of its normal dependencies, names of its development ones).
fn metadata() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let v: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let names = |p: &Value, dev: bool| {
        let all = p["dependencies"].as_array().into_iter().flatten();
        all.filter(|d| (d["kind"] == "dev") == dev)
            .filter_map(|d| d["name"].as_str().map(str::to_owned))
            .collect()
    };
    v["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|p| (p["name"].as_str().expect("a name").to_owned(), (names(p, false), names(p, true))))
        .collect()
}

#[test]
fn no_arrow_runs_back_up() {
    let packages = metadata();
    let layers = tidy::layers();
    let ours: BTreeSet<&str> = layers.iter().map(|r| r.name).collect();
    let there: BTreeSet<&str> = packages.keys().map(String::as_str).collect();
    assert_eq!(ours, there, "every crate stands in tests/tidy/src/lib.rs, and nothing else does");
    for room in &layers {
        for used in &packages[room.name].0 {
            let allowed = !ours.contains(used.as_str()) || room.uses.contains(&used.as_str());
            assert!(allowed, "{} must not use {used}: {}", room.name, room.why);
        }
    }
}

#[test]
fn heavy_dependencies_have_one_door() {
    let packages = metadata();
    for door in tidy::doors() {
        for (name, (normal, _)) in &packages {
            let allowed = !normal.contains(door.dependency) || door.rooms.contains(&name.as_str());
            assert!(allowed, "{name} must not name {}: its door is {:?}", door.dependency, door.rooms);
        }
    }
}

fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let output = Command::new("git").args(["ls-files"]).current_dir(root()).output().expect("git runs");
    let text = String::from_utf8(output.stdout).expect("paths are text");
    let wanted = |p: &Path| p.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e));
    text.lines().map(PathBuf::from).filter(|p| wanted(p) && root().join(p).is_file()).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(root().join(path)).expect("a tracked file can be read")
}

#[test]
fn every_source_file_says_what_it_is_for() {
    for path in files(&["rs"]) {
        let text = read(&path);
        assert!(text.starts_with("//!"), "{} must begin with //! and what it is for", path.display());
    }
}

#[test]
fn files_named_in_documents_exist() {
    let tracked = files(&["rs", "md", "sh", "toml", "ts", "tsx", "yaml"]);
    for doc in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        for word in read(Path::new(doc)).split('`').skip(1).step_by(2) {
            let is_path =
                word.contains('/') && [".rs", ".md", ".sh", ".toml"].iter().any(|e| word.ends_with(e));
            let there = tracked.iter().any(|p| p.ends_with(word));
            assert!(
                !is_path || there || word.starts_with('/') || word.contains('*'),
                "{doc} names {word}, which does not exist"
            );
        }
    }
}

#[test]
fn rooms_are_configured_not_configuring() {
    // Invariant 6: no room but orchestrator reads the environment. Examples, tests and the fuzzer are programs of their own.
    for path in files(&["rs"]) {
        let shown = path.display().to_string();
        let exempt =
            ["orchestrator/src/", "tests/", "examples/", "fuzz/"].iter().any(|p| shown.starts_with(p))
                || shown.contains("/tests/")
                || shown.contains("/benches/")
                || shown.ends_with("tests.rs")
                || shown.ends_with("build.rs");
        let text = read(&path);
        // Unit tests at the end of a file may.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        assert!(
            exempt || !code.contains("env::var"),
            "{shown} reads the environment: only orchestrator may (invariant 6)"
        );
    }
}
