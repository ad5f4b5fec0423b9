//! Reading the log back into a head: one thread reads and unpacks, another fills the head.

use std::collections::BTreeMap;
use std::sync::mpsc;

use signal::{Labels, Metadata, Sample};
use wal::{Recovery, Wal};

use crate::error::Error;
use crate::exemplars::Exemplars;
use crate::head::Head;
use crate::record::{Known, ReadFloats, Record, unpack};

/// Numbers of series that a log is believed in: one that is out of all proportion must not take the memory.
const NUMBERS: u32 = 1 << 26;
/// Records between the threads; those of remote writers are the largest, some thousand samples each.
const AHEAD: usize = 16;

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
    /// Numbers in the head by those in the log.
    ids: Vec<Option<u32>>,
}

/// A record in the log's numbers.
struct Unpacked {
    record: Record,
    floats: Vec<(u32, Sample)>,
}

/// Opens the log and reads it. `metadata` is what is known already.
pub(super) fn read(
    config: wal::Config,
    metadata: BTreeMap<String, Metadata>,
) -> Result<(Replay, Wal, Recovery), Error> {
    std::thread::scope(|scope| {
        let (ahead, records) = mpsc::sync_channel::<Unpacked>(AHEAD);
        let filling = scope.spawn(move || {
            let mut replay = Replay { metadata, ..Replay::default() };
            records.into_iter().for_each(|r| replay.apply(r));
            replay
        });
        let mut reader = Reader::default();
        let opened = Wal::open(config, |_, frame| {
            if let Some(unpacked) = reader.frame(frame) {
                // It only ends before us by a panic, which joining it hands on.
                let _ = ahead.send(unpacked);
            }
        });
        drop(ahead);
        let mut replay = filling.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (wal, found) = opened?;
        replay.record = reader.record;
        replay.unreadable = reader.unreadable;
        replay.lost += reader.lost;
        Ok((replay, wal, found))
    })
}

#[derive(Default)]
struct Reader {
    record: u32,
    unreadable: u64,
    lost: u64,
    /// By number: what defines the series, and what its values are told from.
    known: Vec<Option<Known>>,
    labels: Vec<Labels>,
}

impl Reader {
    fn frame(&mut self, frame: &[u8]) -> Option<Unpacked> {
        let unpacked = self.unpack(frame);
        if unpacked.is_none() {
            self.unreadable += 1;
        }
        unpacked
    }

    fn unpack(&mut self, frame: &[u8]) -> Option<Unpacked> {
        let (version, body) = unpack(frame)?;
        let read = Record::decode(version, &body)?;
        if read.record.series.iter().any(|(number, _)| *number >= NUMBERS) {
            return None;
        }
        self.record = self.record.max(read.number);
        for (number, labels) in &read.record.series {
            self.define(*number, labels);
        }
        let mut floats = Vec::new();
        match read.floats {
            ReadFloats::Columns(columns) => {
                floats.reserve(columns.samples());
                self.lost += columns.read(&mut self.known, |number, s| floats.push((number, s)));
            }
            ReadFloats::Plain(all) => {
                floats
                    .extend(all.into_iter().flat_map(|(number, s)| s.into_iter().map(move |s| (number, s))));
            }
        }
        Some(Unpacked { record: read.record, floats })
    }

    /// A definition replaces an earlier one of the same number; one told twice changes nothing.
    fn define(&mut self, number: u32, labels: &Labels) {
        let at = number as usize;
        if self.known.len() <= at {
            self.known.resize(at + 1, None);
            self.labels.resize(at + 1, Labels::empty());
        }
        if let (Some(known), Some(named)) = (self.known.get_mut(at), self.labels.get_mut(at))
            && (known.is_none() || named != labels)
        {
            *known = Some(Known::new(number));
            *named = labels.clone();
        }
    }
}

impl Replay {
    fn apply(&mut self, Unpacked { record, floats }: Unpacked) {
        for (number, labels) in &record.series {
            let (at, id) = (*number as usize, self.head.get_or_create(labels));
            if self.ids.len() <= at {
                self.ids.resize(at + 1, None);
            }
            if let Some(slot) = self.ids.get_mut(at) {
                *slot = Some(id);
            }
        }
        let ids = &self.ids;
        let id = |number: u32| ids.get(number as usize).copied().flatten();
        for (number, sample) in floats {
            match id(number) {
                Some(id) => self.head.insert(id, sample),
                None => self.lost += 1,
            }
        }
        for (number, samples) in record.histograms {
            match id(number) {
                Some(id) => samples.into_iter().for_each(|s| self.head.insert_histogram(id, s)),
                None => self.lost += samples.len() as u64,
            }
        }
        for (number, times) in record.starts {
            if let Some(id) = id(number) {
                times.into_iter().for_each(|(t, start)| self.head.insert_start(id, t, start));
            }
        }
        self.metadata.extend(record.metadata.into_iter().map(|m| (m.family.clone(), m)));
        record.exemplars.into_iter().for_each(|e| self.exemplars.push(e));
    }
}
