//! A backup: every object of one revision, and the files that go with them, in one checked file. FORMAT.md describes it.
//!
//! Made while the store works; what is encrypted in the store is so in the backup. History is not in it: a restored
//! store begins at the backup's revision, so that resourceVersions go on growing.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ring::digest::{Context, SHA256};

use crate::embedded::restore as embedded;
use crate::{Error, KeyValue, Range, Store};

const MAGIC: &[u8; 16] = b"binnacle-backup\0";
const VERSION: u32 = 1;
/// Objects read at once.
const PAGE: usize = 500;
/// No object is as big; a length above it is a damaged file's.
const MAX_PART: usize = 64 << 20;

const END: u8 = 0;
const OBJECT: u8 = 1;
const FILE: u8 = 2;

/// A backup on its way out, in pieces.
pub struct Backup {
    store: Arc<Store>,
    digest: Context,
    files: std::vec::IntoIter<(String, Bytes)>,
    revision: u64,
    after: Option<Bytes>,
    objects: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Begin,
    Files,
    Objects,
    Done,
}

impl Backup {
    /// Begins a backup of now, with `files` beside the objects.
    pub async fn begin(store: Arc<Store>, files: Vec<(String, Bytes)>) -> Result<Backup, Error> {
        Ok(Backup {
            revision: store.latest().await?,
            store,
            digest: Context::new(&SHA256),
            files: files.into_iter(),
            after: None,
            objects: 0,
            state: State::Begin,
        })
    }

    /// The next piece, of some hundred objects at most; `None` at the end.
    /// [`Error::Compacted`] if the backup took so long that the store forgot its revision.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut out = Vec::new();
        match self.state {
            State::Begin => {
                out.extend_from_slice(MAGIC);
                out.extend_from_slice(&VERSION.to_le_bytes());
                out.extend_from_slice(&self.revision.to_le_bytes());
                self.state = State::Files;
            }
            State::Files if self.files.len() > 0 => {
                let (name, bytes) = self.files.next().expect("there is one more");
                record(&mut out, FILE, [0; 3], name.as_bytes(), &bytes);
            }
            State::Files | State::Objects => {
                self.state = State::Objects;
                let range = Range {
                    after: self.after.take(),
                    limit: PAGE,
                    revision: Some(self.revision),
                    ..Range::default()
                };
                let page = self.store.stored(range).await?;
                for kv in &page.items {
                    let numbers = [kv.create_revision, kv.mod_revision, kv.version];
                    record(&mut out, OBJECT, numbers, &kv.key, &kv.value);
                }
                self.objects += page.items.len() as u64;
                match page.items.last() {
                    Some(last) if page.more => self.after = Some(last.key.clone()),
                    _ => {
                        out.push(END);
                        out.extend_from_slice(&self.objects.to_le_bytes());
                        self.digest.update(&out);
                        out.extend_from_slice(self.digest.clone().finish().as_ref());
                        self.state = State::Done;
                        return Ok(Some(out.into()));
                    }
                }
            }
            State::Done => return Ok(None),
        }
        self.digest.update(&out);
        Ok(Some(out.into()))
    }
}

