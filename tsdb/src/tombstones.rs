//! What was deleted but still stands in blocks: left out by every reader, and dropped when a block is merged.
//!
//! A deletion flushes the head first and then names the newest block it holds for, so that samples which come later
//! are not touched by it. Kept in `tombstones.json`, replaced whole.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use signal::{MatchOp, Matcher};

use crate::block::{Block, Index, Meta};
use crate::db::Tsdb;
use crate::error::Error;
use crate::merge::Columns;

/// Deletions that are remembered; so many more are refused until the blocks were rewritten.
const MOST: usize = 1000;

/// Samples of some series over some time, in the blocks that there were at the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tombstone {
    /// Name, operator, value.
    matchers: Vec<(String, String, String)>,
    /// Milliseconds, both inclusive.
    start: i64,
    end: i64,
    /// Blocks with this number or a lower one.
    upto: u64,
}

impl Tombstone {
    fn holds_for(&self, block: &Meta) -> bool {
        block.seq <= self.upto && block.max >= self.start && block.min <= self.end
    }

    fn series(&self, index: &Index) -> Result<RoaringBitmap, Error> {
        let op = |text: &str| {
            [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex]
                .into_iter()
                .find(|op| op.as_str() == text)
        };
        let matchers: Option<Vec<Matcher>> =
            self.matchers.iter().map(|(n, o, v)| Matcher::new(n, op(o)?, v).ok()).collect();
        let matchers = matchers.ok_or_else(|| Error::Tombstones(format!("{:?}", self.matchers)))?;
        Ok(index.postings.select(&matchers))
    }
}

/// The deletions that hold for one block: which of its series, and from when to when.
pub(crate) struct Deleted(Vec<(RoaringBitmap, i64, i64)>);

impl Deleted {
    /// `None` if nothing of the series is deleted.
    pub(crate) fn of(&self, series: u32) -> Option<Ranges> {
        let ranges: Vec<(i64, i64)> =
            self.0.iter().filter(|(ids, ..)| ids.contains(series)).map(|(_, s, e)| (*s, *e)).collect();
        (!ranges.is_empty()).then(|| Ranges(ranges.into()))
    }
}

/// Times at which a series was deleted.
#[derive(Clone, Debug)]
pub(crate) struct Ranges(Arc<[(i64, i64)]>);

impl Ranges {
    pub(crate) fn contains(&self, time: i64) -> bool {
        self.0.iter().any(|(start, end)| (*start..=*end).contains(&time))
    }

    /// True if nothing in the range is left.
    pub(crate) fn cover(&self, start: i64, end: i64) -> bool {
        self.0.iter().any(|(s, e)| *s <= start && *e >= end)
    }

    /// Adds what is left of a series' floats.
    pub(crate) fn keep(&self, from: &Columns, into: &mut Columns) {
        for (t, v) in from.times.iter().zip(&from.values).filter(|(t, _)| !self.contains(**t)) {
            into.push(*t, *v);
        }
    }
}

#[derive(Default)]
pub(crate) struct Tombstones(RwLock<Vec<Tombstone>>);

impl Tombstones {
    pub(crate) fn load(dir: &Path) -> Result<Self, Error> {
        let path = path(dir);
        let raw = match fs::read(&path) {
            Ok(raw) => raw,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Tombstones::default()),
            Err(e) => return Err(Error::io(&path)(e)),
        };
        let list = serde_json::from_slice(&raw)
            .map_err(|e| Error::Damaged { path: path.clone(), what: e.to_string() })?;
        Ok(Tombstones(RwLock::new(list)))
    }

    /// The highest number of a block that a deletion may hold for.
    pub(crate) fn newest_block(&self) -> u64 {
        self.0.read().iter().map(|t| t.upto).max().unwrap_or(0)
    }

    /// What is deleted in a block; `None`, as nearly always, if nothing is.
    pub(crate) fn in_block(&self, meta: &Meta, index: &Index) -> Result<Option<Deleted>, Error> {
        let list = self.0.read();
        let mut found = Vec::new();
        for t in list.iter().filter(|t| t.holds_for(meta)) {
            let ids = t.series(index)?;
            if !ids.is_empty() {
                found.push((ids, t.start, t.end));
            }
        }
        Ok((!found.is_empty()).then_some(Deleted(found)))
    }

    fn write(&self, dir: &Path, list: Vec<Tombstone>) -> Result<(), Error> {
        let path = path(dir);
        let temporary = path.with_extension("json.tmp");
        let text = serde_json::to_vec(&list).expect("plain data");
        fs::write(&temporary, text).map_err(Error::io(&temporary))?;
        fs::File::open(&temporary).and_then(|f| f.sync_all()).map_err(Error::io(&temporary))?;
        fs::rename(&temporary, &path).map_err(Error::io(&path))?;
        fs::File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io(dir))?;
        *self.0.write() = list;
        Ok(())
    }

    /// Forgets what no block holds any more.
    pub(crate) fn forget(&self, dir: &Path, blocks: &[Meta]) -> Result<(), Error> {
        let list = self.0.read().clone();
        let kept: Vec<Tombstone> =
            list.iter().filter(|t| blocks.iter().any(|b| t.holds_for(b))).cloned().collect();
        if kept.len() < list.len() { self.write(dir, kept) } else { Ok(()) }
    }
}

