//! The head becomes a partition; partitions past their retention go.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Kind;
use crate::db::LogIndex;
use crate::error::Error;
use crate::frame::Encoder;
use crate::head::{self, Head, Row};
use crate::partition::{Meta, Partition, Writer, temporary};

fn write(dir: &Path, kind: Kind, seq: u64, log_before: u64, head: &Head) -> Result<Option<PathBuf>, Error> {
    let mut writer = Writer::create(dir, kind, Meta { seq, log_before, ..Meta::default() })?;
    let mut streams: Vec<_> = head.streams.iter().collect();
    streams.sort_by(|a, b| a.labels.cmp(&b.labels));
    for s in streams {
        let mut rows: Vec<Row> = s.rows.clone();
        rows.sort_by_key(|r| r.time);
        writer.stream(&s.labels, &s.resource, s.bytes, &[])?;
        rows.iter().try_for_each(|r| writer.push(r.time, head::data(&head.chunks, r)))?;
    }
    writer.finish()
}

impl LogIndex {
    /// Writes the head to a partition and frees its log. Does nothing with an empty head.
    pub async fn flush(self: &Arc<Self>) -> Result<(), Error> {
        let _one = self.maintenance.lock().await;
        if self.state.read().frozen.is_none() {
            if self.state.read().head.records == 0 {
                return Ok(());
            }
            let _gate = self.gate.write().await;
            let segment = self.wal.rotate().await?;
            // The checkpoints go first into the new log: the old one, which holds them, will be deleted.
            let checkpoints = self.live_checkpoints();
            if !checkpoints.is_empty() {
                self.wal.append(Encoder::new(0, 0).finish(checkpoints).packed()).await?;
            }
            let mut state = self.state.write();
            state.frozen = Some(Arc::new(std::mem::take(&mut state.head)));
            state.frozen_segment = segment;
        }
        let (head, segment) = {
            let state = self.state.read();
            (state.frozen.clone(), state.frozen_segment)
        };
        let Some(head) = head else { return Ok(()) };
        let (dir, kind, seq) = (self.config.dir.clone(), self.config.kind, self.next_seq());
        let unfinished = temporary(&dir, seq);
        let partition = tokio::task::spawn_blocking(move || match write(&dir, kind, seq, segment, &head)? {
            Some(path) => Partition::open(path, kind).map(Some),
            None => Ok(None),
        })
        .await
        .map_err(|e| Error::Damaged { path: self.config.dir.clone(), what: format!("flush panicked: {e}") })
        .flatten()
        .inspect_err(|_| {
            // A full disk would be kept full by what did not fit; the error at hand is the one to tell.
            drop(std::fs::remove_file(&unfinished));
            self.room.notify_waiters();
        })?;
        {
            let mut state = self.state.write();
            state.partitions.extend(partition.map(Arc::new));
            state.frozen = None;
        }
        self.room.notify_waiters();
        self.wal.delete_before(segment).await?;
        Ok(())
    }

    pub(crate) fn retain(&self) -> Result<(), Error> {
        let oldest = self.config.clock.now().saturating_sub(self.config.retention).nanos();
        let mut all = self.state.read().partitions.clone();
        all.sort_by_key(|p| p.meta.max);
        let mut total: u64 = all.iter().map(|p| p.bytes).sum();
        for p in all {
            if p.is_merging() {
                continue;
            }
            if p.meta.max < oldest || self.config.retention_bytes.is_some_and(|l| total > l) {
                total -= p.bytes;
                self.state.write().partitions.retain(|q| q.meta.seq != p.meta.seq);
                std::fs::remove_file(&p.path).map_err(Error::io(&p.path))?;
            }
        }
        self.state.read().partitions.iter().for_each(|p| p.forget());
        Ok(())
    }
}
