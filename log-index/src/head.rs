//! The head: records in memory by stream, visible from the moment they are durable.

use std::collections::HashMap;
use std::sync::Arc;

use signal::{Attributes, Labels};

use crate::frame::Frame;

/// A record: its time in nanoseconds, and where in which frame it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) time: i64,
    chunk: u32,
    at: u32,
    len: u32,
}

impl Row {
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.len)
    }
}

/// The frames that rows stand in. Cheap to copy next to what is in them.
pub(crate) type Chunks = Vec<Arc<Vec<u8>>>;

/// A record's bytes.
pub(crate) fn data<'a>(chunks: &'a [Arc<Vec<u8>>], r: &Row) -> &'a [u8] {
    chunks
        .get(r.chunk as usize)
        .and_then(|c| c.get(r.at as usize..r.at as usize + r.len as usize))
        .unwrap_or(&[])
}

#[derive(Default)]
pub(crate) struct Head {
    by_labels: HashMap<Labels, Vec<u32>, ahash::RandomState>,
    pub(crate) streams: Vec<HeadStream>,
    pub(crate) chunks: Chunks,
    pub(crate) records: u64,
    pub(crate) bytes: usize,
}

pub(crate) struct HeadStream {
    pub(crate) labels: Labels,
    pub(crate) resource: Attributes,
    /// In order of arrival, which is nearly the order of time.
    pub(crate) rows: Vec<Row>,
    pub(crate) bytes: usize,
    pub(crate) min: i64,
    pub(crate) max: i64,
}

impl Head {
    pub(crate) fn insert(&mut self, frame: Frame) {
        if frame.streams.iter().all(|(_, _, places)| places.is_empty()) {
            return;
        }
        let chunk = self.chunks.len() as u32;
        self.bytes += frame.raw.len();
        self.chunks.push(Arc::new(frame.raw));
        for (labels, resource, places) in frame.streams {
            let (Some(min), Some(max)) =
                (places.iter().map(|p| p.time).min(), places.iter().map(|p| p.time).max())
            else {
                continue;
            };
            self.records += places.len() as u64;
            self.bytes += places.len() * size_of::<Row>();
            let Some(s) = self.stream(labels, resource, min, max) else { continue };
            s.min = s.min.min(min);
            s.max = s.max.max(max);
            s.bytes += places.iter().map(|p| p.len as usize).sum::<usize>();
            s.rows.extend(places.into_iter().map(|p| Row { time: p.time, chunk, at: p.at, len: p.len }));
        }
    }

    fn stream(
        &mut self,
        labels: Labels,
        resource: Attributes,
        min: i64,
        max: i64,
    ) -> Option<&mut HeadStream> {
        let streams = &mut self.streams;
        let known = self.by_labels.get(&labels);
        let found = known.and_then(|all| {
            all.iter().find(|i| streams.get(**i as usize).is_some_and(|s| s.resource == resource))
        });
        let at = match found {
            Some(i) => *i as usize,
            None => {
                self.by_labels.entry(labels.clone()).or_default().push(streams.len() as u32);
                streams.push(HeadStream { labels, resource, rows: Vec::new(), bytes: 0, min, max });
                streams.len() - 1
            }
        };
        streams.get_mut(at)
    }

    /// The newest time of a stream.
    pub(crate) fn newest(&self, labels: &Labels) -> Option<i64> {
        let all = self.by_labels.get(labels)?;
        all.iter().filter_map(|i| self.streams.get(*i as usize)).map(|s| s.max).max()
    }
}