fn path(dir: &Path) -> std::path::PathBuf {
    dir.join("tombstones.json")
}

impl Tsdb {
    /// Deletes the samples of the series that match, from `start` to `end` in milliseconds. Returns once no query
    /// sees them any more; the disk has them until their blocks are merged or [`Tsdb::clean_tombstones`] is called.
    pub async fn delete(self: &Arc<Self>, matchers: &[Matcher], start: i64, end: i64) -> Result<(), Error> {
        self.flush_all().await?;
        let _one = self.maintenance.lock().await;
        let blocks: Vec<Meta> = self.state.read().blocks.iter().map(|b| b.meta.clone()).collect();
        let Some(upto) = blocks.iter().map(|b| b.seq).max() else { return Ok(()) };
        let text = |m: &Matcher| (m.name.clone(), m.op.as_str().to_owned(), m.value.clone());
        let new = Tombstone { matchers: matchers.iter().map(text).collect(), start, end, upto };
        if !blocks.iter().any(|b| new.holds_for(b)) {
            return Ok(());
        }
        let mut list = self.tombstones.0.read().clone();
        if list.len() >= MOST {
            return Err(Error::Tombstones(format!(
                "{MOST} deletions are waiting for their blocks to be rewritten; clean the tombstones first"
            )));
        }
        list.push(new);
        self.tombstones.write(&self.config.dir, list)
    }

    /// Also what a flush that failed left behind, which goes alone.
    async fn flush_all(self: &Arc<Self>) -> Result<(), Error> {
        if self.state.read().frozen.is_some() {
            self.flush().await?;
        }
        self.flush().await
    }

    /// Rewrites the blocks that hold deleted samples, so that the disk no longer has them.
    pub async fn clean_tombstones(self: &Arc<Self>) -> Result<(), Error> {
        let _one = self.maintenance.lock().await;
        let blocks = self.state.read().blocks.clone();
        for block in blocks {
            let index = block.index()?;
            if self.tombstones.in_block(&block.meta, &index)?.is_some() {
                drop(index);
                self.merge_blocks(vec![block]).await?;
            }
        }
        let metas: Vec<Meta> = self.state.read().blocks.iter().map(|b| b.meta.clone()).collect();
        self.tombstones.forget(&self.config.dir, &metas)
    }

    /// Hard links of all blocks, with what belongs to them, in a new directory `snapshots/NAME` that opens as a
    /// database of its own. Gives back the name. The head is flushed into it first unless it is to be left out.
    pub async fn snapshot(self: &Arc<Self>, skip_head: bool) -> Result<String, Error> {
        if !skip_head {
            self.flush_all().await?;
        }
        let _one = self.maintenance.lock().await;
        self.save_metadata()?;
        let blocks: Vec<Arc<Block>> = self.state.read().blocks.clone();
        let name = format!("{}-{:016x}", stamp(self.config.clock.now().millis()), self.next_seq());
        let dir = self.config.dir.join("snapshots").join(&name);
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        for block in blocks {
            let Some(file) = block.path.file_name() else { continue };
            let link = dir.join(file);
            fs::hard_link(&block.path, &link).map_err(Error::io(&link))?;
        }
        for file in ["metadata.json", "tombstones.json"] {
            let from = self.config.dir.join(file);
            match fs::copy(&from, dir.join(file)) {
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io(&from)(e)),
            }
        }
        fs::File::open(&dir).and_then(|d| d.sync_all()).map_err(Error::io(&dir))?;
        Ok(name)
    }
}

/// `20171210T211224Z`, as Prometheus names its snapshots.
fn stamp(millis: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}
