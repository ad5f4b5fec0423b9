//! Where the head's samples stand: small cells in large pages, a chain of cells for each run.
//!
//! A series grows by a few bytes at a time, and all of a head's samples go at once when it is flushed. From the
//! allocator that would leave holes that nothing fits and pages that nobody can give back; pages of our own go back
//! whole. A cell is a cache line: its last bytes are the number of the next.

/// Bytes of a cell, and those that hold samples.
const CELL: usize = 64;
const ROOM: usize = CELL - size_of::<u32>();
/// Cells of a page: a quarter of a megabyte, which the allocator takes from the system for this alone.
const PAGE: usize = 4096;

type Cell = [u8; CELL];

#[derive(Default)]
pub(crate) struct Cells {
    pages: Vec<Box<[Cell]>>,
    /// Cells given out so far; they are numbered from 1.
    used: u32,
    /// The first of the cells that came back, chained.
    free: u32,
}

/// A chain that grows at its end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chain {
    /// 0: nothing in it.
    first: u32,
    last: u32,
    /// Bytes in the last cell.
    fill: u8,
}

impl Chain {
    pub(super) fn is_empty(self) -> bool {
        self.first == 0
    }
}

impl Cells {
    fn cell(&self, number: u32) -> Option<&Cell> {
        let at = (number as usize).checked_sub(1)?;
        self.pages.get(at / PAGE)?.get(at % PAGE)
    }

    fn cell_mut(&mut self, number: u32) -> Option<&mut Cell> {
        let at = (number as usize).checked_sub(1)?;
        self.pages.get_mut(at / PAGE)?.get_mut(at % PAGE)
    }

    fn next(&self, number: u32) -> u32 {
        self.cell(number).and_then(|c| c.last_chunk()).map_or(0, |n| u32::from_le_bytes(*n))
    }

    fn link(&mut self, number: u32, next: u32) {
        if let Some(n) = self.cell_mut(number).and_then(|c| c.last_chunk_mut()) {
            *n = next.to_le_bytes();
        }
    }

    fn take(&mut self) -> u32 {
        if self.free != 0 {
            let number = self.free;
            self.free = self.next(number);
            self.link(number, 0);
            return number;
        }
        if self.used as usize == self.pages.len() * PAGE {
            self.pages.push(vec![[0; CELL]; PAGE].into_boxed_slice());
        }
        self.used += 1;
        self.used
    }

    pub(super) fn push(&mut self, chain: &mut Chain, mut bytes: &[u8]) {
        if chain.first == 0 {
            let number = self.take();
            *chain = Chain { first: number, last: number, fill: 0 };
        }
        loop {
            let at = usize::from(chain.fill);
            let n = bytes.len().min(ROOM - at);
            let (now, later) = bytes.split_at(n);
            if let Some(to) = self.cell_mut(chain.last).and_then(|c| c.get_mut(at..at + n)) {
                to.copy_from_slice(now);
            }
            chain.fill += n as u8;
            if later.is_empty() {
                return;
            }
            let number = self.take();
            self.link(chain.last, number);
            (chain.last, chain.fill) = (number, 0);
            bytes = later;
        }
    }

    /// All bytes of a chain.
    pub(super) fn read(&self, chain: Chain) -> Vec<u8> {
        let mut out = Vec::new();
        let mut number = chain.first;
        while let Some(cell) = self.cell(number) {
            let n = if number == chain.last { usize::from(chain.fill) } else { ROOM };
            out.extend_from_slice(cell.get(..n).unwrap_or(&[]));
            if number == chain.last {
                break;
            }
            number = self.next(number);
        }
        out
    }

    /// The cells of the chain are free.
    pub(super) fn give_back(&mut self, chain: Chain) {
        if chain.first != 0 {
            self.link(chain.last, self.free);
            self.free = chain.first;
        }
    }

    /// Bytes of all pages.
    pub(crate) fn size(&self) -> usize {
        self.pages.len() * PAGE * CELL
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chains_hold_what_was_pushed(steps in proptest::collection::vec((0..5usize, proptest::collection::vec(any::<u8>(), 0..200), prop::bool::weighted(0.1)), 0..200)) {
            let mut cells = Cells::default();
            let mut chains: [(Chain, Vec<u8>); 5] = Default::default();
            for (which, bytes, back) in steps {
                let (chain, model) = &mut chains[which];
                if back {
                    cells.give_back(std::mem::take(chain));
                    model.clear();
                } else if !bytes.is_empty() {
                    cells.push(chain, &bytes);
                    model.extend(bytes);
                }
            }
            for (chain, model) in &chains {
                prop_assert_eq!(&cells.read(*chain), model);
                prop_assert_eq!(chain.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn what_came_back_is_used_again() {
        let mut cells = Cells::default();
        for _ in 0..3 * PAGE {
            let mut chain = Chain::default();
            cells.push(&mut chain, &[1; 200]);
            cells.give_back(chain);
        }
        assert_eq!(cells.size(), PAGE * CELL);
    }
}
