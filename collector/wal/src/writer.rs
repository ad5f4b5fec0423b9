//! Group commit: one thread takes everything that waits, writes it at once, syncs once, and answers all.

use std::fs::{self, File};
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::config::{Config, SyncPolicy};
use crate::error::Error;
use crate::recovery::{self, Recovery};
use crate::{frame, segment};

/// A handle on an open log. Dropping it writes and syncs what waits, then ends the thread.
pub struct Wal {
    shared: Arc<Shared>,
    dir: PathBuf,
    frame_bytes: usize,
    queue_bytes: usize,
    thread: Option<JoinHandle<()>>,
}

/// Counts since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub frames: u64,
    /// Payload bytes written.
    pub bytes: u64,
    pub syncs: u64,
    /// All of them together.
    pub sync_time: Duration,
    /// Bytes of all segments on disk.
    pub disk_bytes: u64,
    pub segments: u64,
}

/// An append that is queued; resolves once it is durable.
pub struct Pending(oneshot::Receiver<Result<(), Error>>);

impl Future for Pending {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|r| r.unwrap_or(Err(Error::Closed)))
    }
}

impl Pending {
    /// Waits on this thread. Not for async code.
    pub fn wait(self) -> Result<(), Error> {
        self.0.blocking_recv().unwrap_or(Err(Error::Closed))
    }
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    /// Payload bytes in `jobs`.
    bytes: usize,
    closed: bool,
    poisoned: Option<String>,
    stats: Stats,
}

enum Job {
    Append(Bytes, oneshot::Sender<Result<(), Error>>),
    /// Closes the segment; answers with the number of the next one.
    Rotate(oneshot::Sender<Result<u64, Error>>),
    /// Deletes all segments below this number.
    DeleteBefore(u64, oneshot::Sender<Result<(), Error>>),
}

impl Wal {
    /// Opens or makes the log. `each` gets every frame with its segment's number, in order, before this returns.
    pub fn open(config: Config, each: impl FnMut(u64, &[u8])) -> Result<(Wal, Recovery), Error> {
        fs::create_dir_all(&config.dir).map_err(Error::io(&config.dir))?;
        let (found, next) = recovery::replay(&config.dir, config.frame_bytes, each)?;
        let file = segment::create(&config.dir, next)?;
        let mut queue = Queue::default();
        for n in segment::list(&config.dir)? {
            let path = segment::path(&config.dir, n);
            queue.stats.disk_bytes += fs::metadata(&path).map_err(Error::io(&path))?.len();
            queue.stats.segments += 1;
        }
        let shared = Arc::new(Shared { queue: Mutex::new(queue), wake: Condvar::new() });
        let (dir, frame_bytes, queue_bytes) = (config.dir.clone(), config.frame_bytes, config.queue_bytes);
        let writer = Writer {
            shared: shared.clone(),
            file,
            number: next,
            len: segment::HEADER as u64,
            dirty: false,
            buffer: Vec::new(),
            config,
        };
        let thread = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || writer.run())
            .map_err(|e| Error::Write(format!("cannot start the writer thread: {e}")))?;
        Ok((Wal { shared, dir, frame_bytes, queue_bytes, thread: Some(thread) }, found))
    }

    /// Queues a frame at once; frames are written in the order of these calls. The frame must not be empty.
    pub fn enqueue(&self, payload: impl Into<Bytes>) -> Result<Pending, Error> {
        let payload = payload.into();
        debug_assert!(!payload.is_empty(), "an empty frame says nothing");
        if payload.len() > self.frame_bytes {
            return Err(Error::FrameTooLong { bytes: payload.len(), limit: self.frame_bytes });
        }
        let (tx, rx) = oneshot::channel();
        let mut q = self.shared.queue.lock();
        q.usable()?;
        if q.bytes > 0 && q.bytes + payload.len() > self.queue_bytes {
            return Err(Error::Full { waiting: q.bytes });
        }
        q.bytes += payload.len();
        q.jobs.push(Job::Append(payload, tx));
        drop(q);
        self.shared.wake.notify_one();
        Ok(Pending(rx))
    }

    /// Resolves once the frame is durable.
    pub async fn append(&self, payload: impl Into<Bytes>) -> Result<(), Error> {
        self.enqueue(payload)?.await
    }

    /// Closes the segment. Every frame queued before this call is in a segment below the number returned.
    pub async fn rotate(&self) -> Result<u64, Error> {
        let (tx, rx) = oneshot::channel();
        self.send(Job::Rotate(tx))?;
        rx.await.unwrap_or(Err(Error::Closed))
    }

    /// Deletes the segments below `segment`: what they hold is stored elsewhere now.
    pub async fn delete_before(&self, segment: u64) -> Result<(), Error> {
        let (tx, rx) = oneshot::channel();
        self.send(Job::DeleteBefore(segment, tx))?;
        rx.await.unwrap_or(Err(Error::Closed))
    }

    /// Numbers of the segments there are, oldest first. The last one is written to.
    pub fn segments(&self) -> Result<Vec<u64>, Error> {
        segment::list(&self.dir)
    }

    /// The frames of a closed segment: one below what [`Wal::rotate`] gave. Empty if it was deleted. Blocks on the disk.
    pub fn read(&self, segment: u64) -> Result<Vec<Bytes>, Error> {
        recovery::read(&self.dir, segment, self.frame_bytes)
    }

    fn send(&self, job: Job) -> Result<(), Error> {
        let mut q = self.shared.queue.lock();
        q.usable()?;
        q.jobs.push(job);
        drop(q);
        self.shared.wake.notify_one();
        Ok(())
    }

    pub fn stats(&self) -> Stats {
        self.shared.queue.lock().stats
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(t) = self.thread.take()
            && t.join().is_err()
        {
            tracing::error!("the write-ahead log's thread panicked");
        }
    }
}

