//! The head: records in memory by stream, visible from the moment they are durable.

use std::collections::HashMap;

use signal::{Attributes, Labels};

use crate::frame::Row;

#[derive(Default)]
pub(crate) struct Head {
    by_labels: HashMap<Labels, Vec<u32>, ahash::RandomState>,
    pub(crate) streams: Vec<HeadStream>,
    pub(crate) records: u64,
    pub(crate) bytes: usize,
    /// Nanoseconds; `None` while empty.
    pub(crate) range: Option<(i64, i64)>,
}

pub(crate) struct HeadStream {
    pub(crate) labels: Labels,
    pub(crate) resource: Attributes,
    /// In order of arrival, which is nearly the order of time.
    pub(crate) rows: Vec<Row>,
    pub(crate) min: i64,
    pub(crate) max: i64,
}

impl Head {
    pub(crate) fn insert(&mut self, labels: &Labels, resource: &Attributes, rows: Vec<Row>) {
        let (Some(min), Some(max)) = (rows.iter().map(|r| r.time).min(), rows.iter().map(|r| r.time).max())
        else {
            return;
        };
        self.records += rows.len() as u64;
        self.bytes += rows.iter().map(|r| r.data.len() + size_of::<Row>()).sum::<usize>();
        self.range = Some(self.range.map_or((min, max), |(a, b)| (a.min(min), b.max(max))));
        let same = self.by_labels.entry(labels.clone()).or_default();
        let found =
            same.iter().find(|i| self.streams.get(**i as usize).is_some_and(|s| s.resource == *resource));
        let at = match found {
            Some(i) => *i as usize,
            None => {
                same.push(self.streams.len() as u32);
                self.streams.push(HeadStream {
                    labels: labels.clone(),
                    resource: resource.clone(),
                    rows: Vec::new(),
                    min,
                    max,
                });
                self.streams.len() - 1
            }
        };
        if let Some(s) = self.streams.get_mut(at) {
            s.min = s.min.min(min);
            s.max = s.max.max(max);
            s.rows.extend(rows);
        }
    }
}
