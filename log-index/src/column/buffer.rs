//! Large buffers that are used again. Each block needs some of a megabyte or two; taken from the system and given back
//! every time, their pages cost more than unpacking what is in them.

use std::cell::RefCell;

/// Smaller ones are cheap as they are.
const LEAST: usize = 64 << 10;
/// Larger ones are rare.
const MOST: usize = 8 << 20;
/// So many are kept on a thread, and no longer than the thread lives.
const KEPT: usize = 4;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for so many bytes.
pub(crate) fn take(bytes: usize) -> Vec<u8> {
    if bytes < LEAST {
        return Vec::with_capacity(bytes);
    }
    let kept = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
    let mut buffer = kept.unwrap_or_default();
    buffer.clear();
    // A little more than asked for: the next block is seldom as large as this one.
    if buffer.capacity() < bytes {
        buffer.reserve_exact(bytes + bytes / 8);
    }
    buffer
}

/// Gives a buffer back that is no longer needed.
pub(crate) fn give(buffer: Vec<u8>) {
    if (LEAST..=MOST).contains(&buffer.capacity()) {
        // On a thread that ends there is nobody to use it.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_taken_again() {
        let mut b = take(LEAST);
        b.push(1);
        let at = b.as_ptr();
        give(b);
        let b = take(LEAST);
        assert_eq!((b.as_ptr(), b.len()), (at, 0));
        give(Vec::with_capacity(MOST * 2));
        assert!(take(LEAST * 2).capacity() < MOST);
    }
}
