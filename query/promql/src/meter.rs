//! What a query holds in memory: counted as it is taken, given back when it is dropped.

use std::cell::Cell;
use std::rc::Rc;

/// Bytes held by one query, which runs on one thread.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    used: Cell<usize>,
    peak: Cell<usize>,
}

impl Meter {
    pub(crate) fn add(&self, bytes: usize) {
        let used = self.used.get() + bytes;
        self.used.set(used);
        self.peak.set(self.peak.get().max(used));
    }

    pub(crate) fn sub(&self, bytes: usize) {
        self.used.set(self.used.get().saturating_sub(bytes));
    }

    pub(crate) fn used(&self) -> usize {
        self.used.get()
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak.get()
    }
}

/// Bytes that count for as long as this is there. A clone counts again.
#[derive(Debug, Default)]
pub(crate) struct Held(Option<(Rc<Meter>, usize)>);

impl Held {
    pub(crate) fn new(meter: &Rc<Meter>, bytes: usize) -> Self {
        meter.add(bytes);
        Held(Some((meter.clone(), bytes)))
    }

    /// Gives some of it back.
    pub(crate) fn shrink(&mut self, by: usize) {
        if let Some((meter, bytes)) = &mut self.0 {
            let by = by.min(*bytes);
            *bytes -= by;
            meter.sub(by);
        }
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        self.0.as_ref().map_or_else(Held::default, |(meter, bytes)| Held::new(meter, *bytes))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((meter, bytes)) = self.0.take() {
            meter.sub(bytes);
        }
    }
}
