//! Limits of each namespace: live series, new series a second, samples a second.
//!
//! A namespace is the value of one label; series without it share the one of no name. Its rates are buckets that
//! hold what a second brings, so that a scrape's burst passes and a steady excess does not.

use std::collections::HashMap;
use std::time::Duration;

use ahash::RandomState;

/// Of each namespace; 0 stands for none.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    pub series: u64,
    pub new_series_per_second: u64,
    pub samples_per_second: u64,
}

impl Limits {
    pub(crate) fn rates(&self) -> bool {
        self.new_series_per_second > 0 || self.samples_per_second > 0
    }
}

/// Seconds of a rate that may come at once: what is scraped every half minute comes in one piece.
const BURST_SECONDS: u64 = 30;

#[derive(Debug, Default)]
struct Namespace {
    name: Box<str>,
    series: u64,
    samples: Bucket,
    new_series: Bucket,
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    left: f64,
    /// When it was filled last; `None` is full.
    at: Option<Duration>,
}

impl Bucket {
    fn fill(&mut self, rate: u64, now: Duration) {
        let most = (rate * BURST_SECONDS) as f64;
        self.left = match self.at {
            None => most,
            Some(at) => (self.left + now.saturating_sub(at).as_secs_f64() * rate as f64).min(most),
        };
        self.at = Some(now);
    }

    /// How long to wait until `n` would pass. More than the bucket holds passes once it is full.
    fn wait(&self, n: u64, rate: u64) -> Option<Duration> {
        let wanted = (n as f64).min((rate * BURST_SECONDS) as f64);
        (wanted > self.left).then(|| Duration::from_secs_f64((wanted - self.left) / rate as f64))
    }
}

/// What an append asks of one namespace.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) samples: u64,
    pub(crate) new_series: u64,
}

/// Why an append is not taken now.
#[derive(Debug)]
pub(crate) struct Excess {
    pub(crate) namespace: String,
    pub(crate) limit: String,
    pub(crate) wait: Duration,
}

/// Namespaces by number.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    by_name: HashMap<Box<str>, u32, RandomState>,
    list: Vec<Namespace>,
    free: Vec<u32>,
}

impl Namespaces {
    /// A series more.
    pub(crate) fn enter(&mut self, name: &str) -> u32 {
        let number = match self.by_name.get(name) {
            Some(n) => *n,
            None => {
                let new = Namespace { name: name.into(), ..Namespace::default() };
                let n = match self.free.pop() {
                    Some(n) => {
                        if let Some(slot) = self.list.get_mut(n as usize) {
                            *slot = new;
                        }
                        n
                    }
                    None => {
                        self.list.push(new);
                        (self.list.len() - 1) as u32
                    }
                };
                self.by_name.insert(name.into(), n);
                n
            }
        };
        if let Some(n) = self.list.get_mut(number as usize) {
            n.series += 1;
        }
        number
    }

    /// A series less.
    pub(crate) fn leave(&mut self, number: u32) {
        let Some(n) = self.list.get_mut(number as usize) else { return };
        n.series -= 1;
        if n.series == 0 {
            self.by_name.remove(&n.name);
            self.free.push(number);
        }
    }

    pub(crate) fn name(&self, number: u32) -> &str {
        self.list.get(number as usize).map_or("", |n| &n.name)
    }

    /// Whether one more series of the namespace would be too many.
    pub(crate) fn is_full(&self, name: &str, limits: &Limits) -> bool {
        limits.series > 0
            && self
                .by_name
                .get(name)
                .and_then(|n| self.list.get(*n as usize))
                .is_some_and(|n| n.series >= limits.series)
    }

    /// Takes what is asked from the rates of all the namespaces, or nothing. `now` counts from any moment.
    /// A namespace without a series has spent nothing yet.
    pub(crate) fn take<'a>(
        &mut self,
        asks: impl Iterator<Item = (&'a str, Ask)> + Clone,
        limits: &Limits,
        now: Duration,
    ) -> Result<(), Excess> {
        if !limits.rates() {
            return Ok(());
        }
        for (name, ask) in asks.clone() {
            let Some(n) = self.by_name.get(name).and_then(|n| self.list.get_mut(*n as usize)) else {
                continue;
            };
            for (bucket, wanted, rate, what) in [
                (&mut n.samples, ask.samples, limits.samples_per_second, "samples"),
                (&mut n.new_series, ask.new_series, limits.new_series_per_second, "new series"),
            ] {
                if rate == 0 || wanted == 0 {
                    continue;
                }
                bucket.fill(rate, now);
                if let Some(wait) = bucket.wait(wanted, rate) {
                    return Err(Excess {
                        namespace: name.to_owned(),
                        limit: format!("{rate} {what} a second"),
                        wait,
                    });
                }
            }
        }
        for (name, ask) in asks {
            if let Some(n) = self.by_name.get(name).and_then(|n| self.list.get_mut(*n as usize)) {
                n.samples.left -= ask.samples as f64;
                n.new_series.left -= ask.new_series as f64;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_let_bursts_pass_and_stop_what_goes_on() {
        let limits = Limits { samples_per_second: 10, ..Limits::default() };
        let mut all = Namespaces::default();
        let shop = all.enter("shop");
        let mut take = |seconds, samples| {
            let ask = Ask { samples, new_series: 0 };
            all.take([("shop", ask)].into_iter(), &limits, Duration::from_secs(seconds))
                .map_err(|e| e.wait.as_secs())
        };
        assert_eq!(take(0, 300), Ok(()));
        assert_eq!(take(1, 20), Err(1));
        assert_eq!(take(2, 20), Ok(()));
        // More than ever fits passes when everything is there, and is paid for afterwards.
        assert_eq!(take(32, 900), Ok(()));
        assert_eq!(take(33, 1), Err(59));
        all.leave(shop);
        assert_eq!(all.enter("bank"), shop);
    }

    #[test]
    fn series_are_counted() {
        let limits = Limits { series: 2, ..Limits::default() };
        let mut all = Namespaces::default();
        assert!(!all.is_full("shop", &limits));
        all.enter("shop");
        let n = all.enter("shop");
        assert!(all.is_full("shop", &limits) && !all.is_full("bank", &limits));
        all.leave(n);
        assert!(!all.is_full("shop", &limits));
    }
}
