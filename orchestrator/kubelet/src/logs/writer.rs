//! One container's log writer: peek, write, consume.

use std::fs::{self, File, OpenOptions};
use std::future::pending;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, tee};
use nix::sys::stat::Mode;
use parking_lot::Mutex;
use signal::time::SharedClock;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, oneshot, watch};

use super::cri::{self, Rest};
use super::intent::{Intent, IntentFile};
use super::{Progress, rotation};
use crate::Error;
use crate::metrics::METRICS;
use crate::probes::io_text;

/// Room in a container's pipe, which is what it may write while this process restarts.
const PIPE_SIZE: i32 = 256 << 10;
/// Room in the private pipe: never less than a container's.
const SCRATCH_SIZE: usize = 1 << 20;
/// The kernel does not ring for a write that is longer than the pipe while a part of a line lies in it: after a move
/// that left such a part, look again a few times.
const LOOK_AGAIN: [Duration; 3] =
    [Duration::from_millis(5), Duration::from_millis(50), Duration::from_millis(500)];
/// Before a write that failed (a full disk) is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A private pipe and a buffer; the content of a peek passes through them.
struct Scratch {
    read: File,
    write: OwnedFd,
    buf: Vec<u8>,
    text: Vec<u8>,
}

/// As many as are in use at once; they are kept and used again.
#[derive(Default)]
pub(crate) struct Scratches(Mutex<Vec<Scratch>>);

impl Scratches {
    fn take(&self) -> io::Result<Scratch> {
        if let Some(s) = self.0.lock().pop() {
            return Ok(s);
        }
        let (read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        let size = i32::try_from(SCRATCH_SIZE).expect("a megabyte");
        // Without the privilege the private pipe stays at 64 KiB and a peek is shorter.
        let _size = fcntl(&write, FcntlArg::F_SETPIPE_SZ(size));
        Ok(Scratch { read: read.into(), write, buf: Vec::new(), text: Vec::new() })
    }

    fn put(&self, mut s: Scratch) {
        // A burst's buffers are not kept for ever.
        s.buf = Vec::new();
        s.text = Vec::new();
        let mut all = self.0.lock();
        if all.len() < 4 {
            all.push(s);
        }
    }
}

struct Stream {
    name: &'static str,
    number: u32,
    fd: AsyncFd<OwnedFd>,
}

pub(crate) struct Writer {
    path: PathBuf,
    file: File,
    /// Position of the file's first byte in the whole stream, and its length.
    start: u64,
    len: u64,
    intent: IntentFile,
    streams: [Stream; 2],
    clock: SharedClock,
    written: Arc<Notify>,
    progress: Option<watch::Sender<Progress>>,
    terminal: bool,
    /// Whom to tell that the log cannot be written, and again that it can.
    trouble: Option<Box<dyn Fn(Option<String>) + Send + Sync>>,
    in_trouble: bool,
    /// Up to which position all is stored elsewhere.
    stored: Box<dyn Fn() -> u64 + Send + Sync>,
}

fn open_pipe(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    match nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(e.into()),
    }
    // Read-write: the container neither blocks nor dies while nobody else holds the other end.
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::open(path, flags, Mode::empty())?;
    // Only more room; without the privilege it stays at 64 KiB.
    let _size = fcntl(&fd, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
    register(fd)
}

#[expect(
    deprecated,
    reason = "an OwnedFd is one descriptor for its whole life, which is what the successor asks for"
)]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).read(true).open(path)
}