impl Queue {
    fn usable(&self) -> Result<(), Error> {
        match &self.poisoned {
            Some(why) => Err(Error::Poisoned(why.clone())),
            None if self.closed => Err(Error::Closed),
            None => Ok(()),
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    config: Config,
    file: File,
    number: u64,
    /// Where the next frame goes.
    len: u64,
    /// Written but not synced.
    dirty: bool,
    /// Reused between groups; given back to the allocator when a group was large.
    buffer: Vec<u8>,
}

impl Writer {
    fn run(mut self) {
        loop {
            let (jobs, closed) = self.next_jobs();
            if jobs.is_empty() && closed {
                if self.dirty
                    && let Err(e) = self.sync()
                {
                    tracing::error!(error = %e, "the write-ahead log could not be synced when closing");
                }
                return;
            }
            let mut group = Vec::new();
            for job in jobs {
                match job {
                    Job::Append(bytes, tx) => group.push((bytes, tx)),
                    Job::Rotate(tx) => {
                        self.commit(&mut group);
                        let r = self.sync().and_then(|()| self.next_segment()).map(|()| self.number);
                        // The asker may have gone away; the rotation stands all the same.
                        let _ = tx.send(r);
                    }
                    Job::DeleteBefore(number, tx) => {
                        let _ = tx.send(self.delete_before(number));
                    }
                }
            }
            self.commit(&mut group);
        }
    }

    /// Sleeps until there is work, or, with unsynced bytes under [`SyncPolicy::Every`], until they are due.
    fn next_jobs(&mut self) -> (Vec<Job>, bool) {
        let shared = self.shared.clone();
        let mut q = shared.queue.lock();
        while q.jobs.is_empty() && !q.closed {
            match self.config.sync {
                SyncPolicy::Every(period) if self.dirty => {
                    if shared.wake.wait_for(&mut q, period.max(Duration::from_millis(1))).timed_out() {
                        drop(q);
                        if let Err(e) = self.sync() {
                            tracing::error!(error = %e, "the write-ahead log could not be synced");
                        }
                        q = shared.queue.lock();
                    }
                }
                _ => shared.wake.wait(&mut q),
            }
        }
        q.bytes = 0;
        (std::mem::take(&mut q.jobs), q.closed)
    }

    fn commit(&mut self, group: &mut Vec<(Bytes, oneshot::Sender<Result<(), Error>>)>) {
        if group.is_empty() {
            return;
        }
        let result = self.write(group.iter().map(|(b, _)| b)).and_then(|()| match self.config.sync {
            SyncPolicy::Batch => self.sync(),
            SyncPolicy::Every(_) => Ok(()),
        });
        let mut bytes = 0;
        let frames = group.len() as u64;
        for (payload, tx) in group.drain(..) {
            bytes += payload.len() as u64;
            // Who asked may have gone away (a cancelled request): the frame is stored all the same.
            let _ = tx.send(result.clone());
        }
        if result.is_ok() {
            let mut q = self.shared.queue.lock();
            q.stats.frames += frames;
            q.stats.bytes += bytes;
        }
        if self.len >= self.config.segment_bytes
            && let Err(e) = self.sync().and_then(|()| self.next_segment())
        {
            tracing::error!(error = %e, "the write-ahead log could not begin a new segment; the old one goes on");
        }
    }

    fn write<'a>(&mut self, payloads: impl Iterator<Item = &'a Bytes>) -> Result<(), Error> {
        if let Some(why) = self.shared.queue.lock().poisoned.clone() {
            return Err(Error::Poisoned(why));
        }
        self.buffer.clear();
        for p in payloads {
            let offset = self.len + self.buffer.len() as u64;
            frame::encode(self.number, offset, p, &mut self.buffer);
        }
        let result = self.file.write_all_at(&self.buffer, self.len);
        let written = self.buffer.len() as u64;
        if self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
        match result {
            Ok(()) => {
                self.len += written;
                self.dirty = true;
                self.shared.queue.lock().stats.disk_bytes += written;
                Ok(())
            }
            Err(e) => {
                // Half a group may stand behind the last good frame: cut it, so that the next one follows on.
                match self.file.set_len(self.len) {
                    Ok(()) => Err(Error::Write(e.to_string())),
                    Err(cut) => {
                        Err(self.poison(format!("write failed ({e}) and could not be undone ({cut})")))
                    }
                }
            }
        }
    }

    fn sync(&mut self) -> Result<(), Error> {
        if let Some(why) = self.shared.queue.lock().poisoned.clone() {
            return Err(Error::Poisoned(why));
        }
        if !self.dirty {
            return Ok(());
        }
        let began = signal::time::monotonic();
        match self.file.sync_data() {
            Ok(()) => {
                self.dirty = false;
                let stats = &mut self.shared.queue.lock().stats;
                stats.syncs += 1;
                stats.sync_time += signal::time::monotonic().saturating_duration_since(began);
                Ok(())
            }
            Err(e) => Err(self.poison(format!("fsync failed: {e}"))),
        }
    }

    fn poison(&mut self, why: String) -> Error {
        tracing::error!(why, "the write-ahead log is poisoned");
        self.shared.queue.lock().poisoned = Some(why.clone());
        Error::Poisoned(why)
    }

    fn next_segment(&mut self) -> Result<(), Error> {
        if self.len == segment::HEADER as u64 {
            // Nothing in it: it can serve as the next one, under its own number.
            return Ok(());
        }
        let file = segment::create(&self.config.dir, self.number + 1)?;
        self.file = file;
        self.number += 1;
        self.len = segment::HEADER as u64;
        let mut q = self.shared.queue.lock();
        q.stats.segments += 1;
        q.stats.disk_bytes += self.len;
        Ok(())
    }

    fn delete_before(&mut self, number: u64) -> Result<(), Error> {
        for n in segment::list(&self.config.dir)? {
            if n >= number || n == self.number {
                continue;
            }
            let path = segment::path(&self.config.dir, n);
            let len = fs::metadata(&path).map_err(Error::io(&path))?.len();
            fs::remove_file(&path).map_err(Error::io(&path))?;
            let mut q = self.shared.queue.lock();
            q.stats.segments = q.stats.segments.saturating_sub(1);
            q.stats.disk_bytes = q.stats.disk_bytes.saturating_sub(len);
        }
        segment::sync_dir(&self.config.dir)
    }
}

#[cfg(test)]
mod tests;
