//! Room for bodies, used again: a request of a megabyte would have the kernel clear as much memory each time.

use std::ops::{Deref, DerefMut};

use parking_lot::Mutex;

/// Kept for the next requests; what is more, or larger, is given back.
const KEPT: usize = 2;
const KEPT_BYTES: usize = 2 << 20;

static IDLE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Holds whatever it held before: growing it anew would clear it anew.
#[derive(Debug)]
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    pub(super) fn take() -> Self {
        Buffer(IDLE.lock().pop().unwrap_or_default())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        if buffer.capacity() > 0 && buffer.capacity() <= KEPT_BYTES {
            let mut idle = IDLE.lock();
            if idle.len() < KEPT {
                idle.push(buffer);
            }
        }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}
