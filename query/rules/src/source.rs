//! A directory of rule files. What it finds is handed on as files; groups run from them whoever found them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::file::{self, GroupSpec};

/// More files than this are not read.
const FILES: usize = 10_000;

/// One file, good or not.
#[derive(Clone, Debug)]
pub struct SourceFile {
    pub path: PathBuf,
    /// Its groups, or what is wrong with it.
    pub groups: Result<Vec<GroupSpec>, Vec<String>>,
}

/// Anything that says which rule files there are. Blocks.
pub trait Source: Send + 'static {
    /// All files, if anything has changed since the last call or if `anyway`.
    fn read(&mut self, anyway: bool) -> Option<Vec<SourceFile>>;
}

/// What a file looks like from outside: if it is the same, so is the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
}

/// `*.yaml` and `*.yml` in one directory, in order of names.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    known: Option<BTreeMap<PathBuf, Stamp>>,
}

impl Directory {
    pub fn new(path: PathBuf) -> Directory {
        Directory { path, known: None }
    }

    /// Files and their stamps; none if the directory is not there.
    fn list(&self) -> BTreeMap<PathBuf, Stamp> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(e) => e,
            Err(e) => {
                if e.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!(dir = %self.path.display(), error = %e, "rules cannot be read");
                    return self.known.clone().unwrap_or_default();
                }
                return BTreeMap::new();
            }
        };
        let paths = entries.filter_map(|e| Some(e.ok()?.path()));
        let rules = paths.filter(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml"));
        // Links are followed: a mounted ConfigMap is made of them.
        let stamped = rules.filter_map(|p| {
            let m = std::fs::metadata(&p).ok().filter(std::fs::Metadata::is_file)?;
            Some((p, Stamp { size: m.len(), modified: m.modified().ok() }))
        });
        stamped.take(FILES).collect()
    }
}

impl Source for Directory {
    fn read(&mut self, anyway: bool) -> Option<Vec<SourceFile>> {
        let now = self.list();
        if !anyway && self.known.as_ref() == Some(&now) {
            return None;
        }
        let files = now.keys().map(|p| SourceFile { path: p.clone(), groups: file::read(p) }).collect();
        self.known = Some(now);
        Some(files)
    }
}
