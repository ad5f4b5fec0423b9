//! Writing a store from a backup: objects at the revisions they had, without history.

use std::path::Path;

use redb::{Database, WriteTransaction};

use super::format::{CURRENT, Head, LOG, META, VERSIONS, encode};
use super::{FILE, writer};
use crate::{Error, Event, KeyValue};

/// Objects per transaction.
const BATCH: usize = 5000;

/// A store that is being written, by nobody else.
pub(crate) struct Restore {
    db: Database,
    revision: u64,
    batch: Vec<KeyValue>,
}

impl Restore {
    pub(crate) fn begin(dir: &Path, revision: u64) -> Result<Restore, Error> {
        let db = Database::create(dir.join(FILE))?;
        writer::initialize(&db)?;
        Ok(Restore { db, revision, batch: Vec::new() })
    }

    pub(crate) fn add(&mut self, kv: &KeyValue) -> Result<(), Error> {
        self.batch.push(kv.clone());
        if self.batch.len() < BATCH {
            return Ok(());
        }
        let txn = self.db.begin_write()?;
        write(&txn, &self.batch)?;
        txn.commit()?;
        self.batch.clear();
        Ok(())
    }

    /// The last objects, and the numbers that make it a store.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let txn = self.db.begin_write()?;
        write(&txn, &self.batch)?;
        {
            let mut meta = txn.open_table(META)?;
            meta.insert("revision", self.revision)?;
            meta.insert("compacted", self.revision)?;
        }
        txn.commit()?;
        Ok(())
    }
}

fn write(txn: &WriteTransaction, batch: &[KeyValue]) -> Result<(), Error> {
    let (mut current, mut log, mut versions) =
        (txn.open_table(CURRENT)?, txn.open_table(LOG)?, txn.open_table(VERSIONS)?);
    for kv in batch {
        let head =
            Head { create_revision: kv.create_revision, mod_revision: kv.mod_revision, version: kv.version };
        let event = Event {
            revision: kv.mod_revision,
            key: kv.key.clone(),
            value: Some(kv.value.clone()),
            create_revision: kv.create_revision,
            version: kv.version,
            prev_revision: 0,
        };
        current.insert(kv.key.as_ref(), head.encode().as_slice())?;
        if log.insert(kv.mod_revision, encode(&event).as_slice())?.is_some() {
            return Err(Error::Corrupt(format!("two objects of revision {}", kv.mod_revision)));
        }
        versions.insert((kv.key.as_ref(), kv.mod_revision), 1)?;
    }
    Ok(())
}
