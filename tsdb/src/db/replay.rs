//! Reading the log back into a head.

use std::collections::BTreeMap;

use signal::Metadata;

use crate::exemplars::Exemplars;
use crate::head::Head;
use crate::record::{Known, ReadFloats, Record, unpack};

/// Numbers of series that a log is believed in: one that is out of all proportion must not take the memory.
const NUMBERS: u32 = 1 << 26;

/// What the log held.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) head: Head,
    pub(super) metadata: BTreeMap<String, Metadata>,
    pub(super) exemplars: Exemplars,
    /// The highest number of a record.
    pub(super) record: u32,
    /// Frames that passed their checksum and are no record.
    pub(super) unreadable: u64,
    /// Samples of series, or told as differences, whose beginning is lost.
    pub(super) lost: u64,
    /// By the number that a series has in the log.
    known: Vec<Option<Known>>,
}

impl Replay {
    /// `metadata` is what is known already.
    pub(super) fn new(metadata: BTreeMap<String, Metadata>) -> Self {
        Replay { metadata, ..Replay::default() }
    }

    pub(super) fn frame(&mut self, frame: &[u8]) {
        let Some((version, body)) = unpack(frame) else {
            self.unreadable += 1;
            return;
        };
        let Some(read) = Record::decode(version, &body) else {
            self.unreadable += 1;
            return;
        };
        self.record = self.record.max(read.number);
        for (id, labels) in &read.record.series {
            self.define(*id, labels);
        }
        let head = &mut self.head;
        match read.floats {
            ReadFloats::Columns(columns) => {
                self.lost += columns.read(&mut self.known, |id, s| head.insert(id, s));
            }
            ReadFloats::Plain(all) => {
                for (id, samples) in all {
                    match self.known.get(id as usize).copied().flatten() {
                        Some(k) => samples.into_iter().for_each(|s| head.insert(k.id, s)),
                        None => self.lost += samples.len() as u64,
                    }
                }
            }
        }
        let known = |id: u32| self.known.get(id as usize).copied().flatten();
        for (id, samples) in read.record.histograms {
            match known(id) {
                Some(k) => samples.into_iter().for_each(|s| head.insert_histogram(k.id, s)),
                None => self.lost += samples.len() as u64,
            }
        }
        for (id, times) in read.record.starts {
            if let Some(k) = known(id) {
                times.into_iter().for_each(|(t, start)| head.insert_start(k.id, t, start));
            }
        }
        self.metadata.extend(read.record.metadata.into_iter().map(|m| (m.family.clone(), m)));
        read.record.exemplars.into_iter().for_each(|e| self.exemplars.push(e));
    }

    /// A definition replaces an earlier one of the same number; one told twice changes nothing.
    fn define(&mut self, number: u32, labels: &signal::Labels) {
        if number >= NUMBERS {
            self.unreadable += 1;
            return;
        }
        let id = self.head.get_or_create(labels);
        let at = number as usize;
        if self.known.len() <= at {
            self.known.resize(at + 1, None);
        }
        if let Some(slot) = self.known.get_mut(at)
            && slot.is_none_or(|k| k.id != id)
        {
            *slot = Some(Known::new(id));
        }
    }
}
