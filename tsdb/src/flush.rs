//! The head becomes a block: swap it out, write it, publish it, and only then let go of the log below it.

use std::sync::Arc;

use crate::block::{Block, Meta, SeriesData, Writer};
use crate::db::Tsdb;
use crate::error::Error;
use crate::head::Frozen;
use crate::merge::Extras;

/// Bytes of block indexes that stay in memory between queries, the newest blocks' first.
const KEPT_INDEXES: usize = 64 << 20;

/// Writes a head as a block.
fn write(dir: &std::path::Path, seq: u64, head: &Frozen) -> Result<Option<std::path::PathBuf>, Error> {
    let mut order: Vec<usize> = (0..head.series.len()).collect();
    order.sort_by(|a, b| head.series.get(*a).map(|s| &s.labels).cmp(&head.series.get(*b).map(|s| &s.labels)));
    let mut writer = Writer::create(dir, Meta { seq, order: seq, ..Meta::default() })?;
    let mut data = SeriesData::default();
    for series in order.into_iter().filter_map(|i| head.series.get(i)) {
        let (runs, late) = series.data.read(&head.cells, i64::MIN, i64::MAX);
        data.columns.clear();
        runs.iter().for_each(|r| r.decode(|s| data.columns.push(s.timestamp, s.value)));
        late.into_iter().for_each(|s| data.columns.push(s.timestamp, s.value));
        data.columns.settle();
        (data.histograms, data.starts) = (Vec::new(), Vec::new());
        if let Some(extra) = series.data.extra_ref() {
            let mut extras = Extras::default();
            let (runs, late) = extra.read(i64::MIN, i64::MAX);
            runs.iter().for_each(|r| r.decode(|s| extras.push(s)));
            late.into_iter().for_each(|s| extras.push(s));
            extras.push_starts(extra.starts());
            (data.histograms, data.starts) = extras.finish();
        }
        writer.add(&series.labels, &data)?;
    }
    writer.finish()
}

impl Tsdb {
    /// Writes the head to a block and frees its log. Does nothing with an empty head.
    pub async fn flush(self: &Arc<Self>) -> Result<(), Error> {
        self.flush_of(true).await
    }

    /// Writes the series that have ended to a block of their own, so that they leave memory. The log stays: after a
    /// crash they are told once more, and the same samples twice are one.
    pub(crate) async fn flush_dead(self: &Arc<Self>) -> Result<(), Error> {
        self.flush_of(false).await
    }

    async fn flush_of(self: &Arc<Self>, all: bool) -> Result<(), Error> {
        let _one = self.maintenance.lock().await;
        // A flush that failed left its head frozen: that one goes first.
        if self.state.read().frozen.is_none() {
            {
                let state = self.state.read();
                if state.head.samples == 0 && !(all && state.log_behind) {
                    return Ok(());
                }
            }
            let _gate = self.gate.write().await;
            if all {
                // No append is under way: what the segments below hold is in the head, and nothing else is.
                let segment = self.wal.rotate().await?;
                let mut state = self.state.write();
                state.frozen = Some(Arc::new(state.head.freeze()));
                state.frozen_segment = segment;
                state.log_behind = false;
            } else {
                let mut state = self.state.write();
                state.frozen = Some(Arc::new(state.head.freeze_dead()));
                state.frozen_segment = 0;
                state.log_behind = true;
            }
        }
        let (head, segment) = {
            let state = self.state.read();
            (state.frozen.clone(), state.frozen_segment)
        };
        let Some(head) = head else { return Ok(()) };
        self.save_metadata()?;
        let seq = self.next_seq();
        let dir = self.config.dir.clone();
        let block = tokio::task::spawn_blocking(move || match write(&dir, seq, &head)? {
            Some(path) => Block::open(path).map(Some),
            None => Ok(None),
        })
        .await
        .map_err(|e| Error::Damaged {
            path: self.config.dir.clone(),
            what: format!("flush panicked: {e}"),
        })??;
        {
            let mut state = self.state.write();
            state.blocks.extend(block.map(Arc::new));
            state.frozen = None;
        }
        self.wal.delete_before(segment).await?;
        {
            let _gate = self.gate.write().await;
            self.state.write().head.sweep();
        }
        if let Some(release) = self.config.release {
            release();
        }
        Ok(())
    }

    /// Makes one block of these, which are in ascending order of `order`. The caller holds `maintenance`.
    pub(crate) async fn merge_blocks(self: &Arc<Self>, sources: Vec<Arc<Block>>) -> Result<(), Error> {
        let (this, seq, from) = (self.clone(), self.next_seq(), sources.clone());
        let merged = tokio::task::spawn_blocking(move || {
            match crate::compact::merge(&this.config.dir, seq, &from, &this.tombstones)? {
                Some(path) => Block::open(path).map(Some),
                None => Ok(None),
            }
        })
        .await
        .map_err(|e| Error::Damaged {
            path: self.config.dir.clone(),
            what: format!("merge panicked: {e}"),
        })??;
        {
            let mut state = self.state.write();
            state.blocks.retain(|b| !sources.iter().any(|s| s.meta.seq == b.meta.seq));
            state.blocks.extend(merged.map(Arc::new));
            state.blocks.sort_by_key(|b| b.meta.order);
        }
        for b in sources {
            std::fs::remove_file(&b.path).map_err(Error::io(&b.path))?;
        }
        Ok(())
    }

    /// Merges blocks until nothing is left to merge, then drops what is past its retention.
    pub(crate) async fn compact_and_retain(self: &Arc<Self>) -> Result<(), Error> {
        let _one = self.maintenance.lock().await;
        loop {
            let blocks = self.state.read().blocks.clone();
            let metas: Vec<Meta> = blocks.iter().map(|b| b.meta.clone()).collect();
            let settled = self.settled_before();
            let chosen = crate::compact::plan(&metas, settled);
            if chosen.is_empty() {
                break;
            }
            let mut sources: Vec<Arc<Block>> =
                blocks.into_iter().filter(|b| chosen.contains(&b.meta.seq)).collect();
            sources.sort_by_key(|b| b.meta.order);
            self.merge_blocks(sources).await?;
        }
        let facts: Vec<(Meta, u64)> =
            self.state.read().blocks.iter().map(|b| (b.meta.clone(), b.bytes)).collect();
        let oldest = self.config.clock.now().saturating_sub(self.config.retention).millis();
        for seq in crate::retention::plan(&facts, oldest, self.config.retention_bytes) {
            let mut state = self.state.write();
            let Some(at) = state.blocks.iter().position(|b| b.meta.seq == seq) else { continue };
            let block = state.blocks.remove(at);
            drop(state);
            std::fs::remove_file(&block.path).map_err(Error::io(&block.path))?;
        }
        let metas: Vec<Meta> = self.state.read().blocks.iter().map(|b| b.meta.clone()).collect();
        self.tombstones.forget(&self.config.dir, &metas)?;
        let mut kept = 0;
        for block in self.state.read().blocks.iter().rev() {
            kept += block.forget_unused();
            if kept > KEPT_INDEXES {
                block.forget();
            }
        }
        Ok(())
    }
}