impl Writer {
    /// Opens log, pipes and note, and finishes what a predecessor had begun.
    pub(crate) fn open(path: &Path, io_dir: &Path, clock: SharedClock) -> Result<Self, Error> {
        let what = || Error::io(format!("open the log {path:?}"));
        let dir = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir).and_then(|()| fs::create_dir_all(io_dir)).map_err(what())?;
        let start = rotation::current_start(path).map_err(what())?;
        let file = open_log(path).map_err(what())?;
        let len = file.metadata().map_err(what())?.len();
        let stream =
            |name: &'static str, number| open_pipe(&io_dir.join(name)).map(|fd| Stream { name, number, fd });
        let streams = [stream("stdout", 0).map_err(what())?, stream("stderr", 1).map_err(what())?];
        let intent = IntentFile::open(&io_dir.join("intent")).map_err(what())?;
        let mut writer = Writer {
            path: path.to_owned(),
            file,
            start,
            len,
            intent,
            streams,
            clock,
            written: Arc::default(),
            progress: None,
            terminal: false,
            trouble: None,
            in_trouble: false,
            stored: Box::new(|| u64::MAX),
        };
        writer.recover().map_err(what())?;
        Ok(writer)
    }

    /// With a terminal, parts of lines do not wait for their end.
    pub(crate) fn set_terminal(&mut self, terminal: bool) {
        self.terminal = terminal;
    }

    /// Whom to tell once when writes begin to fail (with the reason) and once when they work again.
    pub(crate) fn set_trouble(&mut self, tell: impl Fn(Option<String>) + Send + Sync + 'static) {
        self.trouble = Some(Box::new(tell));
    }

    /// Who knows up to which position all is stored elsewhere: what is not stays when files are rotated away.
    pub(crate) fn set_stored(&mut self, stored: impl Fn() -> u64 + Send + Sync + 'static) {
        self.stored = Box::new(stored);
    }

    fn tell(&mut self, failure: Option<String>) {
        if self.in_trouble == failure.is_some() {
            return;
        }
        self.in_trouble = failure.is_some();
        if let Some(tell) = &self.trouble {
            tell(failure);
        }
    }

    /// Whom to tell of each write.
    pub(crate) fn announce(&mut self, written: Arc<Notify>, progress: watch::Sender<Progress>) {
        progress.send_replace(Progress { position: self.start + self.len, ended: false });
        self.written = written;
        self.progress = Some(progress);
    }

    /// A predecessor was killed between its note and its end: it had written all, some or nothing of the text,
    /// and had consumed the raw bytes or not.
    fn recover(&mut self) -> io::Result<()> {
        let Some(i) = self.intent.get()? else { return Ok(()) };
        let position = self.start + self.len;
        if position < i.position + i.cri {
            // Not all of the text is there, so nothing was consumed: take back the part that is.
            let keep = i.position.saturating_sub(self.start);
            if self.len > keep {
                self.file.set_len(keep)?;
                self.len = keep;
            }
        } else {
            let n = usize::try_from(i.raw).map_err(io::Error::other)?;
            let mut scratch = Scratches::default().take()?;
            let peeked = peek(&self.streams[i.stream as usize & 1].fd, &mut scratch, n)?;
            if peeked == n && crc32fast::hash(&scratch.buf[..n]) == i.crc {
                consume(&self.streams[i.stream as usize & 1].fd, &mut scratch.buf[..n])?;
            }
        }
        self.intent.clear()
    }

    /// Writes until told to stop; then what is left.
    pub(crate) async fn run(mut self, scratches: &Scratches, mut stop: oneshot::Receiver<()>) {
        let mut look_again: Option<usize> = None;
        loop {
            let pause = look_again.map_or(Duration::ZERO, |n| LOOK_AGAIN[n]);
            let ready = {
                let [out, err] = &self.streams;
                tokio::select! {
                    g = out.fd.readable() => g.map(|mut g| { g.clear_ready(); Some(0) }),
                    g = err.fd.readable() => g.map(|mut g| { g.clear_ready(); Some(1) }),
                    () = tokio::time::sleep(pause), if look_again.is_some() => Ok(None),
                    _ = &mut stop => break,
                }
            };
            match ready {
                Ok(Some(n)) => {
                    if self.pump(n, scratches, false).await {
                        look_again = Some(0);
                    }
                }
                Ok(None) => {
                    let mut part = false;
                    for n in [0, 1] {
                        part |= self.pump(n, scratches, false).await;
                    }
                    look_again = if part { Some(0) } else { look_again.map(|n| n + 1) };
                    look_again = look_again.filter(|n| *n < LOOK_AGAIN.len());
                }
                Err(e) => {
                    tracing::error!(error = %e, log = ?self.path, "waiting for a container's output");
                    pending::<()>().await;
                }
            }
        }
        for n in [0, 1] {
            self.pump(n, scratches, true).await;
        }
        if let Some(p) = &self.progress {
            p.send_modify(|p| p.ended = true);
        }
        self.written.notify_one();
    }

    /// Moves all complete lines of one stream. Readiness was cleared before: what comes during this rings again.
    /// True if something was moved and a part of a line stayed in the pipe.
    async fn pump(&mut self, n: usize, scratches: &Scratches, last: bool) -> bool {
        let mut moved_any = false;
        loop {
            let moved = scratches.take().and_then(|mut s| {
                let r = self.step(n, &mut s, last);
                // What an error left in the private pipe must not meet the next peek.
                if r.is_ok() {
                    scratches.put(s);
                }
                r
            });
            match moved {
                Ok((0, part)) => return moved_any && part,
                Ok((bytes, _)) => {
                    moved_any = true;
                    self.tell(None);
                    METRICS.log_bytes.inc_by(bytes);
                    if let Some(p) = &self.progress {
                        p.send_replace(Progress { position: self.start + self.len, ended: false });
                    }
                    self.written.notify_one();
                    tokio::task::yield_now().await;
                }
                Err(e) => {
                    METRICS.log_failures.inc();
                    if !self.in_trouble {
                        tracing::error!(error = %e, log = ?self.path, "writing a container's log; trying again");
                    }
                    self.tell(Some(io_text(&e)));
                    tokio::time::sleep(RETRY).await;
                    if last && e.kind() == io::ErrorKind::StorageFull {
                        // The container is gone and nobody waits for room: what is in the pipe is lost, and counted.
                        return false;
                    }
                }
            }
        }
    }

    /// Peeks, writes, consumes once; gives how many bytes the log grew by, and whether a part of a line is there.
    fn step(&mut self, n: usize, s: &mut Scratch, last: bool) -> io::Result<(u64, bool)> {
        let stream = &self.streams[n];
        let got = peek(&stream.fd, s, SCRATCH_SIZE)?;
        if got == 0 {
            return Ok((0, false));
        }
        s.text.clear();
        let time = cri::time_text(self.clock.now());
        let rest = match (last, self.terminal) {
            (true, _) => Rest::Ends,
            (false, true) => Rest::Shown,
            (false, false) => Rest::Waits,
        };
        let raw = cri::encode(&s.buf[..got], stream.name, &time, rest, &mut s.text);
        if raw == 0 {
            return Ok((0, true));
        }
        let intent = Intent {
            stream: stream.number,
            position: self.start + self.len,
            cri: s.text.len() as u64,
            raw: raw as u64,
            crc: crc32fast::hash(&s.buf[..raw]),
        };
        self.intent.set(&intent)?;
        if let Err(e) = self.file.write_all(&s.text) {
            // Half a write must not stay: the whole text comes again.
            self.file.set_len(self.len)?;
            self.intent.clear()?;
            return Err(e);
        }
        self.len += intent.cri;
        consume(&stream.fd, &mut s.buf[..raw])?;
        self.intent.clear()?;
        // A file begins with a line, not with a piece of one, unless that line is longer than any should be.
        let between = !cri::ends_within_a_line(&s.text);
        if self.len >= rotation::MAX_SIZE && (between || self.len >= 2 * rotation::MAX_SIZE) {
            rotation::rotate(&self.path, self.start, (self.stored)())?;
            self.start += self.len;
            self.len = 0;
            self.file = open_log(&self.path)?;
        }
        Ok((intent.cri, raw < got))
    }
}

/// Copies up to `most` bytes from the head of a pipe into the buffer, without taking them out.
fn peek(fd: &AsyncFd<OwnedFd>, s: &mut Scratch, most: usize) -> io::Result<usize> {
    let got = match tee(fd.get_ref().as_fd(), s.write.as_fd(), most, SpliceFFlags::SPLICE_F_NONBLOCK) {
        Ok(n) => n,
        Err(Errno::EAGAIN) => 0,
        Err(e) => return Err(e.into()),
    };
    s.buf.resize(got, 0);
    s.read.read_exact(&mut s.buf)?;
    Ok(got)
}

/// Takes bytes that were peeked at out of the pipe. They are there: nobody else reads it.
fn consume(fd: &AsyncFd<OwnedFd>, buf: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        match nix::unistd::read(fd.get_ref(), &mut buf[done..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => done += n,
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    tracing::trace!(fd = fd.as_raw_fd(), bytes = done, "consumed");
    Ok(())
}
