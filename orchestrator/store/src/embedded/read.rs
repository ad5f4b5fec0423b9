//! Reading: one key, a range now or at a revision, history.

use std::ops::Bound;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable};

use super::format::{CURRENT, Head, LOG, META, VERSIONS, decode};
use crate::{Error, Event, KeyValue, Range, RangeResult};

pub(super) fn get(txn: &ReadTransaction, key: &[u8]) -> Result<Option<KeyValue>, Error> {
    let head = match txn.open_table(CURRENT)?.get(key)? {
        Some(h) => Head::decode(h.value())?,
        None => return Ok(None),
    };
    let log = txn.open_table(LOG)?;
    version(&log, head.mod_revision).map(Some)
}

/// The version that revision `at` wrote.
fn version(log: &impl ReadableTable<u64, &'static [u8]>, at: u64) -> Result<KeyValue, Error> {
    let record = log.get(at)?.ok_or_else(|| Error::Corrupt(format!("revision {at} is missing")))?;
    let e = decode(at, record.value())?;
    let value = e.value.ok_or_else(|| Error::Corrupt(format!("revision {at} is a deletion")))?;
    Ok(KeyValue {
        key: e.key,
        value,
        create_revision: e.create_revision,
        mod_revision: at,
        version: e.version,
    })
}

pub(super) fn range(txn: &ReadTransaction, range: &Range) -> Result<RangeResult, Error> {
    let meta = txn.open_table(META)?;
    let number = |name: &str| -> Result<u64, Error> { Ok(meta.get(name)?.map_or(0, |v| v.value())) };
    let current = number("revision")?;
    let start = range.after.as_ref().filter(|a| a.as_ref() >= range.prefix.as_ref());
    match range.revision {
        None => now(txn, range, start, current),
        Some(at) if at > current => Err(Error::Future { requested: at, current }),
        Some(at) if at == current => now(txn, range, start, current),
        Some(at) => {
            let compacted = number("compacted")?;
            if at < compacted {
                return Err(Error::Compacted { requested: at, compacted });
            }
            then(txn, range, start, at)
        }
    }
}

fn now(
    txn: &ReadTransaction,
    range: &Range,
    start: Option<&Bytes>,
    revision: u64,
) -> Result<RangeResult, Error> {
    let (keys, log) = (txn.open_table(CURRENT)?, txn.open_table(LOG)?);
    let lower = match start {
        Some(s) => Bound::Excluded(s.as_ref()),
        None => Bound::Included(range.prefix.as_ref()),
    };
    let mut out = RangeResult { items: Vec::new(), more: false, revision };
    for entry in keys.range::<&[u8]>((lower, Bound::Unbounded))? {
        let (key, head) = entry?;
        if !key.value().starts_with(&range.prefix) {
            break;
        }
        if range.limit > 0 && out.items.len() == range.limit {
            out.more = true;
            break;
        }
        out.items.push(version(&log, Head::decode(head.value())?.mod_revision)?);
    }
    Ok(out)
}

fn then(txn: &ReadTransaction, range: &Range, start: Option<&Bytes>, at: u64) -> Result<RangeResult, Error> {
    let (versions, log) = (txn.open_table(VERSIONS)?, txn.open_table(LOG)?);
    let lower = match start {
        Some(s) => Bound::Excluded((s.as_ref(), u64::MAX)),
        None => Bound::Included((range.prefix.as_ref(), 0)),
    };
    let mut out = RangeResult { items: Vec::new(), more: false, revision: at };
    // The newest version at or before `at` of the key being walked over.
    let mut found: Option<(Vec<u8>, u64, bool)> = None;
    let mut walk = versions.range::<(&[u8], u64)>((lower, Bound::Unbounded))?;
    loop {
        let entry = walk.next().transpose()?;
        let entry = entry.as_ref().map(|(k, v)| (k.value(), v.value()));
        let entry = entry.filter(|((k, _), _)| k.starts_with(&range.prefix));
        let same = entry.is_some_and(|((k, _), _)| found.as_ref().is_some_and(|(f, _, _)| f == k));
        if !same && let Some((_, revision, true)) = found.take() {
            if range.limit > 0 && out.items.len() == range.limit {
                out.more = true;
                return Ok(out);
            }
            out.items.push(version(&log, revision)?);
        }
        match entry {
            None => return Ok(out),
            Some(((k, r), kind)) if r <= at => found = Some((k.to_vec(), r, kind == 1)),
            Some(_) => {}
        }
    }
}

pub(super) fn history(txn: &ReadTransaction, after: u64, limit: usize) -> Result<Vec<Event>, Error> {
    let meta = txn.open_table(META)?;
    let compacted = meta.get("compacted")?.map_or(0, |v| v.value());
    if after < compacted {
        return Err(Error::Compacted { requested: after, compacted });
    }
    let log = txn.open_table(LOG)?;
    let mut out = Vec::new();
    for entry in log.range(after + 1..)?.take(limit) {
        let (revision, record) = entry?;
        out.push(decode(revision.value(), record.value())?);
    }
    Ok(out)
}