fn record(out: &mut Vec<u8>, kind: u8, numbers: [u64; 3], key: &[u8], value: &[u8]) {
    out.push(kind);
    numbers.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// What a restored backup held.
#[derive(Debug)]
pub struct Restored {
    pub revision: u64,
    pub objects: u64,
    /// By name, as they were given to [`Backup::begin`].
    pub files: Vec<(String, Bytes)>,
}

/// Why a backup was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{0} exists already: a restore overwrites nothing, give an empty directory")]
    Exists(String),
    #[error("this is no backup of binnacle")]
    NoBackup,
    #[error("the backup was written by a newer version (format {found}, this one reads {known})")]
    Version { found: u32, known: u32 },
    #[error("the backup is cut off or damaged: {0}; nothing was restored")]
    Damaged(&'static str),
    #[error("reading the backup: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] Error),
}

/// Makes an embedded store of a backup, in `dir`, which must not exist; it does afterwards only if all was well.
/// `progress` is called now and then with the number of objects so far.
pub fn restore(
    dir: &Path,
    input: impl Read,
    mut progress: impl FnMut(u64),
) -> Result<Restored, RestoreError> {
    if dir.try_exists()? {
        return Err(RestoreError::Exists(dir.display().to_string()));
    }
    let unfinished = dir.with_extension("restoring");
    if unfinished.try_exists()? {
        std::fs::remove_dir_all(&unfinished)?;
    }
    std::fs::create_dir_all(&unfinished)?;
    match read(&unfinished, input, &mut progress) {
        Ok(restored) => {
            std::fs::rename(&unfinished, dir)?;
            if let Some(parent) = dir.parent() {
                std::fs::File::open(parent)?.sync_all()?;
            }
            Ok(restored)
        }
        Err(e) => {
            std::fs::remove_dir_all(&unfinished)?;
            Err(e)
        }
    }
}

fn read(dir: &Path, input: impl Read, progress: &mut dyn FnMut(u64)) -> Result<Restored, RestoreError> {
    let mut input = Checked { input, digest: Context::new(&SHA256) };
    let mut magic = [0; 16];
    input.fill(&mut magic, "its beginning is missing")?;
    if &magic != MAGIC {
        return Err(RestoreError::NoBackup);
    }
    let found = u32::from_le_bytes(input.array("its version is missing")?);
    if found != VERSION {
        return Err(RestoreError::Version { found, known: VERSION });
    }
    let revision = u64::from_le_bytes(input.array("its revision is missing")?);
    let mut out = Restored { revision, objects: 0, files: Vec::new() };
    let mut store = embedded::Restore::begin(dir, revision)?;
    loop {
        let [kind] = input.array("its end is missing")?;
        match kind {
            END => break,
            OBJECT | FILE => {}
            _ => return Err(RestoreError::Damaged("a record of no known kind")),
        }
        let mut numbers = [0; 3];
        for n in &mut numbers {
            *n = u64::from_le_bytes(input.array("a record is cut off")?);
        }
        let [create_revision, mod_revision, version] = numbers;
        let key_len = u32::from_le_bytes(input.array("a record is cut off")?) as usize;
        let value_len = u32::from_le_bytes(input.array("a record is cut off")?) as usize;
        if key_len.max(value_len) > MAX_PART {
            return Err(RestoreError::Damaged("a record is too big"));
        }
        let (mut key, mut value) = (vec![0; key_len], vec![0; value_len]);
        input.fill(&mut key, "a record is cut off")?;
        input.fill(&mut value, "a record is cut off")?;
        if kind == FILE {
            let name =
                String::from_utf8(key).map_err(|_| RestoreError::Damaged("a file's name is no text"))?;
            out.files.push((name, value.into()));
            continue;
        }
        if mod_revision == 0 || mod_revision > revision {
            return Err(RestoreError::Damaged("an object is newer than the backup"));
        }
        let kv = KeyValue { key: key.into(), value: value.into(), create_revision, mod_revision, version };
        store.add(&kv)?;
        out.objects += 1;
        if out.objects.is_multiple_of(PAGE as u64) {
            progress(out.objects);
        }
    }
    let objects = u64::from_le_bytes(input.array("its count is missing")?);
    let expected = input.digest.clone().finish();
    let mut digest = [0; 32];
    input.fill(&mut digest, "its checksum is missing")?;
    if expected.as_ref() != digest || objects != out.objects {
        return Err(RestoreError::Damaged("its checksum does not fit"));
    }
    store.finish()?;
    Ok(out)
}

/// Reads and sums up what was read.
struct Checked<R> {
    input: R,
    digest: Context,
}

impl<R: Read> Checked<R> {
    fn fill(&mut self, out: &mut [u8], missing: &'static str) -> Result<(), RestoreError> {
        match self.input.read_exact(out) {
            Ok(()) => {
                self.digest.update(out);
                Ok(())
            }
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(RestoreError::Damaged(missing)),
            Err(e) => Err(e.into()),
        }
    }

    fn array<const N: usize>(&mut self, missing: &'static str) -> Result<[u8; N], RestoreError> {
        let mut out = [0; N];
        self.fill(&mut out, missing)?;
        Ok(out)
    }
}
