//! The scrape configurations of our own file → scrape targets. Lists of targets in files are read again when they change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use collector::scrape::config::{Pool, StaticConfig};
use signal::{Labels, Registry, ScrapeTarget};
use tokio_util::sync::CancellationToken;

/// How often files are looked at; they are read only if they have changed.
const LOOK: Duration = Duration::from_secs(5);
/// Largest file of targets.
const MOST_BYTES: u64 = 16 << 20;

/// What a file was when it was read.
type Stamp = (SystemTime, u64);

/// A job's files of targets, as last read.
#[derive(Default)]
struct Files(BTreeMap<PathBuf, (Stamp, Vec<StaticConfig>)>);

/// Where targets are told.
#[derive(Default)]
pub(crate) struct Targets {
    pub(crate) active: Arc<Registry<ScrapeTarget>>,
    /// By job, as discovered: those that relabelling wants nothing of.
    pub(crate) dropped: Arc<Registry<Vec<Labels>>>,
}

/// Keeps the registry's targets of these configurations true until `stop`.
pub(super) async fn run(pools: Arc<Vec<Pool>>, targets: Targets, stop: CancellationToken) {
    let mut known: Vec<(Files, BTreeSet<String>)> =
        pools.iter().map(|_| (Files::default(), BTreeSet::new())).collect();
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut is_first = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        for (pool, (files, keys)) in pools.iter().zip(&mut known) {
            if files.look(pool) || is_first {
                fill(pool, files, keys, &targets);
            }
        }
        is_first = false;
        if pools.iter().all(|p| p.config.file_sd_configs.is_empty()) {
            return stop.cancelled().await;
        }
    }
}

fn fill(pool: &Pool, files: &Files, keys: &mut BTreeSet<String>, targets: &Targets) {
    let mut groups: Vec<(Option<String>, StaticConfig)> =
        pool.config.static_configs.iter().map(|g| (None, g.clone())).collect();
    for (path, (_, listed)) in &files.0 {
        groups.extend(listed.iter().map(|g| (Some(path.display().to_string()), g.clone())));
    }
    let found = pool.targets(&groups);
    for why in &found.wrong {
        tracing::warn!(job = %pool.config.job_name, why, "a target is left out");
    }
    for gone in keys.iter().filter(|k| !found.targets.contains_key(*k)) {
        targets.active.remove(gone);
    }
    targets.dropped.set(&pool.config.job_name, found.dropped);
    *keys = found.targets.keys().cloned().collect();
    for (key, target) in found.targets {
        if targets.active.get(&key).as_ref() != Some(&target) {
            targets.active.set(key, target);
        }
    }
}

impl Files {
    /// Reads what has changed; `true` if anything has. What cannot be read stays as it was.
    fn look(&mut self, pool: &Pool) -> bool {
        let patterns = pool.config.file_sd_configs.iter().flat_map(|c| &c.files);
        let paths: BTreeSet<PathBuf> = patterns.flat_map(|p| matching(p)).collect();
        let before = self.0.len();
        self.0.retain(|path, _| paths.contains(path));
        let mut changed = before != self.0.len();
        for path in paths {
            let stamp = match std::fs::metadata(&path).and_then(|m| Ok((m.modified()?, m.len()))) {
                Ok(stamp) => stamp,
                Err(_) => continue,
            };
            if self.0.get(&path).is_some_and(|(s, _)| *s == stamp) {
                continue;
            }
            match read(&path, stamp.1) {
                Ok(groups) => {
                    self.0.insert(path, (stamp, groups));
                    changed = true;
                }
                Err(e) => {
                    tracing::error!(job = %pool.config.job_name, error = %format!("{e:#}"), "a file of targets cannot be read; what it said before still holds");
                    // Once is enough, until it is written again.
                    let groups = self.0.remove(&path).map(|(_, g)| g).unwrap_or_default();
                    self.0.insert(path, (stamp, groups));
                }
            }
        }
        changed
    }
}

fn read(path: &Path, bytes: u64) -> Result<Vec<StaticConfig>> {
    anyhow::ensure!(bytes <= MOST_BYTES, "{}: larger than {MOST_BYTES} bytes", path.display());
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    // JSON is YAML.
    serde_saphyr::from_str(&text).with_context(|| path.display().to_string())
}

/// The files a path stands for: its last part may have stars.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().and_then(|n| n.to_str()).unwrap_or("");
    if !name.contains('*') {
        return vec![pattern.to_owned()];
    }
    let parent = pattern.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A directory that is not there yet holds no files.
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    entries
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|n| fits(name, n))
        .map(|n| parent.join(n))
        .collect()
}

/// `*.yml` fits `a.yml`.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices().map(|(i, _)| i).chain([rest.len()]).any(|i| fits(after, &rest[i..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector::scrape::config::{Global, ScrapeConfig, pools};

    #[test]
    fn stars_stand_for_anything() {
        let check = |pattern, name, expect| assert_eq!(fits(pattern, name), expect, "{pattern} {name}");
        check("*.yml", "a.yml", true);
        check("*.yml", "a.json", false);
        check("a*b*", "axxbyy", true);
        check("a*b", "ab", true);
        check("a", "ab", false);
    }

    #[test]
    fn files_are_read_again_when_they_change() {
        let dir = tempfile::tempdir().expect("a directory");
        let yaml = format!(
            "job_name: f\nfile_sd_configs: [{{files: [{}/*.json]}}]\nrelabel_configs: [{{source_labels: [a], regex: no, action: drop}}]\n",
            dir.path().display()
        );
        let config: ScrapeConfig = serde_saphyr::from_str(&yaml).expect("a configuration");
        let pool = pools(&Global::default(), vec![config]).expect("a pool").remove(0);
        let (mut files, mut keys, targets) = (Files::default(), BTreeSet::new(), Targets::default());
        let mut look = |files: &mut Files| {
            let changed = files.look(&pool);
            fill(&pool, files, &mut keys, &targets);
            let all: Vec<String> =
                targets.active.snapshot().into_iter().map(|(_, t): (_, ScrapeTarget)| t.url).collect();
            (changed, all)
        };
        assert_eq!(look(&mut files), (false, vec![]));
        let path = dir.path().join("a.json");
        std::fs::write(&path, r#"[{"targets": ["x:1"], "labels": {"a": "b"}}]"#).expect("written");
        assert_eq!(look(&mut files), (true, vec!["http://x:1/metrics".to_owned()]));
        assert!(!look(&mut files).0);
        // What is broken leaves what was.
        std::fs::write(&path, "[{").expect("written");
        assert_eq!(look(&mut files).1, ["http://x:1/metrics"]);
        std::fs::write(&path, r#"[{"targets": ["y:1", "z:1"]}]"#).expect("written");
        assert_eq!(look(&mut files).1, ["http://y:1/metrics", "http://z:1/metrics"]);
        std::fs::write(&path, r#"[{"targets": ["y:1"], "labels": {"a": "no"}}, {"targets": ["zz:1"]}]"#)
            .expect("written");
        assert_eq!(look(&mut files).1, ["http://zz:1/metrics"]);
        let dropped = |targets: &Targets| targets.dropped.get("f").expect("known");
        assert_eq!(dropped(&targets).iter().map(|l| l.get("__address__")).collect::<Vec<_>>(), [Some("y:1")]);
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(look(&mut files), (true, vec![]));
        assert_eq!(dropped(&targets), []);
    }
}
